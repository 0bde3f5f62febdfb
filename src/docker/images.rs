//! Images: look one up, pull one.
//!
//! Owns how a pull's stream is read, with progress while it is silent. It must not know credentials' origin.

use std::time::{Duration, Instant};

use super::stream::PullStream;
use super::{Docker, Error, Image, PullProgress, Reference, Request, RequestTarget, Response};
use crate::secret::Secret;
use crate::sys::cancel::CancelToken;

/// How much of a pull's stream is read at once.
const READ: usize = 16 * 1024;
/// The shortest time between two progress reports, so that a zero does not spin.
const MIN_TICK: Duration = Duration::from_millis(10);

impl Docker {
    /// Looks an image up by name or id.
    pub fn image_inspect(&self, cancel: &CancelToken, image: &str) -> Result<Image, Error> {
        let target = RequestTarget::of("images").image(image)?.then("json");
        self.call(cancel, Request::get(target))?.json()
    }

    /// Pulls an image, and calls `progress` about every `tick`, also while the engine says nothing. `auth` is the
    /// finished value of `X-Registry-Auth`, as [`Login`](super::Login) has it. A failure within the stream is
    /// [`Error::Pull`]. The engine may deliver another platform than the one asked for: inspect and compare.
    pub fn image_pull(
        &self,
        cancel: &CancelToken,
        image: &Reference,
        platform: Option<&str>,
        auth: Option<&Secret>,
        tick: Duration,
        progress: &mut dyn FnMut(&PullProgress),
    ) -> Result<(), Error> {
        let mut target = RequestTarget::of("images/create")
            .query("fromImage", &image.repository())
            .query("tag", image.pull_tag());
        if let Some(platform) = platform {
            target = target.query("platform", platform);
        }
        let limit = self.timeouts().pull_idle.max(self.timeouts().head);
        let mut request = Request::post(target).head_within(limit);
        if let Some(auth) = auth {
            request = request.header("X-Registry-Auth", auth.clone());
        }
        let response = self.call(cancel, request)?;
        follow(response, self.timeouts().pull_idle, tick.max(MIN_TICK), progress)
    }
}

/// Reads the stream to its end, in slices of at most `tick`.
fn follow(
    response: Response,
    silence: Duration,
    tick: Duration,
    progress: &mut dyn FnMut(&PullProgress),
) -> Result<(), Error> {
    let mut body = response.body;
    let mut stream = PullStream::default();
    let mut buffer = vec![0; READ];
    let (mut heard, mut told) = (Instant::now(), Instant::now());
    loop {
        let wait = tick.saturating_sub(told.elapsed()).min(silence.saturating_sub(heard.elapsed()));
        match body.read_within(&mut buffer, wait)? {
            Some(0) => return stream.finish(),
            Some(n) => {
                heard = Instant::now();
                stream.push(buffer.get(..n).unwrap_or_default())?;
            }
            None if heard.elapsed() >= silence => return Err(body.stalled(silence)),
            None => {}
        }
        if told.elapsed() >= tick {
            told = Instant::now();
            progress(stream.progress());
        }
    }
}
