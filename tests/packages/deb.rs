//! The deb, in a small Debian without a running systemd: installation, upgrade, removal and purge.

use std::process::Command;

use crate::artifacts::{INSTALLED, VERSION, deb};
use crate::root::{Root, run};

const SETTINGS: &str = "/etc/oz-agent-worker/worker.env";

fn install(root: &Root, release: u8) -> String {
    let package = root.copy_in(&deb(release));
    root.sh(&format!("dpkg -i {package} 2>&1"))
}

#[test]
fn an_installation_has_the_expected_files_and_starts_nothing_without_settings() {
    let root = Root::debian();
    let output = install(&root, 1);
    let advice = format!(
        "not started: {SETTINGS} has no API key. Set it, then run: systemctl enable --now oz-agent-worker"
    );
    assert!(output.contains(&advice), "{output}");
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
644 root:root /usr/share/doc/oz-agent-worker/monitoring/alerts.yml
644 root:root /usr/share/doc/oz-agent-worker/monitoring/dashboard.json
644 root:root /usr/share/doc/oz-agent-worker/worker.env
644 root:root /usr/share/fish/vendor_completions.d/oz-agent-worker.fish
644 root:root /usr/share/lintian/overrides/oz-agent-worker
644 root:root /usr/share/man/man1/oz-agent-worker.1.gz
644 root:root /usr/share/oz-agent-worker/worker.env
644 root:root /usr/share/zsh/vendor-completions/_oz-agent-worker
755 root:root /usr/bin/oz-agent-worker
700 oz-agent-worker:oz-agent-worker /var/lib/oz-agent-worker
750 root:oz-agent-worker /etc/oz-agent-worker
755 root:root /usr/share/doc/oz-agent-worker
755 root:root /usr/share/doc/oz-agent-worker/monitoring
755 root:root /usr/share/oz-agent-worker
755 root:root /var/lib/oz-agent-worker.package
";
    let notes = "644 root:root /var/lib/oz-agent-worker.package/made-group-docker
644 root:root /var/lib/oz-agent-worker.package/made-group
644 root:root /var/lib/oz-agent-worker.package/made-home
644 root:root /var/lib/oz-agent-worker.package/made-user
";
    let mut expected: Vec<_> = expected.lines().chain(notes.lines()).collect();
    expected.sort_unstable();
    assert_eq!(root.sh(INSTALLED).lines().collect::<Vec<_>>(), expected);
    assert_eq!(root.sh("oz-agent-worker --version"), format!("oz-agent-worker {VERSION}\n"));
    let user = root.sh("id -Gn oz-agent-worker; getent passwd oz-agent-worker | cut -d: -f6,7");
    assert_eq!(user, "oz-agent-worker docker\n/var/lib/oz-agent-worker:/usr/sbin/nologin\n");
    root.sh("runuser -u oz-agent-worker -- cat /etc/oz-agent-worker/worker.env >/dev/null");
    let mut reader = root.command("setpriv --reuid 65534 --clear-groups cat /etc/oz-agent-worker/worker.env");
    assert!(!reader.status().unwrap().success(), "other users can read the settings");
    assert_eq!(root.sh("find /etc/systemd/system -name '*oz-agent*'"), "", "the unit is enabled");
    root.sh("dpkg --verify oz-agent-worker; dpkg --audit");
}

#[test]
fn an_installation_onto_existing_settings_enables_the_worker() {
    let root = Root::debian();
    root.write(SETTINGS, "OZ_API_KEY_FILE=/etc/oz-agent-worker/api-key\nOZ_WORKER_ID=w\n");
    // dpkg has no terminal, so it must not ask which settings to keep.
    let output = install(&root, 1);
    assert!(!output.contains("not started"), "{output}");
    assert_eq!(root.sh("ls /etc/oz-agent-worker"), "worker.env\n");
    let enabled = "/etc/systemd/system/multi-user.target.wants/oz-agent-worker.service";
    assert!(root.path(enabled).is_symlink());
    assert!(root.read(SETTINGS).contains("OZ_WORKER_ID=w"));
    assert_eq!(root.sh(&format!("stat -c '%a %U:%G' {SETTINGS}")), "640 root:oz-agent-worker\n");
    // A reinstallation enables the unit again.
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
        "the operator's dpkg-statoverride is kept"
    );
    assert!(root.sh("dpkg -s oz-agent-worker").contains(&format!("Version: {VERSION}-2")));
}

