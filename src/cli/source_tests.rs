//! Errors name what the user has set: the flag, the variable, or the variable with its line of the settings file.

use std::ffi::OsString;

use super::config_tests::{MARK, load, message, no_file};
use super::invocation::Invocation;
use super::*;
use crate::logging::SettingNames;
use crate::sys::environment::Environment;

/// The name of a variable on the third line of the settings file.
fn in_file(variable: &str) -> String {
    format!("{variable} (/etc/w.env:3)")
}

/// Returns an environment with the third line of a settings file.
fn environment(variables: &[(&str, &str)], line: &str) -> Environment {
    let text = format!("# comment\n\n{line}\n");
    let file = SettingsFile::parse("/etc/w.env".into(), text.as_bytes()).unwrap();
    file.below(&variables.iter().copied().collect())
}

/// Loads the settings with a line of the settings file.
fn load_line(line: &str) -> Result<Config, ConfigErrors> {
    let key = if line.starts_with("OZ_API_KEY_FILE") { "" } else { MARK };
    let environment = environment(&[("OZ_API_KEY", key), ("OZ_WORKER_ID", "")], line);
    let arguments: &[&str] = if line.starts_with("OZ_WORKER_ID") { &[] } else { &["--worker-id=w"] };
    let arguments = Arguments::parse(arguments.iter().map(OsString::from)).unwrap();
    Config::new(&arguments, &environment, 1, &no_file)
}

#[test]
fn an_invalid_value_is_named_as_it_was_set() {
    for setting in SETTINGS.iter().filter(|setting| setting.occurs != Occurs::Alone) {
        let starts = |text: &str, name: &str| {
            let verbs = ["invalid", "cannot read"].map(|verb| format!("{verb} {name}"));
            assert!(verbs.iter().any(|start| text.starts_with(start)), "{name}: {text}");
        };
        if let (Some(flag), Some(_)) = (setting.flag, setting.value_name) {
            starts(&message(load(&[&format!("{flag}=\u{1}")], &[])), flag);
        }
        let Some(variable) = setting.variable else { continue };
        let key = if variable == "OZ_API_KEY_FILE" { "" } else { MARK };
        starts(&message(load(&[], &[("OZ_API_KEY", key), (variable, "\u{1}")])), variable);
        if !["OZ_SETTINGS_FILE", "OZ_API_KEY"].contains(&variable) {
            starts(&message(load_line(&format!("{variable}=\u{1}"))), &in_file(variable));
        }
    }
    let exporter = "OTEL_METRICS_EXPORTER=prometheus\nOTEL_EXPORTER_PROMETHEUS_PORT=0";
    let text = message(load_line(exporter));
    assert!(text.starts_with("invalid OTEL_EXPORTER_PROMETHEUS_PORT (/etc/w.env:4) \"0\": must"), "{text}");
}

