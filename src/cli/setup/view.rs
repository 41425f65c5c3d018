//! What setup tells: the change, the files, and what to know and do. Imports `output` and `page`.

use serde::Serialize;
use serde_json::{Value, json};

use super::Job;
use super::host::SERVER;
use super::stage::Stage;
use crate::cli::output::Document;
use crate::cli::page::Page;
use crate::types::RoleName;

/// A run of setup.
#[derive(Serialize)]
pub(super) struct SetupView {
    host: String,
    role: Option<String>,
    changed: bool,
    files: Vec<String>,
    diff: String,
    notes: Vec<String>,
}

impl SetupView {
    pub(super) fn of(job: &Job, stage: &Stage, notes: Vec<String>) -> Self {
        Self::new(job.host.name(), Some(job.role.to_string()), stage, notes)
    }

    pub(super) fn new(host: &str, role: Option<String>, stage: &Stage, notes: Vec<String>) -> Self {
        let files = stage.changed().iter().map(|file| file.display().to_string()).collect();
        Self { host: host.to_owned(), role, changed: false, files, diff: stage.diff(), notes }
    }

    pub(super) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    /// The change is made.
    pub(super) fn written(&mut self, note: String) {
        self.changed = true;
        self.notes.push(note);
    }

    pub(super) fn diff_on(&self, page: &mut Page) {
        self.diff.lines().for_each(|line| page.line(line));
    }
}

impl Document for SetupView {
    fn human(&self, page: &mut Page) {
        if self.changed {
            page.line(format!("Written: {}", self.files.join(", ")));
        }
        self.notes.iter().flat_map(|note| note.lines()).for_each(|line| page.line(line));
    }
}

/// What to write by hand.
#[derive(Serialize)]
pub(super) struct PrintView {
    #[serde(rename = "mcpServers")]
    servers: Value,
    role: RoleView,
}

#[derive(Serialize)]
struct RoleView {
    name: String,
    text: Option<String>,
}

impl PrintView {
    pub(super) fn of(server: Value, role: &RoleName, text: Option<String>) -> Self {
        Self { servers: json!({SERVER: server}), role: RoleView { name: role.to_string(), text } }
    }
}

impl Document for PrintView {
    fn human(&self, page: &mut Page) {
        let servers = json!({"mcpServers": self.servers});
        // Text and lists always serialise.
        page.shell(&serde_json::to_string_pretty(&servers).unwrap_or_default());
        if let Some(text) = &self.role.text {
            page.line("");
            page.shell(text.trim_end());
        }
    }
}
