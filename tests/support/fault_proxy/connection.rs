//! One connection through the proxy: two sockets, and a thread for each direction.

use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::socket::Socket;
use crate::support::rng::Rng;

/// How many bytes are read at once.
const READ: usize = 16 << 10;

/// The maximum number of pieces that one read is split into.
const MAX_PIECES: usize = 6;

/// How a connection splits and delays data.
#[derive(Debug, Clone)]
pub struct Jitter {
    /// Chooses the pieces and their delays.
    pub rng: Rng,
    /// The maximum delay of each piece, in milliseconds.
    pub max_delay_ms: u64,
}

/// The direction of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    Upstream,
    /// From the target to the client.
    Downstream,
}

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// By a reset. Data that has not arrived is lost.
    Rst,
    /// By a close. Data that was forwarded arrives first.
    Fin,
}

/// One connection.
pub(super) struct Connection {
    client: Socket,
    target: Socket,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes of both directions that were forwarded or discarded.
    passed: u64,
    /// The connection stops when this many have passed.
    limit: Option<u64>,
    /// The directions that discard data, by [`Direction`].
    swallows: [bool; 2],
    ended: bool,
}

impl State {
    /// How many bytes may pass now.
    fn allowance(&self) -> usize {
        let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.passed));
        usize::try_from(left).unwrap_or(usize::MAX)
    }
}

impl Connection {
    /// Starts to forward.
    pub(super) fn start(
        client: Socket,
        target: Socket,
        limit: Option<u64>,
        mut jitter: Option<Jitter>,
    ) -> Arc<Self> {
        let state = Mutex::new(State { limit, ..State::default() });
        let connection = Arc::new(Self { client, target, state, changed: Condvar::new() });
        for direction in [Direction::Upstream, Direction::Downstream] {
            let (connection, jitter) = (Arc::clone(&connection), jitter.as_mut().map(Jitter::fork));
            std::thread::spawn(move || connection.forward(direction, jitter));
        }
        connection
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Returns the sender and the receiver of a direction.
    fn sockets(&self, direction: Direction) -> (&Socket, &Socket) {
        match direction {
            Direction::Upstream => (&self.client, &self.target),
            Direction::Downstream => (&self.target, &self.client),
        }
    }

    /// The body of one thread.
    fn forward(&self, direction: Direction, mut jitter: Option<Jitter>) {
        let (from, to) = self.sockets(direction);
        let mut buffer = vec![0; READ];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let pieces = jitter.as_mut().map_or_else(|| vec![count], |jitter| jitter.pieces(count));
            let mut rest = &buffer[..count];
            for size in pieces {
                let (piece, later) = rest.split_at(size);
                rest = later;
                if let Some(jitter) = &mut jitter {
                    jitter.delay();
                }
                if !self.pass(direction, to, piece) {
                    return;
                }
            }
        }
        // The receiver of a direction that discards data does not see the end either.
        if !self.wait_allowed() || self.lock().swallows[direction as usize] {
            return;
        }
        if direction == Direction::Upstream {
            to.shut(Shutdown::Write);
        } else {
            to.shut(Shutdown::Both);
        }
        self.update(|state| state.ended |= direction == Direction::Downstream);
    }

    /// Forwards a piece as the limit allows. Returns `false` once the connection has ended.
    fn pass(&self, direction: Direction, to: &Socket, piece: &[u8]) -> bool {
        let mut rest = piece;
        while !rest.is_empty() {
            if !self.wait_allowed() {
                return false;
            }
            let mut state = self.lock();
            let (now, later) = rest.split_at(state.allowance().min(rest.len()));
            state.passed += now.len() as u64;
            let swallows = state.swallows[direction as usize];
            drop(state);
            self.changed.notify_all();
            if !swallows && to.write_all(now).is_err() {
                return false;
            }
            rest = later;
        }
        true
    }

    /// Waits while the connection is stopped at its limit. Returns `false` once it has ended.
    fn wait_allowed(&self) -> bool {
        let stopped = |state: &mut State| !state.ended && state.allowance() == 0;
        !self.changed.wait_while(self.lock(), stopped).unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Whether it is stopped at its limit.
    pub(super) fn is_stopped(&self) -> bool {
        let state = self.lock();
        !state.ended && state.allowance() == 0
    }

    /// Waits until it is stopped at its limit or has ended. Returns `false` at `end`.
    pub(super) fn wait_stopped(&self, end: Instant) -> bool {
        let goes_on = |state: &mut State| !state.ended && state.allowance() > 0;
        let left = end.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lifts the limit.
    pub(super) fn resume(&self) {
        self.update(|state| state.limit = None);
    }

    /// Discards everything in this direction from now on.
    pub(super) fn swallow(&self, direction: Direction) {
        self.update(|state| state.swallows[direction as usize] = true);
    }

    /// Returns how many bytes have passed.
    pub(super) fn passed(&self) -> u64 {
        self.lock().passed
    }

    /// Ends it for both peers.
    pub(super) fn cut(&self, cut: Cut) {
        self.update(|state| state.ended = true);
        self.end(Direction::Downstream, cut);
        self.end(Direction::Upstream, cut);
    }

    /// Ends it for the receiver of `direction`; the other peer stays connected.
    pub(super) fn cut_one_end(&self, direction: Direction, cut: Cut) {
        self.update(|state| state.swallows = [true; 2]);
        self.end(direction, cut);
    }

    fn end(&self, direction: Direction, cut: Cut) {
        let (_, socket) = self.sockets(direction);
        match cut {
            Cut::Rst => socket.reset(),
            Cut::Fin => socket.shut(Shutdown::Both),
        }
    }
}

impl Jitter {
    /// Returns a copy with a separate random number generator.
    pub(super) fn fork(&mut self) -> Self {
        Self { rng: self.rng.fork(), max_delay_ms: self.max_delay_ms }
    }

    /// Returns sizes whose sum is `count`.
    fn pieces(&mut self, count: usize) -> Vec<usize> {
        let mut offsets: Vec<usize> =
            (1..self.rng.usize(1..=MAX_PIECES)).map(|_| self.rng.usize(0..=count)).collect();
        offsets.extend([0, count]);
        offsets.sort_unstable();
        offsets.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Sleeps. Data that arrives during the sleep is read together.
    fn delay(&mut self) {
        std::thread::sleep(Duration::from_millis(self.rng.u64(0..=self.max_delay_ms)));
    }
}