#[test]
fn the_names_for_later_errors_are_those_that_were_set() {
    let names = |arguments: &Arguments, environment: &Environment| -> SettingNames {
        Invocation { arguments, environment }.setting_names().collect()
    };
    for setting in SETTINGS {
        let (Some(flag), Some(variable)) = (setting.flag, setting.variable) else { continue };
        let line: &[&str] = if setting.value_name.is_some() { &[flag, "x"] } else { &[flag] };
        let typed = Arguments::parse(line.iter().map(OsString::from)).unwrap();
        let (none, empty) = (Arguments::default(), Environment::default());
        assert_eq!(names(&none, &empty).of(flag), flag, "not set");
        let own = environment(&[(variable, "x")], "X=y");
        assert_eq!(names(&none, &own).of(flag), variable);
        assert_eq!(names(&typed, &own).of(flag), flag);
        if variable != "OZ_SETTINGS_FILE" {
            let of_file = environment(&[(variable, "")], &format!("{variable}=y"));
            assert_eq!(names(&none, &of_file).of(flag), in_file(variable));
            let both = environment(&[(variable, "x")], &format!("{variable}=y"));
            assert_eq!(names(&none, &both).of(flag), variable, "the environment has precedence");
        }
    }
    let exporter = load_line("OTEL_METRICS_EXPORTER=prometheus").unwrap().names;
    assert_eq!(exporter.of("--metrics-listen"), in_file("OTEL_METRICS_EXPORTER"));
    let port_of = ("OTEL_EXPORTER_PROMETHEUS_PORT", "1");
    let port = [("OTEL_METRICS_EXPORTER", "prometheus"), port_of];
    let port = load(&[], &port).unwrap().names;
    assert_eq!(port.of("--metrics-listen"), "OTEL_EXPORTER_PROMETHEUS_PORT");
    let both = [port_of, ("OTEL_METRICS_EXPORTER", "prometheus"), ("OTEL_EXPORTER_PROMETHEUS_HOST", "::1")];
    let both = load(&[], &both).unwrap().names;
    assert_eq!(
        both.of("--metrics-listen"),
        "OTEL_EXPORTER_PROMETHEUS_HOST and OTEL_EXPORTER_PROMETHEUS_PORT"
    );
}

#[test]
fn an_error_about_two_settings_names_both_as_they_were_set() {
    type Case = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 8] = [
        (
            &["--default-memory=2g"],
            &[("OZ_MEMORY", "1g")],
            "--default-memory \"2g\": must not be above OZ_MEMORY",
        ),
        (&["--cpus=1"], &[("OZ_DEFAULT_CPUS", "2")], "OZ_DEFAULT_CPUS \"2\": must not be above --cpus"),
        (
            &["--memory-reservation=2g"],
            &[("OZ_DEFAULT_MEMORY", "1g")],
            "--memory-reservation \"2g\": must not be above --memory or OZ_DEFAULT_MEMORY",
        ),
        (
            &["--cap-add=ALL"],
            &[("OZ_HARDENED", "true")],
            "--cap-add \"ALL\": must not be ALL with OZ_HARDENED;",
        ),
        (
            &["--hardened"],
            &[("OZ_SECURITY_OPT", "no-new-privileges=false")],
            "OZ_SECURITY_OPT \"no-new-privileges=false\": must not be no-new-privileges=false with --hardened",
        ),
        (
            &["--dns=10.0.0.1", "--allow-host-network"],
            &[("OZ_NETWORK", "container:x")],
            "--dns \"10.0.0.1\": must not be set with OZ_NETWORK container:NAME",
        ),
        (
            &["--default-image=x"],
            &[("OZ_ALLOW_IMAGE", "ghcr.io/a/*")],
            "--default-image \"x\": must match OZ_ALLOW_IMAGE",
        ),
        (
            &["--allow-image=ghcr.io/a/*"],
            &[("OZ_SIDECAR_IMAGE", "x")],
            "OZ_SIDECAR_IMAGE \"x\": must match --allow-image",
        ),
    ];
    for (line, variables, expected) in cases {
        let text = message(load(line, variables));
        assert!(text.starts_with(&format!("invalid {expected}")), "{text}");
    }
    let long = |length: usize| format!("OZ_ENV=LONG={}", "x".repeat(length));
    assert!(load_line(&long(128 * 1024 - 6)).is_ok());
    let right = "must have at most 131071 bytes with its name, the limit of Linux";
    let text = message(load_line(&long(128 * 1024 - 5)));
    assert_eq!(text, format!("invalid {} \"LONG\": {right}", in_file("OZ_ENV")));
    let half = |result| message(result);
    let together = "can only be used together with";
    assert_eq!(
        half(load_line("OZ_CLIENT_CERT=/c")),
        format!("{} {together} --client-key; set both", in_file("OZ_CLIENT_CERT"))
    );
    assert_eq!(
        half(load(&[], &[("OZ_CLIENT_KEY", "/c")])),
        format!("OZ_CLIENT_KEY {together} --client-cert; set both")
    );
}
