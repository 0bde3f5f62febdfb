//! A reader of ELF headers: whether a program is static and position-independent.

use std::path::Path;

const INTERPRETER: u32 = 3;
const DYNAMIC: u32 = 2;
const NEEDED: u64 = 1;
const FLAGS_1: u64 = 0x6fff_fffb;
const FLAG_PIE: u64 = 0x0800_0000;
const SHARED: u64 = 3;
const STACK: u32 = 0x6474_e551;
const EXECUTABLE: u64 = 1;

/// Properties of a 64-bit little-endian program.
#[derive(Debug, PartialEq, Eq)]
pub struct Elf {
    /// The architecture, by its name in rpm.
    pub arch: &'static str,
    /// Whether it is a position-independent executable (and not a library).
    pub position_independent: bool,
    /// Whether it names a dynamic loader.
    pub has_interpreter: bool,
    /// The number of shared libraries that it needs.
    pub needed: usize,
    /// Whether its stack is executable.
    pub executable_stack: bool,
}

/// Returns the little-endian number of `length` bytes at offset `at`.
fn number(bytes: &[u8], at: u64, length: usize) -> u64 {
    let at = usize::try_from(at).unwrap();
    bytes[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Elf {
    /// Reads the headers of a file. Panics if it is not such a program.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(
            bytes[..6],
            *b"\x7fELF\x02\x01",
            "{} is not a 64-bit little-endian ELF file",
            path.display()
        );
        let table = number(&bytes, 32, 8);
        let size = number(&bytes, 54, 2);
        let count = number(&bytes, 56, 2);
        let headers: Vec<u64> = (0..count).map(|index| table + index * size).collect();
        let kind = |at: u64| u32::try_from(number(&bytes, at, 4)).unwrap();
        let of_kind = |wanted| headers.iter().copied().filter(move |at| kind(*at) == wanted);
        let entries: Vec<(u64, u64)> = of_kind(DYNAMIC)
            .flat_map(|at| {
                let start = number(&bytes, at + 8, 8);
                let length = number(&bytes, at + 32, 8);
                (start..start + length).step_by(16)
            })
            .map(|at| (number(&bytes, at, 8), number(&bytes, at + 8, 8)))
            .collect();
        let is_program = entries.iter().any(|(tag, value)| *tag == FLAGS_1 && value & FLAG_PIE != 0);
        let arch = match number(&bytes, 18, 2) {
            62 => "x86_64",
            183 => "aarch64",
            other => panic!("{} is for machine {other}", path.display()),
        };
        Self {
            arch,
            position_independent: number(&bytes, 16, 2) == SHARED && is_program,
            has_interpreter: of_kind(INTERPRETER).count() > 0,
            needed: entries.iter().filter(|(tag, _)| *tag == NEEDED).count(),
            executable_stack: of_kind(STACK).all(|at| number(&bytes, at + 4, 4) & EXECUTABLE != 0),
        }
    }
}
