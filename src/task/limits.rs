//! The limits of one task: what its shape asks for, within what the operator and the engine allow. Pure.

use crate::policy::ContainerOptions;
use crate::protocol::InstanceShape;

/// Limits of a task container; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// Billionths of a processor.
    pub(crate) nano_cpus: Option<i64>,
    /// Bytes.
    pub(crate) memory: Option<i64>,
    /// Bytes, at most `memory`.
    pub(crate) memory_reservation: Option<i64>,
    /// What to say of a shape that was reduced to the operator's limits.
    pub(crate) reduced: Option<String>,
}

/// Returns the limits of a task. The operator's limits bound the shape, and apply without one. `cpus` is the number of the engine's
/// processors: it refuses more.
#[expect(clippy::cast_possible_truncation, reason = "clamped to what both types hold exactly")]
pub(super) fn limits(shape: InstanceShape, options: &ContainerOptions, cpus: u32) -> Limits {
    let exact = 2_f64.powi(52);
    let wanted_cpus = shape.vcpus.map(|vcpus| (vcpus * 1e9).clamp(1e7, exact) as i64);
    // In GiB, and at least one byte, because zero would be no limit.
    let wanted_memory =
        shape.memory_gb.map(|memory| (memory * f64::from(1_u32 << 30)).clamp(1.0, exact) as i64);
    let nano_cpus = least(wanted_cpus.or(options.default_nano_cpus), options.nano_cpus);
    let memory = least(wanted_memory.or(options.default_memory), options.memory);
    let reduced: Vec<_> = [
        reduced(wanted_memory, options.memory, "memory", "--memory", mib),
        reduced(wanted_cpus, options.nano_cpus, "processors", "--cpus", processors),
    ]
    .into_iter()
    .flatten()
    .collect();
    Limits {
        nano_cpus: nano_cpus.map(|nano| nano.min(i64::from(cpus.max(1)) * 1_000_000_000)),
        memory,
        memory_reservation: options.memory_reservation.map(|bytes| bytes.min(memory.unwrap_or(bytes))),
        reduced: (!reduced.is_empty())
            .then(|| format!("the shape was reduced to the limits of the worker: {}", reduced.join(", "))),
    }
}

fn least(wanted: Option<i64>, limit: Option<i64>) -> Option<i64> {
    wanted.into_iter().chain(limit).min()
}

/// Returns what to say if a part of a shape is above the operator's limit.
fn reduced(
    wanted: Option<i64>,
    limit: Option<i64>,
    what: &str,
    flag: &str,
    text: fn(i64) -> String,
) -> Option<String> {
    let (wanted, limit) = wanted.zip(limit).filter(|(wanted, limit)| wanted > limit)?;
    Some(format!("{what} from {} to {} ({flag})", text(wanted), text(limit)))
}

fn mib(bytes: i64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Returns a number of processors without final zeros.
fn processors(nano: i64) -> String {
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: i64 = 1 << 30;

    fn options() -> ContainerOptions {
        ContainerOptions {
            memory: Some(2 * GIB),
            default_memory: Some(GIB),
            nano_cpus: Some(2_500_000_000),
            default_nano_cpus: Some(1_000_000_000),
            ..ContainerOptions::default()
        }
    }

    fn shape(vcpus: f64, memory_gb: f64) -> InstanceShape {
        InstanceShape { vcpus: Some(vcpus), memory_gb: Some(memory_gb) }
    }

    #[test]
    fn a_shape_lowers_the_operators_limits_and_never_raises_them() {
        let lower = limits(shape(0.5, 0.25), &options(), 8);
        assert_eq!((lower.nano_cpus, lower.memory), (Some(500_000_000), Some(GIB / 4)));
        assert_eq!(lower.reduced, None);
        let equal = limits(shape(2.5, 2.0), &options(), 8);
        assert_eq!(
            (equal.nano_cpus, equal.memory, equal.reduced),
            (Some(2_500_000_000), Some(2 * GIB), None)
        );
        let higher = limits(shape(4.0, 64.0), &options(), 8);
        assert_eq!((higher.nano_cpus, higher.memory), (Some(2_500_000_000), Some(2 * GIB)));
        let text = "the shape was reduced to the limits of the worker: memory from 65536 MiB to 2048 MiB (--memory), \
                    processors from 4 to 2.5 (--cpus)";
        assert_eq!(higher.reduced.as_deref(), Some(text));
        let text =
            "the shape was reduced to the limits of the worker: memory from 3072 MiB to 2048 MiB (--memory)";
        assert_eq!(limits(shape(1.0, 3.0), &options(), 8).reduced.as_deref(), Some(text));
        assert_eq!(limits(shape(f64::INFINITY, f64::MAX), &options(), 8).memory, Some(2 * GIB));
    }

    #[test]
    fn a_task_without_a_shape_has_the_defaults() {
        let found = limits(InstanceShape::default(), &options(), 8);
        assert_eq!((found.nano_cpus, found.memory, found.reduced), (Some(1_000_000_000), Some(GIB), None));
        let only_limits = ContainerOptions { default_memory: None, default_nano_cpus: None, ..options() };
        let found = limits(InstanceShape::default(), &only_limits, 8);
        assert_eq!((found.nano_cpus, found.memory), (Some(2_500_000_000), Some(2 * GIB)));
        let only_defaults = ContainerOptions { memory: None, nano_cpus: None, ..options() };
        let found = limits(shape(4.0, 8.0), &only_defaults, 8);
        assert_eq!(
            (found.nano_cpus, found.memory, found.reduced),
            (Some(4_000_000_000), Some(8 * GIB), None)
        );
        assert_eq!(limits(InstanceShape::default(), &ContainerOptions::default(), 8), Limits::default());
    }

    #[test]
    fn limits_fit_the_engine() {
        assert_eq!(limits(InstanceShape::default(), &options(), 2).nano_cpus, Some(1_000_000_000));
        let found = limits(shape(64.0, 1.0), &ContainerOptions::default(), 2);
        assert_eq!((found.nano_cpus, found.reduced), (Some(2_000_000_000), None));
        // The engine refuses a reservation above the limit.
        let reserving = ContainerOptions { memory_reservation: Some(GIB), ..options() };
        assert_eq!(limits(shape(1.0, 0.5), &reserving, 8).memory_reservation, Some(GIB / 2));
        assert_eq!(limits(shape(1.0, 2.0), &reserving, 8).memory_reservation, Some(GIB));
    }

    #[test]
    fn a_shape_is_clamped_to_what_the_engine_accepts() {
        let limits_of =
            |vcpus, memory_gb| limits(InstanceShape { vcpus, memory_gb }, &ContainerOptions::default(), 4);
        assert_eq!(
            limits_of(Some(1.5), Some(0.5)),
            Limits { nano_cpus: Some(1_500_000_000), memory: Some(1 << 29), ..Limits::default() }
        );
        assert_eq!(limits_of(Some(64.0), None).nano_cpus, Some(4_000_000_000));
        assert_eq!(limits_of(Some(1e-9), None).nano_cpus, Some(10_000_000));
        assert_eq!(limits_of(None, Some(1e300)).memory, Some(1 << 52));
        assert_eq!(limits_of(None, Some(1e-300)).memory, Some(1), "0 would be no limit");
        assert_eq!(limits_of(None, None), Limits::default());
    }
}
