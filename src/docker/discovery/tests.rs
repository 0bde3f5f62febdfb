use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use super::*;

const ROOTLESS: &str = "/run/user/7/docker.sock";
const DESKTOP: &str = "/home/u/.docker/run/docker.sock";
const CONFIG: &str = "/home/u/.docker/config.json";

/// A file system. A file with `None` cannot be read.
#[derive(Default)]
struct Machine {
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    asked: RefCell<Vec<PathBuf>>,
}

impl Machine {
    fn with<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = files.into_iter().map(|(path, text)| (path.into(), Some(text.as_bytes().to_vec())));
        Self { files: files.collect(), ..Self::default() }
    }

    fn context(mut self, dir: &str, name: &str, json: &str) -> Self {
        let path = context::meta_path(Path::new(dir), name);
        self.files.insert(path, Some(json.as_bytes().to_vec()));
        self
    }

    fn discover(&self, env: &EndpointEnv) -> Result<Discovery, EndpointError> {
        let exists = |path: &Path| self.files.contains_key(path);
        let read = |path: &Path| {
            self.asked.borrow_mut().push(path.to_owned());
            match self.files.get(path) {
                Some(Some(bytes)) => Ok(bytes.clone()),
                Some(None) => Err(io::ErrorKind::PermissionDenied.into()),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        };
        Discovery::discover(env, Files { exists: &exists, read: &read })
    }

    /// Returns the address and its source.
    fn found(&self, env: &EndpointEnv) -> (String, String) {
        let mut found = self.discover(env).unwrap();
        (found.endpoint().unwrap().to_string(), found.source.to_string())
    }
}

