//! The role that a host's agents act as: what is added to the broker's configuration where it has none.
//!
//! It may use values and not read them: whoever wants `read` writes it there. Imports `config` through its sibling,
//! and `types`.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::error::SetupError;
use super::piece::{Want, Wish};
use super::toml::quoted;
use crate::cli::args::Global;
use crate::cli::config;
use crate::config::{ConfigError, Environment, paths};
use crate::types::{IdentityName, RoleName};

/// What a role of setup may do.
const SCOPES: [&str; 8] = [
    "identity:read",
    "secret:list",
    "secret:use",
    "password:list",
    "password:use",
    "password:create",
    "email:await",
    "sms:await",
];

/// What the broker's configuration says of a role.
pub(super) enum Standing {
    /// It has it; true if it may read values.
    There(bool),
    /// It has not, and this is its file.
    Missing(PathBuf),
    /// It is not for this user to see.
    Hidden,
}

/// A role as it is to be added.
pub(super) struct NewRole<'a> {
    pub(super) name: &'a RoleName,
    pub(super) identity: &'a IdentityName,
    pub(super) host: &'a str,
    /// Entries of `match`, each with what it is.
    pub(super) matches: Vec<Match>,
}

/// Who may assume it.
pub(super) struct Match {
    pub(super) exe: PathBuf,
    pub(super) parent: Option<PathBuf>,
    pub(super) what: &'static str,
}

/// What starts the adapter, as the kernel will name it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// This file.
    Known(PathBuf),
    /// Its path has a version in it, and an update would end its access.
    Changing,
    /// It is not on the path, or a script of which nobody knows what it starts.
    Unknown,
}

pub(super) fn standing(global: &Global, role: &RoleName) -> Result<Standing, ConfigError> {
    match config::in_force(global) {
        Ok((path, config)) => Ok(match config.roles.iter().find(|known| known.name == *role) {
            Some(known) => Standing::There(known.scopes.iter().any(|scope| reads_values(&scope.value))),
            None => Standing::Missing(path),
        }),
        Err(ConfigError::NotFound { looked_for }) => {
            Ok(looked_for.into_iter().next().map_or(Standing::Hidden, Standing::Missing))
        }
        Err(ConfigError::Unreadable { .. } | ConfigError::Untrusted { .. }) => Ok(Standing::Hidden),
        Err(error) => Err(error),
    }
}

fn reads_values(scope: &str) -> bool {
    ["secret:read", "password:read"].iter().any(|read| scope.starts_with(read))
}

impl NewRole<'_> {
    /// As it stands in the file.
    pub(super) fn text(&self) -> Result<String, SetupError> {
        let uid = geteuid();
        let entry = |entry: &Match| {
            let path = |path: &Path| path.to_str().map(quoted).ok_or(SetupError::NotText);
            let parent = match &entry.parent {
                Some(parent) => format!(", parent_exe = {}", path(parent)?),
                None => String::new(),
            };
            Ok(format!("    {{ uid = {uid}, exe = {}{parent} }},   # {}\n", path(&entry.exe)?, entry.what))
        };
        let matches = self.matches.iter().map(entry).collect::<Result<String, SetupError>>()?;
        let scopes = SCOPES.map(quoted).join(", ");
        Ok(format!(
            "# Added by `ravi-broker setup {}`. Values are used and not shown: with `read` in place of `use` the\n\
             # model is shown them, and so are its provider and the host's logs.\n\
             [role.{}]\n\
             identity = {}\n\
             provision = true   # created at Ravi when there is none of this name\n\
             match = [\n{matches}]\n\
             scopes = [{scopes}]\n",
            self.host,
            key(self.name),
            quoted(self.identity.as_str()),
        ))
    }

    /// The wish to add it.
    pub(super) fn wish(&self, file: PathBuf) -> Result<Wish, SetupError> {
        let table = ["role".to_owned(), self.name.to_string()];
        Ok(Wish { file, want: Want::Toml { table, block: self.text()?, head: head()? } })
    }
}

