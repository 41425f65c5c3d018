//! The files that a run would change, as they are and as they would be. Nothing is written before all of it is
//! known, shown and agreed to. Imports its siblings.

use std::path::{Path, PathBuf};

use super::diff;
use super::disk::{self, Found};
use super::error::SetupError;
use super::piece::{Piece, Want, What, Wish};

/// One file.
struct File {
    /// As it was named; `found` has where that leads.
    named: PathBuf,
    found: Found,
    new: Option<String>,
    mode: u32,
    /// Whether its directory goes with it.
    with_directory: bool,
}

/// All of them.
pub(super) struct Stage {
    files: Vec<File>,
    in_project: bool,
    /// Texts that may be shown.
    ours: Vec<String>,
}

impl Stage {
    pub(super) fn new(in_project: bool) -> Self {
        Self { files: Vec::new(), in_project, ours: Vec::new() }
    }

    /// Does what is about the user's files, whatever the others are.
    pub(super) fn of_user<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.in_project, false);
        let result = act(self);
        self.in_project = before;
        result
    }

    /// Puts a piece in. Returns it if that changes anything.
    pub(super) fn put(&mut self, wish: &Wish, known: Option<&Piece>) -> Result<Option<Piece>, SetupError> {
        let mode = match &wish.want {
            Want::Whole { program: true, .. } => 0o755,
            Want::Whole { .. } => 0o644,
            _ if self.in_project => 0o644,
            _ => 0o600,
        };
        let file = self.open(&wish.file, mode)?;
        let put = wish.put(file.new.as_deref(), known);
        let Some((text, piece)) = put.map_err(|fault| SetupError::of(fault, wish.file.clone()))? else {
            return Ok(None);
        };
        file.new = Some(text);
        let directory = piece.directory || !file.found.directory;
        self.ours.extend(wish.texts());
        Ok(Some(Piece { directory, ..piece }))
    }

    /// Takes a piece out, if the rest of the file `holds` without it.
    pub(super) fn take(&mut self, piece: &Piece, holds: impl Fn(&str) -> bool) -> Result<(), SetupError> {
        self.ours.extend(piece.texts());
        let file = self.open(&piece.file, 0o600)?;
        let Some(text) = &file.new else { return Ok(()) };
        let left = piece.take(text).map_err(|fault| SetupError::of(fault, piece.file.clone()))?;
        if left.as_deref().is_some_and(|left| !holds(left)) {
            return Err(SetupError::Shape(piece.file.clone()));
        }
        file.new = left;
        file.with_directory |= piece.directory;
        Ok(())
    }

    /// What a file would say.
    pub(super) fn text(&self, path: &Path) -> Option<&str> {
        self.files.iter().find(|file| file.named == path).and_then(|file| file.new.as_deref())
    }

    /// The files that change.
    pub(super) fn changed(&self) -> Vec<&Path> {
        self.changes().map(|file| file.found.path.as_path()).collect()
    }

    /// The change, for people.
    pub(super) fn diff(&self) -> String {
        let texts = |file: &File| {
            let [old, new] = [&file.found.text, &file.new].map(Option::as_deref);
            diff::unified(&file.found.path, old, new, &self.ours)
        };
        self.changes().map(texts).collect()
    }

    /// Writes all of it.
    pub(super) fn write(&self) -> Result<(), SetupError> {
        for file in self.changes() {
            file.found.replace(file.new.as_deref(), file.mode)?;
            if file.new.is_none() && file.with_directory {
                // Not if somebody keeps more in it.
                let _ = file.found.path.parent().map(std::fs::remove_dir);
            }
        }
        Ok(())
    }

    fn changes(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.new != file.found.text)
    }

    fn open(&mut self, path: &Path, mode: u32) -> Result<&mut File, SetupError> {
        let at = match self.files.iter().position(|file| file.named == path) {
            Some(at) => at,
            None => {
                let found = disk::find(path, self.in_project)?;
                let new = found.text.clone();
                self.files.push(File { named: path.to_owned(), found, new, mode, with_directory: false });
                self.files.len() - 1
            }
        };
        Ok(&mut self.files[at])
    }
}

impl Piece {
    /// Texts of ours, which may be shown.
    fn texts(&self) -> Vec<String> {
        match &self.what {
            What::Json { at, value, .. } => {
                let want = Want::Json { at: at.clone(), value: value.clone() };
                Wish { file: self.file.clone(), want }.texts()
            }
            What::Toml { text, .. } => vec![text.clone()],
            What::Whole { .. } => Vec::new(),
        }
    }
}
