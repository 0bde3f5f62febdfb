//! The recipe of the manual for tasks whose only way out is a proxy, and for the metadata service of a cloud, on an engine with
//! a firewall. What the manual shows is what is used here.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::engine::Engine;
use crate::support::images::{RootFs, tool};
use crate::support::machine::Machine;
use crate::support::stage::{Stage, StageBuilder};

const MANUAL: &str = include_str!("../../src/cli/docs/manual/containers.md");

/// Each function asks one server and prints what it says: its name, or the status of an error; `-` without an answer. `blocked` is
/// `direct` for where none is expected. `ask` keeps its direction of the connection open until the end: when a client has closed
/// its own, tinyproxy drops what has not come from the server yet.
const FUNCTIONS: &str = r#"
page() { tr -d '\r' | grep -oE '^(HTTP/1.. [45]..|[a-z]+$)' | tail -n 1 | grep . || echo -; }
get() { printf 'GET / HTTP/1.0\r\n\r\n' | nc -w $3 $1 $2 2>/dev/null | page; }
direct() { get $1 $2 20; }
blocked() { get $1 $2 2; }
lookup() { timeout 1 nslookup $1 >/dev/null 2>&1; echo looked up; }
server() { echo ${1##*/} | tr : ' '; }
ask() { nc -w 20 $(server $1) -e sh -c 'printf "$0"; cat >&2' "$2" 2>&1 | page; }
proxied() { ask $http_proxy "GET http://$1/ HTTP/1.0\r\n\r\n"; }
tunnel() { ask $https_proxy "CONNECT $1 HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n"; }
all() { n=10; while read call; do n=$((n + 1)); $call >/tmp/$n </dev/null & done; wait; cat /tmp/[1-9]*; }
"#;

/// Returns the only block of the manual's section that contains this text.
fn block(text: &str) -> &'static str {
    let mut blocks = MANUAL.split("```\n").skip(1).step_by(2).filter(|block| block.contains(text));
    let block = blocks.next().unwrap_or_else(|| panic!("no block with {text}"));
    assert_eq!(blocks.next(), None, "two blocks with {text}");
    block
}

/// Returns the words of the only command in the manual that contains this text.
fn command(text: &str) -> Vec<&'static str> {
    block(text).split_whitespace().filter(|word| *word != "\\").collect()
}

/// Runs a task that makes these calls at the same time, and returns what they print.
fn calls(stage: &Stage, calls: &[String]) -> Vec<String> {
    let run = stage.run(&stage.spec(&format!("{FUNCTIONS} all <<E\n{}\nE", calls.join("\n"))));
    let output = run.output.as_deref().unwrap_or_else(|| panic!("{run:#?}"));
    output.lines().map(str::to_owned).collect()
}

/// Makes the network `name` as the manual does, with or without its option. Returns the address of its gateway.
fn make_network(engine: &Engine, name: &str, with_option: bool) -> String {
    let words = command("docker network create");
    assert_eq!(words[..5], ["docker", "network", "create", "--internal", "-o"]);
    let (option, value) = words[5].split_once('=').unwrap();
    let options = if with_option { json!({option: value}) } else { json!({}) };
    let spec = json!({"Name": name, "Internal": true, "Options": options});
    engine.json("POST", "/networks/create", &spec);
    let network = engine.json("GET", &format!("/networks/{name}"), &Value::Null);
    let gateway = network["IPAM"]["Config"][0]["Gateway"].as_str().unwrap();
    gateway.split('/').next().unwrap().to_owned()
}

