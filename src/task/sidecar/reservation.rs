//! Keeps volumes that a task is about to mount from being removed by this process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The reserved volumes, with the number of their reservations.
#[derive(Default)]
pub(in crate::task) struct Reservations(Mutex<BTreeMap<String, usize>>);

/// Reserves one volume until it is dropped.
pub(in crate::task) struct Reservation<'a> {
    reservations: &'a Reservations,
    volume: String,
}

impl Reservations {
    pub(super) fn reserve(&self, volume: &str) -> Reservation<'_> {
        *self.lock().entry(volume.to_owned()).or_default() += 1;
        Reservation { reservations: self, volume: volume.to_owned() }
    }

    /// Runs `act` under the lock if nobody has reserved `volume`; returns whether it ran.
    pub(super) fn unless_reserved(&self, volume: &str, act: impl FnOnce()) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_free_after_its_last_reservation() {
        let reservations = Reservations::default();
        let one = reservations.reserve("v");
        let two = reservations.reserve("v");
        drop(one);
        assert!(!reservations.unless_reserved("v", || unreachable!()));
        drop(two);
        let mut acted = false;
        assert!(reservations.unless_reserved("v", || acted = true) && acted);
        assert!(reservations.lock().is_empty());
    }
}
