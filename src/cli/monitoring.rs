//! Where the monitoring pages are served: the worker's own setting, and the variables of OpenTelemetry.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};

use super::ConfigError;
use super::invocation::Invocation;
use super::read::Given;
use super::settings::{Echo, Reader, Setting};
use crate::logging::value;
use crate::net::digits::port;
use crate::sys::environment::Environment;

/// An address and a port of this host.
pub(crate) type Listen = (IpAddr, u16);

/// Which exporters of metrics are wanted, separated by commas.
const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
/// The host of the exporter `prometheus`.
const EXPORTER_HOST: &str = "OTEL_EXPORTER_PROMETHEUS_HOST";
/// The port of the exporter `prometheus`.
const EXPORTER_PORT: &str = "OTEL_EXPORTER_PROMETHEUS_PORT";
/// The port that OpenTelemetry gives to the exporter.
const DEFAULT_PORT: u16 = 9464;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) const METRICS_LISTEN: Reader<Listen> = Reader {
    setting: Setting {
        flag: Some("--metrics-listen"),
        variable: Some("OZ_METRICS_LISTEN"),
        value_name: Some("ADDR:PORT"),
        help: "Serve metrics for Prometheus (/metrics), health (/healthz, /readyz) and the worker's state (/status) over HTTP at this \
               address. A port alone listens on localhost. 0.0.0.0 and [::] mean all addresses, for containers. Off by default.",
        ..Setting::EMPTY
    },
    read: |given| {
        listen(given.value.trim()).ok_or_else(|| {
            given.invalid(
                "must be ADDR:PORT with an IP address or localhost, such as 127.0.0.1:9464, or a port alone, from 1 to 65535",
            )
        })
    },
};

/// Returns where to serve the pages: the worker's setting, else what OpenTelemetry's variables ask for.
///
/// # Errors
/// One of them is invalid.
pub(super) fn metrics_listen(invocation: &Invocation<'_>) -> Result<Option<Listen>, ConfigError> {
    if let Some(listen) = invocation.read_if_given(&METRICS_LISTEN)? {
        return Ok(Some(listen));
    }
    if !exporters(invocation.environment).iter().any(|name| name == "prometheus") {
        return Ok(None);
    }
    let invalid = |name: &str, value: &str, right| {
        let name = invocation.name_of(name);
        Given { name, value, echo: Echo::Whole, environment: invocation.environment }.invalid(right)
    };
    let host_text = text(invocation.environment.get("OTEL_EXPORTER_PROMETHEUS_HOST"));
    let port_text = text(invocation.environment.get("OTEL_EXPORTER_PROMETHEUS_PORT"));
    let host = if host_text.is_empty() { Some(LOCALHOST) } else { host(&host_text) };
    let host =
        host.ok_or_else(|| invalid(EXPORTER_HOST, &host_text, "must be an IP address or localhost"))?;
    let port = if port_text.is_empty() { Some(DEFAULT_PORT) } else { port(&port_text) };
    let port = port.ok_or_else(|| invalid(EXPORTER_PORT, &port_text, "must be a port from 1 to 65535"))?;
    Ok(Some((host, port)))
}

/// Returns the flag of the address, and the names of the variables of OpenTelemetry that set it instead.
pub(super) fn name_of_listen(invocation: &Invocation<'_>) -> Option<(&'static str, String)> {
    let own = invocation.given(&METRICS_LISTEN.setting).ok()?;
    let is_set = |name: &&str| !text(invocation.environment.get(name)).is_empty();
    let mut variables: Vec<_> = [EXPORTER_HOST, EXPORTER_PORT].into_iter().filter(is_set).collect();
    if variables.is_empty() {
        variables.extend(Some(EXPORTER).filter(is_set));
    }
    let flag = METRICS_LISTEN.setting.flag.filter(|_| own.is_none() && !variables.is_empty())?;
    let names: Vec<_> = variables.into_iter().map(|name| invocation.name_of(name)).collect();
    Some((flag, names.join(" and ")))
}

/// Returns a warning if an exporter is wanted that this worker does not have, one log line.
pub(super) fn exporter_warning(environment: &Environment) -> Option<String> {
    let others: Vec<_> = exporters(environment);
    let others: Vec<_> =
        others.iter().filter(|name| !["prometheus", "none"].contains(&name.as_str())).collect();
    let names = others.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
    (!others.is_empty()).then(|| {
        let known = value("prometheus, none");
        format!(
            "metrics exporter not supported variable={EXPORTER} value={} supported={known}",
            value(&names)
        )
    })
}

