//! The table on the terminal, the JSON file with all samples, and the plot beside it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bench::Bench;
use crate::figure::Figure;
use crate::gauge::Load;
use crate::plot;
use crate::session::Program;
use crate::targets::{TARGETS, Target};

const NAME_WIDTH: usize = 46;
const VALUE_WIDTH: usize = 10;
const RATIO_WIDTH: usize = 8;

/// A share of busy processor time, in percent, above which the figures are hardly comparable with others.
const MAX_BUSY: f64 = 20.0;

/// Prints rows as they come, and collects them for the file.
pub struct Report {
    names: Vec<String>,
    /// The column of the worker of `BENCH_VS`.
    versus: Option<usize>,
    before: Load,
    scenarios: Vec<Value>,
}

impl Report {
    /// Prints the head of the table. `versus` is the index of the worker that the others are compared with.
    pub fn start(programs: &[Program], versus: Option<usize>) -> Self {
        let names = programs.iter().map(|program| program.name.clone()).collect();
        let report = Self { names, versus, before: Load::measure(), scenarios: Vec::new() };
        for program in programs {
            println!("{}: {} {}", program.name, program.path.display(), program.args.join(" "));
        }
        print_load("before", &report.before);
        report.print_head();
        report
    }

    fn print_head(&self) {
        print!("\n{:NAME_WIDTH$} {:>4}{:>5}{:>VALUE_WIDTH$}", "median of n samples", "unit", "n", "floor");
        for (index, name) in self.names.iter().enumerate() {
            print!("{name:>VALUE_WIDTH$}{:>RATIO_WIDTH$}", "x floor");
            if let Some(versus) = self.versus.filter(|versus| *versus != index) {
                print!("{:>RATIO_WIDTH$}", format!("x {}", self.names[versus]));
            }
        }
        println!("  target");
    }

    /// Prints and keeps the figures of a scenario.
    pub fn add(&mut self, scenario: &str, figures: &[Figure]) {
        for figure in figures {
            self.print_row(scenario, figure);
        }
        let to_json = |figure: &Figure| {
            let mut value = figure.to_json(&self.names);
            value["target"] = json!(Target::of(scenario, &figure.name).map(|target| target.to_string()));
            value
        };
        let figures: Vec<Value> = figures.iter().map(to_json).collect();
        self.scenarios.push(json!({"name": scenario, "figures": figures}));
    }

    /// Says why a scenario has no figures.
    pub fn skip(&mut self, scenario: &str, reason: &str) {
        println!("{scenario}: {reason}");
        self.scenarios.push(json!({"name": scenario, "skipped": reason}));
    }

    fn print_row(&self, scenario: &str, figure: &Figure) {
        let name = format!("{scenario}: {}", figure.name);
        print!("{name:NAME_WIDTH$} {:>4}{:>5}", figure.unit, figure.samples());
        print!("{:>VALUE_WIDTH$}", shown(figure.floor()));
        for index in 0..self.names.len() {
            print!("{:>VALUE_WIDTH$}", shown(figure.worker(index)));
            print!("{:>RATIO_WIDTH$}", shown(figure.ratio(index)));
            if let Some(versus) = self.versus.filter(|versus| *versus != index) {
                print!("{:>RATIO_WIDTH$}", shown(figure.ratio_between(index, versus)));
            }
        }
        println!("{}", self.target(scenario, figure));
    }

    /// Returns a figure's target and the workers that miss it; nothing if it has no target.
    fn target(&self, scenario: &str, figure: &Figure) -> String {
        let Some(target) = Target::of(scenario, &figure.name) else { return String::new() };
        let misses = |(index, _): &(usize, &String)| target.is_met(figure, *index) == Some(false);
        let missing: Vec<&str> =
            self.names.iter().enumerate().filter(misses).map(|(_, name)| name.as_str()).collect();
        let missed = if missing.is_empty() { "" } else { ", missed by " };
        format!("  {target}{missed}{}", missing.join(" and "))
    }

    /// Returns the figures that have a target and were not measured.
    fn unmeasured(&self) -> Vec<String> {
        let measured = |scenario: &str, figure: &str| {
            let of = self.scenarios.iter().filter(|one| one["name"] == scenario);
            of.flat_map(|one| one["figures"].as_array()).flatten().any(|one| one["name"] == figure)
        };
        let missing = TARGETS.iter().filter(|(scenario, figure, _)| !measured(scenario, figure));
        missing.map(|(scenario, figure, _)| format!("{scenario}: {figure}")).collect()
    }

    /// Prints the load again and writes the file into `folder`. Returns its path.
    pub fn finish(self, folder: &Path, bench: &Bench, seconds: f64) -> PathBuf {
        let after = Load::measure();
        println!();
        let unmeasured = self.unmeasured();
        if bench.complete && !unmeasured.is_empty() {
            println!("not measured, but with a target: {}", unmeasured.join("; "));
        }
        print_load("after", &after);
        let now =
            OffsetDateTime::from(SystemTime::now()).replace_nanosecond(0).expect("no fraction is valid");
        let date = now.format(&Rfc3339).expect("a date");
        let load = |load: &Load| json!({"average": load.average, "busy_percent": load.busy});
        let worker = |program: &Program| {
            let bytes = std::fs::metadata(&program.path).ok().map(|data| data.len());
            json!({"name": program.name, "path": program.path, "args": program.args, "bytes": bytes})
        };
        let document = json!({
            "date": date,
            "quick": bench.quick,
            "seconds": seconds,
            "cores": cores(),
            "load_before": load(&self.before),
            "load_after": load(&after),
            "workers": bench.programs.iter().map(worker).collect::<Vec<_>>(),
            "scenarios": self.scenarios,
        });
        std::fs::create_dir_all(folder).expect("a folder");
        let path = folder.join(format!("{}.json", date.replace(':', "-")));
        let text = serde_json::to_string_pretty(&document).expect("JSON");
        std::fs::write(&path, text + "\n").expect("a file");
        if let Some(scenarios) = document["scenarios"].as_array() {
            std::fs::write(path.with_extension("svg"), plot::svg(&self.names, scenarios)).expect("a file");
        }
        path
    }
}

fn print_load(when: &str, load: &Load) {
    let Load { average, busy } = load;
    let warning = if *busy > MAX_BUSY { "; the machine is not quiet" } else { "" };
    println!("{when}: {} cores, load average {average:.2}, {busy:.0} % busy{warning}", cores());
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns three or more digits of a value.
fn shown(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 1.0 || value == 0.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}
