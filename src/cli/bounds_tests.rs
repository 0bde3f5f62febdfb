//! Settings with a range: an error names both bounds. Settings with names and values: the last value of a name counts.

use super::config_tests::{load, message};
use super::*;

/// Values of settings with a range, out of bounds or malformed, and both bounds as the error names them.
const RANGES: [(&str, &[&str], [&str; 2]); 35] = [
    ("--keep-failed", &["30d1s", "x"], ["from 0", "to 30d"]),
    ("--log-output-lines", &["101", "-1"], ["from 0", "to 100"]),
    ("--max-concurrent-tasks", &["1025", "-1"], ["from 0", "to 1024"]),
    ("--idle-on-complete", &["366d", "5"], ["from 0s", "to 365d"]),
    ("--max-output", &["1023", "65MiB"], ["from 1024", "to 64MiB"]),
    ("--task-timeout", &["366d", "-1"], ["from 0", "to 365d"]),
    ("--drain-timeout", &["8d", "-1"], ["from 0", "to 7d"]),
    ("--stop-grace", &["2d", "-1"], ["from 0", "to 1d"]),
    ("--engine-timeout", &["2d", "-1"], ["from 0", "to 1d"]),
    ("--engine-start-timeout", &["366d", "-1"], ["from 0", "to 365d"]),
    ("--reconcile-interval", &["2d", "-1"], ["from 0", "to 1d"]),
    ("--keep-sidecar-volumes", &["0", "1001"], ["from 1", "to 1000"]),
    (
        "--min-free-disk",
        &["18446744073709551616", "-1", "16777216t"],
        ["from 0", "to 18446744073709551615 bytes"],
    ),
    ("--metrics-listen", &["0", "65536"], ["from 1", "to 65535"]),
    ("--memory", &["5m", "8388608t"], ["from 6m", "to 8388607t"]),
    ("--default-memory", &["5m", "8388608t"], ["from 6m", "to 8388607t"]),
    ("--memory-reservation", &["5m", "8388608t"], ["from 6m", "to 8388607t"]),
    ("--cpus", &["0.001", "9223372037"], ["from 0.01", "to 9223372036"]),
    ("--default-cpus", &["0.001", "9223372037"], ["from 0.01", "to 9223372036"]),
    ("--pids-limit", &["0", "4194305"], ["from 1", "to 4194304"]),
    ("--shm-size", &["0", "8388608t"], ["from 1 byte", "to 8388607t"]),
    ("--ulimit", &["core=-2", "core=9223372036854775808"], ["from 0", "to 9223372036854775807"]),
    ("--user", &["2147483648", "1:2147483648"], ["from 0", "to 2147483647"]),
    ("--tmpfs", &["/t:size=0", "/t:size=8388608t", "/t:size=1m%"], ["from 1 ", "to 8388607t"]),
    ("--tmpfs", &["/t:size=0%", "/t:size=1001%"], ["1%", "to 1000%"]),
    ("--tmpfs", &["/t:mode=40000000000", "/t:mode=", "/t:mode=+7"], ["mode= from 0", "to 37777777777"]),
    ("--tmpfs", &["/t:uid=4294967295", "/t:gid=-1"], ["uid= and gid= from 0", "to 4294967294"]),
    (
        "--tmpfs",
        &["/t:nr_inodes=-1", "/t:nr_inodes=9007199254740992"],
        ["nr_inodes= from 0", "to 9007199254740991"],
    ),
    ("--gpus", &["0", "9223372036854775808"], ["from 1", "to 9223372036854775807"]),
    ("--log-opt", &["max-size=0", "max-size=9223372037g"], ["from 1 byte", "to 9223372036g"]),
    ("--log-opt", &["max-file=0", "max-file=9223372036854775808"], ["from 1", "to 9223372036854775807"]),
    ("--worker-id", &[" "], ["1 to", "256 bytes"]),
    ("OZ_RECONNECT_MAX_ATTEMPTS", &["4294967296", "-1"], ["from 0", "to 4294967295"]),
    ("OZ_RECONNECT_WINDOW_SECONDS", &["4294967296", "-1"], ["from 0", "to 4294967295"]),
    ("OZ_RECONNECT_SPREAD", &["2d", "-1"], ["from 0", "to 1d"]),
];

