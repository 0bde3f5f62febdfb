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

/// The least memory that the engine accepts, in GiB: 6 MiB.
const LEAST_MEMORY_GB: f64 = 6.0 / 1024.0;

/// Checks a shape. The engine would refuse it only when the container is created.
///
/// # Errors
/// The field, and the correct form.
pub(super) fn check(shape: InstanceShape) -> Result<(), String> {
    match shape.memory_gb.filter(|memory| *memory < LEAST_MEMORY_GB) {
        Some(memory) => Err(format!(
            "data.instance_shape.memory_gb: {memory:e} is too little, must be at least {LEAST_MEMORY_GB} (6 MiB), which a container \
             needs"
        )),
        None => Ok(()),
    }
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
    let of_engine = i64::from(cpus.max(1)) * 1_000_000_000;
    // The engine's number counts if the operator's is above it.
    let (most_cpus, why) = match options.nano_cpus {
        Some(nano) if nano > of_engine => (Some(of_engine), "the engine has no more"),
        most => (most, "--cpus"),
    };
    let reduced_memory = exceeded(wanted_memory, options.memory).map(|most| {
        let wanted = number(shape.memory_gb.unwrap_or_default() * 1024.0);
        format!("memory from {wanted} MiB to {} MiB (--memory)", most >> 20)
    });
    let reduced_cpus = exceeded(wanted_cpus, most_cpus).map(|most| {
        let wanted = number(shape.vcpus.unwrap_or_default());
        format!("processors from {wanted} to {} ({why})", processors(most))
    });
    let reduced: Vec<_> = [reduced_memory, reduced_cpus].into_iter().flatten().collect();
    Limits {
        nano_cpus: nano_cpus.map(|nano| nano.min(of_engine)),
        memory,
        memory_reservation: options.memory_reservation.map(|bytes| bytes.min(memory.unwrap_or(bytes))),
        reduced: (!reduced.is_empty())
            .then(|| format!("the shape was reduced to the limits of the worker: {}", reduced.join(", "))),
    }
}

fn least(wanted: Option<i64>, limit: Option<i64>) -> Option<i64> {
    wanted.into_iter().chain(limit).min()
}

/// Returns `limit` if `wanted` exceeds it.
fn exceeded(wanted: Option<i64>, limit: Option<i64>) -> Option<i64> {
    limit.filter(|limit| wanted.is_some_and(|wanted| wanted > *limit))
}

/// Returns a number of a shape; a long one in scientific notation.
fn number(number: f64) -> String {
    if number < 1e9 { format!("{number}") } else { format!("{number:e}") }
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
    fn a_reduced_shape_names_the_limit_that_is_in_force() {
        let text = |shape, nano_cpus, cpus| {
            let options = ContainerOptions { nano_cpus: Some(nano_cpus), ..ContainerOptions::default() };
            let limits = limits(shape, &options, cpus);
            let start = "the shape was reduced to the limits of the worker: ";
            (limits.nano_cpus, limits.reduced.map(|text| text.strip_prefix(start).unwrap().to_owned()))
        };
        let (huge, two) = (4096 * 1_000_000_000, Some(2_000_000_000));
        let of_engine = |wanted| Some(format!("processors from {wanted} to 2 (the engine has no more)"));
        assert_eq!(text(shape(1e300, 1.0), huge, 2), (two, of_engine("1e300")));
        assert_eq!(text(shape(64.0, 1.0), huge, 2), (two, of_engine("64")));
        assert_eq!(text(shape(2.0, 1.0), huge, 2), (two, None));
        let of_operator = "processors from 64.5 to 1.5 (--cpus)".to_owned();
        assert_eq!(text(shape(64.5, 1.0), 1_500_000_000, 2), (Some(1_500_000_000), Some(of_operator)));
    }

    #[test]
    fn a_shape_with_less_memory_than_a_container_needs_is_refused() {
        let checked = |memory_gb| check(InstanceShape { memory_gb, vcpus: None });
        for little in [0.005, 1e-300, 0.0058] {
            let error = checked(Some(little)).unwrap_err();
            assert!(error.starts_with("data.instance_shape.memory_gb: "), "{error}");
            assert!(error.contains("at least 0.005859375 (6 MiB)"), "{error}");
        }
        for enough in [Some(6.0 / 1024.0), Some(1.0), None] {
            assert_eq!(checked(enough), Ok(()));
        }
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
