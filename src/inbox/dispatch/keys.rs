//! Keys of signatures and bearer tokens of callbacks: read from files, kept sealed, opened for one request.
//!
//! A lock takes the key that they are sealed under; they are read again when they are needed next. Imports `vault`.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::rules::Rules;
use crate::config::Form;
use crate::secret::Secret;
use crate::vault::arena::{Arena, Slot};
use crate::vault::keyfile::{self, KeyError};

/// Of the key of a signature, in bytes.
const KEY_LENGTHS: RangeInclusive<u64> = 32..=256;
/// Of a token.
const TOKEN_LENGTHS: RangeInclusive<u64> = 1..=512;

/// By file. Concurrency: any thread; the lock is held for a copy at most.
pub(super) struct HookKeys {
    arena: Arc<Arena>,
    /// Bounded by the rules.
    sealed: Mutex<HashMap<PathBuf, Slot>>,
}

impl HookKeys {
    /// Holds nothing yet.
    pub(super) fn new(arena: Arc<Arena>) -> Self {
        Self { arena, sealed: Mutex::default() }
    }

    /// Reads what the rules name, all of it or nothing, and forgets the rest.
    pub(super) fn load(&self, rules: &Rules) -> Result<(), KeyError> {
        let mut sealed = HashMap::new();
        for rule in rules.iter() {
            if let Some(file) = rule.config.form.key_file() {
                let key = read(file, &rule.config.form)?;
                if let Ok(slot) = self.arena.seal_key(&key) {
                    sealed.insert(file.clone(), slot);
                }
            }
        }
        *self.sealed.lock().unwrap_or_else(PoisonError::into_inner) = sealed;
        Ok(())
    }

    /// The key or token of a form. `None`: it needs none.
    pub(super) fn open(&self, form: &Form) -> Result<Option<Secret>, KeyError> {
        let Some(file) = form.key_file() else { return Ok(None) };
        let opened = {
            let sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
            sealed.get(file).and_then(|slot| self.arena.open(slot))
        };
        if opened.is_some() {
            return Ok(opened);
        }
        let key = read(file, form)?;
        if let Ok(slot) = self.arena.seal_key(&key) {
            self.sealed.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone(), slot);
        }
        Ok(Some(key))
    }
}

fn read(file: &Path, form: &Form) -> Result<Secret, KeyError> {
    let lengths = if matches!(form, Form::Json { .. }) { KEY_LENGTHS } else { TOKEN_LENGTHS };
    keyfile::read_private(file, lengths)
}
