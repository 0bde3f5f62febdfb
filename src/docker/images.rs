//! Calls for images.

use std::time::{Duration, Instant};

use super::stream::PullStream;
use super::{Docker, Error, Image, PullProgress, Reference, Request, RequestTarget, Response};
use crate::secret::Secret;
use crate::sys::cancel::CancelToken;

/// How many bytes of a pull's stream are read at once, on the stack.
const READ: usize = 4 * 1024;
/// The shortest time between two progress reports.
const MIN_TICK: Duration = Duration::from_millis(10);

impl Docker {
    /// Returns an image by name or id.
    pub fn image_inspect(&self, cancel: &CancelToken, image: &str) -> Result<Image, Error> {
        let target = RequestTarget::of("images").image(image)?.then("json");
        self.call(cancel, Request::get(target))?.long_json()
    }

    /// Pulls an image, and calls `progress` about every `tick` (at least 10 ms), even while the engine is silent. `auth` is
    /// the value of `X-Registry-Auth`, see [`Login`](super::Login). A failure in the stream is [`Error::Pull`]. The pulled
    /// image may be for another platform than `platform`: inspect it.
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
        let response = self.call(cancel, request).map_err(|error| match error {
            // The message is the registry's, so the status does not tell how the engine is.
            Error::Engine { status: 500.., message } => Error::Pull { message },
            error => error,
        })?;
        follow(response, self.timeouts().pull_idle, tick.max(MIN_TICK), progress)
    }
}

/// Reads the stream to its end. `silence` is the longest time without data.
fn follow(
    response: Response,
    silence: Duration,
    tick: Duration,
    progress: &mut dyn FnMut(&PullProgress),
) -> Result<(), Error> {
    let mut body = response.body;
    let mut stream = PullStream::default();
    let mut buffer = [0; READ];
    let mut last_data = Instant::now();
    let mut last_report = Instant::now();
    loop {
        let wait =
            tick.saturating_sub(last_report.elapsed()).min(silence.saturating_sub(last_data.elapsed()));
        match body.read_within(&mut buffer, wait)? {
            Some([]) => return stream.finish(),
            Some(bytes) => {
                last_data = Instant::now();
                stream.push(bytes)?;
            }
            None if last_data.elapsed() >= silence => return Err(body.stalled(silence)),
            None => {}
        }
        if last_report.elapsed() >= tick {
            last_report = Instant::now();
            progress(stream.progress());
        }
    }
}