fn exporters(environment: &Environment) -> Vec<String> {
    let names = text(environment.get("OTEL_METRICS_EXPORTER"));
    let names = names.split(',').map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !name.is_empty()).collect()
}

fn text(value: Option<&OsStr>) -> String {
    value.map(|value| value.to_string_lossy().trim().to_owned()).unwrap_or_default()
}

/// Returns the address and the port of `ADDR:PORT`, `[ADDR]:PORT`, `:PORT` or `PORT`.
fn listen(text: &str) -> Option<Listen> {
    match text.rsplit_once(':') {
        None => Some((LOCALHOST, port(text)?)),
        Some(("", digits)) => Some((LOCALHOST, port(digits)?)),
        Some((address, digits)) => {
            let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            // An IPv6 address without brackets would be ambiguous.
            let is_bare = inner.is_none() && address.contains(':');
            let host = host(inner.unwrap_or(address)).filter(|_| !is_bare)?;
            Some((host, port(digits)?))
        }
    }
}

fn host(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") { Some(LOCALHOST) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::super::config_tests::{load, message};
    use super::*;

    #[test]
    fn an_address_has_a_port_and_a_port_alone_means_localhost() {
        let good = [
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("LocalHost:1", "127.0.0.1:1"),
            ("0.0.0.0:65535", "0.0.0.0:65535"),
            ("[::]:9464", ":::9464"),
            (" 10.1.2.3:80 ", "10.1.2.3:80"),
        ];
        for (text, expected) in good {
            let config = load(&["--metrics-listen", text], &[]).unwrap();
            assert_eq!(config.metrics_listen.map(|(host, port)| format!("{host}:{port}")).unwrap(), expected);
        }
        for text in
            ["x", "0", "65536", "host:80", "::1:80", "[::1]", "1.2.3.4", "1.2.3.4:", "[1.2.3.4:80", "-1"]
        {
            let error = message(load(&["--metrics-listen", text], &[]));
            let right = "must be ADDR:PORT with an IP address or localhost, such as 127.0.0.1:9464, or a port alone, from 1 to 65535";
            assert_eq!(error, format!("invalid --metrics-listen {text:?}: {right}"));
        }
    }

    #[test]
    fn the_variables_of_opentelemetry_set_the_same() {
        let listen = |variables: &[(&str, &str)]| {
            let config = load(&[], variables).unwrap();
            config.metrics_listen.map(|(host, port)| format!("{host}:{port}"))
        };
        assert_eq!(listen(&[(EXPORTER, "prometheus")]).as_deref(), Some("127.0.0.1:9464"));
        let all = [(EXPORTER, "none, Prometheus"), (EXPORTER_HOST, "0.0.0.0"), (EXPORTER_PORT, "81")];
        assert_eq!(listen(&all).as_deref(), Some("0.0.0.0:81"));
        let own = [(EXPORTER, "prometheus"), (EXPORTER_PORT, "x"), ("OZ_METRICS_LISTEN", "82")];
        assert_eq!(listen(&own).as_deref(), Some("127.0.0.1:82"), "the own setting has precedence");
        for variables in [[(EXPORTER, "none"), (EXPORTER_PORT, "81")], [(EXPORTER, ""), (EXPORTER_PORT, "x")]]
        {
            assert_eq!(listen(&variables), None);
        }
        for (name, text) in [(EXPORTER_HOST, "example.com"), (EXPORTER_PORT, "0")] {
            let error = message(load(&[], &[(EXPORTER, "prometheus"), (name, text)]));
            assert!(error.starts_with(&format!("invalid {name} {text:?}: must be ")), "{error}");
        }
    }

    #[test]
    fn another_exporter_is_one_warning() {
        let warnings = |exporters| load(&[], &[(EXPORTER, exporters)]).unwrap().warnings;
        let expected = "metrics exporter not supported variable=OTEL_METRICS_EXPORTER value=otlp,console \
                        supported=\"prometheus, none\"";
        assert_eq!(warnings("otlp,prometheus,console"), [expected]);
        assert_eq!(warnings("prometheus,none"), Vec::<String>::new());
    }
}
