//! Fuzzes the command line and the settings.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use super::{Input, MARKER, assert_one_line};
use crate::cli::{Arguments, Config, ConfigErrors, MAX_OUTPUT, MAX_TASKS, MIN_OUTPUT, WORKER_ID_LIMIT, docs};
use crate::logging::error_chain;
use crate::sys::environment::Environment;

/// Parses each line of the data as an argument. `OZ_API_KEY` is set unless the first steering byte is `f`.
pub fn settings(bytes: &[u8]) {
    let input = Input::new(bytes);
    let arguments = input.data.split(|byte| *byte == b'\n').map(|line| OsString::from_vec(line.to_vec()));
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return assert_one_line(&error.to_string(), 256),
    };
    if let Err(error) = docs::requested(&arguments) {
        assert_one_line(&error.to_string(), 4096);
    }
    let key = if input.steering(0) == b'f' { ("OZ_OTHER", MARKER) } else { ("OZ_API_KEY", MARKER) };
    let environment: Environment = [key, ("OZ_WORKER_ID", "w")].into_iter().collect();
    let file = |_: &_| Ok::<_, io::Error>(format!("\u{feff}{MARKER} \r\nmore"));
    match Config::new(&arguments, &environment, 2, &file) {
        Ok(config) => accepted(&config),
        Err(ConfigErrors(errors)) => {
            for error in &errors {
                let text = error_chain(error);
                assert_one_line(&text, 4096);
                assert!(!text.contains(MARKER), "the error shows the key");
            }
        }
    }
}

fn accepted(config: &Config) {
    // Without the key, the marker can only come from the input.
    if config.api_key.expose().contains(MARKER) {
        assert!(!format!("{config:?}").contains(MARKER), "Debug shows the key");
    }
    assert!((MIN_OUTPUT..=MAX_OUTPUT).contains(&config.max_output));
    assert!((1..=MAX_TASKS).contains(&config.max_concurrent_tasks));
    assert!((1..=WORKER_ID_LIMIT).contains(&config.worker_id.len()));
    let link = config.link_url();
    assert!(link.is_ascii() && !link.contains(char::is_control), "{link}");
    assert!(link.starts_with("ws://") || link.starts_with("wss://"), "{link}");
    assert!(link.parse::<http::Uri>().is_ok(), "{link}");
    let root = &config.server_root_url;
    assert!(root.starts_with("http://") || root.starts_with("https://"), "{root}");
    for bind in &config.volumes {
        assert_eq!(bind.to_string().matches(':').count(), 1 + usize::from(!bind.mode.is_empty()), "{bind}");
        assert!(bind.container.starts_with('/') && !bind.container.contains("/../"), "{bind}");
    }
    let mut names: Vec<&String> = config.env.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert!(!names.windows(2).any(|pair| pair.first() == pair.last()), "a variable is set twice");
}
