//! What gives the adapter its session: a role that it assumes, or a session that a shell opened.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::types::{NameError, RoleName};

/// Where the session comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The adapter opens a session of its own, bound to its own process.
    Role(RoleName),
    /// The adapter uses the session in this file and neither opens nor closes one.
    SessionFile(PathBuf),
    /// Nothing was said: the protocol is served, and every tool call says what is missing.
    Unset,
}

/// What one level of precedence names.
#[derive(Default)]
pub(super) struct Named {
    pub(super) role: Option<RoleName>,
    pub(super) session_file: Option<PathBuf>,
}

impl Named {
    /// What the environment names. A variable that is empty counts as absent.
    pub(super) fn of_variables(
        role: Option<OsString>,
        session_file: Option<OsString>,
    ) -> Result<Self, NameError> {
        let role = role.filter(|value| !value.is_empty());
        let role = role.map(|value| value.to_str().ok_or(NameError::Role)?.parse()).transpose()?;
        let session_file = session_file.filter(|value| !value.is_empty()).map(PathBuf::from);
        Ok(Self { role, session_file })
    }

    /// Flags go before the environment. On one level a role goes before a session file, since a session
    /// file is often inherited from a shell that meant it for something else.
    pub(super) fn access(self, variables: Self) -> Access {
        let of = |named: Self| match (named.role, named.session_file) {
            (Some(role), _) => Some(Access::Role(role)),
            (None, Some(path)) => Some(Access::SessionFile(path)),
            (None, None) => None,
        };
        of(self).or_else(|| of(variables)).unwrap_or(Access::Unset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(role: Option<&str>, file: Option<&str>) -> Named {
        Named::of_variables(role.map(Into::into), file.map(Into::into)).unwrap()
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_a_role_before_a_file() {
        let role = |name: &str| Access::Role(name.parse().unwrap());
        assert_eq!(named(Some("a"), None).access(named(Some("b"), Some("/f"))), role("a"));
        assert_eq!(named(None, Some("/f")).access(named(Some("b"), None)), Access::SessionFile("/f".into()));
        assert_eq!(named(None, None).access(named(Some("b"), Some("/f"))), role("b"));
        assert_eq!(named(None, None).access(named(Some(""), Some(""))), Access::Unset);
    }

    #[test]
    fn a_variable_that_is_no_role_name_is_refused() {
        assert!(Named::of_variables(Some("Notes Agent".into()), None).is_err());
    }
}
