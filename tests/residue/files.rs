//! What a process leaves outside its memory: its environment, its command line, its log, the audit trail,
//! every other file, and what the operator is shown.

use std::fs;
use std::path::{Path, PathBuf};

use crate::census::Census;
use crate::stage::Stage;

/// Where a test puts what it hands to the programs itself.
pub(crate) const HANDED_OVER: &str = "credentials";

impl Stage {
    /// Searches all of it, for the daemon and these other processes.
    pub(crate) async fn outside(&self, others: &[i32]) -> Census {
        let mut texts = Vec::new();
        for pid in others.iter().copied().chain([self.stack.daemon.pid(), std::process::id().cast_signed()]) {
            for name in ["environ", "cmdline"] {
                let path = format!("/proc/{pid}/{name}");
                texts.push((path.clone(), fs::read(&path).expect("root may look")));
            }
        }
        let mut paths = Vec::new();
        files(self.stack.setup.directory(), &mut paths);
        for expected in ["log", "audit.jsonl", "config.toml"] {
            assert!(paths.iter().any(|path| path.ends_with(expected)), "{expected} would not be searched");
        }
        for path in paths {
            let text = fs::read(&path).expect("the file can be read");
            texts.push((path.display().to_string(), text));
        }
        texts.push(("status".to_owned(), self.shown().await.into_bytes()));
        Census::of_texts(texts.iter().map(|(place, text)| (place.clone(), text.as_slice())), &self.canaries)
    }

    /// What the operator sees. Metrics belong here once there are any.
    async fn shown(&self) -> String {
        let admin = self.stack.admin().await;
        let (status, sessions) = (admin.status().await.unwrap(), admin.sessions().await.unwrap());
        format!("{status:?} {sessions:?} {:?}", admin.leases(None).await.unwrap())
    }
}

/// Every file below but those that the test itself has written secrets into.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_dir() && !path.ends_with(HANDED_OVER) {
            files(&path, found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}
