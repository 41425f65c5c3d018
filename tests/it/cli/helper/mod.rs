//! The credential helpers, as the programs start them that ask in their protocols.

mod git;
mod others;

use super::{Run, fed};
use crate::support::Stack;

const ROLES: &str = r#"
[role.tools]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["password:use:github.com", "password:use:example.co.uk", "password:list", "password:write:github.com", "secret:use"]
lease = { default_ttl = "5m", max_ttl = "1h", max_live = 4 }

[role.sealed]
identity = "deploy-agent"
match = { uid = UID }
scopes = ["password:use:github.com", "secret:use"]
inject = ["file"]
"#;

const PASSWORD: &str = "sandbox-github-deploy-6f98";

/// A daemon with roles that may use values and see none.
async fn stack() -> Stack {
    Stack::with(|setup| setup.roles.push_str(ROLES)).await
}

impl Stack {
    /// Asks a helper under a role.
    fn ask(&self, line: &str, input: &str) -> Run {
        self.run_with(&format!("{line} --role tools"), input)
    }

    /// The same under a name that another program knows the helper by.
    fn ask_as(&self, name: &str, arguments: &[&str], role: &str, input: &str) -> Run {
        let program = self.setup.directory().join(name);
        if !program.exists() {
            std::os::unix::fs::symlink(super::PROGRAM, &program).unwrap();
        }
        let mut command = self.surrounded(program.to_str().unwrap());
        command.args(arguments).env("RAVI_BROKER_ROLE", role);
        Run::of(&fed(command, input))
    }
}
