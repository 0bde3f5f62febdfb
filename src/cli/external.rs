//! The variables that are not ours, but that the worker reads as other programs do.
//!
//! Owns their names and what they do here, in words. It must not know how they are read: that is where the engine and
//! the credentials are found.

/// A variable with a meaning outside of the worker, and no flag of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct External {
    /// What it is called.
    pub variable: &'static str,
    /// What the worker takes from it. One paragraph, no final line break.
    pub help: &'static str,
}

/// Every one of them: first what says where the engine is.
pub const EXTERNAL: &[External] = &[
    External {
        variable: "DOCKER_HOST",
        help: "The engine: unix:///path, tcp://host[:port], http://... or https://... Without it the first of \
               /var/run/docker.sock, $XDG_RUNTIME_DIR/docker.sock and ~/.docker/run/docker.sock that is there, then the \
               Docker context.",
    },
    External {
        variable: "DOCKER_CONTEXT",
        help: "A Docker context by its name, for when there is no DOCKER_HOST and no default socket; default means \
               none.",
    },
    External {
        variable: "DOCKER_CONFIG",
        help: "The folder with Docker's config.json (registry credentials, the current context) and its contexts. \
               Without it ~/.docker.",
    },
    External {
        variable: "DOCKER_TLS_VERIFY",
        help: "If not empty, even if 0: the connection to the engine is encrypted, and its certificate verified.",
    },
    External { variable: "DOCKER_TLS", help: "If not empty: the connection to the engine is encrypted." },
    External {
        variable: "DOCKER_CERT_PATH",
        help: "A folder with ca.pem, cert.pem and key.pem: the connection to the engine is encrypted, with them. \
               Without it they are looked for where config.json is.",
    },
    External {
        variable: "DOCKER_API_VERSION",
        help: "Pins the version of the engine's API, such as 1.43. Without it the newest that both know.",
    },
    External {
        variable: "XDG_RUNTIME_DIR",
        help: "The folder in which a rootless engine has its docker.sock.",
    },
    External {
        variable: "HOME",
        help: "The folder in which .docker is looked for, see DOCKER_HOST and DOCKER_CONFIG.",
    },
    External {
        variable: "PATH",
        help: "Where the programs of credential helpers (docker-credential-NAME) are looked for; only absolute folders \
               count.",
    },
    External {
        variable: "SSL_CERT_FILE",
        help: "A file with the certificates of the authorities that are trusted for wss, https and an engine over TLS, in place \
               of the system's file; the system's folders of such certificates count all the same.",
    },
    External {
        variable: "SSL_CERT_DIR",
        help: "A further folder with such certificates, named as openssl rehash names them.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::SETTINGS;

    #[test]
    fn no_variable_is_described_twice() {
        let ours = SETTINGS.iter().filter_map(|setting| setting.variable);
        let mut names: Vec<_> = EXTERNAL.iter().map(|external| external.variable).chain(ours).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
