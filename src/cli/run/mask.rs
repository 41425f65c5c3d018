//! Masks values in output as they are. Stands in for the engine that knows their other spellings, with its shape.

use std::sync::Arc;

use crate::secret::Secret;

const REPLACEMENT: &[u8] = b"[ravi:masked]";
const SHORTEST: usize = 4;

/// The values cannot be masked.
pub(super) struct MaskError;

/// The values to be masked.
pub(super) struct Mask {
    values: Arc<Vec<Secret>>,
    too_short: Vec<usize>,
}

impl Mask {
    /// Prepares to mask `values`.
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a Secret>) -> Result<Self, MaskError> {
        let values: Vec<Secret> = values.map(|value| Secret::copy_of(value.expose().trim())).collect();
        let short = |(index, value): (usize, &Secret)| (value.len() < SHORTEST).then_some(index);
        let too_short = values.iter().enumerate().filter_map(short).collect();
        let values = Arc::new(values.into_iter().filter(|value| value.len() >= SHORTEST).collect());
        Ok(Self { values, too_short })
    }

    /// Which values are not masked.
    pub(super) fn too_short(&self) -> &[usize] {
        &self.too_short
    }

    /// A stream of output to be masked.
    pub(super) fn stream(&self) -> Stream {
        Stream { values: Arc::clone(&self.values), held: Vec::new() }
    }
}

/// One output on its way through a mask.
pub(super) struct Stream {
    values: Arc<Vec<Secret>>,
    held: Vec<u8>,
}

impl Stream {
    /// Takes more output and appends to `out` what can be released of it.
    pub(super) fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(input);
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            let whole = self.values.iter().find(|value| rest.starts_with(value.expose().as_bytes()));
            if let Some(value) = whole {
                out.extend_from_slice(REPLACEMENT);
                at += value.len();
            } else if self.values.iter().any(|value| value.expose().as_bytes().starts_with(rest)) {
                break;
            } else {
                out.push(self.held[at]);
                at += 1;
            }
        }
        self.held.drain(..at);
    }

    /// Appends the rest to `out`. The output has ended.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Appends what is held back, if it tells next to nothing. The output has paused.
    pub(super) fn idle(&mut self, _: &mut Vec<u8>) {}

    /// Bytes that are held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }
}