/// What a configuration that is not there yet begins with.
fn head() -> Result<String, SetupError> {
    let state = paths::state_directory(&Environment::capture()).map_err(|_| SetupError::NoHome)?;
    let file = state.join("management-key");
    let file = quoted(file.to_str().ok_or(SetupError::NotText)?);
    Ok(format!(
        "# `ravi-broker config example` shows every setting.\n\
         version = 1\n\n\
         [upstream]\n\
         management_key_file = {file}   # `ravi-broker login` keeps the key there, mode 0600\n\n"
    ))
}

/// A name with a dot would be two.
fn key(name: &RoleName) -> String {
    if name.as_str().contains('.') { quoted(name.as_str()) } else { name.to_string() }
}

/// What a host's program is to the kernel.
pub(super) fn parent(program: &str) -> Parent {
    let path = env::var_os("PATH").unwrap_or_default();
    parent_in(program, &env::split_paths(&path).collect::<Vec<_>>())
}

fn parent_in(program: &str, directories: &[PathBuf]) -> Parent {
    let Some(mut file) = look_up(program, directories) else { return Parent::Unknown };
    // A script, whose interpreter is a script at most once.
    for _ in 0..2 {
        let Some(line) = interpreter(&file) else { break };
        let mut words = line.split_whitespace().filter(|word| *word != "-S");
        let first = words.next().unwrap_or_default();
        let named = if first.ends_with("/env") { words.next().unwrap_or_default() } else { first };
        let name = named.rsplit('/').next().unwrap_or_default();
        if name.ends_with("sh") {
            return Parent::Unknown;
        }
        let found = if named.starts_with('/') {
            named.parse().ok().and_then(canonical)
        } else {
            look_up(named, directories)
        };
        match found {
            Some(found) => file = found,
            None => return Parent::Unknown,
        }
    }
    let version = |name: &str| {
        name.as_bytes()
            .windows(3)
            .any(|part| part[0].is_ascii_digit() && part[1] == b'.' && part[2].is_ascii_digit())
    };
    if file.to_str().is_none_or(version) { Parent::Changing } else { Parent::Known(file) }
}

fn look_up(program: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let absolute = directories.iter().filter(|directory| directory.is_absolute());
    absolute.map(|directory| directory.join(program)).find(|file| file.is_file()).and_then(canonical)
}

fn canonical(path: PathBuf) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}

/// What the first line of a script names.
fn interpreter(file: &Path) -> Option<String> {
    let mut start = Vec::new();
    File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_text_of_a_role_holds_and_reads_nothing() {
        let (name, identity) = ("a.b-c".parse().unwrap(), "its \"name\"".parse().unwrap());
        let entry = |parent: Option<&str>| Match {
            exe: "/opt/ravi-broker-mcp".into(),
            parent: parent.map(Into::into),
            what: "the adapter",
        };
        let matches = vec![entry(Some("/usr/bin/claude")), entry(None)];
        let role = NewRole { name: &name, identity: &identity, host: "claude-code", matches };
        let text = role.text().unwrap();
        assert!(config::would_hold(Path::new("/x"), &format!("version = 1\n{text}")), "{text}");
        assert!(!SCOPES.iter().any(|scope| reads_values(scope)));
        assert!(!config::would_hold(Path::new("/x"), &format!("version = 1\n{text}{text}")));
    }

    #[test]
    fn the_program_of_a_host_is_what_the_kernel_will_call_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let path = [root.clone()];
        let put = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        put("native", "\x7fELF");
        put("runtime", "\x7fELF");
        put("script", "#!/usr/bin/env -S runtime --flag\n");
        put("shell", "#!/bin/bash\nexec native\n");
        fs::create_dir(root.join("2.1.40")).unwrap();
        put("2.1.40/native", "\x7fELF");
        std::os::unix::fs::symlink(root.join("2.1.40/native"), root.join("updated")).unwrap();
        assert_eq!(parent_in("native", &path), Parent::Known(root.join("native")));
        assert_eq!(parent_in("script", &path), Parent::Known(root.join("runtime")));
        assert_eq!(parent_in("updated", &path), Parent::Changing);
        assert_eq!(
            (parent_in("shell", &path), parent_in("absent", &path)),
            (Parent::Unknown, Parent::Unknown)
        );
    }
}
