//! A proxy in front of the real engine that holds, delays or cuts chosen requests and answers, as a slow or failing engine
//! would.
//!
//! A rule applies to requests whose request line contains its text. Each connection carries one request.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long [`Hold::wait`] waits.
const DEADLINE: Duration = Duration::from_secs(60);

/// A value of [`Rule::after`]: nothing of the request is forwarded.
const SWALLOWED: usize = usize::MAX;

/// A value of [`Rule::after`]: the request is forwarded once its rule is over.
const DELAYED: usize = usize::MAX - 1;

/// A running proxy; dropping it releases everything that is held.
pub struct EngineProxy {
    folder: TempDir,
    shared: Arc<Shared>,
}

/// How a request is forwarded.
#[derive(PartialEq, Eq)]
enum Forward {
    Through,
    /// It was delayed. If its sender has disconnected, the engine does not see that.
    Late,
    Nowhere,
}

/// A rule, which applies until this is dropped or released.
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
    /// The text of the requests that the proxy answers, and their answer.
    answer: Option<(String, Arc<Body>)>,
    /// The request lines of all connections.
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
    /// How many bytes of each answer are forwarded.
    after: usize,
    /// How many more requests it applies to.
    left: usize,
    /// How many requests it has applied to.
    held: usize,
    over: bool,
    /// It closes the connection instead of holding it.
    cuts: bool,
}

/// The body of an answer that the proxy makes.
struct Body {
    status: u16,
    chunks: Vec<u8>,
    times: usize,
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

    /// Waits while the answer to this request, of which `passed` bytes were forwarded, is held. Returns `false` if it is cut.
    fn pass(&self, request: &str, passed: usize) -> bool {
        let mut state = self.lock();
        let fits = |rule: &Rule| !rule.over && rule.left > 0 && fits_text(request, &rule.text);
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
    /// Waits while this request is delayed, and returns how to forward it.
    fn admit(&self, request: &str) -> Forward {
        let mut state = self.lock();
        let fits = |rule: &Rule| !rule.over && rule.left > 0 && rule.after >= DELAYED;
        let mut rules = state.rules.iter_mut().enumerate();
        let found = rules.find(|(_, rule)| fits(rule) && fits_text(request, &rule.text));
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
    /// Starts a proxy to the engine at this `unix://` address.
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

    /// Returns its address for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Holds the answers to the next `count` requests for `text`, in which `*` stands for anything. The rest of an answer that has begun is held too.
    pub fn hold(&self, text: &str, count: usize) -> Hold {
        self.hold_after(0, text, count)
    }

    /// As [`EngineProxy::hold`], but forwards about `after` bytes of each answer.
    pub fn hold_after(&self, after: usize, text: &str, count: usize) -> Hold {
        self.rule(Rule { text: text.to_owned(), after, left: count, held: 0, over: false, cuts: false })
    }

    /// Closes the connections of the next `count` requests for `text` once about `after` bytes of the answer were forwarded.
    /// With 0 the engine has executed the request, and the answer is lost.
    pub fn cut_after(&self, after: usize, text: &str, count: usize) -> Hold {
        self.rule(Rule { text: text.to_owned(), after, left: count, held: 0, over: false, cuts: true })
    }

    /// Closes the connections of the next `count` requests for `text` before the engine sees them.
    pub fn swallow(&self, text: &str, count: usize) -> Hold {
        self.cut_after(SWALLOWED, text, count)
    }

    /// Delays the next `count` requests for `text` until released. They reach the engine even if their sender has
    /// disconnected.
    pub fn delay(&self, text: &str, count: usize) -> Hold {
        self.hold_after(DELAYED, text, count)
    }

    /// From now on answers requests for `text` itself: a body with chunked encoding, of `times` copies of `chunks`.
    pub fn answer(&self, text: &str, chunks: Vec<u8>, times: usize) {
        self.answer_with(text, Body { status: 200, chunks, times });
    }

    /// From now on refuses requests for `text` as an engine does, with this status and message.
    pub fn refuse(&self, text: &str, status: u16, message: &str) {
        let json = serde_json::json!({ "message": message }).to_string();
        let chunks = format!("{:x}\r\n{json}\r\n", json.len()).into_bytes();
        self.answer_with(text, Body { status, chunks, times: 1 });
    }

    fn answer_with(&self, text: &str, body: Body) {
        self.shared.update(|state| state.answer = Some((text.to_owned(), Arc::new(body))));
    }

    fn rule(&self, rule: Rule) -> Hold {
        let rule = self.shared.update(|state| {
            state.rules.push(rule);
            state.rules.len() - 1
        });
        Hold { shared: Arc::clone(&self.shared), rule }
    }

    /// Returns how many requests for `text` were made.
    pub fn count(&self, text: &str) -> usize {
        self.shared.lock().count(text)
    }

    /// Returns the request lines of all connections so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// Waits until `count` requests for `text` were made.
    pub fn wait_count(&self, text: &str, count: usize) {
        wait(&self.shared, &format!("{count} requests for {text:?}"), |state| state.count(text) >= count);
    }
}

impl Hold {
    /// Waits until the rule has applied to `count` requests.
    pub fn wait(&self, count: usize) {
        wait(&self.shared, &format!("{count} held requests"), |state| state.rules[self.rule].held >= count);
    }

    /// Ends the rule and forwards what it holds.
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
        // Wakes the acceptor.
        let _ = UnixStream::connect(self.socket());
    }
}

/// Whether a request line contains every part of `text`, which `*` separates.
fn fits_text(request: &str, text: &str) -> bool {
    text.split('*').all(|part| request.contains(part))
}

fn wait(shared: &Shared, what: &str, holds: impl Fn(&State) -> bool) {
    let (end, mut state) = (Instant::now() + DEADLINE, shared.lock());
    while !holds(&state) {
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "timed out waiting for {what}; requests:\n{}", state.requests.join("\n"));
        state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn serve(shared: &Shared, mut client: UnixStream, engine: &PathBuf) {
    let Ok(mut upstream) = UnixStream::connect(engine) else { return };
    let Some((head, request)) = first_line(&mut client) else { return };
    let answer = shared.update(|state| {
        state.requests.push(request.clone());
        let fits = state.answer.as_ref().filter(|(text, _)| request.contains(text));
        fits.map(|(_, body)| Arc::clone(body))
    });
    if let Some(body) = answer {
        // Fails if the client disconnects.
        let _ = send(&mut client, &body);
        return;
    }
    let forward = shared.admit(&request);
    if forward == Forward::Nowhere {
        return;
    }
    if upstream.write_all(&head).is_err() {
        return;
    }
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), upstream.try_clone()) else { return };
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        // The worker never shuts down one direction alone: it has disconnected, and the engine must see that.
        if forward != Forward::Late {
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

/// Reads the rest of a request's head, and answers with a body.
fn send(client: &mut UnixStream, body: &Body) -> std::io::Result<()> {
    let mut head = Vec::new();
    // The request line was read up to its line feed.
    while !head.ends_with(b"\r\n\r\n") && head != b"\r\n" {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    write!(client, "HTTP/1.1 {} x\r\nTransfer-Encoding: chunked\r\n\r\n", body.status)?;
    for _ in 0..body.times {
        client.write_all(&body.chunks)?;
    }
    client.write_all(b"0\r\n\r\n")
}

/// Reads up to the end of the request line. Returns the bytes, and the line as text.
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
