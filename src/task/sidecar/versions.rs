//! Which volumes of older versions of a sidecar image to remove.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::docker::{Reference, Volume};
use crate::task::labels::{self, IMAGE_LABEL};

/// Prefix of a shared volume.
pub(super) const PREFIX: &str = "oz-sidecar-";

/// Returns the shared volumes of all versions of `image` except the `keep` newest, oldest first. `newest` is the volume that was
/// just populated, and counts as one of them.
pub(super) fn superseded(volumes: Vec<Volume>, newest: &str, image: &str, keep: usize) -> Vec<String> {
    let Some(image) = repository_and_tag(image) else { return Vec::new() };
    let is_older = |volume: &Volume| {
        let of_a_task = labels::execution_of(&volume.labels).is_some();
        let label = labels::get(&volume.labels, IMAGE_LABEL);
        let same = label.is_some_and(|label| repository_and_tag(label).as_ref() == Some(&image));
        volume.name.starts_with(PREFIX) && volume.name != newest && !of_a_task && same
    };
    let mut older: Vec<(Option<_>, String)> = volumes
        .into_iter()
        .filter(is_older)
        // Parsed, because each engine writes the time in its own time zone.
        .map(|volume| (OffsetDateTime::parse(&volume.created_at, &Rfc3339).ok(), volume.name))
        .collect();
    older.sort();
    let surplus = (older.len() + 1).saturating_sub(keep);
    older.into_iter().take(surplus).map(|(_, name)| name).collect()
}

/// Returns the image's repository and tag, which all its versions share.
fn repository_and_tag(image: &str) -> Option<(String, Option<String>)> {
    let image = Reference::parse(image).ok()?;
    Some((image.repository(), image.tag().map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::task::labels::TASK_LABEL;

    fn volume(name: &str, image: &str, created_at: &str) -> Volume {
        let labels = BTreeMap::from([(IMAGE_LABEL.to_owned(), image.to_owned())]);
        Volume { name: name.into(), labels, created_at: created_at.into() }
    }

    #[test]
    fn the_oldest_versions_of_the_same_image_are_superseded() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let mut of_a_task = volume("oz-sidecar-t", "agent", "2020-01-01T00:00:00Z");
        of_a_task.labels.insert(TASK_LABEL.into(), "t".into());
        let volumes = vec![
            volume("oz-sidecar-c", "agent", "2020-01-01T03:00:00Z"),
            // The second oldest, in another time zone.
            volume("oz-sidecar-b", "docker.io/library/agent:latest", "2020-01-01T04:00:00+02:00"),
            volume("oz-sidecar-new", "agent:latest", "2020-01-01T05:00:00Z"),
            volume("oz-sidecar-a", &format!("agent:latest@{digest}"), "2020-01-01T01:00:00Z"),
            volume("oz-sidecar-other", "agent:v2", "2020-01-01T00:00:00Z"),
            volume("oz-sidecar-pinned", &format!("agent@{digest}"), "2020-01-01T00:00:00Z"),
            volume("somebody", "agent", "2020-01-01T00:00:00Z"),
            volume("oz-sidecar-unlabelled", "", "2020-01-01T00:00:00Z"),
            of_a_task,
        ];
        let removed = |keep| superseded(volumes.clone(), "oz-sidecar-new", "agent", keep);
        assert_eq!(removed(1), ["oz-sidecar-a", "oz-sidecar-b", "oz-sidecar-c"]);
        assert_eq!(removed(2), ["oz-sidecar-a", "oz-sidecar-b"]);
        assert_eq!(removed(4), Vec::<String>::new());
        assert_eq!(superseded(volumes.clone(), "x", "not a name", 1), Vec::<String>::new());
    }
}
