//! The deb in a small Debian that does not run systemd: what it installs, keeps and leaves.

use std::process::Command;

use crate::made::{OURS, VERSION, deb};
use crate::root::{Root, run};

const SETTINGS: &str = "/etc/oz-agent-worker/worker.env";

fn install(root: &Root, release: u8) -> String {
    let package = root.bring(&deb(release));
    root.sh(&format!("dpkg -i {package} 2>&1"))
}

#[test]
fn everything_is_in_its_place_and_nothing_is_started_without_settings() {
    let root = Root::debian();
    let told = install(&root, 1);
    let advice = format!(
        "not started, since {SETTINGS} has no key yet. Fill it in, then: systemctl enable --now oz-agent-worker"
    );
    assert!(told.contains(&advice), "{told}");
    let expected = "\
640 root:oz-agent-worker /etc/oz-agent-worker/worker.env
644 root:root /usr/lib/systemd/system/oz-agent-worker.service
644 root:root /usr/lib/systemd/system/oz-agent-worker@.service
644 root:root /usr/lib/sysusers.d/oz-agent-worker.conf
644 root:root /usr/share/bash-completion/completions/oz-agent-worker
644 root:root /usr/share/doc/oz-agent-worker/README.md.gz
644 root:root /usr/share/doc/oz-agent-worker/THIRD-PARTY.txt.gz
644 root:root /usr/share/doc/oz-agent-worker/changelog.Debian.gz
644 root:root /usr/share/doc/oz-agent-worker/changelog.gz
644 root:root /usr/share/doc/oz-agent-worker/copyright
644 root:root /usr/share/doc/oz-agent-worker/worker.env
644 root:root /usr/share/fish/vendor_completions.d/oz-agent-worker.fish
644 root:root /usr/share/lintian/overrides/oz-agent-worker
644 root:root /usr/share/man/man1/oz-agent-worker.1.gz
644 root:root /usr/share/zsh/vendor-completions/_oz-agent-worker
755 root:root /usr/bin/oz-agent-worker
700 oz-agent-worker:oz-agent-worker /var/lib/oz-agent-worker
750 root:oz-agent-worker /etc/oz-agent-worker
755 root:root /usr/share/doc/oz-agent-worker
755 root:root /var/lib/oz-agent-worker.package
";
    let notes = "644 root:root /var/lib/oz-agent-worker.package/made-group-docker
644 root:root /var/lib/oz-agent-worker.package/made-group
644 root:root /var/lib/oz-agent-worker.package/made-home
644 root:root /var/lib/oz-agent-worker.package/made-user
";
    let mut expected: Vec<_> = expected.lines().chain(notes.lines()).collect();
    expected.sort_unstable();
    assert_eq!(root.sh(OURS).lines().collect::<Vec<_>>(), expected);
    assert_eq!(root.sh("oz-agent-worker --version"), format!("oz-agent-worker {VERSION}\n"));
    let user = root.sh("id -Gn oz-agent-worker; getent passwd oz-agent-worker | cut -d: -f6,7");
    assert_eq!(user, "oz-agent-worker docker\n/var/lib/oz-agent-worker:/usr/sbin/nologin\n");
    root.sh("runuser -u oz-agent-worker -- cat /etc/oz-agent-worker/worker.env >/dev/null");
    let refused = root.command("setpriv --reuid 65534 --clear-groups cat /etc/oz-agent-worker/worker.env");
    assert!(!{ refused }.status().unwrap().success(), "others can read the settings");
    assert_eq!(root.sh("find /etc/systemd/system -name '*oz-agent*'"), "", "it is not enabled");
    root.sh("dpkg --verify oz-agent-worker; dpkg --audit");
}

/// A worker whose settings were there before the package is one that is to run.
#[test]
fn a_worker_with_settings_is_enabled() {
    let root = Root::debian();
    root.write(SETTINGS, "OZ_API_KEY_FILE=/etc/oz-agent-worker/api-key\nOZ_WORKER_ID=w\n");
    // Nobody is there to be asked which settings are to be kept.
    let told = install(&root, 1);
    assert!(!told.contains("not started"), "{told}");
    assert_eq!(root.sh("ls /etc/oz-agent-worker"), "worker.env\n");
    let enabled = "/etc/systemd/system/multi-user.target.wants/oz-agent-worker.service";
    assert!(root.path(enabled).is_symlink());
    assert!(root.read(SETTINGS).contains("OZ_WORKER_ID=w"));
    assert_eq!(root.sh(&format!("stat -c '%a %U:%G' {SETTINGS}")), "640 root:oz-agent-worker\n");
    // What was enabled is so again when the package comes back.
    root.sh("dpkg -r oz-agent-worker");
    assert!(!root.path(enabled).is_symlink());
    install(&root, 1);
    assert!(root.path(enabled).is_symlink());
}

