//! Targets for image names, addresses, contexts, certificates and the engine's JSON.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::assert_error;
use crate::docker::PathStat;
use crate::docker::api::{ApiVersion, Container, ContainerSummary, Image, Volume};
use crate::docker::archive::parse_stat;
use crate::docker::certificates::{TlsFiles, check};
use crate::docker::create::Created;
use crate::docker::discovery::context::{current_context, meta};
use crate::docker::discovery::endpoint::Address;
use crate::docker::exchange::message;
use crate::docker::{Endpoint, Error, Files, MAX_MESSAGE, MAX_NAME, Reference, RequestTarget};
use crate::fuzz::{Input, MARKER, assert_hidden, assert_one_line, marked};

/// The name of an image.
pub fn image_reference(bytes: &[u8]) {
    let text = Input::new(bytes).text();
    match Reference::parse(&text) {
        Ok(name) => valid(&text, &name),
        // An escaped character takes up to 10 bytes.
        Err(error) => assert_one_line(&error.to_string(), 10 * MAX_NAME + 256),
    }
}

fn valid(text: &str, name: &Reference) {
    assert!(text.is_ascii() && name.repository().len() <= MAX_NAME, "{name}");
    assert!(!name.pull_tag().is_empty(), "{name}");
    assert!(name.canonical().len() > name.repository().len(), "{name} has neither a tag nor a digest");
    assert!(name.to_string().starts_with(text), "{text} became {name}");
    for again in [name.to_string(), name.canonical()] {
        let read = Reference::parse(&again).map(|read| read.canonical());
        assert_eq!(read.as_deref(), Ok(name.canonical().as_str()), "{text} became {again}");
    }
    let target = RequestTarget::of("images").image(&name.canonical()).map(|target| target.on_the_wire());
    let plain = target.is_ok_and(|target| !target.contains(['?', '#', ' ']) && !target.contains("/../"));
    assert!(plain, "{name} changes the request");
}

/// An address in the form of `DOCKER_HOST`.
pub fn docker_host(bytes: &[u8]) {
    let text = Input::new(bytes).text();
    match Address::parse("DOCKER_HOST", text.trim()) {
        Err(error) => assert_one_line(&error.to_string(), 2 * text.len() * 10 + 1024),
        Ok(address) => {
            let https = address.is_https();
            let endpoint = Endpoint::new(address, None);
            let shown = endpoint.to_string();
            let again = Address::parse("DOCKER_HOST", &shown).map(|address| Endpoint::new(address, None));
            assert_eq!(again.ok().as_ref(), Some(&endpoint), "{text} became {shown}");
            let host = endpoint.host_header();
            assert!(host.is_ascii() && !host.contains(char::is_control) && !host.contains(' '), "{host}");
            assert!(!https || matches!(endpoint, Endpoint::Tcp { .. }));
        }
    }
}

/// A context's `meta.json`, and the current context in `config.json`.
pub fn context_meta(bytes: &[u8]) {
    let input = Input::new(bytes);
    match meta(input.data) {
        Ok(meta) => {
            assert!(!meta.host.trim().is_empty());
            docker_host(meta.host.as_bytes());
        }
        Err(error) => assert_one_line(&error.to_string(), 256),
    }
    if let Err(error) = current_context(input.data) {
        assert_one_line(&error.to_string(), 256);
    }
    if let Ok(value) = serde_json::from_slice::<Value>(input.data) {
        let hidden = marked(&value, "", &|_| true).to_string();
        let errors = [meta(hidden.as_bytes()).err(), current_context(hidden.as_bytes()).err()];
        let texts: Vec<String> = errors.into_iter().flatten().map(|error| error.to_string()).collect();
        assert_hidden(&texts);
    }
}

/// The engine's JSON, and the messages of its errors.
pub fn engine_json(bytes: &[u8]) {
    let data = Input::new(bytes).data;
    assert_one_line(&message(data), MAX_MESSAGE);
    if let Ok(container) = serde_json::from_slice::<Container>(data) {
        assert!(!container.name.starts_with('/'));
    }
    let _ = serde_json::from_slice::<Vec<ContainerSummary>>(data);
    let _ = serde_json::from_slice::<Image>(data);
    let _ = serde_json::from_slice::<Volume>(data);
    let _ = serde_json::from_slice::<Created>(data);
    let text = String::from_utf8_lossy(data);
    match parse_stat(&text) {
        Ok(stat) => assert!(!(stat.is_file() && stat.is_link())),
        Err(error) => assert_error(&error),
    }
    if let Ok(stat) = serde_json::from_slice::<PathStat>(data) {
        assert!(!(stat.is_file() && stat.is_link()));
    }
    if let Some(version) = ApiVersion::parse(&text) {
        assert_eq!(ApiVersion::parse(&version.to_string()), Some(version));
    }
    let pull = Error::Pull { message: message(data) };
    assert!(!pull.is_access_denied() || !pull.is_conflict());
}

/// A folder with certificates: `ca.pem`, `cert.pem` and `key.pem`, separated by lines `--`. The steering byte `v` verifies.
pub fn certificates(bytes: &[u8]) {
    let input = Input::new(bytes);
    let text = input.text();
    let mut parts = text.splitn(3, "\n--\n").map(str::to_owned);
    let [ca, cert, key] = [(); 3].map(|()| parts.next().filter(|text| !text.is_empty()));
    let read = |path: &Path| {
        let part = match path.file_name().and_then(|name| name.to_str()) {
            Some("ca.pem") => &ca,
            Some("cert.pem") => &cert,
            _ => &key,
        };
        part.clone().map(String::into_bytes).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let files = Files { exists: &|_| true, read: &read };
    let found = TlsFiles::of_folder(&PathBuf::from("/c"), files, input.steering(0) == b'v', false);
    let outcome = match found {
        Ok(files) => {
            let shown = format!("{files:?}");
            check(&files).map(|checked| format!("{shown} {:?}", checked.warnings))
        }
        Err(error) => Err(error),
    };
    let shown = outcome.unwrap_or_else(|error| format!("{error} {error:?}"));
    let line = key.iter().flat_map(|text| text.lines()).find(|line| line.len() > 24 && shown.contains(line));
    assert!(line.is_none() && !shown.contains(MARKER), "a message quotes the key");
}
