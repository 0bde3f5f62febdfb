//! The two dialects of the protocol.

/// The hosts of control planes whose dialect is known to be [`Dialect::Upstream`].
const UPSTREAM_HOSTS: [&str; 1] = ["oz.warp.dev"];

/// What a control plane expects for an assignment. It belongs to the assignment, because one connection may carry both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Of the control plane that this worker was made for first.
    #[default]
    Old,
    /// Of the public Oz control plane.
    Upstream,
}

/// The fields of an assignment by which the dialects differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// `execution_id` is not blank.
    pub(super) execution_id: bool,
    /// `task.owner` is present.
    pub(super) owner: bool,
    /// `trace_id` is not blank.
    pub(super) trace_id: bool,
}

impl Dialect {
    /// Returns the dialect of a control plane by its host; `None` for an unknown host.
    pub fn of_host(host: &str) -> Option<Self> {
        let host = host.trim_end_matches('.');
        UPSTREAM_HOSTS.iter().any(|known| known.eq_ignore_ascii_case(host)).then_some(Self::Upstream)
    }

    /// Returns the dialect of an assignment. Only the old control plane sends `trace_id`, so with it an execution id alone is no
    /// mark of the other.
    pub(super) fn of(host: Option<Self>, marks: Marks) -> Self {
        let Marks { execution_id, owner, trace_id } = marks;
        match host {
            Some(dialect) => dialect,
            None if owner || execution_id && !trace_id => Self::Upstream,
            None => Self::Old,
        }
    }

    /// Returns its name, for labels and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Upstream => "upstream",
        }
    }

    /// Returns the dialect with this name; the old one for any other text.
    pub fn of_name(name: &str) -> Self {
        if name == Self::Upstream.name() { Self::Upstream } else { Self::Old }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_follows_from_the_host_and_three_fields() {
        use Dialect::{Old, Upstream};
        let cases = [
            ((false, false, false), Old),
            ((false, false, true), Old),
            ((true, false, false), Upstream),
            ((true, false, true), Old),
            ((false, true, false), Upstream),
            ((false, true, true), Upstream),
            ((true, true, false), Upstream),
            ((true, true, true), Upstream),
        ];
        for ((execution_id, owner, trace_id), expected) in cases {
            let marks = Marks { execution_id, owner, trace_id };
            assert_eq!(Dialect::of(None, marks), expected, "{marks:?}");
            assert_eq!(Dialect::of(Some(Upstream), marks), Upstream);
        }
    }

    #[test]
    fn a_known_host_is_found_in_any_spelling_and_no_other() {
        for host in ["oz.warp.dev", "OZ.Warp.dev", "oz.warp.dev."] {
            assert_eq!(Dialect::of_host(host), Some(Dialect::Upstream));
        }
        for host in ["localhost", "warp.dev", "x.oz.warp.dev", "oz.warp.dev.example", ""] {
            assert_eq!(Dialect::of_host(host), None);
        }
    }

    #[test]
    fn a_name_is_read_back_and_others_are_old() {
        for dialect in [Dialect::Old, Dialect::Upstream] {
            assert_eq!(Dialect::of_name(dialect.name()), dialect);
        }
        assert_eq!((Dialect::of_name(""), Dialect::of_name("newer")), (Dialect::Old, Dialect::Old));
    }
}
