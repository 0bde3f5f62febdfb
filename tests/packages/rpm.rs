//! The rpm in a root file system of its own: what it installs, keeps and leaves.

use std::process::Command;

use crate::made::{OURS, VERSION, rpm};
use crate::root::{Root, run};
use crate::source;

const SETTINGS: &str = "/etc/oz-agent-worker/worker.env";

fn rpm_in(root: &Root, arguments: &[&str]) -> String {
    run(Command::new("rpm").arg("--root").arg(root.folder()).args(arguments))
}

/// Its scripts run inside. What they need is there, but in dpkg's books and not in rpm's.
fn install(root: &Root, how: &str, release: u8) -> String {
    rpm_in(root, &["--nodeps", how, rpm(release).to_str().unwrap()])
}

#[test]
fn everything_is_in_its_place_and_nothing_is_started_without_settings() {
    let root = Root::debian();
    let told = install(&root, "-i", 1);
    assert!(
        told.contains("not started") && told.contains("systemctl enable --now oz-agent-worker"),
        "{told}"
    );
    let expected = "\
640 root:oz-agent-worker /etc/oz-agent-worker/worker.env
644 root:root /usr/lib/systemd/system/oz-agent-worker.service
644 root:root /usr/lib/systemd/system/oz-agent-worker@.service
644 root:root /usr/lib/sysusers.d/oz-agent-worker.conf
644 root:root /usr/share/bash-completion/completions/oz-agent-worker
644 root:root /usr/share/doc/oz-agent-worker/CHANGELOG.md
644 root:root /usr/share/doc/oz-agent-worker/README.md
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
755 root:root /usr/share/licenses/oz-agent-worker
";
    let mut expected: Vec<_> = expected.lines().collect();
    expected.sort_unstable();
    assert_eq!(root.sh(OURS).lines().collect::<Vec<_>>(), expected);
    assert_eq!(root.sh("oz-agent-worker --version"), format!("oz-agent-worker {VERSION}\n"));
    let user = root.sh("id -Gn oz-agent-worker; getent passwd oz-agent-worker | cut -d: -f6,7");
    assert_eq!(user, "oz-agent-worker docker\n/var/lib/oz-agent-worker:/sbin/nologin\n");
    assert_eq!(root.sh("find /etc/systemd/system -name '*oz-agent*'"), "", "it is not enabled");
    assert_eq!(rpm_in(&root, &["-V", "--nodeps", "oz-agent-worker"]), "");
}

#[test]
fn an_upgrade_keeps_the_settings_and_a_removal_saves_them() {
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
    assert_eq!(root.sh(links), "2\n", "an upgrade disables nothing");
    // A configuration file (c) that is not replaced (n), were the new package's another one.
    let flags = rpm_in(&root, &["-q", "--qf", "[%{FILEFLAGS:fflags} %{FILENAMES}\\n]", "oz-agent-worker"]);
    assert!(flags.lines().any(|line| line == format!("cn {SETTINGS}")), "{flags}");
    rpm_in(&root, &["-e", "oz-agent-worker"]);
    assert_eq!(root.read(&format!("{SETTINGS}.rpmsave")), edited);
    assert_eq!(root.sh(links), "0\n", "no link leads nowhere");
    let left = root.sh(&format!("{OURS} | cut -d' ' -f3 | sort"));
    assert_eq!(left, format!("/etc/oz-agent-worker\n{SETTINGS}.rpmsave\n/var/lib/oz-agent-worker\n"));
}

#[test]
fn it_needs_nothing_but_a_shell_for_its_scripts() {
    let needs = run(Command::new("rpm").args(["-qp", "--requires"]).arg(rpm(1)));
    let mut needs: Vec<_> = needs.lines().filter(|line| !line.starts_with("rpmlib(")).collect();
    needs.dedup();
    assert_eq!(needs, ["/bin/sh"]);
    // Known to rpm 4.11, which is that of ten years ago; anything newer it would refuse.
    let features = run(Command::new("rpm").args(["-qp", "--requires"]).arg(rpm(1)));
    let mut features: Vec<_> = features.lines().filter_map(|line| line.strip_prefix("rpmlib(")).collect();
    features.sort_unstable();
    let known =
        ["CompressedFileNames) <= 3.0.4-1", "FileDigests) <= 4.6.0-1", "PayloadFilesHavePrefix) <= 4.0-1"];
    assert_eq!(features, known);
}

#[test]
fn rpmlint_has_nothing_to_say() {
    let mut command = Command::new("rpmlint");
    let told = run(command.arg("-c").arg(source("packaging/rpm/rpmlint.toml")).arg(rpm(1)));
    assert!(told.contains("1 packages") && told.contains(" 0 errors, 0 warnings"), "{told}");
}