/// The placeholders of values that are numbers.
const NUMBERS: [&str; 8] =
    ["BYTES", "COUNT", "DURATION", "NAME=SOFT[:HARD]", "NUMBER", "SECONDS", "SIZE", "ADDR:PORT"];

#[test]
fn an_error_about_a_range_names_the_setting_the_value_and_both_bounds() {
    for (name, values, bounds) in RANGES {
        for value in values {
            let text = match name.strip_prefix("--") {
                Some(_) => message(load(&[&format!("{name}={value}")], &[])),
                None => message(load(&[], &[(name, value)])),
            };
            // The values of options of the log may be secret.
            let shown = if name == "--log-opt" { String::new() } else { format!(" {value:?}") };
            assert!(text.starts_with(&format!("invalid {name}{shown}: must ")), "{text}");
            assert!(bounds.iter().all(|bound| text.contains(bound)), "{bounds:?}: {text}");
        }
    }
    let is_checked = |name: Option<&str>| RANGES.iter().any(|(known, ..)| Some(*known) == name);
    let numbers =
        SETTINGS.iter().filter(|setting| setting.value_name.is_some_and(|name| NUMBERS.contains(&name)));
    let missing: Vec<_> = numbers.filter(|setting| !is_checked(setting.flag.or(setting.variable))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn bounds_of_values_for_the_engine_are_inclusive() {
    let good = [
        ("--min-free-disk", "18446744073709551615"),
        ("--memory", "8388607t"),
        ("--cpus", "9223372036"),
        ("--pids-limit", "4194304"),
        ("--shm-size", "1"),
        ("--ulimit", "core=0:9223372036854775807"),
        ("--user", "2147483647:0"),
        ("--tmpfs", "/t:size=1000%,mode=37777777777,uid=4294967294,gid=0,nr_inodes=9007199254740991"),
        ("--tmpfs", "/t:size=8388607t,mode=0,nr_inodes=0"),
        ("--gpus", "9223372036854775807"),
        ("--log-opt", "max-size=9223372036G"),
        ("--log-opt", "max-size=1"),
        ("--log-opt", "max-file=9223372036854775807"),
        ("--metrics-listen", "65535"),
    ];
    for (flag, value) in good {
        load(&[flag, value], &[]).unwrap_or_else(|errors| panic!("{flag} {value}: {errors:?}"));
    }
}

/// As `docker run` does.
#[test]
fn the_last_value_of_a_name_counts() {
    type Case = (&'static str, [&'static str; 3], fn(&Config) -> String);
    let cases: [Case; 4] = [
        ("--env", ["A=1", "B=2", "A=3"], |config| {
            config.env.iter().map(|(name, value)| format!("{name}={} ", value.expose())).collect()
        }),
        ("--label", ["A=1", "B=2", "A=3"], |config| {
            config.container.labels.iter().map(|(name, value)| format!("{name}={value} ")).collect()
        }),
        ("--log-opt", ["A=1", "B=2", "A=3"], |config| {
            config.container.log_opts.iter().map(|(name, value)| format!("{name}={value} ")).collect()
        }),
        ("--ulimit", ["cpu=1", "nofile=2", "cpu=3"], |config| {
            config.container.ulimits.iter().map(|limit| format!("{}={} ", limit.name, limit.soft)).collect()
        }),
    ];
    for (flag, values, get) in cases {
        let sorted = |config: &Config| {
            let mut all: Vec<_> = get(config).split(' ').map(str::to_owned).collect();
            all.sort();
            all
        };
        let line: Vec<_> = values.iter().flat_map(|value| [flag, value]).collect();
        let expected = sorted(&load(&[flag, values[1], flag, values[2]], &[]).unwrap());
        assert_eq!(sorted(&load(&line, &[]).unwrap()), expected, "{flag}");
        assert_eq!(expected.len(), 3, "{flag}");
    }
    // Those whose values are a name, an equals sign and something else say so.
    let pairs = |name: &&str| name.contains('=') && (name.starts_with("NAME") || name.starts_with("KEY"));
    let named = SETTINGS.iter().filter(|setting| setting.value_name.as_ref().is_some_and(pairs));
    let flags: Vec<_> = named.clone().filter_map(|setting| setting.flag).collect();
    assert_eq!(flags, ["--env", "--ulimit", "--label", "--log-opt"]);
    for setting in named {
        assert!(setting.help.contains("the last value of a "), "{setting:?}");
    }
}
