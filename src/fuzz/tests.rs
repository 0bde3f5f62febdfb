use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;
use crate::sys::numbers::Numbers;

/// How many mutated seeds each target is run with.
const MUTATIONS: usize = 60;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Returns a seed with one to three random changes.
fn mutated(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(3) {
        let from = numbers.below(bytes.len() + 1);
        let to = (from + numbers.below(16)).min(bytes.len());
        let special = [0, b'\n', b'\r', b'"', b'{', b':', b'0', 0x7f, 0x80, 0xff];
        match numbers.below(6) {
            0 => bytes.truncate(from),
            1 => drop(bytes.drain(from..to)),
            2 => bytes.insert(from, special[numbers.below(special.len())]),
            3 => bytes.extend_from_within(from..to),
            4 if from < to => bytes[from] ^= 1 << numbers.below(8),
            _ => {
                let other = &seeds[numbers.below(seeds.len())];
                bytes.truncate(from);
                bytes.extend_from_slice(&other[numbers.below(other.len() + 1)..]);
            }
        }
    }
    bytes
}

#[test]
fn every_target_accepts_its_seeds_and_mutations_of_them() {
    for (name, target) in TARGETS {
        let paths = entries(&root().join("corpus").join(name));
        let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (path, seed) in paths.iter().zip(&seeds) {
            assert!(seed.len() <= 8 * 1024, "{} is larger than 8 KiB", path.display());
            run(name, &path.display().to_string(), seed, target);
        }
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..MUTATIONS {
            let bytes = mutated(&mut numbers, &seeds);
            run(name, &bytes.escape_ascii().to_string(), &bytes, target);
        }
    }
}

/// Runs a target and names the input if it panics.
fn run(name: &str, input: &str, bytes: &[u8], target: super::Target) {
    let result = std::panic::catch_unwind(|| target(bytes));
    assert!(result.is_ok(), "target {name} failed for {input}");
}

#[test]
fn every_target_has_a_program_and_seeds_and_nothing_else_does() {
    let mut names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    let stems = |folder| entries(&root().join(folder)).iter().map(|path| stem(path)).collect::<Vec<_>>();
    assert_eq!(stems("targets"), names);
    assert_eq!(stems("corpus"), names);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in names {
        let program = fs::read_to_string(root().join(format!("targets/{name}.rs"))).unwrap();
        assert!(
            program.contains(&format!("oz_agent_worker::fuzz::{name}")),
            "targets/{name}.rs calls another function"
        );
        let path = format!("name = \"{name}\"\npath = \"targets/{name}.rs\"");
        assert!(manifest.contains(&path), "{name} is not in the manifest");
    }
}
