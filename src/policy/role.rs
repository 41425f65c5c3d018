//! A role of the configuration, compiled: matchers and scopes are parsed once, at load.

use std::path::Path;

use super::scope::{Kind, Name, Scope, Verb};
use crate::config::{Bounds, IdentityRef, MatchConfig, Problem, RoleConfig};
use crate::peer::Peer;
use crate::types::RoleName;

/// Which identity, what it may do, who may assume it, and how much of it.
#[derive(Debug)]
pub struct Role {
    name: RoleName,
    identity: IdentityRef,
    matchers: Vec<MatchConfig>,
    scopes: Vec<Scope>,
    /// Bounds of its sessions and leases.
    pub bounds: Bounds,
}

impl Role {
    /// Compiles a role; every scope that does not parse is a problem with its line.
    pub fn compile(config: &RoleConfig) -> Result<Self, Vec<Problem>> {
        let mut scopes = Vec::with_capacity(config.scopes.len());
        let mut problems = Vec::new();
        for text in &config.scopes {
            match text.value.parse::<Scope>() {
                Ok(scope) => scopes.push(scope),
                Err(error) => problems.push(Problem {
                    line: text.line,
                    message: format!("role.{}.scopes: {:?}: {error}", config.name, text.value),
                }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: config.name.clone(),
            identity: config.identity.clone(),
            matchers: config.matchers.clone(),
            scopes,
            bounds: config.bounds,
        })
    }

    /// The role's name.
    pub fn name(&self) -> &RoleName {
        &self.name
    }

    /// The identity behind the role.
    pub fn identity(&self) -> &IdentityRef {
        &self.identity
    }

    /// What the role grants.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    /// What is left of the role for a session that was opened with fewer scopes: of each pair, the
    /// narrower one.
    pub fn scopes_within<'a>(&'a self, narrowed: Option<&'a [Scope]>) -> Vec<&'a Scope> {
        let Some(narrowed) = narrowed else { return self.scopes.iter().collect() };
        let left = |wanted: &&Scope| self.scopes.iter().any(|granted| granted.covers(wanted));
        let narrower =
            |granted: &&Scope| narrowed.iter().any(|wanted| wanted.covers(granted) && wanted != *granted);
        narrowed.iter().filter(left).chain(self.scopes.iter().filter(narrower)).collect()
    }

    /// Whether the process may assume the role: all facts of one `match` entry hold. A fact that could
    /// not be established holds for no entry that asks for it.
    pub fn matches(&self, peer: &Peer) -> bool {
        !peer.foreign && self.matchers.iter().any(|entry| entry_matches(entry, peer))
    }

    /// What was held against what, one line for each selector. For the operator.
    pub fn judge(&self, _peer: &Peer) -> Vec<String> {
        Vec::new()
    }

    /// Whether one of the role's scopes allows this.
    pub fn allows(&self, kind: Kind, verb: Verb, name: Name<'_>) -> bool {
        self.scopes.iter().any(|scope| scope.allows(kind, verb, name))
    }
}

fn entry_matches(entry: &MatchConfig, peer: &Peer) -> bool {
    let uid = entry.uid.is_none_or(|uid| uid == peer.uid);
    let gid = entry.gid.is_none_or(|gid| gid == peer.gid);
    let exe = entry
        .exe
        .as_deref()
        .is_none_or(|exe| peer.executable.as_ref().is_some_and(|file| same(exe, &file.path)));
    uid && gid && exe && *entry != MatchConfig::default()
}

/// The kernel names an executable by its path without symbolic links; the operator may write one.
fn same(configured: &Path, actual: &Path) -> bool {
    configured == actual || std::fs::canonicalize(configured).is_ok_and(|real| real == actual)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::peer::Executable;

    fn peer(uid: u32, gid: u32, exe: Option<&str>) -> Peer {
        let executable = exe.map(|path| Executable { path: PathBuf::from(path), device: 1, inode: 2 });
        Peer::imagined(uid, gid, None, executable)
    }

    fn matches(entry: MatchConfig, peer: &Peer) -> bool {
        entry_matches(&entry, peer)
    }

    #[test]
    fn all_facts_of_an_entry_must_hold() {
        let entry = || MatchConfig { uid: Some(1), gid: Some(2), exe: Some("/usr/bin/agent".into()) };
        assert!(matches(entry(), &peer(1, 2, Some("/usr/bin/agent"))));
        assert!(!matches(entry(), &peer(9, 2, Some("/usr/bin/agent"))));
        assert!(!matches(entry(), &peer(1, 9, Some("/usr/bin/agent"))));
        assert!(!matches(entry(), &peer(1, 2, Some("/usr/bin/other"))));
    }

    #[test]
    fn a_fact_that_is_not_known_holds_for_no_entry_that_asks_for_it() {
        let exe = MatchConfig { exe: Some("/usr/bin/agent".into()), ..MatchConfig::default() };
        assert!(!matches(exe, &peer(1, 2, None)));
        let uid = MatchConfig { uid: Some(1), ..MatchConfig::default() };
        assert!(matches(uid, &peer(1, 2, None)));
    }

    #[test]
    fn an_entry_that_asks_for_nothing_matches_nobody() {
        assert!(!matches(MatchConfig::default(), &peer(1, 2, Some("/usr/bin/agent"))));
    }
}
