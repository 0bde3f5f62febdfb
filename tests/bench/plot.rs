//! A plot of time and memory against the number of tasks, as SVG. Both axes are logarithmic.

use std::fmt::Write;

use serde_json::Value;

/// Width and height of a chart, and the margin around it, in pixels.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 60.0;

/// One for each worker, in turn.
const COLOURS: [&str; 3] = ["blue", "red", "green"];

/// The title of a chart, and what is before and after the number of tasks in the names of its figures.
const CHARTS: [(&str, &str, &str); 2] = [
    ("ms until all are reported, against tasks at once", "", " true at once"),
    ("memory in MiB, against sleeping tasks", "memory, ", " tasks"),
];

/// Returns the plot of the figures in a report's `scenarios`, one line for each worker.
pub fn svg(names: &[String], scenarios: &[Value]) -> String {
    let (width, height) = (2.0 * (WIDTH + 2.0 * MARGIN), HEIGHT + 2.0 * MARGIN);
    let mut out = format!("<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'>\n");
    out += "<marker id='p' viewBox='-4 -4 8 8' markerWidth='8' markerHeight='8'><circle r='3'/></marker>\n";
    for (number, chart) in CHARTS.iter().enumerate() {
        let left = MARGIN + number as f64 * (WIDTH + 2.0 * MARGIN);
        let _ = writeln!(out, "<g transform='translate({left} {MARGIN})'>\n<text y='-16'>{}</text>", chart.0);
        let lines: Vec<_> = (0..names.len()).map(|worker| points(scenarios, chart, worker)).collect();
        draw(&mut out, names, &lines);
        out += "</g>\n";
    }
    out + "</svg>\n"
}

/// Returns the number of tasks and a worker's median for each figure of a chart.
fn points(scenarios: &[Value], (_, before, after): &(&str, &str, &str), worker: usize) -> Vec<[f64; 2]> {
    let figures = scenarios.iter().filter_map(|scenario| scenario["figures"].as_array()).flatten();
    let point = |figure: &Value| {
        let count = figure["name"].as_str()?.strip_prefix(before)?.strip_suffix(after)?.parse().ok()?;
        figure["workers"][worker]["median"].as_f64().map(|median| [count, median])
    };
    figures.filter_map(point).collect()
}

fn draw(out: &mut String, names: &[String], lines: &[Vec<[f64; 2]>]) {
    let [(left, right), (low, high)] =
        [0, 1].map(|index| decades(lines.iter().flatten().map(|point| point[index])));
    let x = |value: f64| (value.log10() - left) / (right - left) * WIDTH;
    let y = |value: f64| HEIGHT - (value.log10() - low) / (high - low) * HEIGHT;
    for power in left as i32..=right as i32 {
        let value = 10_f64.powi(power);
        let _ = writeln!(out, "<path d='M{} 0v{HEIGHT}' stroke='silver'/>", x(value));
        let _ = writeln!(out, "<text x='{}' y='{}'>{value}</text>", x(value), HEIGHT + 16.0);
    }
    for power in low as i32..=high as i32 {
        let value = 10_f64.powi(power);
        let _ = writeln!(out, "<path d='M0 {}h{WIDTH}' stroke='silver'/>", y(value));
        let _ = writeln!(out, "<text x='-6' y='{}' text-anchor='end'>{value}</text>", y(value));
    }
    for (number, (name, line)) in names.iter().zip(lines).enumerate() {
        let (colour, top) = (COLOURS[number % COLOURS.len()], 16.0 * (number as f64 + 1.0));
        let places: Vec<String> =
            line.iter().map(|[count, value]| format!("{},{}", x(*count), y(*value))).collect();
        let mark = ["start", "mid", "end"].map(|place| format!("marker-{place}='url(#p)'")).join(" ");
        let _ =
            writeln!(out, "<polyline points='{}' fill='none' stroke='{colour}' {mark}/>", places.join(" "));
        let _ = writeln!(out, "<text x='8' y='{top}' fill='{colour}'>{name}</text>");
    }
}

/// Returns the logarithms of the powers of ten around all values, which are positive.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let logs: Vec<f64> = values.map(f64::log10).collect();
    let low = logs.iter().copied().reduce(f64::min).unwrap_or_default().floor();
    let high = logs.iter().copied().reduce(f64::max).unwrap_or_default().ceil();
    (low, high.max(low + 1.0))
}
