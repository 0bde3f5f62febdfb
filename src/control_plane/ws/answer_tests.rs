use super::*;

fn key() -> Secret {
    Secret::new("oz-key/Abc123456789")
}

fn of(response: &str) -> Details {
    details(response.as_bytes(), &key(), Extent::LOG, OffsetDateTime::UNIX_EPOCH + Duration::from_secs(60))
}

fn body_of(body: &str) -> String {
    of(&format!("HTTP/1.1 404 Not Found\r\n\r\n{body}")).body
}

#[test]
fn a_status_is_read_once_its_third_digit_is_there() {
    let answer = b"HTTP/1.1 401 Unauthorized\r\n\r\n";
    for cut in 0..=answer.len() {
        let expected = (cut >= "HTTP/1.1 401".len()).then_some(401);
        assert_eq!(status(&answer[..cut]), expected, "{cut}");
    }
}

#[test]
fn other_bytes_have_no_status() {
    for head in
        ["", "HTTP/2 200", "SSH-2.0-x", "HTTP/1.1 4x1 ", "HTTP/1.1 4010", "HTTP/1.1 099 ", "HTTP/1.1  40"]
    {
        assert_eq!(status(head.as_bytes()), None, "{head}");
    }
    assert_eq!(status(b"HTTP/1.0 502\r\n"), Some(502));
}

#[test]
fn statuses_are_refusals_or_transient() {
    let classify = |status| classify(status, Details::default());
    for status in [100, 101, 199, 408, 425, 429, 500, 502, 503, 504, 599, 600, 999] {
        assert!(matches!(classify(status), DialError::Transient(..)), "{status}");
    }
    for (status, expected) in [
        (200, Refusal::NotUpgraded { status: 200 }),
        (204, Refusal::NotUpgraded { status: 204 }),
        (301, Refusal::Redirected { status: 301 }),
        (308, Refusal::Redirected { status: 308 }),
        (400, Refusal::Refused { status: 400 }),
        (401, Refusal::Unauthorized),
        (403, Refusal::Forbidden),
        (404, Refusal::NotFound),
        (407, Refusal::ProxyLogin),
        (426, Refusal::Refused { status: 426 }),
        (499, Refusal::Refused { status: 499 }),
    ] {
        assert_eq!(classify(status), DialError::Refused(expected, Details::default()), "{status}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date_and_at_most_ten_minutes() {
    let date = "Date: Thu, 26 Nov 2026 12:00:00 GMT\r\n";
    let cases = [
        ("Retry-After: 0", Some(0)),
        ("retry-after:  120 ", Some(120)),
        ("Retry-After: 86400", Some(600)),
        ("Retry-After: 99999999999999999999999", Some(600)),
        // By the peer's clock: this machine's may be wrong.
        ("Retry-After: Thu, 26 Nov 2026 12:01:30 GMT", Some(90)),
        ("Retry-After: Thu, 26 Nov 2026 13:01:30 GMT", Some(600)),
        ("Retry-After: Thu, 26 Nov 2026 11:00:00 GMT", Some(0)),
        ("Retry-After: soon", None),
        ("Retry-After: -1", None),
        ("Retry-After:", None),
        ("X: 1", None),
    ];
    for (header, expected) in cases {
        let found = of(&format!("HTTP/1.1 503 Unavailable\r\n{date}{header}\r\n\r\n")).retry_after;
        assert_eq!(found, expected.map(Duration::from_secs), "{header}");
    }
    let without_date = of("HTTP/1.1 503 Unavailable\r\nRetry-After: Thu, 01 Jan 1970 00:01:30 GMT\r\n\r\n");
    assert_eq!(without_date.retry_after, Some(Duration::from_secs(30)), "by this machine's clock");
}

#[test]
fn at_most_two_hundred_characters_of_a_body_are_shown() {
    assert_eq!(body_of(" <h1>\r\n\tNot  here</h1>\n"), "<h1> Not here</h1>");
    assert_eq!(body_of(&"ü".repeat(200)), "ü".repeat(200));
    assert_eq!(body_of(&"ü".repeat(201)), "ü".repeat(200) + "…");
    assert_eq!(body_of("\u{1b}[1m"), "\u{1b}[1m", "the log escapes it");
    assert_eq!(crate::logging::value(&body_of("a\u{1b}b\0")).to_string(), "\"a\\u001bb\\u0000\"");
}

#[test]
fn an_echoed_key_is_replaced() {
    let key = key();
    let key = key.expose();
    assert_eq!(body_of(&format!("no {key}, {key}!")), "no «redacted», «redacted»!");
    assert_eq!(body_of("no oz-key%2FAbc123456789"), "no oz-key%2F«redacted»", "escaped");
    // The connection ended within the key, or the rest was not read.
    assert_eq!(body_of("no oz-key/Ab"), "no «redacted»");
    for at in [150, 195, 4090, 4096, 4110] {
        for filler in ["x", " "] {
            let body = body_of(&(filler.repeat(at) + key + &"y".repeat(5000)));
            assert!(!body.contains("Abc1") && !body.contains("oz-k"), "{at} {body}");
        }
    }
}

#[test]
fn a_body_ends_where_its_head_says() {
    let cases = [
        ("Content-Length: 5", "hello and more", "hello", true),
        ("Content-Length: 5", "hel", "hel", false),
        ("Content-Length: 0", "", "", true),
        ("Content-Length: x", "hello", "hello", false),
        ("X: y", "hello", "hello", false),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n4;x=y\r\n you\r\n0\r\n\r\n", "hello you", true),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n3\r\n y", "hello y", false),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "hello", false),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\nzz\r\n", "hello", true),
        ("Transfer-Encoding: chunked", "ffffffffffffffff\r\nhello", "hello", false),
        ("Content-Encoding: gzip", "\u{1f}", "", true),
    ];
    for (header, body, expected, complete) in cases {
        let response = format!("HTTP/1.1 404 Not Found\r\n{header}\r\n\r\n{body}");
        assert_eq!(of(&response).body, expected, "{response}");
        assert_eq!(is_enough(response.as_bytes(), &key(), Extent::LOG), complete, "{response}");
    }
    assert!(is_enough(b"HTTP/1.1 304 Not Modified\r\n\r\n", &key(), Extent::LOG), "it has no body");
    assert!(is_enough(b"HTTP/1.1 404 Not", &key(), Extent::LOG), "the head will not be complete");
    let long = format!("HTTP/1.1 404 Not Found\r\n\r\n{}", "x".repeat(5000));
    assert!(is_enough(long.as_bytes(), &key(), Extent::LOG));
}

#[test]
fn an_operator_sees_the_whole_body_and_the_header_about_the_error_without_the_key() {
    let body = "y".repeat(8000);
    let length = body.len();
    let response = format!(
        "HTTP/1.1 401 No\r\nX-Oz-Error: bad {}\r\nContent-Length: {length}\r\n\r\n{body}",
        key().expose()
    );
    let shown = details(response.as_bytes(), &key(), Extent::ALL, OffsetDateTime::UNIX_EPOCH);
    assert_eq!((shown.body.len(), shown.error.as_str()), (8000, "X-Oz-Error: bad «redacted»"));
    let log = details(response.as_bytes(), &key(), Extent::LOG, OffsetDateTime::UNIX_EPOCH);
    assert_eq!(log.body.chars().count(), 201);
}
