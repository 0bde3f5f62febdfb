//! How settings are given: lists, switches, placeholders and what has no effect, and that all errors are reported.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::config_tests::{MARK, load, load_from, message, no_file};
use super::*;

#[test]
fn every_error_is_reported_at_once() {
    for setting in SETTINGS.iter().filter(|setting| setting.value_name.is_some()) {
        let Some(variable) = setting.variable else { continue };
        let other = if variable == "OZ_PULL" { "OZ_LOST_RUNS" } else { "OZ_PULL" };
        let ConfigErrors(errors) = load(&[], &[(variable, "\u{1}"), (other, "\u{1}")]).unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let names = |name: &str| texts.iter().filter(|text| text.contains(name)).count();
        assert!(names(variable) == 1 && names(other) == 1 && texts.len() == 2, "{variable}: {texts:?}");
    }
    let ConfigErrors(errors) = load_from(&["--no-cleanup"], &[("OZ_NO_CLEANUP", "x")], &no_file).unwrap_err();
    assert_eq!(errors.len(), 2, "no key and no ID: {errors:?}");
}

#[test]
fn a_list_in_a_variable_has_quotes() {
    let variables = [("OZ_VOLUMES", "/a:/a:ro '/b c:/b'"), ("OZ_ENV", "A=1 'B=2 3' OWN"), ("OWN", MARK)];
    let config = load(&[], &variables).unwrap();
    let binds: Vec<_> = config.volumes.iter().map(ToString::to_string).collect();
    assert_eq!(binds, ["/a:/a:ro", "/b c:/b"]);
    let env: Vec<_> = config.env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(env, [("A", "1"), ("B", "2 3"), ("OWN", MARK)]);
    assert_eq!(load(&["-v/x:/x"], &variables).unwrap().volumes.len(), 1, "the flag replaces the list");
    let text = message(load(&[], &[("OZ_VOLUMES", "'/a:/a")]));
    assert_eq!(text, "invalid OZ_VOLUMES \"'/a:/a\": must have a closing quote for each quote");
    assert_eq!(
        message(load(&[], &[("OZ_ENV", "\"A=hunter2")])),
        "invalid OZ_ENV: must have a closing quote for each quote"
    );
}

#[test]
fn a_switch_has_a_variable() {
    for (word, on) in [("true", true), ("TRUE", true), ("false", false), ("", false)] {
        assert_eq!(load(&[], &[("OZ_NO_CLEANUP", word)]).unwrap().cleanup, !on, "{word}");
    }
    assert!(!load(&["--no-cleanup"], &[("OZ_NO_CLEANUP", "false")]).unwrap().cleanup);
    let text = message(load(&[], &[("OZ_NO_CLEANUP", "maybe")]));
    assert_eq!(text, "invalid OZ_NO_CLEANUP \"maybe\": must be one of true, false");
}

#[test]
fn an_unknown_variable_of_the_worker_is_a_warning() {
    let variables = [("OZ_TASKTIMEOUT", "1h"), ("OZ_MINE", MARK), ("OZ_WORKER_ARGS", "-e x"), ("OTHER", "1")];
    let warnings = load(&["-e", "OZ_MINE"], &variables).unwrap().warnings;
    assert_eq!(warnings, ["variable not known name=OZ_TASKTIMEOUT nearest=OZ_TASK_TIMEOUT"]);
}

#[test]
fn the_worker_id_may_be_made_of_the_host() {
    let file = |path: &Path| match path.to_str().unwrap() {
        "/proc/sys/kernel/hostname" => Ok("build-1\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let id = |line: &[&str]| load_from(line, &[("OZ_API_KEY", MARK)], &file).map(|config| config.worker_id);
    assert_eq!(id(&[]).unwrap(), "build-1");
    assert_eq!(id(&["--worker-id", "{hostname}-a"]).unwrap(), "build-1-a");
    let ConfigErrors(errors) = id(&["--worker-id={machine-id}"]).unwrap_err();
    let right = "must not have {machine-id}: /etc/machine-id cannot be read or is empty";
    assert_eq!(errors[0].to_string(), format!("invalid --worker-id \"{{machine-id}}\": {right}"));
}

#[test]
fn a_root_url_as_web_socket_url_gets_a_hint() {
    let text = message(load(&[], &[("OZ_WS_URL", "http://h/")]));
    assert!(
        text.ends_with(
            "must begin with ws:// or wss://; for the root URL of the control plane set --server-root-url"
        ),
        "{text}"
    );
}

#[test]
fn a_client_certificate_and_its_key_need_each_other() {
    let config =
        load(&["--client-cert", "/c"], &[("OZ_CLIENT_CERT", "/d"), ("OZ_CLIENT_KEY", "/k")]).unwrap();
    assert_eq!(config.client, Some(("/c".into(), "/k".into())));
    for (flag, other) in [("--client-cert", "--client-key"), ("--client-key", "--client-cert")] {
        let text = message(load(&[flag, "/c"], &[]));
        assert_eq!(text, format!("{flag} can only be used together with {other}; set both"));
    }
}

#[test]
fn an_unusable_proxy_is_a_warning() {
    let config = load(&[], &[("HTTPS_PROXY", "socks5://u:hunter2@h:1"), ("NO_PROXY", "a")]).unwrap();
    let warning = "proxy not used variable=HTTPS_PROXY url=socks5://...@h:1 error=\"only http:// and https:// proxies are \
                   supported\"";
    assert_eq!(config.warnings, [warning]);
}

#[test]
fn two_mounts_at_the_same_path_are_an_error() {
    let config = load(&["-v/a:/x", "-v/a:/xy"], &[]).unwrap();
    assert_eq!(config.volumes.len(), 2);
    let text = message(load(&["-v/a:/x", "-v/a:/xy", "-v/b:/x/"], &[]));
    assert_eq!(text, "invalid --volumes \"/b:/x/\": must be the only mount at /x");
}

#[test]
fn the_help_states_the_bounds() {
    let help = |flag| SETTINGS.iter().find(|setting| setting.flag == Some(flag)).unwrap().help;
    for (flag, bounds) in [
        ("--api-key-file", "at most 64 KiB"),
        ("--worker-id", "at most 256 bytes"),
        ("--max-concurrent-tasks", "1 to 1024; 0 means 1024."),
        ("--max-output", "1024 bytes to 64 MiB"),
        ("--idle-on-complete", "at most 365d"),
        ("--task-timeout", "at most 365d"),
        ("--drain-timeout", "at most 7d"),
        ("--engine-timeout", "at most 1d"),
        ("--reconcile-interval", "at most 1d"),
        ("--keep-sidecar-volumes", "1 to 1000."),
    ] {
        assert!(help(flag).contains(bounds), "{flag}: {bounds}");
    }
}

#[test]
fn every_word_that_completions_offer_is_valid() {
    let mut seen = 0;
    for setting in SETTINGS {
        let (Some(flag), ValueHint::Words(words)) = (setting.flag, setting.values) else { continue };
        for word in words {
            let arguments = Arguments::parse([flag, word].map(OsString::from)).unwrap();
            let page = docs::requested(&arguments).unwrap();
            assert_eq!(page.is_some(), flag == "--print");
            load(&[flag, word], &[]).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen}");
}
