//! Confines the process to the files and TCP ports that it needs (landlock, `landlock(7)`).
//!
//! Best effort: what the kernel does not know is left out and the report says how far it went. It binds
//! the calling thread and those started later, for ever. Nothing may be executed. A confined process
//! can trace none outside, which includes reading what it runs, and all that `/proc` hides: see `attestor`.
//! Imports nothing but its neighbours in `sys`.

use std::fs;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

use super::Protection;
use super::capability::give_up_tracing;

/// The newest that was tested; what later ones would restrict is not asked for.
const KNOWN: ABI = ABI::V7;
const NAME: &str = "files and network confined";

/// What stays allowed. Paths that do not exist are left out.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Read, with everything below.
    pub read: Vec<PathBuf>,
    /// Read, written, and changed by making and removing files and sockets, with everything below.
    pub write: Vec<PathBuf>,
    /// Opened for writing, as a device is. Nothing can be made or removed.
    pub devices: Vec<PathBuf>,
    /// TCP ports that may be connected to. None may be listened on.
    pub tcp_ports: Vec<u16>,
    /// Unix sockets with abstract names may be connected to.
    pub abstract_sockets: bool,
}

/// Confines this thread and all that it starts from now on, and gives up the right to trace, which a
/// confined process has no use for. Not fatal: the report says what was reached.
pub fn confine(allowed: &Allowed) -> Vec<Protection> {
    let tracing = |given_up| Protection::of("no right to trace processes of other users", given_up);
    let confined = restrict(allowed).map_or(off("off: landlock failed"), |status| report(&status));
    vec![confined, tracing(give_up_tracing())]
}

fn restrict(allowed: &Allowed) -> Result<RestrictionStatus, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let write = read | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | MakeSock | RemoveFile});
    let device = make_bitflags!(AccessFs::{ReadFile | WriteFile});
    let ports = allowed
        .tcp_ports
        .iter()
        .map(|&port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp)));
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?;
    if !allowed.abstract_sockets {
        // Not signals: the one that ends the attestor together with us is sent in our name.
        ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
    }
    ruleset
        .create()?
        .add_rules(path_beneath_rules(&allowed.read, read))?
        .add_rules(path_beneath_rules(&allowed.write, write))?
        .add_rules(path_beneath_rules(&allowed.devices, device))?
        .add_rules(ports)?
        .restrict_self()
}

fn report(status: &RestrictionStatus) -> Protection {
    let abi = match status.landlock {
        _ if status.ruleset == RulesetStatus::NotEnforced => ABI::Unsupported,
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => ABI::Unsupported,
    };
    let tier = match abi {
        ABI::Unsupported => return off("off: this kernel has no landlock"),
        ABI::V1 | ABI::V2 => "files, but not their truncation; landlock ABI 1 or 2",
        ABI::V3 => "files; landlock ABI 3",
        ABI::V4 => "files and TCP; landlock ABI 4",
        ABI::V5 => "files, devices and TCP; landlock ABI 5",
        _ => "files, devices, TCP and abstract sockets; landlock ABI 6 or later",
    };
    Protection { name: NAME, tier, full: status.ruleset == RulesetStatus::FullyEnforced }
}

fn off(tier: &'static str) -> Protection {
    Protection { name: NAME, tier, full: false }
}

