//! The URLs of the control plane.

use super::config_tests::{load, message};

#[test]
fn one_url_is_derived_from_the_other() {
    let cases: [(&[&str], &str, &str); 5] = [
        (&["--web-socket-url=wss://h:1/x?y=z"], "wss://h:1/x?y=z", "https://h:1"),
        (
            &["--server-root-url=http://[::1]:9/"],
            "ws://[::1]:9/api/v1/selfhosted/worker/ws",
            "http://[::1]:9",
        ),
        (&["--server-root-url=https://h/p//"], "wss://h/p/api/v1/selfhosted/worker/ws", "https://h/p"),
        (&["--server-root-url=HTTPS://h"], "wss://h/api/v1/selfhosted/worker/ws", "https://h"),
        (&["--web-socket-url=ws://a/x", "--server-root-url=https://b"], "ws://a/x", "https://b"),
    ];
    for (line, link, root) in cases {
        let config = load(line, &[]).unwrap();
        assert_eq!(
            (config.web_socket_url.to_string().as_str(), config.server_root_url.as_str()),
            (link, root)
        );
    }
    let mixed = load(&["--server-root-url=https://b"], &[("OZ_WS_URL", "ws://a/x")]).unwrap();
    assert_eq!(mixed.web_socket_url.to_string(), "ws://a/x");
}

#[test]
fn errors_do_not_show_the_password_of_a_url() {
    for url in ["ws://u:hunter2@h/", "ws://hunter2@h/", "hunter2@h", "ws://h/#hunter2", "http://h/?t=hunter2"]
    {
        let text = message(load(&["--web-socket-url", url], &[]));
        assert!(text.starts_with("invalid --web-socket-url \""), "{text}");
    }
}

#[test]
fn the_link_url_contains_the_worker_id() {
    let config = load(&["--web-socket-url=wss://h/x?a=b", "--worker-id=a b/ü"], &[]).unwrap();
    assert_eq!(config.link_url(), "wss://h/x?a=b&worker_id=a%20b%2F%C3%BC");
}

#[test]
fn an_unencrypted_connection_to_another_host_is_a_warning() {
    let warning = |url: &str| load(&["--web-socket-url", url], &[]).unwrap().plain_text_warning();
    assert!(warning("ws://h.example:1/x").unwrap().contains("h.example"));
    for url in ["wss://h.example/x", "ws://localhost/x", "ws://127.0.0.2:1/x", "ws://[::1]/x"] {
        assert_eq!(warning(url), None, "{url}");
    }
}