/// Starts the proxy with the files of the manual, and connects it to the network `tasks`.
fn start_proxy(stage: &mut Stage, folder: &Path) {
    std::fs::write(folder.join("tinyproxy.conf"), block("Port 8888")).unwrap();
    std::fs::write(folder.join("allowed"), block("example\\.org")).unwrap();
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Its libraries are those of this machine.
    let root = RootFs::busybox().link("lib", "usr/lib").link("lib64", "usr/lib64").folder("run", 0o755);
    let image = stage.images.make("proxy", root, &[]);
    let words = command("docker network create");
    let program = words.iter().position(|word| *word == "IMAGE").unwrap() + 1;
    let spec = json!({
        "Image": image,
        "Cmd": words[program..program + 2],
        "Env": ["PATH=/bin"],
        "HostConfig": {
            "Binds": [
                "/usr:/usr:ro",
                format!("{}:/bin/tinyproxy:ro", tool("tinyproxy").display()),
                format!("{}:/etc/tinyproxy:ro", folder.display()),
            ],
            "ExtraHosts": ["site.example.org:198.51.100.10", "odd.example.org:169.254.169.254", "site.example.com:198.51.100.10"],
        },
    });
    stage.engine.json("POST", "/containers/create?name=proxy", &spec);
    stage.engine.json("POST", "/networks/tasks/connect", &json!({"Container": "proxy"}));
    stage.engine.json("POST", "/containers/proxy/start", &Value::Null);
    stage.wait("the proxy listens", || log_of_proxy(&stage.engine).contains("Accepting connections"));
}

fn log_of_proxy(engine: &Engine) -> String {
    let answer = engine.request("GET", "/containers/proxy/logs?stdout=1&stderr=1", &[], &[]);
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[test]
fn tasks_reach_only_what_the_proxy_of_the_manual_allows() {
    let machine = Machine::start();
    let mut stage = StageBuilder::new("egress").engine(machine.engine()).build();
    let [site, metadata, host] = ["198.51.100.10 80", "169.254.169.254 80", "198.51.100.1 8000"];
    let [direct, blocked] = ["direct", "blocked"].map(|how| move |server: &str| format!("{how} {server}"));

    let worker = stage.start(stage.worker());
    let all = [direct(site), direct(metadata), direct(host)];
    assert_eq!(calls(&stage, &all), ["site", "metadata", "host"], "by default");
    machine.run(&command("iptables -I DOCKER-USER"));
    let all = [direct(site), blocked(metadata), direct(host)];
    assert_eq!(calls(&stage, &all), ["site", "-", "host"], "with the rule of the firewall");
    stage.stop(worker);

    let gateway = make_network(&stage.engine, "plain", false);
    let worker = stage.start(stage.worker().args(["--network", "plain"]));
    let all = [
        direct(&format!("{gateway} 8000")),
        blocked(site),
        blocked(metadata),
        blocked(host),
        "lookup name-1".to_owned(),
    ];
    let found = calls(&stage, &all);
    assert_eq!(found[..3], ["host", "-", "-"], "on an internal network");
    // Docker 20.10 gives even these containers a default route, so that they reach the host at its other addresses.
    assert!(["-", "host"].contains(&found[3].as_str()), "{found:?}");
    let version = stage.engine.json("GET", "/version", &Value::Null)["Version"].as_str().unwrap().to_owned();
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    assert_eq!(machine.lookups().contains("name-1"), major < 26, "Docker {version}");
    stage.stop(worker);

    let gateway = make_network(&stage.engine, "tasks", true);
    let files = tempfile::tempdir_in("/tmp").unwrap();
    start_proxy(&mut stage, files.path());
    let words = command("oz-agent-worker --network");
    let worker = stage.start(stage.worker().args(words[1..].iter().copied()));
    let all = [
        blocked(site),
        blocked(metadata),
        blocked(host),
        blocked(&format!("{gateway} 8000")),
        "lookup name-2".to_owned(),
        "proxied site.example.org".to_owned(),
        "tunnel site.example.org:443".to_owned(),
        "tunnel site.example.org:80".to_owned(),
        "proxied site.example.com".to_owned(),
        "proxied 198.51.100.10".to_owned(),
        "proxied 169.254.169.254".to_owned(),
        "tunnel 169.254.169.254:443".to_owned(),
        "proxied odd.example.org".to_owned(),
    ];
    let found = calls(&stage, &all);
    assert_eq!(found[..4], ["-", "-", "-", "-"], "direct");
    assert_eq!(found[5..8], ["site", "site", "HTTP/1.1 403"], "allowed");
    let refused = ["HTTP/1.0 403", "HTTP/1.0 403", "HTTP/1.0 403", "HTTP/1.1 403", "HTTP/1.0 500"];
    assert_eq!(found[8..], refused, "not allowed");
    assert!(!machine.lookups().contains("name-2"), "{}", machine.lookups());
    stage.stop(worker);
    stage.engine.remove_container("proxy");
}
