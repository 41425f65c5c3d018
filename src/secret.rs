//! The one type that holds a secret in the clear.
//!
//! Invariant I6: `Secret` has no `Debug`, `Display`, `Serialize` or `Clone`, so it cannot reach a
//! log, an error or a second copy by accident. [`Secret::expose`] is the only way out and is meant
//! to be searched for. Imports nothing of this crate.

use std::fmt;

use secrecy::{ExposeSecret, SecretBox};
use serde::de::{Deserialize, Deserializer, Visitor};

/// A secret text, wiped when dropped. Ravi's values are JSON strings, hence UTF-8.
pub struct Secret(SecretBox<str>);

impl Secret {
    /// Takes the text over. Spare capacity is given back first; the allocator wipes what it frees.
    pub fn new(text: String) -> Self {
        Self(SecretBox::new(text.into_boxed_str()))
    }

    /// Copies the text, leaving the source for its owner to wipe.
    pub fn copy_of(text: &str) -> Self {
        Self(SecretBox::new(Box::from(text)))
    }

    /// The secret in the clear.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// True for the empty text, which Ravi uses for "absent".
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SecretVisitor)
    }
}

struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::copy_of(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }
}
