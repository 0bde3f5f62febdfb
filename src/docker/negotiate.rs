//! The first calls to an engine: a quick one for its API version, and slow ones for its properties.

use std::sync::Arc;

use serde::Deserialize;

use super::api::or_default;
use super::clock::Clock;
use super::exchange::{Dialer, Response};
use super::observe::Properties;
use super::version::Agreement;
use super::{ApiVersion, Docker, Endpoint, Engine, Error, Inner, Method, Request, RequestTarget, Timeouts};
use crate::sys::cancel::CancelToken;

/// An engine whose API version is known, and not its properties.
#[derive(Debug)]
pub struct Negotiated {
    endpoint: Endpoint,
    timeouts: Timeouts,
    api_version: ApiVersion,
    pinned: bool,
    /// The operating system of its containers; `None` if no ping has named it.
    os: Option<String>,
}

/// The answer to a ping.
struct Ping {
    newest: ApiVersion,
    os: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    version: String,
    os: String,
    arch: String,
    #[serde(default, deserialize_with = "or_default")]
    components: Vec<Component>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    #[serde(default)]
    name: String,
}

impl Version {
    /// Whether the engine has asked containerd, too, and got an answer.
    pub(super) fn has_containerd(&self) -> bool {
        self.components.iter().any(|component| component.name == "containerd")
    }
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "NCPU", default)]
    cpus: u32,
    #[serde(rename = "Name", default)]
    host: String,
    #[serde(rename = "DockerRootDir", default)]
    root: String,
    #[serde(rename = "SystemTime", default)]
    system_time: Option<String>,
    #[serde(flatten)]
    properties: Properties,
}

impl Negotiated {
    /// Negotiates the API version: `pin` if given, without a call, else the engine's newest, at most [`ApiVersion::MAX`].
    /// Of `timeouts` only `connect` applies until the client is connected.
    ///
    /// # Errors
    /// The engine does not answer a ping. A version below [`ApiVersion::MIN`] is [`Error::TooOld`].
    pub fn new(
        cancel: &CancelToken,
        endpoint: Endpoint,
        pin: Option<ApiVersion>,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        let (api_version, os) = match pin {
            Some(version) => (version, None),
            None => {
                let Ping { newest, os } = ping(&endpoint, &timeouts, cancel)?;
                (newest.min(ApiVersion::MAX), os)
            }
        };
        if api_version < ApiVersion::MIN {
            let version = api_version.to_string();
            return Err(Error::TooOld { version, needed: ApiVersion::MIN.to_string() });
        }
        Ok(Self { endpoint, timeouts, api_version, pinned: pin.is_some(), os })
    }

    /// Returns whether the engine has answered that it runs Linux containers. Podman does not tell, and with a pinned version
    /// the engine was not asked.
    pub fn runs_linux(&self) -> bool {
        self.os.as_deref() == Some("linux")
    }

    /// Asks the engine for its properties. It takes Docker 10 to 20 ms, because it starts programs such as `runc --version`.
    ///
    /// # Errors
    /// An answer is missing or invalid. A pinned version that the engine refuses is [`Error::Engine`] with status 400.
    pub fn connect(self, cancel: &CancelToken) -> Result<Docker, Error> {
        let Self { endpoint, timeouts, api_version, pinned, .. } = self;
        let get = |path| {
            let version = Some(api_version);
            call(&endpoint, &timeouts, version, cancel, Request::get(RequestTarget::of(path)))?.success()
        };
        let version: Version = get("version")?.json()?;
        let info = get("info")?;
        let date = info.header("Date").map(str::to_owned);
        let info: Info = info.json()?;
        let clock = Clock::read(date.as_deref(), info.system_time.as_deref());
        let engine = Engine {
            has_containerd: version.has_containerd(),
            version: version.version,
            api_version,
            os: version.os,
            arch: version.arch,
            cpus: info.cpus,
            host: info.host,
            root: info.root,
            properties: info.properties,
        };
        let agreement = Agreement::new(api_version, pinned);
        Ok(Docker(Arc::new(Inner { endpoint, timeouts, engine, agreement, clock })))
    }
}

/// Asks for the engine's newest API version, which is a header of the answer. Falls back to `GET`: some proxies refuse `HEAD`.
fn ping(endpoint: &Endpoint, timeouts: &Timeouts, cancel: &CancelToken) -> Result<Ping, Error> {
    for method in [Method::Head, Method::Get] {
        let request = Request::new(method, RequestTarget::of("_ping"));
        let response = call(endpoint, timeouts, None, cancel, request)?;
        let newest = response.header("Api-Version").and_then(ApiVersion::parse);
        match newest {
            Some(newest) if response.status == 200 => {
                return Ok(Ping { newest, os: response.header("Ostype").map(str::to_owned) });
            }
            _ if method == Method::Get => {
                response.success()?;
            }
            _ => {}
        }
    }
    Err(Error::protocol("the ping response has no Api-Version header"))
}

fn call(
    endpoint: &Endpoint,
    timeouts: &Timeouts,
    version: Option<ApiVersion>,
    cancel: &CancelToken,
    mut request: Request<'_>,
) -> Result<Response, Error> {
    let timeouts = Timeouts { connect: timeouts.connect, ..Timeouts::default() };
    Dialer { endpoint, timeouts: &timeouts, version }.exchange(cancel, &mut request)
}