/// True if `/proc` shows us of other users' processes only those that we may trace (`proc(5)`).
pub fn proc_is_hidden() -> bool {
    hides_processes(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

/// The last mount counts.
fn hides_processes(mounts: &str) -> bool {
    let proc = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next() == Some("/proc") && fields.next() == Some("proc")).then(|| fields.next())
    });
    let hides = |option: &str| option.strip_prefix("hidepid=").is_some_and(|how| !matches!(how, "0" | "off"));
    proc.flatten().is_some_and(|options| options.split(',').any(hides))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Acts on a confined thread: confinement never ends otherwise. `None`, and says so, where the
    /// kernel cannot do it.
    fn confined<T: Send>(allowed: &Allowed, act: impl FnOnce() -> T + Send) -> Option<T> {
        thread::scope(|scope| {
            let acting = scope.spawn(|| {
                let reached = confine(allowed);
                if !reached[0].full {
                    let _ = writeln!(std::io::stderr(), "skipped: {}", reached[0].tier);
                }
                reached[0].full.then(act)
            });
            acting.join().unwrap()
        })
    }

    fn denied<T>(outcome: std::io::Result<T>) -> bool {
        outcome.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn files_are_read_and_written_where_it_is_allowed_and_nowhere_else() {
        let room = tempfile::tempdir().unwrap();
        let [read, write, other] = ["read", "write", "other"].map(|name| room.path().join(name));
        for directory in [&read, &write, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "text").unwrap();
        }
        let allowed = Allowed { read: vec![read.clone()], write: vec![write.clone()], ..Allowed::default() };
        confined(&allowed, || {
            fs::read(read.join("file")).unwrap();
            assert!(denied(File::options().write(true).open(read.join("file"))));
            assert!(denied(File::create(read.join("new"))) && denied(fs::remove_file(read.join("file"))));
            fs::write(write.join("new"), "text").unwrap();
            fs::rename(write.join("new"), write.join("file")).unwrap();
            let _listener = UnixListener::bind(write.join("socket")).unwrap();
            fs::remove_file(write.join("socket")).unwrap();
            assert!(fs::rename(write.join("file"), other.join("moved")).is_err());
            assert!(denied(fs::create_dir(write.join("directory"))));
            assert!(denied(std::os::unix::fs::symlink("/", write.join("link"))));
            assert!(denied(fs::read(other.join("file"))) && denied(fs::read_dir(&other)));
            assert!(denied(UnixListener::bind(other.join("socket"))));
            assert!(denied(fs::read("/etc/passwd")));
        });
    }

    #[test]
    fn nothing_can_be_executed() {
        let allowed =
            Allowed { read: vec!["/".into()], devices: vec!["/dev/null".into()], ..Allowed::default() };
        confined(&allowed, || {
            assert!(denied(Command::new("/bin/true").status()));
            File::options().write(true).open("/dev/null").unwrap();
        });
    }

    #[test]
    fn only_the_ports_that_are_named_can_be_connected_to_and_none_listened_on() {
        let [known, other] = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let allowed = Allowed { tcp_ports: vec![port(&known)], ..Allowed::default() };
        confined(&allowed, || {
            TcpStream::connect(("127.0.0.1", port(&known))).unwrap();
            assert!(denied(TcpStream::connect(("127.0.0.1", port(&other)))));
            assert!(denied(TcpListener::bind("127.0.0.1:0")));
        });
    }

    #[test]
    fn abstract_sockets_are_reached_only_where_one_is_needed() {
        let name = format!("ravi-broker-confine-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let _manager = UnixDatagram::bind_addr(&address).unwrap();
        let send = || UnixDatagram::unbound().unwrap().send_to_addr(b"READY=1", &address);
        let without = confined(&Allowed::default(), send);
        assert!(without.is_none_or(|sent| sent.is_err()));
        let with = confined(&Allowed { abstract_sockets: true, ..Allowed::default() }, send);
        assert!(with.is_none_or(|sent| sent.is_ok()));
    }

    #[test]
    fn a_confined_thread_cannot_see_what_another_process_runs() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let exe = format!("/proc/{}/exe", child.id());
        fs::read_link(&exe).unwrap();
        let allowed = Allowed { read: vec!["/".into()], ..Allowed::default() };
        assert_ne!(confined(&allowed, || denied(fs::read_link(&exe))), Some(false));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_proc_that_hides_processes_is_noticed() {
        let mounts = |options| format!("dev / ext4 rw 0 0\nproc /proc proc rw,{options} 0 0\na /b c d 0 0\n");
        for hides in ["hidepid=2", "nosuid,hidepid=invisible,gid=4", "hidepid=1"] {
            assert!(hides_processes(&mounts(hides)), "{hides}");
        }
        for shows in ["nosuid", "hidepid=0", "hidepid=off"] {
            assert!(!hides_processes(&mounts(shows)), "{shows}");
        }
        assert!(!hides_processes(""));
    }
}
