//! The README: its size, its links, and the failure reasons.

use oz_agent_worker::protocol::FailureReason;

use crate::tidy::{read, root, spans};

#[test]
fn the_readme_is_short() {
    let text = read("README.md");
    assert!(text.lines().count() <= 150, "{} lines", text.lines().count());
    let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 100).collect();
    assert_eq!(wide, Vec::<&str>::new());
}

#[test]
fn every_link_leads_to_a_file() {
    for page in ["README.md", "packaging/README.md", "tests/README.md"] {
        let text = read(page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let folder = root().join(page).parent().unwrap().to_owned();
        let dead: Vec<_> =
            links.filter(|link| !link.starts_with('#') && !folder.join(link).is_file()).collect();
        assert_eq!(dead, Vec::<&str>::new(), "{page}");
    }
}

#[test]
fn the_readme_has_every_section_of_the_manual_and_every_failure_reason() {
    let text = read("README.md");
    for entry in std::fs::read_dir(root().join("src/cli/docs/manual")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name == "mod.rs" || text.contains(&format!("](src/cli/docs/manual/{name})")), "{name}");
    }
    let reasons = [
        FailureReason::InvalidAssignment,
        FailureReason::ImagePull,
        FailureReason::SidecarPrep,
        FailureReason::ContainerCreate,
        FailureReason::ContainerStart,
        FailureReason::ContainerWait,
        FailureReason::ContainerOom,
        FailureReason::TaskTimeout,
        FailureReason::TaskCancelled,
        FailureReason::GracefulShutdown,
        FailureReason::DockerUnreachable,
        FailureReason::Internal,
    ];
    let (_, table) = text.split_once("`failure_reason`").unwrap();
    let rows =
        table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let named: Vec<_> = rows.filter_map(|row| spans(row).first().copied()).collect();
    assert_eq!(named, reasons.map(FailureReason::name));
}
