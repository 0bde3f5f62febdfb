use super::*;

#[test]
fn sizes_are_those_of_docker() {
    let good = [
        ("6m", 6 << 20),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("2g", 2 << 30),
        ("1.5g", 3 << 29),
        ("2gb", 2 << 30),
        ("2GiB", 2 << 30),
        (" 8388608 ", 8 << 20),
        ("8388608b", 8 << 20),
        ("1t", 1 << 40),
    ];
    for (text, bytes) in good {
        assert_eq!(memory(text), Ok(bytes), "{text}");
    }
    for bad in
        ["", "0", "6", "5m", "-1", "m", "512x", "1,5g", "1.5.0g", "2 g", "9999999t", "1e9", "90s", ".5g"]
    {
        assert_eq!(
            memory(bad),
            Err("must be a size with a unit such as 512m, 2g or 1.5g, from 6m to 8388607t".into()),
            "{bad}"
        );
    }
    assert_eq!((shm_size("64k"), shm_size("1")), (Ok(64 << 10), Ok(1)));
    for bad in ["0", "0m", "x"] {
        assert_eq!(
            shm_size(bad),
            Err("must be a size with a unit such as 64m or 1g, from 1 byte to 8388607t".into()),
            "{bad}"
        );
    }
}

#[test]
fn processors_are_decimals() {
    for (text, nano) in
        [("1.5", 1_500_000_000), ("0.01", 10_000_000), ("64", 64_000_000_000), ("1.000000001", 1_000_000_001)]
    {
        assert_eq!(cpus(text), Ok(nano), "{text}");
    }
    for bad in ["", "0", "0.009", "-1", "1.5m", "1,5", "1e2", "1.0000000001", "99999999999999999999", "."] {
        let right = "must be a number of processors such as 0.5, 1.5 or 4, from 0.01 to 9223372036";
        assert_eq!(cpus(bad), Err(right.into()), "{bad}");
    }
}

/// The text of an error, a parser, and values that it refuses.
type Case = (&'static str, fn(&str) -> String, &'static [&'static str]);

fn text<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "valid".to_owned())
}

fn assert_refused(cases: &[Case]) {
    for (right, parse, values) in cases {
        for value in *values {
            let error = parse(value);
            assert!(error.starts_with("must ") && error.contains(right), "{right}: {value:?}: {error}");
        }
    }
}

/// Each parser's error has its own text, which says what would be valid.
#[test]
fn an_invalid_value_says_what_is_valid() {
    let cases: [Case; 14] = [
        ("a number of processes", |v| text(pids_limit(v)), &["", "0", "-2", "1.5", "many", "4194305"]),
        (
            "the name of a network",
            |v| text(network(v)),
            &["", "a b", "name=x,alias=y", "container:", "-x", "container:a:b", "/x"],
        ),
        ("an IP address", |v| text(dns(v)), &["", "dns.example", "1.2.3", "1.2.3.4:53"]),
        ("a domain", |v| text(dns_search(v)), &["", "a b", "a..b", "-x y", "*.x"]),
        ("HOST:IP", |v| text(add_host(v)), &["", "h", "h:", "h:x", ":1.2.3.4", "a b:1.2.3.4", "h:1.2.3.4:5"]),
        (
            "a capability",
            |v| text(capability(v)),
            &["", "NET", "CAP_", "net raw", "CAP_CAP_CHOWN", "CHOWN,KILL"],
        ),
        (
            "must be no-new-privileges,",
            |v| text(security_opt(v)),
            &[
                "",
                "seccomp",
                "seccomp=x",
                "seccomp=../p.json",
                "apparmor=",
                "apparmor=a b",
                "no-new-privileges=",
                "no-new-privileges=yes",
                "systempaths=unconfined",
                "privileged",
            ],
        ),
        (
            "USER or USER:GROUP",
            |v| text(user(v)),
            &["", ":1", "1:", "-1", "a b", "1:2:3", "4294967296", "ro\not"],
        ),
        ("PATH or PATH:OPTIONS", |v| text(tmpfs(v)), &["", "tmp", ":size=1m", "/a\nb"]),
        (
            "a comma-separated list of these options",
            |v| text(tmpfs(v)),
            &["/tmp:", "/tmp:x", "/tmp:size=0", "/tmp:size=1x", "/tmp:ro,", "/tmp:mode=9", "/tmp:uid=a"],
        ),
        ("a whole number", |v| text(tmpfs(v)), &["/tmp:size=1.5g", "/tmp:size=1gb", "/tmp:size=1GiB"]),
        ("root of the container", |v| text(tmpfs(v)), &["/", "/."]),
        ("/agent", |v| text(tmpfs(v)), &["/agent", "/agent/x:ro"]),
        (
            "must not be mounted at /proc, /dev, ",
            |v| text(tmpfs(v)),
            &["/dev", "//proc/", "/proc/x:ro", "/etc/./hosts"],
        ),
    ];
    assert_refused(&cases);
}