fn own(address: &str, source: &str) -> (String, String) {
    (address.to_owned(), source.to_owned())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The environment of an ordinary user.
fn user() -> EndpointEnv {
    EndpointEnv { xdg_runtime_dir: some("/run/user/7"), home: some("/home/u"), ..EndpointEnv::default() }
}

fn host(host: &str) -> EndpointEnv {
    EndpointEnv { docker_host: some(host), ..user() }
}

fn named(context: &str) -> EndpointEnv {
    EndpointEnv { docker_context: some(context), ..user() }
}

fn meta(host: &str) -> String {
    format!(r#"{{"Name":"x","Endpoints":{{"docker":{{"Host":"{host}"}}}}}}"#)
}

#[test]
fn docker_host_wins() {
    let machine = Machine::with([(SYSTEM_SOCKET, ""), (CONFIG, r#"{"currentContext":"x"}"#)]);
    assert_eq!(machine.found(&host(" tcp://h:1234 ")), own("tcp://h:1234", "DOCKER_HOST"));
    assert_eq!(machine.found(&host("unix:///tmp/x")), own("unix:///tmp/x", "DOCKER_HOST"));
    assert_eq!(machine.found(&host("  ")), own("unix:///var/run/docker.sock", "socket"));
}

#[test]
fn sockets_come_second_in_a_fixed_order() {
    let socket = |path: &str| own(&format!("unix://{path}"), "socket");
    let all = [DESKTOP, ROOTLESS, SYSTEM_SOCKET];
    for there in 1..=all.len() {
        let machine = Machine::with(all.iter().take(there).map(|path| (*path, "")));
        assert_eq!(machine.found(&user()), socket(all[there - 1]));
        assert!(machine.asked.borrow().is_empty(), "no file is read");
    }
    assert_eq!(Machine::default().found(&user()), own("unix:///var/run/docker.sock", "default"));
    assert_eq!(Machine::default().found(&EndpointEnv::default()).1, "default");
}

/// A context was chosen, while a socket of Podman may only come with its package.
#[test]
fn podman_comes_after_everything_of_docker() {
    let own_podman = "/run/user/7/podman/podman.sock";
    let sockets = [(PODMAN_SOCKET, ""), (own_podman, "")];
    assert_eq!(Machine::with(sockets).found(&user()), own("unix:///run/podman/podman.sock", "socket"));
    let rootless = Machine::with([(own_podman, "")]);
    assert_eq!(rootless.found(&user()), own("unix:///run/user/7/podman/podman.sock", "socket"));
    assert_eq!(rootless.found(&named("default")).1, "socket");
    assert_eq!(rootless.found(&EndpointEnv::default()).1, "default");
    let with_docker = Machine::with([(PODMAN_SOCKET, ""), (DESKTOP, "")]);
    assert_eq!(with_docker.found(&user()).0, format!("unix://{DESKTOP}"));
    let context = Machine::with([(PODMAN_SOCKET, ""), (CONFIG, r#"{"currentContext":"x"}"#)]);
    let context = context.context("/home/u/.docker", "x", &meta("tcp://c:1"));
    assert_eq!(context.found(&user()), own("tcp://c:1", "context:x"));
}

#[test]
fn docker_context_precedes_the_current_context() {
    let machine = Machine::with([(CONFIG, r#"{"currentContext":"current"}"#)])
        .context("/home/u/.docker", "current", &meta("tcp://c:1"))
        .context("/home/u/.docker", "other", &meta("unix:///other.sock"));
    assert_eq!(machine.found(&named("other")), own("unix:///other.sock", "context:other"));
    assert_eq!(machine.found(&user()), own("tcp://c:1", "context:current"));
    assert_eq!(machine.found(&named("default")), own("unix:///var/run/docker.sock", "default"));
}

#[test]
fn docker_config_moves_the_settings_folder() {
    let machine = Machine::with([("/conf/config.json", r#"{"currentContext":"x"}"#), (CONFIG, "broken")])
        .context("/conf", "x", &meta("tcp://c:1"));
    let env = EndpointEnv { docker_config: some("/conf"), ..user() };
    assert_eq!(machine.found(&env), own("tcp://c:1", "context:x"));
}

#[test]
fn an_unused_docker_context_is_warned_about() {
    let machine = Machine::with([(ROOTLESS, "")]);
    let found = machine.discover(&named("my build")).unwrap();
    let [warning] = found.warnings.as_slice() else { panic!("{:?}", found.warnings) };
    assert!(warning.contains("context=\"my build\" socket=/run/user/7/docker.sock"), "{warning}");
    let both = EndpointEnv { docker_host: some("tcp://h:1"), ..named("b") };
    assert!(machine.discover(&both).unwrap().warnings[0].contains("context=b docker_host=tcp://h:1"));
    for env in [named("default"), named(" "), user()] {
        assert!(machine.discover(&env).unwrap().warnings.is_empty());
    }
}

#[test]
fn unusable_settings_are_ignored_with_a_warning() {
    let cases =
        [("{", "not JSON"), (r#"{"currentContext":{}}"#, "unexpected structure"), ("\u{feff}{}", "not JSON")];
    let check = |machine: &Machine, problem: &str| {
        let mut found = machine.discover(&user()).unwrap();
        assert_eq!(found.endpoint().unwrap().to_string(), "unix:///var/run/docker.sock");
        let [warning] = found.warnings.as_slice() else { panic!("{:?}", found.warnings) };
        assert!(warning.contains(CONFIG) && warning.contains(problem), "{warning}");
    };
    for (json, problem) in cases {
        check(&Machine::with([(CONFIG, json)]), problem);
    }
    let files = BTreeMap::from([(PathBuf::from(CONFIG), None)]);
    check(&Machine { files, ..Machine::default() }, "permission denied");
    for json in ["{}", r#"{"currentContext":""}"#, r#"{"currentContext":"default"}"#] {
        let found = Machine::with([(CONFIG, json)]).discover(&user()).unwrap();
        assert_eq!((found.source, found.warnings.len()), (EndpointSource::Default, 0), "{json}");
    }
}

#[test]
fn a_missing_context_is_named_with_its_source_and_file() {
    let error = Machine::default().discover(&named("build")).unwrap_err().to_string();
    let path = context::meta_path(Path::new("/home/u/.docker"), "build").display().to_string();
    assert!(
        error.contains("\"build\"") && error.contains("set by DOCKER_CONTEXT") && error.contains(&path),
        "{error}"
    );
    let machine = Machine::with([(CONFIG, r#"{"currentContext":"gone"}"#)]);
    let error = machine.discover(&user()).unwrap_err().to_string();
    assert!(error.contains("\"gone\"") && error.contains(&format!("set by {CONFIG}")), "{error}");
    let homeless = EndpointEnv { docker_context: some("x"), ..EndpointEnv::default() };
    let error = Machine::default().discover(&homeless).unwrap_err().to_string();
    assert!(error.contains("neither DOCKER_CONFIG nor HOME"), "{error}");
}

#[test]
fn an_unusable_context_is_reported_in_one_line() {
    let cases = [
        ("{".to_owned(), "not JSON"),
        (r#"{"Endpoints":{}}"#.to_owned(), "no Endpoints.docker"),
        (meta(""), "Host is empty"),
        (meta("h"), "it has no scheme"),
        (meta("ssh://u@h"), "ssh -N -L"),
    ];
    for (json, problem) in cases {
        let machine = Machine::default().context("/home/u/.docker", "x", &json);
        let error = machine.discover(&named("x")).unwrap_err().to_string();
        assert!(error.contains("\"x\"") && error.contains("meta.json") && error.contains(problem), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

/// Returns whether to verify the engine, and whether there are authorities and a client certificate.
fn tls(machine: &Machine, env: &EndpointEnv) -> Result<Option<(bool, bool, bool)>, EndpointError> {
    let found = machine.discover(env)?;
    Ok(found.tls.map(|tls| (tls.verify, tls.ca.is_some(), tls.client.is_some())))
}

fn folder(dir: &str) -> Machine {
    let names = ["ca.pem", "cert.pem", "key.pem"].map(|name| format!("{dir}/{name}"));
    Machine::with(names.iter().map(|name| (name.as_str(), "")))
}

#[test]
fn tls_variables_follow_dockers_rules() {
    let machine = folder("/c");
    let env = |path: &str, tls: &str, verify: &str| EndpointEnv {
        docker_cert_path: some(path),
        docker_tls: some(tls),
        docker_tls_verify: some(verify),
        ..host("tcp://h")
    };
    let cases = [
        (env("", "", ""), None),
        (env("/c", "", ""), Some((false, false, true))),
        (env("/c", "", "1"), Some((true, true, true))),
        (env("/c", "", "0"), Some((true, true, true))),
        (env("/c", "", " "), Some((true, true, true))),
        (env("/c", "1", ""), Some((false, false, true))),
        (env("", "1", ""), Some((false, false, false))),
    ];
    for (env, expected) in cases {
        assert_eq!(tls(&machine, &env).unwrap(), expected, "{env:?}");
    }
    let home = folder("/home/u/.docker");
    assert_eq!(tls(&home, &env("", "", "1")).unwrap(), Some((true, true, true)));
    assert_eq!(tls(&home, &env("", "1", "")).unwrap(), Some((false, false, true)));
    let socket = EndpointEnv { docker_host: some("unix:///s"), ..env("/none", "1", "1") };
    assert_eq!(tls(&machine, &socket).unwrap(), None, "a socket needs no TLS");
    assert_eq!(tls(&machine, &host("https://h:1")).unwrap(), Some((true, false, false)));
}

#[test]
fn the_default_port_follows_tls() {
    let machine = Machine::default();
    assert_eq!(machine.found(&host("tcp://h")).0, "tcp://h:2375");
    assert_eq!(machine.found(&host("https://h")).0, "https://h:2376");
    let env = EndpointEnv { docker_tls: some("1"), ..host("tcp://h") };
    assert_eq!(machine.found(&env).0, "https://h:2376");
    let context = Machine::default().context(
        "/home/u/.docker",
        "x",
        r#"{"Endpoints":{"docker":{"Host":"tcp://h","SkipTLSVerify":true}}}"#,
    );
    assert_eq!(context.found(&named("x")).0, "https://h:2376");
}

#[test]
fn a_context_uses_only_its_own_certificates() {
    let dir = context::tls_dir(Path::new("/home/u/.docker"), "x");
    let plain = Machine::default().context("/home/u/.docker", "x", &meta("tcp://h:1"));
    let env = EndpointEnv { docker_cert_path: some("/none"), docker_tls_verify: some("1"), ..named("x") };
    assert_eq!(tls(&plain, &env).unwrap(), None, "the variables apply to DOCKER_HOST only");
    let mut machine = Machine::default().context("/home/u/.docker", "x", &meta("tcp://h:1"));
    machine.files.insert(dir.join("ca.pem"), Some(Vec::new()));
    assert_eq!(tls(&machine, &env).unwrap(), Some((true, true, false)));
    assert!(machine.discover(&env).unwrap().tls.unwrap().only_ca);
    machine.files.insert(dir.join("cert.pem"), Some(Vec::new()));
    let error = tls(&machine, &env).unwrap_err().to_string();
    assert!(error.contains(&dir.join("key.pem").display().to_string()), "{error}");
}

#[test]
fn a_missing_tls_file_is_named() {
    let env = |verify: &str| EndpointEnv {
        docker_cert_path: some("/c"),
        docker_tls_verify: some(verify),
        ..host("tcp://h:1")
    };
    let cases = [("ca.pem", "1"), ("key.pem", "1"), ("cert.pem", "1"), ("key.pem", ""), ("cert.pem", "")];
    for (missing, verify) in cases {
        let mut machine = folder("/c");
        machine.files.remove(Path::new(&format!("/c/{missing}")));
        let error = tls(&machine, &env(verify)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("/c/{missing} is missing")), "{error}");
    }
    assert!(tls(&Machine::default(), &env("")).unwrap_err().to_string().contains("/c/cert.pem is missing"));
    let mut machine = folder("/c");
    machine.files.insert("/c/key.pem".into(), None);
    let error = tls(&machine, &env("1")).unwrap_err().to_string();
    assert!(error.contains("/c/key.pem") && error.contains("permission denied"), "{error}");
}

#[test]
fn an_invalid_pinned_version_is_an_error() {
    let pin = |text: &str| {
        let env = EndpointEnv { docker_api_version: some(text), ..user() };
        Machine::default().discover(&env).map(|found| found.api_version)
    };
    let version = Some(ApiVersion { major: 1, minor: 43 });
    assert_eq!(pin("1.43").unwrap(), version);
    assert_eq!(pin(" v1.43 ").unwrap(), version);
    assert_eq!(pin("  ").unwrap(), None);
    for bad in ["latest", "1", "1.x", "1.43.0", "vv1.43"] {
        let error = pin(bad).unwrap_err().to_string();
        assert!(error.contains("DOCKER_API_VERSION") && error.contains(bad), "{error}");
    }
}
