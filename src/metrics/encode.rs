//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::histogram::Histogram;

/// Labels of a sample: names and values.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

/// Writes families of metrics.
#[derive(Default)]
pub(super) struct Encoder {
    text: String,
    /// The name of the family whose samples follow.
    family: &'static str,
}

impl Encoder {
    /// Begins a family. `kind` is `counter`, `gauge` or `histogram`.
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Self {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.family = name;
        self
    }

    /// Writes a sample of the family.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// Writes the samples of a histogram.
    pub(super) fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) -> &mut Self {
        let (buckets, count) = histogram.cumulative();
        for (bound, count) in buckets {
            self.line("_bucket", labels, Some(&bound.to_string()), count);
        }
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, histogram.sum());
        self.line("_count", labels, None, count);
        self
    }

    /// Returns the text.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, value) in labels {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{separator}{name}=\"{value}\"");
            separator = ',';
        }
        let end = if separator == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn families_have_help_type_and_samples() {
        let mut encoder = Encoder::default();
        encoder.family("up", "gauge", "Whether it \\ is\nup.").sample(&[], 1);
        encoder.family("info", "gauge", "I.").sample(&[("a", "b\"c\\d\ne"), ("f", "")], 0.5);
        let expected = "# HELP up Whether it \\\\ is\\nup.\n# TYPE up gauge\nup 1\n\
                        # HELP info I.\n# TYPE info gauge\ninfo{a=\"b\\\"c\\\\d\\ne\",f=\"\"} 0.5\n";
        assert_eq!(encoder.finish(), expected);
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_a_sum_and_a_count() {
        let histogram = Histogram::new(&[0, 10_000]);
        histogram.observe(Duration::from_millis(1500));
        histogram.observe(Duration::from_secs(11));
        let mut encoder = Encoder::default();
        encoder.family("t", "histogram", "T.").histogram(&[("r", "x")], &histogram);
        let expected = "# HELP t T.\n# TYPE t histogram\n\
                        t_bucket{r=\"x\",le=\"0\"} 0\nt_bucket{r=\"x\",le=\"10\"} 1\nt_bucket{r=\"x\",le=\"+Inf\"} 2\n\
                        t_sum{r=\"x\"} 12.5\nt_count{r=\"x\"} 2\n";
        assert_eq!(encoder.finish(), expected);
    }
}
