//! The table of variables that belong to other programs, such as `DOCKER_HOST`, and that the worker reads too.

use super::settings::Echo;

/// A variable of another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct External {
    /// Its name.
    pub variable: &'static str,
    /// How much of its value is shown.
    pub echo: Echo,
    /// What it means to the worker: one paragraph without a final line break.
    pub help: &'static str,
}

/// Every such variable; those that select the engine come first.
pub const EXTERNAL: &[External] = &[
    External {
        variable: "DOCKER_HOST",
        echo: Echo::Url,
        help: "The engine: unix:///path, tcp://host[:port], http://... or https://... If unset, the worker uses the \
               first of /var/run/docker.sock, $XDG_RUNTIME_DIR/docker.sock and ~/.docker/run/docker.sock that \
               exists, else the Docker context.",
    },
    External {
        variable: "DOCKER_CONTEXT",
        echo: Echo::Whole,
        help: "The name of a Docker context, used if DOCKER_HOST is unset and no default socket exists; default means \
               none.",
    },
    External {
        variable: "DOCKER_CONFIG",
        echo: Echo::Whole,
        help: "The directory with Docker's config.json (registry credentials, the current context) and its contexts; \
               by default ~/.docker.",
    },
    External {
        variable: "DOCKER_TLS_VERIFY",
        echo: Echo::Whole,
        help: "If not empty (0 included), use TLS for the connection to the engine, and verify its certificate.",
    },
    External {
        variable: "DOCKER_TLS",
        echo: Echo::Whole,
        help: "If not empty, use TLS for the connection to the engine.",
    },
    External {
        variable: "DOCKER_CERT_PATH",
        echo: Echo::Whole,
        help: "A directory with ca.pem, cert.pem and key.pem for TLS to the engine; if set, TLS is used. By default the \
               files are read from the directory of config.json.",
    },
    External {
        variable: "DOCKER_API_VERSION",
        echo: Echo::Whole,
        help: "The version of the engine's API to use, such as 1.43; by default the newest that engine and worker support.",
    },
    External {
        variable: "XDG_RUNTIME_DIR",
        echo: Echo::Whole,
        help: "The directory in which a rootless engine has its docker.sock.",
    },
    External {
        variable: "HOME",
        echo: Echo::Whole,
        help: "The directory that contains .docker, see DOCKER_HOST and DOCKER_CONFIG.",
    },
    External {
        variable: "PATH",
        echo: Echo::Whole,
        help: "Where to find credential helpers (docker-credential-NAME); relative directories are ignored.",
    },
    External {
        variable: "HTTPS_PROXY",
        echo: Echo::Url,
        help: "The proxy for wss, https and TLS to the engine: http://[USER:PASSWORD@]HOST[:PORT], or https:// for TLS with the \
               proxy itself. Percent-encode special characters of the password. This and the next three variables may be in \
               lower case.",
    },
    External {
        variable: "HTTP_PROXY",
        echo: Echo::Url,
        help: "The proxy for ws, http and an engine over TCP without TLS. It must allow CONNECT to that port.",
    },
    External {
        variable: "ALL_PROXY",
        echo: Echo::Url,
        help: "The proxy for both, where the variable above is not set.",
    },
    External {
        variable: "NO_PROXY",
        echo: Echo::Url,
        help: "What is reached without a proxy, separated by commas: a host with all names below it, a domain (.example.com) for \
               the names below it, an IP address, a network (10.0.0.0/8), each host with :PORT if wanted, or *. localhost and \
               loopback addresses never use a proxy.",
    },
    External {
        variable: "OTEL_METRICS_EXPORTER",
        echo: Echo::Whole,
        help: "prometheus: serve metrics as --metrics-listen does, at the address of the next two variables. none: do not. Any other \
               exporter is a warning. --metrics-listen has precedence.",
    },
    External {
        variable: "OTEL_EXPORTER_PROMETHEUS_HOST",
        echo: Echo::Whole,
        help: "The IP address to serve metrics at, by default localhost. Only for OTEL_METRICS_EXPORTER=prometheus.",
    },
    External {
        variable: "OTEL_EXPORTER_PROMETHEUS_PORT",
        echo: Echo::Whole,
        help: "The port to serve metrics at, by default 9464. Only for OTEL_METRICS_EXPORTER=prometheus.",
    },
    External {
        variable: "SSL_CERT_FILE",
        echo: Echo::Whole,
        help: "A file of trusted certificate authorities for wss, https and TLS to the engine, in place of the system's \
               file. The system's directories of such certificates are used as well.",
    },
    External {
        variable: "SSL_CERT_DIR",
        echo: Echo::Whole,
        help: "An additional directory of trusted certificates, with file names as made by openssl rehash.",
    },
    External {
        variable: "WARP_API_KEY",
        echo: Echo::Nothing,
        help: "The control plane's API key, if no setting names one.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::SETTINGS;

    #[test]
    fn no_variable_is_in_the_tables_twice() {
        let ours = SETTINGS.iter().filter_map(|setting| setting.variable);
        let mut names: Vec<_> = EXTERNAL.iter().map(|external| external.variable).chain(ours).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
