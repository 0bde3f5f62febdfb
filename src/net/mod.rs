//! Code shared by the link, the REST calls and the Docker client: sockets, proxies, URLs, numbers, dates, PEM files and OpenSSL's error
//! texts.

pub(crate) mod connect;
pub(crate) mod date;
pub(crate) mod digits;
pub(crate) mod pem;
pub(crate) mod poll;
pub(crate) mod proxy;
pub(crate) mod tls;
pub(crate) mod url;

/// Returns the value of `User-Agent`: the worker's version, and its system by the names of Go.
pub(crate) fn user_agent() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("oz-agent-worker/{} ({}; {arch})", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}
