//! The search for secrets in any form.

use std::fs;

use data_encoding::{BASE64, BASE64URL};
use serde_json::{Value, json};

use crate::support::stage::Stage;
use crate::support::worker::Worker;
use crate::worker::settings::end;

/// Returns how a secret may be written: as it is, percent-encoded, and in base64 behind any number of other bytes.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), secret.bytes().map(|byte| format!("%{byte:02X}")).collect()];
    for (before, skip) in [("", 0), ("\0", 2), ("\0\0", 3)] {
        let bytes = [before.as_bytes(), secret.as_bytes()].concat();
        // The last characters depend on what follows.
        let end = bytes.len() * 8 / 6;
        forms.extend(
            [BASE64.encode(&bytes), BASE64URL.encode(&bytes)]
                .map(|text| text.get(skip..end).unwrap().to_owned()),
        );
    }
    forms
}

/// Everything that was found, by place.
#[derive(Default)]
pub(super) struct Places(pub(super) Vec<(String, String)>);

impl Places {
    pub(super) fn add(&mut self, place: &str, text: impl Into<String>) {
        self.0.push((place.to_owned(), text.into()));
    }

    pub(super) fn lines(&mut self, place: &str, lines: Vec<String>) {
        lines.into_iter().for_each(|line| self.add(place, line));
    }

    /// Adds all that a program writes until its end.
    pub(super) fn end(&mut self, place: &str, worker: Worker) {
        let (_, out, err) = end(worker);
        self.add(place, out + &err);
    }

    /// Returns the places and texts that have one of these secrets in any form.
    fn with(&self, secrets: &[&str]) -> Vec<&(String, String)> {
        let forms: Vec<_> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        self.0.iter().filter(|(_, text)| forms.iter().any(|form| text.contains(form))).collect()
    }

    /// Asserts that no place has a secret.
    #[track_caller]
    pub(super) fn assert_clean(&self, secrets: &[&str]) {
        assert_eq!(self.with(secrets), Vec::<&(String, String)>::new());
    }

    /// Asserts that the search finds a word in each of these places, and so would find a secret there.
    #[track_caller]
    pub(super) fn assert_searched(&self, word: &str, places: &[&str]) {
        let found = self.with(&[word]);
        let missing: Vec<_> =
            places.iter().filter(|place| !found.iter().any(|(name, _)| name == **place)).collect();
        assert!(missing.is_empty(), "{word} is not in {missing:?} of {:?}", self.0);
    }

    /// Adds everything that the engine tells about the objects of a worker. Of a container for a task only what is not the task's.
    pub(super) fn inspect(&mut self, stage: &Stage) {
        for container in stage.engine.containers_of(&stage.worker_id) {
            let id = container["Id"].as_str().unwrap();
            let all = stage.engine.json("GET", &format!("/containers/{id}/json"), &Value::Null);
            if all["Name"].as_str().unwrap().starts_with("/oz-task-") {
                self.add("task labels", format!("{} {}", all["Name"], all["Config"]["Labels"]));
            } else {
                self.add("helper inspect", all.to_string());
            }
        }
        for volume in stage.engine.volumes_of(&stage.worker_id) {
            let all = stage.engine.json("GET", &format!("/volumes/{volume}"), &Value::Null);
            self.add("volume inspect", all.to_string());
        }
    }
}

/// Returns the command line of a process.
pub(super) fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap()).into_owned()
}

#[test]
fn a_secret_is_found_in_every_form() {
    let secret = "MARKER-a?b>~c";
    let json = json!({"password": secret, "x": 1}).to_string();
    let mut places = Places::default();
    places.add("plain", format!("key {secret}"));
    places.add("url", format!("http://u:{}@h", crate::support::engine::encode(&secret.replace('-', "%2D"))));
    for before in 0..6 {
        places.add("base64", BASE64.encode(format!("{}{secret} after", "u".repeat(before)).as_bytes()));
        places.add("base64url", BASE64URL.encode(format!("{}{json}", "u".repeat(before)).as_bytes()));
    }
    places.add("other", "MARKER");
    let found = places.with(&[secret]);
    assert_eq!(found.iter().filter(|(place, _)| place.starts_with("base64")).count(), 12, "{found:?}");
    assert!(
        found.iter().any(|(place, _)| place == "plain") && !found.iter().any(|(place, _)| place == "other")
    );
}