#[test]
fn an_invalid_limit_label_device_or_log_option_says_what_is_valid() {
    let further: [Case; 12] = [
        (
            "NAME=SOFT",
            |v| text(ulimit(v)),
            &["", "nofile", "nofile=", "nofile=a", "nofile=1:", "nofile=1:2:3", "nofile=-2"],
        ),
        ("one of these names", |v| text(ulimit(v)), &["files=1", "NOFILE=1"]),
        ("soft limit that is not above", |v| text(ulimit(v)), &["nofile=2:1", "nofile=-1:5"]),
        ("a number for nofile", |v| text(ulimit(v)), &["nofile=-1", "nofile=1:-1"]),
        ("NAME=VALUE or NAME", |v| text(label(v)), &["", "=x", " =x", "a=\n"]),
        ("must not begin with oz-", |v| text(label(v)), &["oz-worker-id=x", "oz-task-id", "oz-=1"]),
        (
            "device=ID",
            |v| text(gpus(v)),
            &["", "0", "-1", "none", "device=", "device=0,,1", "count=x", "1.5"],
        ),
        ("the name of a runtime", |v| text(runtime(v)), &["", "a b", "/usr/bin/runc"]),
        (
            "must be NAME=VALUE such as",
            |v| text(log_opt(v)),
            &["", "max-size", "max-size=", "=1", "a b=1", "tag=\n"],
        ),
        ("as max-size", |v| text(log_opt(v)), &["max-size=0", "max-size=1.5g", "max-size=x", "max-size=2t"]),
        ("as max-file", |v| text(log_opt(v)), &["max-file=0", "max-file=-1", "max-file=x"]),
        ("cannot read the log", |v| text(log_opt(v)), &["cache-disabled=true", "cache-disabled=1"]),
    ];
    assert_refused(&further);
}

#[test]
fn valid_values_become_what_the_engine_takes() {
    assert_eq!(
        [pids_limit("-1"), pids_limit(" 512 "), pids_limit("4194304")],
        [Ok(-1), Ok(512), Ok(4_194_304)]
    );
    for name in ["bridge", "host", "none", "container:abc_1", "my-net.1"] {
        assert_eq!(network(name).as_deref(), Ok(name));
    }
    assert_eq!([dns(" 10.0.0.53 "), dns("fd00::1")], [Ok("10.0.0.53".into()), Ok("fd00::1".into())]);
    assert_eq!([dns_search("."), dns_search("a.example.")], [Ok(".".into()), Ok("a.example.".into())]);
    for (text, value) in [
        ("h:1.2.3.4", "h:1.2.3.4"),
        ("h=1.2.3.4", "h:1.2.3.4"),
        ("h.example:fd00::1", "h.example:fd00::1"),
        ("h:[fd00::1]", "h:fd00::1"),
        ("h:host-gateway", "h:host-gateway"),
    ] {
        assert_eq!(add_host(text).as_deref(), Ok(value));
    }
    for (text, value) in [("net_raw", "NET_RAW"), ("CAP_SYS_PTRACE", "SYS_PTRACE"), ("all", "ALL")] {
        assert_eq!(capability(text).as_deref(), Ok(value));
    }
    let option = |text: &str| SecurityOption::Text(text.to_owned());
    for (text, value) in [
        ("no-new-privileges", option("no-new-privileges")),
        ("no-new-privileges:true", option("no-new-privileges")),
        ("no-new-privileges=false", option("no-new-privileges=false")),
        ("seccomp=unconfined", option("seccomp=unconfined")),
        ("seccomp:/p.json", SecurityOption::SeccompProfile("/p.json".into())),
        ("apparmor=x", option("apparmor=x")),
        ("label=type:y_t", option("label=type:y_t")),
    ] {
        assert_eq!(security_opt(text), Ok(value));
    }
    for name in ["root", "1000", "1000:1000", "build.er:docker_1", "0"] {
        assert_eq!(user(name).as_deref(), Ok(name));
    }
    for (text, path, options) in [
        ("/tmp", "/tmp", ""),
        ("/run//x/:rw,size=64m,mode=1777,noexec,uid=1000", "/run/x", "rw,size=64m,mode=1777,noexec,uid=1000"),
        ("/t:size=50%", "/t", "size=50%"),
        ("/dev/shm", "/dev/shm", ""),
        ("/process", "/process", ""),
    ] {
        assert_eq!(tmpfs(text), Ok((path.to_owned(), options.to_owned())));
    }
}

#[test]
fn valid_lists_become_what_the_engine_takes() {
    let limit = |name: &str, soft, hard| Ok(Ulimit { name: name.into(), soft, hard });
    assert_eq!(
        [ulimit("nofile=1024:2048"), ulimit("nofile=7"), ulimit("core=1:-1")],
        [limit("nofile", 1024, 2048), limit("nofile", 7, 7), limit("core", 1, -1)]
    );
    let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
    assert_eq!(
        [label("a=b=c"), label("a"), label("oz=1")],
        [pair("a", "b=c"), pair("a", ""), pair("oz", "1")]
    );
    let devices = |ids: &[&str]| Ok(Gpus::Devices(ids.iter().map(|id| (*id).to_owned()).collect()));
    assert_eq!([gpus("all"), gpus("2")], [Ok(Gpus::All), Ok(Gpus::Count(2))]);
    for text in ["device=0,GPU-ab", "\"device=0,GPU-ab\"", "device=\"0,GPU-ab\""] {
        assert_eq!(gpus(text), devices(&["0", "GPU-ab"]));
    }
    assert_eq!(runtime("io.containerd.runsc.v1").as_deref(), Ok("io.containerd.runsc.v1"));
    for (name, value) in [
        ("max-size", "100m"),
        ("max-size", "-1"),
        ("max-file", "3"),
        ("tag", "{{.Name}}"),
        ("cache-disabled", "false"),
    ] {
        assert_eq!(log_opt(&format!("{name}={value}")), pair(name, value));
    }
}

#[test]
fn the_most_that_an_error_names_is_accepted() {
    assert_eq!((memory("8388607t"), shm_size("8388607t")), (Ok(8_388_607 << 40), Ok(8_388_607 << 40)));
    assert!(memory("8388608t").unwrap_err().contains("8388607t"));
    assert!(shm_size("8388608t").unwrap_err().contains("8388607t"));
    assert_eq!(cpus("9223372036"), Ok(9_223_372_036_000_000_000));
    assert!(cpus("9223372037").unwrap_err().contains("9223372036"));
}