#[test]
fn an_upgrade_keeps_the_settings_and_the_user() {
    let root = Root::debian();
    install(&root, 1);
    let edited = root.read(SETTINGS) + "OZ_WORKER_ID=mine\n";
    std::fs::write(root.path(SETTINGS), &edited).unwrap();
    root.sh(&format!("chmod 600 {SETTINGS}; chown root:root {SETTINGS}"));
    root.sh(&format!("dpkg-statoverride --add root root 0600 {SETTINGS}"));
    let user = "getent passwd oz-agent-worker";
    let before = root.sh(user);
    install(&root, 2);
    assert_eq!(root.read(SETTINGS), edited);
    assert_eq!(root.sh(user), before);
    assert_eq!(
        root.sh(&format!("stat -c '%a %U:%G' {SETTINGS}")),
        "600 root:root\n",
        "the operator's own rights"
    );
    assert!(root.sh("dpkg -s oz-agent-worker").contains(&format!("Version: {VERSION}-2")));
}

#[test]
fn a_removal_keeps_the_settings_and_a_purge_leaves_nothing() {
    let root = Root::debian();
    // Of the package manager itself, and copies that the tools for users make.
    let clean = |everything: Vec<String>| -> Vec<String> {
        let kept =
            ["/var/lib/dpkg/", "/var/log/", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];
        let others =
            |path: &String| !kept.iter().any(|start| path.starts_with(start)) && !path.contains(".deb");
        everything.into_iter().filter(others).collect()
    };
    let (before, users) = (clean(root.everything()), root.sh("cat /etc/passwd /etc/group"));
    install(&root, 1);
    root.write("/etc/oz-agent-worker/second.env", "OZ_LOG_LEVEL=debug\n");
    root.write("/etc/systemd/system/oz-agent-worker.service.d/override.conf", "[Service]\n");
    root.sh("systemctl enable oz-agent-worker@second.service");
    root.sh("dpkg -r oz-agent-worker");
    assert!(root.path(SETTINGS).exists() && !root.path("/usr/bin/oz-agent-worker").exists());
    assert_eq!(root.sh("find /etc/systemd/system -name '*oz-agent*.service'"), "", "no link leads nowhere");
    let told = root.sh("dpkg -P oz-agent-worker 2>&1");
    assert!(!told.contains("warning"), "{told}");
    assert_eq!(clean(root.everything()), before);
    assert_eq!(root.sh("cat /etc/passwd /etc/group"), users);
}

/// What is there before the package belongs to somebody else.
#[test]
fn a_purge_leaves_the_group_of_an_engine_and_a_user_and_home_that_it_has_not_made() {
    let root = Root::debian();
    root.sh(
        "groupadd --system docker; useradd --user-group --home-dir /var/lib/oz-agent-worker oz-agent-worker",
    );
    root.write("/var/lib/oz-agent-worker/data", "somebody's");
    install(&root, 1);
    root.sh("dpkg -P oz-agent-worker; getent group docker; getent passwd oz-agent-worker; getent group oz-agent-worker");
    assert_eq!(root.read("/var/lib/oz-agent-worker/data"), "somebody's");
}

/// What root does by a list must not be in a list that the service can write.
#[test]
fn the_service_cannot_say_what_root_enables() {
    let root = Root::debian();
    install(&root, 1);
    let write =
        "for home in /var/lib/oz-agent-worker*; do echo evil.service >$home/was-enabled || true; done";
    root.sh(&format!("runuser -u oz-agent-worker -- sh -c '{write}' 2>/dev/null"));
    root.write(
        "/etc/systemd/system/evil.service",
        "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    );
    install(&root, 2);
    assert_eq!(root.sh("find /etc/systemd/system -type l -name 'evil*'"), "");
    assert!(root.path("/var/lib/oz-agent-worker/was-enabled").exists(), "it could write where it lives");
}

#[test]
fn a_removal_that_is_given_up_leaves_the_units_enabled() {
    let root = Root::debian();
    install(&root, 1);
    root.sh("systemctl enable oz-agent-worker.service oz-agent-worker@a.service 2>&1");
    root.sh("echo exit 1 >>/var/lib/dpkg/info/oz-agent-worker.prerm");
    assert!(!root.command("dpkg -r oz-agent-worker 2>&1").output().unwrap().status.success());
    assert_eq!(root.sh("find /etc/systemd/system -name '*oz-agent*.service' | wc -l"), "2\n");
}

#[test]
fn a_unit_that_hides_the_package_s_own_is_told_of() {
    let root = Root::debian();
    let other = "/usr/local/lib/systemd/system/oz-agent-worker.service";
    root.write(other, "[Service]\nExecStart=/bin/true\n");
    let told = install(&root, 1);
    assert!(told.contains(&format!("{other} hides the unit of this package")), "{told}");
}

#[test]
fn lintian_has_nothing_to_say() {
    let mut command = Command::new("lintian");
    command.args(["--fail-on", "error,warning,info", "--allow-root", "--no-cfg"]).arg(deb(1));
    assert_eq!(run(&mut command), "");
}
