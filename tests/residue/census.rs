//! Counting: how many copies of each kind there are, and where.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use crate::canary::{Canary, Kind};
use crate::form::Form;
use crate::frozen::Frozen;
use crate::memory;
use crate::scan::{Hit, Scanner};

/// Mappings that the kernel hands out to nobody: its own pages, and memory that only the process can read.
const KEPT_BACK: [&str; 3] = ["[vvar", "[vsyscall]", "/secretmem"];

/// What one search has found.
#[derive(Default)]
pub(crate) struct Census {
    pub(crate) found: Vec<Found>,
    pub(crate) bytes: u64,
}

/// A hit and its place. Never the text.
pub(crate) struct Found {
    pub(crate) hit: Hit,
    /// The mapping or the file.
    place: String,
}

impl Census {
    /// Freezes the process and searches all that can be read of it.
    pub(crate) fn of_process(pid: i32, canaries: &[Canary]) -> Self {
        Self::of_frozen(pid, &Scanner::new(canaries), &Frozen::new(pid))
    }

    /// The same for one that has been stopped already.
    pub(crate) fn of_frozen(pid: i32, scanner: &Scanner, _stopped: &Frozen) -> Self {
        Self::of_stopped(pid, scanner)
    }

    /// The same for one that a tracer has stopped.
    pub(crate) fn of_stopped(pid: i32, scanner: &Scanner) -> Self {
        let mut found = Vec::new();
        let (bytes, refused) = memory::read_all(pid, |mapping, content| {
            // Words of a program stand side by side in its file, and can look like a key that nobody planted.
            let by_chance = |hit: &Hit| {
                hit.form == Form::Unknown && mapping.is_constant(pid, hit.offset, &content[hit.range()])
            };
            found.extend(scanner.scan(content).into_iter().filter(|hit| !by_chance(hit)).map(|hit| {
                let place = mapping.place(hit.offset as u64);
                Found { hit, place }
            }));
        });
        assert!(bytes > 1 << 20, "hardly anything of the process was read");
        let known = |name: &String| KEPT_BACK.iter().any(|kept| name.starts_with(kept));
        assert!(refused.iter().all(known), "not searched: {refused:?}");
        Self { found, bytes }
    }

    /// Searches files, and texts that are none.
    pub(crate) fn of_texts<'a>(
        texts: impl IntoIterator<Item = (String, &'a [u8])>,
        canaries: &[Canary],
    ) -> Self {
        let scanner = Scanner::new(canaries);
        let mut census = Self::default();
        texts.into_iter().for_each(|(place, text)| census.add(&scanner, &place, text));
        census
    }

    /// Searches one text more.
    pub(crate) fn add(&mut self, scanner: &Scanner, place: &str, text: &[u8]) {
        self.bytes += text.len() as u64;
        self.found.extend(scanner.scan(text).into_iter().map(|hit| Found { hit, place: place.to_owned() }));
    }

    /// Searches one file.
    pub(crate) fn of_file(path: &Path, canaries: &[Canary]) -> Self {
        let text = fs::read(path).expect("the file can be read");
        Self::of_texts([(path.display().to_string(), text.as_slice())], canaries)
    }

    /// Whole values of a kind.
    pub(crate) fn copies(&self, kind: Kind) -> usize {
        self.found.iter().filter(|found| found.hit.kind == kind && !found.hit.form.is_fragment()).count()
    }

    /// Ends of values of a kind whose rest is gone.
    pub(crate) fn fragments(&self, kind: Kind) -> usize {
        self.found.iter().filter(|found| found.hit.kind == kind && found.hit.form.is_fragment()).count()
    }

    /// Whether there is nothing but what `kinds` are allowed, in whole copies.
    pub(crate) fn is_within(&self, allowed: &dyn Fn(Kind) -> usize) -> bool {
        Kind::ALL.into_iter().all(|kind| {
            self.copies(kind) <= allowed(kind) && (self.fragments(kind) == 0 || allowed(kind) > 0)
        })
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }
}

/// Kind, form, place and offsets of everything found, like with like.
impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 6;
        let mut alike: BTreeMap<(Kind, String, &str), Vec<usize>> = BTreeMap::new();
        for Found { hit, place } in &self.found {
            alike.entry((hit.kind, hit.form.to_string(), place)).or_default().push(hit.offset);
        }
        for ((kind, form, place), offsets) in alike {
            let mut at = String::new();
            for offset in offsets.iter().take(SHOWN) {
                write!(at, " +{offset:#x}")?;
            }
            let more = if offsets.len() > SHOWN { " …" } else { "" };
            writeln!(f, "  {:4} x {kind} as {form} in {place}:{at}{more}", offsets.len())?;
        }
        Ok(())
    }
}

/// Kinds by stages. A cell has whole copies, and fragments behind a plus where there are any.
#[derive(Default)]
pub(crate) struct Table {
    stages: Vec<(&'static str, Census)>,
}

impl Table {
    pub(crate) fn add(&mut self, stage: &'static str, census: Census) {
        self.stages.push((stage, census));
    }

    pub(crate) fn stage(&self, stage: &str) -> &Census {
        &self.stages.iter().find(|(name, _)| *name == stage).expect("the stage was reached").1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:18}", "copies")?;
        for (stage, _) in &self.stages {
            write!(f, "{stage:>16}")?;
        }
        for kind in Kind::ALL {
            write!(f, "\n{kind:18}")?;
            for (_, census) in &self.stages {
                let (copies, fragments) = (census.copies(kind), census.fragments(kind));
                let cell = if fragments == 0 { copies.to_string() } else { format!("{copies} +{fragments}") };
                write!(f, "{cell:>16}")?;
            }
        }
        write!(f, "\n{:18}", "MiB searched")?;
        for (_, census) in &self.stages {
            write!(f, "{:>16}", census.bytes >> 20)?;
        }
        writeln!(f)
    }
}
