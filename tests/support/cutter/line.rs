//! One connection through the cutter: two sockets, a thread for each direction, and what is done to them meanwhile.
//!
//! Owns how bytes go on: in which pieces, how late, or not at all. It must not know when a fault is due.

use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::socket::Socket;
use crate::support::dice::Dice;

/// How many bytes are taken at once.
const READ: usize = 16 << 10;

/// Into how many pieces they are cut at most.
const PIECES: usize = 6;

/// How a seeded line treats what goes over it.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Where the pieces are cut.
    pub dice: Dice,
    /// Each piece waits for up to so many milliseconds.
    pub lag: u64,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the one who has connected to the place that the cutter leads to.
    Out,
    /// The other way.
    Back,
}

/// How a line is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both connections are reset; what has not arrived is lost.
    Rst,
    /// Both are closed; what has been taken arrives before.
    Fin,
}

/// One connection.
pub(super) struct Line {
    near: Socket,
    far: Socket,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that have gone through, or were swallowed, in both directions.
    passed: u64,
    /// It stops at so many.
    limit: Option<u64>,
    swallows: [bool; 2],
    ended: bool,
}

impl State {
    /// How many bytes may pass now.
    fn room(&self) -> usize {
        let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.passed));
        usize::try_from(left).unwrap_or(usize::MAX)
    }
}

impl Line {
    /// Starts to copy; with a `manner` in pieces.
    pub(super) fn start(near: Socket, far: Socket, limit: Option<u64>, manner: Option<Manner>) -> Arc<Self> {
        let state = Mutex::new(State { limit, ..State::default() });
        let line = Arc::new(Self { near, far, state, changed: Condvar::new() });
        let mut manner = manner;
        for way in [Way::Out, Way::Back] {
            let (line, manner) = (Arc::clone(&line), manner.as_mut().map(Manner::split));
            std::thread::spawn(move || line.copy(way, manner));
        }
        line
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn sockets(&self, way: Way) -> (&Socket, &Socket) {
        match way {
            Way::Out => (&self.near, &self.far),
            Way::Back => (&self.far, &self.near),
        }
    }

    /// The body of one thread.
    fn copy(&self, way: Way, mut manner: Option<Manner>) {
        let (from, to) = self.sockets(way);
        let mut buffer = vec![0; READ];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let pieces = manner.as_mut().map_or_else(|| vec![count], |manner| manner.pieces(count));
            let mut rest = &buffer[..count];
            for size in pieces {
                let (piece, later) = rest.split_at(size);
                rest = later;
                if let Some(manner) = &mut manner {
                    manner.wait();
                }
                if !self.pass(way, to, piece) {
                    return;
                }
            }
        }
        // Whoever is cut off half does not hear of the end either.
        if !self.wait_for_room() || self.lock().swallows[way as usize] {
            return;
        }
        if way == Way::Out {
            to.shut(Shutdown::Write);
        } else {
            to.shut(Shutdown::Both);
        }
        self.update(|state| state.ended |= way == Way::Back);
    }

    /// Passes a piece on, as much at a time as may pass; `false` when the line has ended.
    fn pass(&self, way: Way, to: &Socket, piece: &[u8]) -> bool {
        let mut rest = piece;
        while !rest.is_empty() {
            if !self.wait_for_room() {
                return false;
            }
            let mut state = self.lock();
            let (now, later) = rest.split_at(state.room().min(rest.len()));
            state.passed += now.len() as u64;
            let swallows = state.swallows[way as usize];
            drop(state);
            self.changed.notify_all();
            if !swallows && to.write_all(now).is_err() {
                return false;
            }
            rest = later;
        }
        true
    }

    /// Waits as long as it is stopped; `false` when it has ended.
    fn wait_for_room(&self) -> bool {
        let stopped = |state: &mut State| !state.ended && state.room() == 0;
        !self.changed.wait_while(self.lock(), stopped).unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Waits until it has come to its limit, or has ended by itself.
    pub(super) fn stops_by(&self, end: Instant) -> bool {
        let goes_on = |state: &mut State| !state.ended && state.room() > 0;
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lifts the limit.
    pub(super) fn go_on(&self) {
        self.update(|state| state.limit = None);
    }

    /// From now on nothing arrives that goes this way, and nobody is told.
    pub(super) fn swallow(&self, way: Way) {
        self.update(|state| state.swallows[way as usize] = true);
    }

    /// How many bytes have come over it.
    pub(super) fn passed(&self) -> u64 {
        self.lock().passed
    }

    /// Ends it.
    pub(super) fn cut(&self, how: Cut) {
        self.update(|state| state.ended = true);
        self.end(Way::Back, how);
        self.end(Way::Out, how);
    }

    /// Ends it for those to whom bytes of this way go; the others stay connected to nobody.
    pub(super) fn cut_end(&self, way: Way, how: Cut) {
        self.update(|state| state.swallows = [true; 2]);
        self.end(way, how);
    }

    fn end(&self, way: Way, how: Cut) {
        let (_, socket) = self.sockets(way);
        match how {
            Cut::Rst => socket.reset(),
            Cut::Fin => socket.shut(Shutdown::Both),
        }
    }
}

impl Manner {
    /// The same, with numbers of its own.
    pub(super) fn split(&mut self) -> Self {
        Self { dice: self.dice.split(), lag: self.lag }
    }

    /// Sizes that are `count` together.
    fn pieces(&mut self, count: usize) -> Vec<usize> {
        let mut places: Vec<usize> =
            (1..self.dice.size(1..=PIECES)).map(|_| self.dice.size(0..=count)).collect();
        places.extend([0, count]);
        places.sort_unstable();
        places.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// What comes meanwhile is taken together.
    fn wait(&mut self) {
        std::thread::sleep(Duration::from_millis(self.dice.within(0..=self.lag)));
    }
}
