//! The size of the program's file.

use crate::bench::Bench;
use crate::figure::Figure;

pub fn measure(bench: &Bench) -> Vec<Figure> {
    let mut size = bench.figure("file", "KiB");
    for (index, program) in bench.programs.iter().enumerate() {
        // A command that is found in PATH has no size here.
        if let Ok(data) = std::fs::metadata(&program.path) {
            size.add(index, data.len() as f64 / 1024.0);
        }
    }
    vec![size]
}
