//! The release files that `make dist` builds.

use std::collections::BTreeSet;
use std::process::Command;

use crate::artifacts::{VERSION, deb, dist, package, rpm};
use crate::elf::Elf;
use crate::root::run;
use crate::{arch, architectures, debian_arch, debian_name, source, static_binary};

#[test]
fn the_checksums_cover_every_file_and_match() {
    let sums = dist("SHA256SUMS");
    let folder = sums.parent().unwrap();
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder));
    let names = std::fs::read_to_string(&sums).unwrap();
    let listed: BTreeSet<_> =
        names.lines().filter_map(|line| line.split("  ").nth(1)).map(str::to_owned).collect();
    let name = format!("oz-agent-worker-{VERSION}");
    let mut expected = BTreeSet::from([format!("{name}.tar.gz")]);
    for arch in architectures() {
        expected.extend([
            format!("{name}-1.{arch}.rpm"),
            format!("{name}-{arch}-THIRD-PARTY.txt"),
            format!("{name}-{arch}-linux.tar.gz"),
            format!("{name}-{arch}.spdx"),
            format!("oz-agent-worker_{VERSION}-1_{}.deb", debian_name(&arch)),
        ]);
    }
    assert_eq!(listed, expected);
}

/// Returns name and version of each linked crate: `cargo tree` without procedural macros and their dependencies.
fn linked() -> BTreeSet<String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["tree", "--offline", "--locked", "--features", "vendored-openssl", "--edges", "normal"]);
    let target = format!("{}-unknown-linux-musl", arch());
    command.args(["--target", &target, "--prefix", "depth", "--no-dedupe", "--format", " {p}"]);
    let mut found = BTreeSet::new();
    let mut skipped = usize::MAX;
    for line in run(command.current_dir(source(""))).lines() {
        let mut words = line.split(' ');
        let depth: usize = words.next().unwrap().parse().unwrap();
        if depth > skipped {
            continue;
        }
        skipped = if line.ends_with("(proc-macro)") { depth } else { usize::MAX };
        if skipped == usize::MAX {
            let name = words.next().unwrap();
            let version = words.next().unwrap();
            found.insert(format!("{name} {}", version.trim_start_matches('v')));
        }
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

/// Returns name and version of each package in an SPDX document.
fn packages(spdx: &str) -> BTreeSet<String> {
    let tag = |part: &str, name: &str| {
        part.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("no {name} in {part}"))
            .to_owned()
    };
    let parts = spdx.split("\n\n").skip(1);
    parts.map(|part| format!("{} {}", tag(part, "PackageName: "), tag(part, "PackageVersion: "))).collect()
}

#[test]
fn the_sbom_lists_every_linked_crate_and_library() {
    let spdx = std::fs::read_to_string(dist(&format!("oz-agent-worker-{VERSION}-{}.spdx", arch()))).unwrap();
    let listed = packages(&spdx);
    let linked = linked();
    assert_eq!(linked.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new());
    let others: Vec<_> = listed.difference(&linked).map(|name| name.split(' ').next().unwrap()).collect();
    assert_eq!(others, ["llvm-libunwind", "musl", "openssl", "rust-std"]);
    // Each id is valid, unique, and appears in one package and one relationship.
    let ids: Vec<_> = spdx.lines().filter_map(|line| line.strip_prefix("SPDXID: SPDXRef-")).collect();
    let fits = |id: &&str| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    assert!(ids.iter().all(fits) && ids.len() == ids.iter().collect::<BTreeSet<_>>().len(), "{ids:?}");
    let about = |id: &str| spdx.lines().filter(|line| line.ends_with(&format!(" SPDXRef-{id}"))).count();
    assert!(ids[1..].iter().all(|id| about(id) == 2), "an id without a relationship: {ids:?}");
    // Each crate other than the worker has its checksum from Cargo.lock.
    let lock = std::fs::read_to_string(source("Cargo.lock")).unwrap();
    let sums: Vec<_> =
        spdx.lines().filter_map(|line| line.strip_prefix("PackageChecksum: SHA256: ")).collect();
    assert_eq!(sums.len(), linked.len() - 1);
    assert!(sums.iter().all(|sum| sum.len() == 64 && lock.contains(sum)));
}

#[test]
fn each_linked_part_has_its_licence_text() {
    let name = format!("oz-agent-worker-{VERSION}-{}-THIRD-PARTY.txt", arch());
    let text = std::fs::read_to_string(dist(&name)).unwrap();
    let (list, texts) = text.split_once("\n----").unwrap();
    let parts: Vec<_> = list.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(parts.len(), linked().len() - 1 + 4);
    for part in parts {
        let (name, licence) = part.split_once(": ").unwrap();
        assert!(licence.len() > 2 && texts.contains(&format!("\n  {name}\n")), "no licence text for {part}");
    }
    for words in ["Permission is hereby granted", "Apache License", "LLVM Exceptions"] {
        assert!(texts.contains(words), "{words}");
    }
}

