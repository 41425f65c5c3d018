//! A page of metrics: families with their help and samples, and the text of it that Prometheus reads (exposition
//! format 0.0.4). What else reads metrics takes them from the same page.

use std::fmt::{self, Display, Write};

use super::{BOUNDS, Counter, Latency};

/// How a family behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up alone.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A page of metrics, as they were when it was written.
#[derive(Debug, Default)]
pub struct Exposition {
    families: Vec<Measured>,
}

/// A family.
#[derive(Debug)]
pub struct Measured {
    /// Its name, in the form that Prometheus has.
    pub name: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// The samples.
    pub series: Series,
}

/// The samples of a family.
#[derive(Debug)]
pub enum Series {
    /// Numbers.
    Numbers(Kind, Vec<Sample>),
    /// How often something took how long.
    Latencies(Vec<Spread>),
}

/// One number.
#[derive(Debug)]
pub struct Sample {
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: Number,
}

/// How long something took.
#[derive(Debug)]
pub struct Spread {
    /// Name and value.
    pub label: (&'static str, String),
    /// One for each of [`bounds`], and one above them all: how often within this one and none before it.
    pub buckets: Vec<u64>,
    /// The sum, in microseconds.
    pub micros: u64,
}

/// Upper bounds of the buckets of every [`Spread`], in microseconds.
pub fn bounds() -> &'static [u64] {
    &BOUNDS
}

/// A number as it was counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Of things.
    Whole(u64),
    /// Of what can be divided.
    Fraction(f64),
}

impl Exposition {
    /// What is on it.
    pub fn families(&self) -> &[Measured] {
        &self.families
    }

    /// The text that Prometheus reads.
    pub fn into_text(self) -> String {
        let mut text = String::new();
        self.families.iter().for_each(|family| family.write(&mut text));
        text
    }

    /// A family of one sample.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &'static str, value: impl Into<Number>) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) {
        self.families.push(Measured { name, help, series: Series::Numbers(kind, Vec::new()) });
    }

    /// One sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&'static str, &str)], value: impl Into<Number>) {
        if let Some(Measured { name: begun, series: Series::Numbers(_, samples), .. }) =
            self.families.last_mut()
        {
            debug_assert_eq!(*begun, name, "a sample stands below its own family");
            let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            samples.push(Sample { labels, value: value.into() });
        }
    }

    /// A family of histograms, one for each set of labels.
    pub fn latencies<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        of: impl Iterator<Item = (&'a str, &'a Latency)>,
    ) {
        let spread = |(value, latency): (&str, &Latency)| Spread {
            label: (label, value.to_owned()),
            buckets: latency.buckets.iter().map(Counter::value).collect(),
            micros: latency.micros.value(),
        };
        self.families.push(Measured { name, help, series: Series::Latencies(of.map(spread).collect()) });
    }
}

/// Writing to a `String` cannot fail.
impl Measured {
    fn write(&self, text: &mut String) {
        let Self { name, help, series } = self;
        let kind = match series {
            Series::Numbers(Kind::Counter, _) => "counter",
            Series::Numbers(Kind::Gauge, _) => "gauge",
            Series::Latencies(_) => "histogram",
        };
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        match series {
            Series::Numbers(_, samples) => {
                for Sample { labels, value } in samples {
                    let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    let _ = writeln!(text, "{name}{} {value}", Labels(&labels));
                }
            }
            Series::Latencies(spreads) => spreads.iter().for_each(|spread| spread.write(name, text)),
        }
    }
}

impl Spread {
    fn write(&self, name: &str, text: &mut String) {
        let label = (self.label.0, self.label.1.as_str());
        let mut sum = 0;
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(&self.buckets) {
            sum += bucket;
            let _ = writeln!(text, "{name}_bucket{} {sum}", Labels(&[label, ("le", &bound)]));
        }
        let labels = Labels(&[label]);
        let _ = writeln!(text, "{name}_sum{labels} {}\n{name}_count{labels} {sum}", seconds(self.micros));
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Fraction(number) => number.fmt(f),
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<u8> for Number {
    fn from(number: u8) -> Self {
        Self::Whole(number.into())
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Fraction(number)
    }
}

struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        page.single("up", Kind::Gauge, "Whether it is.", 1_u8);
        page.family("odd_total", Kind::Counter, "Odd labels.");
        page.sample("odd_total", &[("a", "q\"u\\o\nte"), ("b", "")], 2_u8);
        page.single("part", Kind::Gauge, "Of a whole.", 0.5);
        let expected = concat!(
            "# HELP up Whether it is.\n# TYPE up gauge\nup 1\n",
            "# HELP odd_total Odd labels.\n# TYPE odd_total counter\n",
            "odd_total{a=\"q\\\"u\\\\o\\nte\",b=\"\"} 2\n",
            "# HELP part Of a whole.\n# TYPE part gauge\npart 0.5\n",
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
