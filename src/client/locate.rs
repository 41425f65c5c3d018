//! Where the daemon's sockets may be. What a person or a host names explicitly is the only candidate,
//! so that a mistake is not papered over by another daemon; otherwise the usual places are tried in
//! order. Hosts start programs with little more than `HOME` and `PATH`, hence `/run/user/<uid>` besides
//! `XDG_RUNTIME_DIR`. Never `/tmp`: anyone could be listening there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// Names the agent socket.
pub const AGENT_SOCKET_VARIABLE: &str = "RAVI_BROKER_SOCKET";
/// Names the admin socket.
pub const ADMIN_SOCKET_VARIABLE: &str = "RAVI_BROKER_ADMIN_SOCKET";
/// Names a session file; a path, never a token.
pub const SESSION_FILE_VARIABLE: &str = "RAVI_BROKER_SESSION_FILE";

/// Directory of the broker below a runtime directory.
const DIRECTORY: &str = "ravi-broker";
const SYSTEM_RUNTIME: &str = "/run";

/// Candidates for the agent socket, best first. `flag` is what the command line named.
pub fn agent_sockets(flag: Option<&Path>) -> Vec<PathBuf> {
    candidates("broker.sock", flag, std::env::var_os(AGENT_SOCKET_VARIABLE), &Runtime::of_process())
}

/// Candidates for the admin socket, best first. `flag` is what the command line named.
pub fn admin_sockets(flag: Option<&Path>) -> Vec<PathBuf> {
    candidates("admin.sock", flag, std::env::var_os(ADMIN_SOCKET_VARIABLE), &Runtime::of_process())
}

/// The user's directory for session files, which is in memory: `$XDG_RUNTIME_DIR/ravi-broker/sessions`,
/// or the same below `/run/user/<uid>` if that exists. `None`: the host offers no such directory.
pub fn session_directory() -> Option<PathBuf> {
    let runtime = Runtime::of_process();
    let base = runtime.named.or_else(|| runtime.user.is_dir().then_some(runtime.user))?;
    Some(base.join(DIRECTORY).join("sessions"))
}

/// Runtime directories of the calling user.
struct Runtime {
    /// `XDG_RUNTIME_DIR`, if it is an absolute path (the XDG base directory rules ignore others).
    named: Option<PathBuf>,
    user: PathBuf,
}

impl Runtime {
    fn of_process() -> Self {
        Self::new(std::env::var_os("XDG_RUNTIME_DIR").as_deref(), Uid::effective().as_raw())
    }

    fn new(named: Option<&OsStr>, uid: u32) -> Self {
        let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
        Self { named, user: Path::new(SYSTEM_RUNTIME).join("user").join(uid.to_string()) }
    }
}

fn candidates(
    socket: &str,
    flag: Option<&Path>,
    variable: Option<OsString>,
    runtime: &Runtime,
) -> Vec<PathBuf> {
    if let Some(path) = flag {
        return vec![path.to_owned()];
    }
    if let Some(path) = variable.filter(|value| !value.is_empty()) {
        return vec![path.into()];
    }
    let system = PathBuf::from(SYSTEM_RUNTIME);
    let directories = [runtime.named.clone(), Some(runtime.user.clone()), Some(system)];
    let mut sockets: Vec<PathBuf> =
        directories.into_iter().flatten().map(|base| base.join(DIRECTORY).join(socket)).collect();
    sockets.dedup();
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sockets: &[PathBuf]) -> Vec<&str> {
        sockets.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn what_is_named_explicitly_is_the_only_candidate() {
        let runtime = Runtime::new(Some("/run/user/7".as_ref()), 7);
        let variable = || Some(OsString::from("/b"));
        assert_eq!(names(&candidates("broker.sock", Some("/a".as_ref()), variable(), &runtime)), ["/a"]);
        assert_eq!(names(&candidates("broker.sock", None, variable(), &runtime)), ["/b"]);
    }

    #[test]
    fn without_a_runtime_directory_in_the_environment_the_usual_places_are_tried() {
        let runtime = Runtime::new(None, 7);
        let sockets = candidates("broker.sock", None, Some(OsString::new()), &runtime);
        assert_eq!(names(&sockets), ["/run/user/7/ravi-broker/broker.sock", "/run/ravi-broker/broker.sock"]);
    }

    #[test]
    fn a_relative_runtime_directory_is_ignored_and_a_repeated_one_is_tried_once() {
        assert!(Runtime::new(Some("run".as_ref()), 7).named.is_none());
        let runtime = Runtime::new(Some("/run/user/7".as_ref()), 7);
        let sockets = candidates("admin.sock", None, None, &runtime);
        assert_eq!(names(&sockets), ["/run/user/7/ravi-broker/admin.sock", "/run/ravi-broker/admin.sock"]);
    }
}