/// Without a terminal dpkg cannot ask which settings to keep.
#[test]
fn an_unattended_upgrade_with_another_template_keeps_the_settings() {
    let root = Root::debian();
    install(&root, 1);
    let edited = root.read(SETTINGS) + "OZ_WORKER_ID=mine\n";
    std::fs::write(root.path(SETTINGS), &edited).unwrap();
    let package = root.copy_in(&deb(2));
    root.sh(&format!(
        "cd /tmp && dpkg-deb -R {package} new && for file in $(find new -name worker.env ! -path '*/doc/*'); do \
         echo '# another template' >>$file; done && sed -i '/worker.env/d' new/DEBIAN/md5sums && dpkg-deb -b new new.deb"
    ));
    let output = root.sh("DEBIAN_FRONTEND=noninteractive dpkg -i /tmp/new.deb 2>&1 </dev/null");
    assert!(!output.contains("Configuration file"), "{output}");
    assert_eq!(root.read(SETTINGS), edited);
    assert_eq!(root.sh("ls /etc/oz-agent-worker"), "worker.env\n");
}

#[test]
fn a_removal_keeps_the_settings_and_a_purge_leaves_nothing() {
    let root = Root::debian();
    // Without the package manager's files and the backups that useradd and groupadd make.
    let clean = |everything: Vec<String>| -> Vec<String> {
        let ignored =
            ["/var/lib/dpkg/", "/var/log/", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];
        let others =
            |path: &String| !ignored.iter().any(|start| path.starts_with(start)) && !path.contains(".deb");
        everything.into_iter().filter(others).collect()
    };
    let before = clean(root.everything());
    let users = root.sh("cat /etc/passwd /etc/group");
    install(&root, 1);
    root.write("/etc/oz-agent-worker/second.env", "OZ_LOG_LEVEL=debug\n");
    root.write("/etc/systemd/system/oz-agent-worker.service.d/override.conf", "[Service]\n");
    root.sh("systemctl enable oz-agent-worker@second.service");
    root.sh("dpkg -r oz-agent-worker");
    assert!(root.path(SETTINGS).exists() && !root.path("/usr/bin/oz-agent-worker").exists());
    assert_eq!(
        root.sh("find /etc/systemd/system -name '*oz-agent*.service'"),
        "",
        "a removed unit is still enabled"
    );
    let output = root.sh("dpkg -P oz-agent-worker 2>&1");
    assert!(!output.contains("warning"), "{output}");
    assert_eq!(clean(root.everything()), before);
    assert_eq!(root.sh("cat /etc/passwd /etc/group"), users);
}

#[test]
fn a_purge_keeps_groups_user_and_home_that_existed_before_the_installation() {
    let root = Root::debian();
    root.sh(
        "groupadd --system docker; useradd --user-group --home-dir /var/lib/oz-agent-worker oz-agent-worker",
    );
    root.write("/var/lib/oz-agent-worker/data", "foreign");
    install(&root, 1);
    root.sh("dpkg -P oz-agent-worker; getent group docker; getent passwd oz-agent-worker; getent group oz-agent-worker");
    assert_eq!(root.read("/var/lib/oz-agent-worker/data"), "foreign");
}

/// `postinst` enables the units in a list as root, so the service's user must not be able to write that list.
#[test]
fn the_service_cannot_make_root_enable_a_unit() {
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
    assert!(root.path("/var/lib/oz-agent-worker/was-enabled").exists(), "the service can write its own home");
}

#[test]
fn an_aborted_removal_leaves_the_units_enabled() {
    let root = Root::debian();
    install(&root, 1);
    root.sh("systemctl enable oz-agent-worker.service oz-agent-worker@a.service 2>&1");
    root.sh("echo exit 1 >>/var/lib/dpkg/info/oz-agent-worker.prerm");
    assert!(!root.command("dpkg -r oz-agent-worker 2>&1").output().unwrap().status.success());
    assert_eq!(root.sh("find /etc/systemd/system -name '*oz-agent*.service' | wc -l"), "2\n");
}

#[test]
fn an_installation_warns_of_a_unit_that_overrides_its_own() {
    let root = Root::debian();
    let other = "/usr/local/lib/systemd/system/oz-agent-worker.service";
    root.write(other, "[Service]\nExecStart=/bin/true\n");
    let output = install(&root, 1);
    assert!(output.contains(&format!("{other} overrides the unit of this package")), "{output}");
}

#[test]
fn lintian_finds_nothing() {
    let mut command = Command::new("lintian");
    command.args(["--fail-on", "error,warning,info", "--allow-root", "--no-cfg"]).arg(deb(1));
    assert_eq!(run(&mut command), "");
}
