//! What operators of the public control plane's worker set: its variable, URLs, ids and flags.

use std::path::Path;

use super::config_tests::{MARK, load, load_from, message};

#[test]
fn one_url_of_the_public_control_plane_brings_the_other() {
    let (link, root) = ("wss://oz.warp.dev/api/v1/selfhosted/worker/ws", "https://app.warp.dev");
    let cases: [(&[&str], &str, &str); 6] = [
        (&["--web-socket-url=wss://oz.warp.dev/api/v1/selfhosted/worker/ws"], link, root),
        (&["--web-socket-url=wss://OZ.warp.dev./x"], "wss://OZ.warp.dev./x", root),
        (&["--server-root-url=https://app.warp.dev/"], link, root),
        (&["--server-root-url=https://oz.warp.dev"], link, "https://oz.warp.dev"),
        (
            &["--web-socket-url=wss://oz.warp.dev/x", "--server-root-url=http://h"],
            "wss://oz.warp.dev/x",
            "http://h",
        ),
        (
            &["--server-root-url=https://app.warp.dev.example"],
            "wss://app.warp.dev.example/api/v1/selfhosted/worker/ws",
            "https://app.warp.dev.example",
        ),
    ];
    for (line, link, root) in cases {
        let config = load(line, &[]).unwrap();
        let found = (config.web_socket_url.to_string(), config.server_root_url.clone(), config.rest_url);
        assert_eq!(found, (link.to_owned(), root.to_owned(), root.to_owned()), "{line:?}");
    }
    let config = load(&[], &[("OZ_SERVER_ROOT_URL", "https://app.warp.dev")]).unwrap();
    assert_eq!(config.web_socket_url.to_string(), link);
}

#[test]
fn the_key_of_other_programs_is_the_last_choice() {
    let key = |line: &[&str], own: &str| {
        let variables = [("OZ_API_KEY", own), ("WARP_API_KEY", " warp "), ("OZ_WORKER_ID", "w")];
        let config = load_from(line, &variables, &|_| Ok("file".to_owned())).unwrap();
        assert!(config.warnings.iter().all(|warning| !warning.contains("WARP")), "{:?}", config.warnings);
        config.api_key.expose().to_owned()
    };
    assert_eq!(key(&[], ""), "warp");
    assert_eq!(key(&[], "own"), "own");
    assert_eq!(key(&["--api-key=flag"], ""), "flag");
    assert_eq!(key(&["--api-key-file=/k"], ""), "file");
    let bad = |value| message(load(&[], &[("OZ_API_KEY", ""), ("WARP_API_KEY", value)]));
    assert_eq!(bad("hunter2\u{7f}"), "invalid WARP_API_KEY: must be ASCII without control characters");
    assert_eq!(bad(""), "missing API key: set OZ_API_KEY or OZ_API_KEY_FILE");
}

#[test]
fn a_reserved_worker_id_is_refused_also_as_the_host_s_name() {
    let reason = "must not begin with warp: the public Oz control plane reserves such names";
    assert_eq!(
        message(load(&["--worker-id", " warp-1"], &[])),
        format!("invalid --worker-id \" warp-1\": {reason}")
    );
    for id in ["Warp-1", "a-warp", "war"] {
        assert_eq!(load(&["--worker-id", id], &[]).unwrap().worker_id, id);
    }
    let named = |_: &Path| Ok("warpbox\n".to_owned());
    let text = message(load_from(&[], &[("OZ_API_KEY", MARK)], &named));
    assert_eq!(text, format!("invalid --worker-id (the host's name) \"warpbox\": {reason}"));
    let text = message(load_from(&["--worker-id={hostname}"], &[("OZ_API_KEY", MARK)], &named));
    assert_eq!(text, format!("invalid --worker-id \"warpbox\": {reason}"));
}

#[test]
fn no_limit_of_tasks_is_the_largest_one() {
    for line in [["--max-concurrent-tasks", "0"], ["--max-concurrent-tasks", "1024"]] {
        assert_eq!(load(&line, &[]).unwrap().max_concurrent_tasks, 1024);
    }
}

#[test]
fn docker_is_the_only_back_end() {
    for word in ["docker", "Docker"] {
        assert_eq!(load(&["--backend", word], &[]).unwrap(), load(&[], &[]).unwrap());
    }
    for other in ["direct", "kubernetes", "command"] {
        let text = message(load(&[], &[("OZ_BACKEND", other)]));
        let reason = "must be docker: this worker runs tasks only in containers of a Docker engine";
        assert_eq!(text, format!("invalid OZ_BACKEND \"{other}\": {reason}"));
    }
    assert_eq!(
        message(load(&["--backend=podman"], &[])),
        "invalid --backend \"podman\": must be one of docker"
    );
}

#[test]
fn what_the_agent_gets_is_checked() {
    for time in ["0s", "45m", "1h30m", "365d"] {
        assert_eq!(load(&["--idle-on-complete", time], &[]).unwrap().idle_on_complete.as_deref(), Some(time));
    }
    for time in ["45", "366d", "1.5h", "m", "soon"] {
        let right = "must be a duration with units such as 45m or 1h30m, from 0s to 365d";
        let text = message(load(&["--idle-on-complete", time], &[]));
        assert_eq!(text, format!("invalid --idle-on-complete \"{time}\": {right}"));
    }
    let text = message(load(&["--session-sharing-server-url", "http://u:hunter2@h"], &[]));
    assert!(text.contains(": must look like ws://"), "{text}");
}

#[test]
fn an_image_s_error_says_what_is_wrong_with_its_name() {
    let text = message(load(&["--sidecar-image", "Agent"], &[]));
    let form = "must be the name of an image, such as registry.example.com/agent:1; ";
    assert!(
        text.starts_with(&format!("invalid --sidecar-image \"Agent\": {form}")) && text.len() > 100,
        "{text}"
    );
}
