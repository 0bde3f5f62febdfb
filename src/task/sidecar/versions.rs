//! Which volumes of a sidecar image are kept when a newer version of it has been unpacked.
//!
//! Owns what counts as a version of the same image, and which volumes are about to be mounted. It must not call the engine.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::docker::{Reference, Volume};
use crate::task::plan::{IMAGE_LABEL, TASK_LABEL};

/// What the names of shared volumes begin with.
pub(in crate::task) const PREFIX: &str = "oz-sidecar-";

/// Volumes that tasks of this process are about to mount, with how many tasks.
#[derive(Default)]
pub(in crate::task) struct Reservations(Mutex<BTreeMap<String, usize>>);

/// As long as it lives, its volume is not removed by this process.
pub(in crate::task) struct Reservation<'a> {
    reservations: &'a Reservations,
    volume: String,
}

impl Reservations {
    pub(in crate::task) fn make(&self, volume: &str) -> Reservation<'_> {
        *self.lock().entry(volume.to_owned()).or_default() += 1;
        Reservation { reservations: self, volume: volume.to_owned() }
    }

    /// Does something about a volume that is promised to nobody, and before it can be; `false` when it is.
    pub(in crate::task) fn unless_reserved(&self, volume: &str, act: impl FnOnce()) -> bool {
        let reservations = self.lock();
        let free = !reservations.contains_key(volume);
        if free {
            act();
        }
        free
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut reservations = self.reservations.lock();
        if let Some(count) = reservations.get_mut(&self.volume) {
            *count -= 1;
            if *count == 0 {
                reservations.remove(&self.volume);
            }
        }
    }
}

/// The shared volumes that hold older versions of an image than the `keep` newest, oldest first. `newest` is the one that has
/// just been filled.
pub(in crate::task) fn superseded(
    volumes: Vec<Volume>,
    newest: &str,
    image: &str,
    keep: usize,
) -> Vec<String> {
    let Some(image) = name(image) else { return Vec::new() };
    let is_older = |volume: &Volume| {
        let of_a_task = volume.labels.contains_key(TASK_LABEL);
        let same = volume.labels.get(IMAGE_LABEL).is_some_and(|label| name(label).as_ref() == Some(&image));
        volume.name.starts_with(PREFIX) && volume.name != newest && !of_a_task && same
    };
    let mut older: Vec<(Option<_>, String)> = volumes
        .into_iter()
        .filter(is_older)
        // The engine writes the time in its own time zone.
        .map(|volume| (OffsetDateTime::parse(&volume.created_at, &Rfc3339).ok(), volume.name))
        .collect();
    older.sort();
    let surplus = (older.len() + 1).saturating_sub(keep);
    older.into_iter().take(surplus).map(|(_, name)| name).collect()
}

/// What all versions of an image have in common: its repository and its tag.
fn name(image: &str) -> Option<(String, Option<String>)> {
    let image = Reference::parse(image).ok()?;
    Some((image.repository(), image.tag().map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, image: &str, created_at: &str) -> Volume {
        let labels = BTreeMap::from([(IMAGE_LABEL.to_owned(), image.to_owned())]);
        Volume { name: name.into(), labels, created_at: created_at.into() }
    }

    #[test]
    fn the_oldest_versions_of_the_same_name_go() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let mut of_a_task = volume("oz-sidecar-t", "agent", "2020-01-01T00:00:00Z");
        of_a_task.labels.insert(TASK_LABEL.into(), "t".into());
        let volumes = vec![
            volume("oz-sidecar-c", "agent", "2020-01-01T03:00:00Z"),
            // In another time zone: the second oldest.
            volume("oz-sidecar-b", "docker.io/library/agent:latest", "2020-01-01T04:00:00+02:00"),
            volume("oz-sidecar-new", "agent:latest", "2020-01-01T05:00:00Z"),
            volume("oz-sidecar-a", &format!("agent:latest@{digest}"), "2020-01-01T01:00:00Z"),
            volume("oz-sidecar-other", "agent:v2", "2020-01-01T00:00:00Z"),
            volume("oz-sidecar-pinned", &format!("agent@{digest}"), "2020-01-01T00:00:00Z"),
            volume("somebody", "agent", "2020-01-01T00:00:00Z"),
            volume("oz-sidecar-unlabelled", "", "2020-01-01T00:00:00Z"),
            of_a_task,
        ];
        let gone = |keep| superseded(volumes.clone(), "oz-sidecar-new", "agent", keep);
        assert_eq!(gone(1), ["oz-sidecar-a", "oz-sidecar-b", "oz-sidecar-c"]);
        assert_eq!(gone(2), ["oz-sidecar-a", "oz-sidecar-b"]);
        assert_eq!(gone(4), Vec::<String>::new());
        assert_eq!(superseded(volumes.clone(), "x", "not a name", 1), Vec::<String>::new());
    }

    #[test]
    fn what_is_promised_to_anybody_stays() {
        let reservations = Reservations::default();
        let (one, two) = (reservations.make("v"), reservations.make("v"));
        drop(one);
        assert!(!reservations.unless_reserved("v", || unreachable!()));
        drop(two);
        let mut acted = false;
        assert!(reservations.unless_reserved("v", || acted = true) && acted);
        assert!(reservations.lock().is_empty());
    }
}
