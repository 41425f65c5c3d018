//! A role of the configuration, compiled: matchers and scopes are parsed once, at load.

use super::matching::{self, Verdict};
use super::scope::{Kind, Name, Scope, Verb};
use super::{Action, ask, permits_by};
use crate::approval;
use crate::config::{Bind, Bounds, IdentityRef, MatchConfig, Problem, Provision, RoleConfig, UseBy};
use crate::peer::{Needs, Peer};
use crate::types::{Delivery, RoleName};

/// Which identity, what it may do, who may assume it, and how much of it.
#[derive(Debug)]
pub struct Role {
    name: RoleName,
    identity: IdentityRef,
    matchers: Vec<MatchConfig>,
    scopes: Vec<Scope>,
    /// What the operator is asked about.
    approve: Vec<Scope>,
    /// How it waits for the answer.
    pub approval: approval::Bounds,
    inject: Vec<Delivery>,
    /// Which processes may use a session that one of them opened.
    pub bind: Bind,
    /// Which programs are given a value that is not shown.
    pub use_by: UseBy,
    /// What is created if its identity is not there.
    pub provision: Provision,
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
        let approve = ask::marks(config, &scopes, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            approve,
            approval: approval::Bounds {
                role: config.approval.max_pending,
                session: config.approval.session_pending,
                wait: config.approval.wait,
            },
            name: config.name.clone(),
            identity: config.identity.clone(),
            matchers: config.matchers.clone(),
            scopes,
            inject: config.inject.clone(),
            bind: config.bind,
            use_by: config.use_by,
            provision: config.provision,
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
        matching::matches(&self.matchers, peer)
    }

    /// The same, with what was compared with what: for the operator.
    pub fn judge(&self, peer: &Peer) -> Verdict {
        matching::judge(&self.matchers, peer)
    }

    /// Which costly facts decide whether the process may assume the role.
    pub fn needs(&self, peer: &Peer) -> Needs {
        matching::needs(&self.matchers, peer)
    }

    /// Whether the role lets a value be delivered in this way. What may be shown is a matter of scopes alone.
    pub fn delivers(&self, delivery: Delivery) -> bool {
        delivery == Delivery::Shown || self.inject.contains(&delivery)
    }

    /// Whether its `match` asks what the process runs: then an exec is a reason to ask again.
    pub fn names_program(&self) -> bool {
        let named = |entry: &MatchConfig| {
            entry.exe.is_some() || entry.exe_sha256.is_some() || entry.parent_exe.is_some()
        };
        self.matchers.iter().any(named)
    }

    /// Whether its sessions may be used from other user and PID namespaces.
    pub fn admits_other_namespaces(&self) -> bool {
        self.matchers.iter().any(|entry| entry.foreign)
    }

    /// Whether the operator is to be asked first: no scope that is not marked suffices. A mark on `use` is one on
    /// `read` too, which gives more.
    pub fn asks(&self, action: &Action) -> bool {
        let marked = |kind, verb, name: Name<'_>| {
            let marks = |verb| self.approve.iter().any(|mark| mark.concerns(kind, verb, name));
            marks(verb) || (verb == Verb::Read && marks(Verb::Use))
        };
        let free = |kind, verb, name: Name<'_>| self.allows(kind, verb, name) && !marked(kind, verb, name);
        !self.approve.is_empty() && !permits_by(&self.scopes, &free, action)
    }

    /// Whether one of the role's scopes allows this.
    pub fn allows(&self, kind: Kind, verb: Verb, name: Name<'_>) -> bool {
        self.scopes.iter().any(|scope| scope.allows(kind, verb, name))
    }
}
