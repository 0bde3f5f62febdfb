//! Figures: the samples of each worker and of the floor that was measured beside it, with their medians and ratios.

use serde_json::{Value, json};

/// One quantity, measured for every worker.
pub struct Figure {
    /// What was measured; unique within its scenario.
    pub name: String,
    pub unit: &'static str,
    /// In the order of the workers.
    pub columns: Vec<Column>,
}

/// The samples of one worker.
#[derive(Default, Clone)]
pub struct Column {
    /// What was measured by hand right before each sample of the worker. Empty if there is nothing to compare with.
    pub floor: Vec<f64>,
    pub worker: Vec<f64>,
}

impl Figure {
    /// Returns a figure without samples.
    pub fn new(name: impl Into<String>, unit: &'static str, workers: usize) -> Self {
        Self { name: name.into(), unit, columns: vec![Column::default(); workers] }
    }

    /// Adds a sample of a worker.
    pub fn add(&mut self, worker: usize, value: f64) {
        self.columns[worker].worker.push(value);
    }

    /// Adds a sample of a worker and the sample of the floor that was taken right before it.
    pub fn add_pair(&mut self, worker: usize, floor: f64, value: f64) {
        self.columns[worker].floor.push(floor);
        self.columns[worker].worker.push(value);
    }

    /// Returns the median of the floor, over the samples beside all workers.
    pub fn floor(&self) -> Option<f64> {
        median(self.columns.iter().flat_map(|column| column.floor.iter().copied()).collect())
    }

    /// Returns the median of the floor beside one worker.
    pub fn floor_beside(&self, worker: usize) -> Option<f64> {
        median(self.columns[worker].floor.clone())
    }

    /// Returns the median of a worker.
    pub fn worker(&self, worker: usize) -> Option<f64> {
        median(self.columns[worker].worker.clone())
    }

    /// Returns the median of a worker's ratios to the floor, each within one pair.
    pub fn ratio(&self, worker: usize) -> Option<f64> {
        let Column { floor, worker } = &self.columns[worker];
        ratio(worker, floor)
    }

    /// Returns the median of the ratios of two workers, each within one round.
    pub fn ratio_between(&self, worker: usize, other: usize) -> Option<f64> {
        ratio(&self.columns[worker].worker, &self.columns[other].worker)
    }

    /// Returns the number of samples per worker.
    pub fn samples(&self) -> usize {
        self.columns.iter().map(|column| column.worker.len()).max().unwrap_or_default()
    }

    /// Returns the medians, ratios and all samples.
    pub fn to_json(&self, names: &[String]) -> Value {
        let column = |(index, name): (usize, &String)| {
            let Column { floor, worker } = &self.columns[index];
            json!({
                "worker": name,
                "median": self.worker(index),
                "ratio_to_floor": self.ratio(index),
                "samples": worker,
                "floor_samples": floor,
            })
        };
        let workers: Vec<Value> = names.iter().enumerate().map(column).collect();
        json!({"name": self.name, "unit": self.unit, "floor_median": self.floor(), "workers": workers})
    }
}

fn ratio(values: &[f64], bases: &[f64]) -> Option<f64> {
    let pairs = values.iter().zip(bases).filter(|(_, base)| **base > 0.0);
    median(pairs.map(|(value, base)| value / base).collect())
}

/// Returns the median, or `None` of no values.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}
