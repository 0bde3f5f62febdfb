//! A door to the real engine that can hold requests or answers back: what a slow or hanging engine looks like, at a chosen call.
//!
//! Requests go through as they come unless they are delayed; an answer is passed on byte by byte as the engine gives it until a [`Hold`] stops
//! it. It must not know what the calls mean, beyond the text of their request lines.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long [`Hold::wait`] waits.
const DEADLINE: Duration = Duration::from_secs(60);

/// Stands for a request of which nothing goes through.
const SWALLOWED: usize = usize::MAX;

/// Stands for a request that goes through only when its rule is over.
const DELAYED: usize = usize::MAX - 1;

/// A running proxy; dropping it lets everything go.
pub struct EngineProxy {
    folder: TempDir,
    shared: Arc<Shared>,
}

/// What becomes of a request.
#[derive(PartialEq, Eq)]
enum Forward {
    Through,
    /// It was held back, and its sender may have left; the engine does not see that.
    Late,
    Nowhere,
}

/// Requests or answers that are held back until this is dropped or released.
pub struct Hold {
    shared: Arc<Shared>,
    rule: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// The request line of each connection so far.
    requests: Vec<String>,
    stopping: bool,
}

impl State {
    fn count(&self, text: &str) -> usize {
        self.requests.iter().filter(|line| line.contains(text)).count()
    }
}

struct Rule {
    text: String,
    /// So many bytes of each answer go through.
    after: usize,
    /// How many more connections it may hold.
    left: usize,
    /// How many it has held.
    held: usize,
    over: bool,
    /// It cuts the connection instead of holding it.
    cuts: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits as long as the answer to this request, of which so many bytes have gone through, is held; `false` when it is cut.
    fn pass(&self, request: &str, passed: usize) -> bool {
        let mut state = self.lock();
        let fits = |rule: &Rule| !rule.over && rule.left > 0 && request.contains(&rule.text);
        let mut rules = state.rules.iter_mut().enumerate();
        let found = rules.find(|(_, rule)| fits(rule) && passed >= rule.after);
        let Some((index, rule)) = found else { return true };
        rule.left -= 1;
        rule.held += 1;
        self.changed.notify_all();
        if rule.cuts {
            return false;
        }
        while !state.stopping && !state.rules[index].over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

impl Shared {
    /// Whether a request may go on to the engine, once it may.
    fn lets_in(&self, request: &str) -> Forward {
        let mut state = self.lock();
        let fits = |rule: &Rule| !rule.over && rule.left > 0 && rule.after >= DELAYED;
        let mut rules = state.rules.iter_mut().enumerate();
        let found = rules.find(|(_, rule)| fits(rule) && request.contains(&rule.text));
        let Some((index, rule)) = found else { return Forward::Through };
        rule.left -= 1;
        rule.held += 1;
        self.changed.notify_all();
        if rule.cuts {
            return Forward::Nowhere;
        }
        while !state.stopping && !state.rules[index].over {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Forward::Late
    }
}

impl EngineProxy {
    /// A proxy to the engine at this `unix://` address.
    pub fn start(engine: &str) -> Self {
        let engine = engine.strip_prefix("unix://").expect("the engine of the tests has a Unix socket");
        let (engine, folder) = (PathBuf::from(engine), tempfile::tempdir().expect("a folder"));
        let listener = UnixListener::bind(folder.path().join("s")).expect("a socket");
        let shared = Arc::<Shared>::default();
        let clone = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if clone.lock().stopping {
                    return;
                }
                let (clone, engine) = (Arc::clone(&clone), engine.clone());
                std::thread::spawn(move || serve(&clone, client, &engine));
            }
        });
        Self { folder, shared }
    }

    /// Its address, for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// From now on holds what the engine answers to requests whose line has `text` in it, to the first `count` of them:
    /// also the rest of an answer that has begun.
    pub fn hold(&self, text: &str, count: usize) -> Hold {
        self.hold_after(0, text, count)
    }

    /// As [`EngineProxy::hold`], but lets about so many bytes of each answer through.
    pub fn hold_after(&self, after: usize, text: &str, count: usize) -> Hold {
        self.rule(Rule { text: text.to_owned(), after, left: count, held: 0, over: false, cuts: false })
    }

    /// Cuts the connections of the first `count` such requests when the engine has begun to answer and about so many bytes
    /// of that have gone through: with 0 the engine has done what was asked, and nobody hears of it.
    pub fn cut_after(&self, after: usize, text: &str, count: usize) -> Hold {
        self.rule(Rule { text: text.to_owned(), after, left: count, held: 0, over: false, cuts: true })
    }

    /// Cuts the connections of the first `count` such requests before the engine sees them.
    pub fn swallow(&self, text: &str, count: usize) -> Hold {
        self.cut_after(SWALLOWED, text, count)
    }

    /// Holds the first `count` such requests back; then they go to the engine though their sender has left.
    pub fn delay(&self, text: &str, count: usize) -> Hold {
        self.hold_after(DELAYED, text, count)
    }

    fn rule(&self, rule: Rule) -> Hold {
        let rule = self.shared.update(|state| {
            state.rules.push(rule);
            state.rules.len() - 1
        });
        Hold { shared: Arc::clone(&self.shared), rule }
    }

    /// How many requests with this text in their line have come.
    pub fn count(&self, text: &str) -> usize {
        self.shared.lock().count(text)
    }

    /// Waits until so many such requests have come.
    pub fn wait_count(&self, text: &str, count: usize) {
        wait(&self.shared, &format!("{count} requests for {text}"), |state| state.count(text) >= count);
    }
}

impl Hold {
    /// Waits until it holds, or has held, so many.
    pub fn wait(&self, count: usize) {
        wait(&self.shared, &format!("{count} held answers"), |state| state.rules[self.rule].held >= count);
    }

    /// Lets the answers go on.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.update(|state| state.rules[self.rule].over = true);
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.shared.update(|state| state.stopping = true);
        // Wakes the accept.
        let _ = UnixStream::connect(self.socket());
    }
}

fn wait(shared: &Shared, what: &str, holds: impl Fn(&State) -> bool) {
    let (end, mut state) = (Instant::now() + DEADLINE, shared.lock());
    while !holds(&state) {
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "waited in vain for {what}; requests:\n{}", state.requests.join("\n"));
        state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn serve(shared: &Shared, mut client: UnixStream, engine: &PathBuf) {
    let Ok(mut upstream) = UnixStream::connect(engine) else { return };
    let Some((head, request)) = first_line(&mut client) else { return };
    shared.update(|state| state.requests.push(request.clone()));
    let way = shared.lets_in(&request);
    if way == Forward::Nowhere {
        return;
    }
    if upstream.write_all(&head).is_err() {
        return;
    }
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), upstream.try_clone()) else { return };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        // A worker never ends one direction alone: it has left, and the engine is to see that.
        if way != Forward::Late {
            let _ = to.shutdown(Shutdown::Both);
        }
    });
    let (mut bytes, mut passed) = (vec![0; 64 * 1024], 0);
    while let Ok(count @ 1..) = upstream.read(&mut bytes) {
        if !shared.pass(&request, passed) {
            break;
        }
        passed += count;
        if client.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

/// Everything up to the end of the request line, and that line as text.
fn first_line(client: &mut UnixStream) -> Option<(Vec<u8>, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let line = String::from_utf8_lossy(&head).trim_end().to_owned();
    Some((head, line))
}
