//! The text that Prometheus reads (exposition format 0.0.4): families with their help, and samples.

use std::fmt::{Display, Write};

use super::{BOUNDS, Counter, Latency};

/// How a family behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up alone.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A page of metrics. Writing to a `String` cannot fail.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// The page so far.
    pub fn into_text(self) -> String {
        self.text
    }

    /// A family of one sample.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
    }

    /// One sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = writeln!(self.text, "{name}{} {value}", Labels(labels));
    }

    /// A family of histograms, one for each set of labels.
    pub fn latencies<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        of: impl Iterator<Item = (&'a str, &'a Latency)>,
    ) {
        self.head(name, "histogram", help);
        for (value, latency) in of {
            let mut sum = 0;
            let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain(["+Inf".to_owned()]);
            for (bound, bucket) in bounds.zip(&latency.buckets) {
                sum += Counter::value(bucket);
                self.sample(&format!("{name}_bucket"), &[(label, value), ("le", &bound)], sum);
            }
            let labels = [(label, value)];
            self.sample(&format!("{name}_sum"), &labels, seconds(latency.micros.value()));
            self.sample(&format!("{name}_count"), &labels, sum);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "{" } else { "," })?;
            write!(f, "{name}=\"")?;
            for c in value.chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_str("\"")?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_page_is_in_the_form_that_prometheus_reads() {
        let mut page = Exposition::default();
        page.single("up", Kind::Gauge, "Whether it is.", 1);
        page.family("odd_total", Kind::Counter, "Odd labels.");
        page.sample("odd_total", &[("a", "q\"u\\o\nte"), ("b", "")], 2);
        let expected = concat!(
            "# HELP up Whether it is.\n# TYPE up gauge\nup 1\n",
            "# HELP odd_total Odd labels.\n# TYPE odd_total counter\n",
            "odd_total{a=\"q\\\"u\\\\o\\nte\",b=\"\"} 2\n",
        );
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn a_histogram_counts_up_to_all_of_them() {
        let (latency, mut page) = (Latency::default(), Exposition::default());
        latency.took(Duration::from_micros(300));
        latency.took(Duration::from_secs(60));
        page.latencies("t_seconds", "Time.", "of", [("x", &latency)].into_iter());
        let text = page.into_text();
        for line in [
            "# TYPE t_seconds histogram",
            "t_seconds_bucket{of=\"x\",le=\"0.00025\"} 0",
            "t_seconds_bucket{of=\"x\",le=\"0.001\"} 1",
            "t_seconds_bucket{of=\"x\",le=\"10\"} 1",
            "t_seconds_bucket{of=\"x\",le=\"+Inf\"} 2",
            "t_seconds_sum{of=\"x\"} 60.0003",
            "t_seconds_count{of=\"x\"} 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
    }
}