/// The archive is unpacked over /, so it must not overwrite settings.
#[test]
fn the_archive_has_the_worker_and_no_settings() {
    let archive = dist(&format!("oz-agent-worker-{VERSION}-{}-linux.tar.gz", arch()));
    let list = run(Command::new("tar").arg("-tzf").arg(&archive));
    let top = format!("oz-agent-worker-{VERSION}/");
    // Files only: a folder in the archive would change the host's folder.
    let fits = |line: &str| line.starts_with(&format!("{top}usr/local/")) && !line.ends_with('/');
    assert!(list.lines().all(fits), "{list}");
    let folder = tempfile::tempdir().unwrap();
    run(Command::new("tar")
        .args(["--strip-components=1", "-xzf"])
        .arg(&archive)
        .arg("-C")
        .arg(folder.path()));
    let worker = folder.path().join("usr/local/bin/oz-agent-worker");
    let version = run(Command::new(source("packaging/emulate.sh")).arg(worker).arg("--version"));
    assert_eq!(version, format!("oz-agent-worker {VERSION}\n"));
    assert!(folder.path().join("usr/local/share/doc/oz-agent-worker/worker.env").exists());
    // The documented way to remove the files.
    let remove = format!(
        "tar -tzf {} | cut -d/ -f2- | (cd {} && xargs rm -f)",
        archive.display(),
        folder.path().display()
    );
    run(Command::new("sh").args(["-ec", &remove]));
    assert_eq!(run(Command::new("find").arg(folder.path()).args(["-type", "f"])), "");
}

#[test]
fn the_source_archive_has_every_tracked_file() {
    let list = run(Command::new("tar").arg("-tzf").arg(dist(&format!("oz-agent-worker-{VERSION}.tar.gz"))));
    let tracked =
        run(Command::new("git").args(["ls-tree", "-r", "--name-only", "HEAD"]).current_dir(source("")));
    let top = format!("oz-agent-worker-{VERSION}/");
    let files: BTreeSet<_> =
        list.lines().filter(|line| !line.ends_with('/')).filter_map(|line| line.strip_prefix(&top)).collect();
    let tracked: BTreeSet<_> = tracked.lines().collect();
    let different: Vec<_> = files.symmetric_difference(&tracked).collect();
    assert!(different.is_empty(), "the archive and the tracked files differ: {different:?}");
}

/// A package manager refuses a package by the architecture in its metadata, so this must be that of the program.
#[test]
fn each_package_names_the_architecture_of_its_program() {
    let stated = run(Command::new("dpkg-deb").arg("-f").arg(deb(1)).arg("Architecture"));
    assert_eq!(stated.trim(), debian_arch());
    let stated = run(Command::new("rpm").args(["-qp", "--qf", "%{ARCH} %{OS}\n"]).arg(rpm(1)));
    assert_eq!(stated.trim(), format!("{} linux", arch()));
    let unpack = [
        format!("dpkg-deb -x {} .", deb(1).display()),
        format!("rpm2cpio {} | cpio -id --quiet", rpm(1).display()),
    ];
    for command in unpack {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("sh").args(["-ec", &command]).current_dir(folder.path()));
        let program = folder.path().join("usr/bin/oz-agent-worker");
        assert_eq!(Elf::read(&program).arch, arch(), "{command}");
        assert!(std::fs::read(program).unwrap() == std::fs::read(static_binary()).unwrap(), "{command}");
        let manual = folder.path().join("usr/share/man/man1/oz-agent-worker.1.gz");
        let text = run(Command::new("zcat").arg(manual));
        assert!(text.contains(".SH NAME") && text.contains("OZ_API_KEY"), "{command}");
    }
}

#[test]
fn packages_are_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["deb", "rpm", "tar"] {
        package(kind, 1, folder.path());
    }
    let made = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    for path in made {
        let first = dist(path.file_name().unwrap().to_str().unwrap());
        let same = std::fs::read(&path).unwrap() == std::fs::read(&first).unwrap();
        assert!(same, "{} differs from the first build", path.display());
    }
}

/// By Debian's name, for example.
#[test]
fn an_unknown_architecture_is_refused_before_anything_is_installed_or_built() {
    for goal in ["static", "deb", "rpm", "reproducible"] {
        let mut command = Command::new("make");
        let output = command.arg("-C").arg(source("")).args([goal, "ARCH=arm64"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let message = "setup: ARCH is \"arm64\"; it must be x86_64 or aarch64";
        assert!(!output.status.success() && stderr.contains(message), "{goal}: {stderr}");
    }
}

#[test]
fn the_version_is_only_in_the_manifest() {
    let mut command = Command::new("git");
    command.args(["grep", "-lF", VERSION, "--", ":!*.lock", ":!CHANGELOG.md"]).current_dir(source(""));
    assert_eq!(run(&mut command), "Cargo.toml\n");
}
