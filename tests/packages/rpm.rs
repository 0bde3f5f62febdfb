//! The rpm, in a separate root file system: installation, upgrade and removal.

use std::process::Command;

use crate::artifacts::{INSTALLED, VERSION, rpm};
use crate::root::{Root, run};
use crate::source;

const SETTINGS: &str = "/etc/oz-agent-worker/worker.env";

fn rpm_in(root: &Root, arguments: &[&str]) -> String {
    run(Command::new("rpm").arg("--root").arg(root.folder()).args(arguments))
}

/// Without dependency checks, since the programs that the scripts need are not in rpm's database but in dpkg's.
fn install(root: &Root, how: &str, release: u8) -> String {
    rpm_in(root, &["--nodeps", how, rpm(release).to_str().unwrap()])
}

#[test]
fn an_installation_has_the_expected_files_and_starts_nothing_without_settings() {
    let root = Root::debian();
    let output = install(&root, "-i", 1);
    assert!(
        output.contains("not started") && output.contains("systemctl enable --now oz-agent-worker"),
        "{output}"
    );
    let expected = "\
640 root:oz-agent-worker /etc/oz-agent-worker/worker.env
644 root:root /usr/lib/systemd/system/oz-agent-worker.service
644 root:root /usr/lib/systemd/system/oz-agent-worker@.service
644 root:root /usr/lib/sysusers.d/oz-agent-worker.conf
644 root:root /usr/share/bash-completion/completions/oz-agent-worker
644 root:root /usr/share/doc/oz-agent-worker/CHANGELOG.md
644 root:root /usr/share/doc/oz-agent-worker/README.md
644 root:root /usr/share/doc/oz-agent-worker/monitoring/alerts.yml
644 root:root /usr/share/doc/oz-agent-worker/monitoring/dashboard.json
644 root:root /usr/share/doc/oz-agent-worker/worker.env
644 root:root /usr/share/fish/vendor_completions.d/oz-agent-worker.fish
644 root:root /usr/share/licenses/oz-agent-worker/LICENSE
644 root:root /usr/share/licenses/oz-agent-worker/THIRD-PARTY.txt
644 root:root /usr/share/man/man1/oz-agent-worker.1.gz
644 root:root /usr/share/zsh/site-functions/_oz-agent-worker
700 oz-agent-worker:oz-agent-worker /var/lib/oz-agent-worker
750 root:oz-agent-worker /etc/oz-agent-worker
755 root:root /usr/bin/oz-agent-worker
755 root:root /usr/share/doc/oz-agent-worker
755 root:root /usr/share/doc/oz-agent-worker/monitoring
755 root:root /usr/share/licenses/oz-agent-worker
";
    let mut expected: Vec<_> = expected.lines().collect();
    expected.sort_unstable();
    assert_eq!(root.sh(INSTALLED).lines().collect::<Vec<_>>(), expected);
    assert_eq!(root.sh("oz-agent-worker --version"), format!("oz-agent-worker {VERSION}\n"));
    let user = root.sh("id -Gn oz-agent-worker; getent passwd oz-agent-worker | cut -d: -f6,7");
    assert_eq!(user, "oz-agent-worker docker\n/var/lib/oz-agent-worker:/sbin/nologin\n");
    assert_eq!(root.sh("find /etc/systemd/system -name '*oz-agent*'"), "", "the unit is enabled");
    assert_eq!(rpm_in(&root, &["-V", "--nodeps", "oz-agent-worker"]), "");
}

#[test]
fn an_upgrade_keeps_the_settings_and_a_removal_renames_them() {
    let root = Root::debian();
    install(&root, "-i", 1);
    let edited = root.read(SETTINGS) + "OZ_API_KEY=k\n";
    std::fs::write(root.path(SETTINGS), &edited).unwrap();
    root.sh("systemctl enable oz-agent-worker.service oz-agent-worker@second.service");
    install(&root, "-U", 2);
    assert!(rpm_in(&root, &["-q", "oz-agent-worker"]).contains(&format!("{VERSION}-2")));
    assert_eq!(root.read(SETTINGS), edited);
    assert!(root.path("/usr/bin/oz-agent-worker").exists());
    let links = "find /etc/systemd/system -name '*oz-agent*' | wc -l";
    assert_eq!(root.sh(links), "2\n", "the upgrade disabled a unit");
    // A configuration file (c) that an upgrade does not replace (n).
    let flags = rpm_in(&root, &["-q", "--qf", "[%{FILEFLAGS:fflags} %{FILENAMES}\\n]", "oz-agent-worker"]);
    assert!(flags.lines().any(|line| line == format!("cn {SETTINGS}")), "{flags}");
    rpm_in(&root, &["-e", "oz-agent-worker"]);
    assert_eq!(root.read(&format!("{SETTINGS}.rpmsave")), edited);
    assert_eq!(root.sh(links), "0\n", "a removed unit is still enabled");
    let left = root.sh(&format!("{INSTALLED} | cut -d' ' -f3 | sort"));
    assert_eq!(left, format!("/etc/oz-agent-worker\n{SETTINGS}.rpmsave\n/var/lib/oz-agent-worker\n"));
}

#[test]
fn it_depends_only_on_a_shell() {
    let needs = run(Command::new("rpm").args(["-qp", "--requires"]).arg(rpm(1)));
    let mut needs: Vec<_> = needs.lines().filter(|line| !line.starts_with("rpmlib(")).collect();
    needs.dedup();
    assert_eq!(needs, ["/bin/sh"]);
    // The features that rpm 4.11 (CentOS 7) knows; it refuses packages with newer ones.
    let features = run(Command::new("rpm").args(["-qp", "--requires"]).arg(rpm(1)));
    let mut features: Vec<_> = features.lines().filter_map(|line| line.strip_prefix("rpmlib(")).collect();
    features.sort_unstable();
    let known =
        ["CompressedFileNames) <= 3.0.4-1", "FileDigests) <= 4.6.0-1", "PayloadFilesHavePrefix) <= 4.0-1"];
    assert_eq!(features, known);
}

#[test]
fn rpmlint_finds_nothing() {
    let mut command = Command::new("rpmlint");
    let output = run(command.arg("-c").arg(source("packaging/rpm/rpmlint.toml")).arg(rpm(1)));
    assert!(output.contains("1 packages") && output.contains(" 0 errors, 0 warnings"), "{output}");
}
