//! Where the units of an instance lie, what they say, and how they are turned on and off.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;
use serde::Serialize;

use super::ServiceError;
use super::step::Step;

/// The daemon's own first; then what it is started by, and asks.
const SYSTEM: [(&str, &str); 5] = [
    (SERVICE, include_str!("../../../systemd/system/ravi-broker.service")),
    ("ravi-broker.socket", include_str!("../../../systemd/system/ravi-broker.socket")),
    ("ravi-broker-admin.socket", include_str!("../../../systemd/system/ravi-broker-admin.socket")),
    ("ravi-broker-attestor.socket", include_str!("../../../systemd/system/ravi-broker-attestor.socket")),
    ("ravi-broker-attestor.service", include_str!("../../../systemd/system/ravi-broker-attestor.service")),
];
const USER: [(&str, &str); 3] = [
    (SERVICE, include_str!("../../../systemd/user/ravi-broker.service")),
    ("ravi-broker.socket", include_str!("../../../systemd/user/ravi-broker.socket")),
    ("ravi-broker-admin.socket", include_str!("../../../systemd/user/ravi-broker-admin.socket")),
];
const SYSUSERS: &str = include_str!("../../../systemd/ravi-broker.sysusers");
const CONFIG: &str = include_str!("../../../packaging/config.toml");
/// The unit of the daemon.
pub(super) const SERVICE: &str = "ravi-broker.service";
/// In the units of the repository.
const PROGRAMS: &str = "/usr/bin";
/// First line of each file of ours, of whichever version.
const MARK: &str = "# Written by `ravi-broker service install`; its `uninstall` takes it away.\n";
/// A unit is two pages.
const MAX_BYTES: u64 = 64 * 1024;
/// Where packages put units.
const PACKAGED: [&str; 2] = ["/usr/lib/systemd", "/lib/systemd"];
/// Whose files the service cannot see (`ProtectHome=`).
const HIDDEN: [&str; 3] = ["/home", "/root", "/run/user"];
const OTHERS_MAY_WRITE: u32 = 0o022;

/// An instance on this host.
pub(super) struct Place {
    pub(super) user: bool,
    units: PathBuf,
    config: PathBuf,
    /// Where this program and the daemon lie.
    programs: PathBuf,
    systemctl: PathBuf,
}

/// What lies where a file of ours belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Installed {
    Absent,
    Same,
    /// Ours, of another version or for programs elsewhere.
    Older,
    Foreign,
}

/// A unit, as systemd sees it.
#[derive(Debug, Serialize)]
pub(super) struct Unit {
    pub(super) name: String,
    /// `active`, `inactive`, `failed`, …
    pub(super) active: String,
    /// `enabled`, `disabled`, …; empty where there is none.
    pub(super) enabled: String,
    /// `command`, `command (another version)`, `others`, `none`.
    pub(super) by: &'static str,
    /// Where its file lies.
    pub(super) path: Option<PathBuf>,
}

impl Place {
    pub(super) fn of_host(user: bool) -> Result<Self, ServiceError> {
        let itself =
            std::env::current_exe().map_err(|error| ServiceError::Io("/proc/self/exe".into(), error))?;
        let programs = itself.parent().unwrap_or(Path::new("/")).to_owned();
        let systemctl = ["/usr/bin/systemctl", "/bin/systemctl"].map(PathBuf::from);
        let systemctl = systemctl.into_iter().find(|path| path.exists()).ok_or(ServiceError::NoSystemd)?;
        let [units, config] = match user {
            false => ["/etc/systemd/system", "/etc/ravi-broker"].map(PathBuf::from),
            true => {
                let home = config_home().ok_or(ServiceError::NoHome)?;
                [home.join("systemd/user"), home.join("ravi-broker")]
            }
        };
        Ok(Self { user, units, config: config.join("config.toml"), programs, systemctl })
    }

    /// Whether the daemon can be run from where it lies, and whether this user may say so.
    pub(super) fn may_install(&self, dry_run: bool) -> Result<(), ServiceError> {
        let kind = if self.user { "user" } else { "system" };
        let packaged = PACKAGED.map(|base| Path::new(base).join(kind).join(SERVICE));
        if let Some(unit) = packaged.into_iter().find(|path| path.exists()) {
            return Err(ServiceError::Packaged(unit));
        }
        let daemon = self.programs.join("ravi-brokerd");
        if !daemon.exists() {
            return Err(ServiceError::NoDaemon(daemon));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte);
        if !self.programs.as_os_str().as_encoded_bytes().iter().copied().all(plain) {
            return Err(ServiceError::Path(self.programs.clone()));
        }
        if !self.user {
            for program in [daemon, self.programs.join("ravi-broker")] {
                is_roots(&program)?;
            }
        }
        self.may_change(dry_run)
    }

    pub(super) fn may_change(&self, dry_run: bool) -> Result<(), ServiceError> {
        let may = self.user || dry_run || Uid::effective().is_root();
        if may { Ok(()) } else { Err(ServiceError::NotRoot) }
    }

    /// The names of its units.
    pub(super) fn units(&self) -> impl Iterator<Item = &'static str> {
        self.texts().iter().map(|(name, _)| *name)
    }

    fn texts(&self) -> &'static [(&'static str, &'static str)] {
        if self.user { &USER } else { &SYSTEM }
    }

    /// The files of this instance, as this program writes them.
    pub(super) fn files(&self) -> Vec<(PathBuf, String)> {
        let programs = self.programs.to_string_lossy();
        let text = |text: &str| format!("{MARK}{}", text.replace(PROGRAMS, &programs));
        let units = self.texts().iter();
        let mut files: Vec<_> = units.map(|(name, unit)| (self.units.join(name), text(unit))).collect();
        if !self.user {
            files.insert(0, ("/etc/sysusers.d/ravi-broker.conf".into(), text(SYSUSERS)));
        }
        files
    }

    /// A first configuration.
    pub(super) fn config(&self) -> (PathBuf, String) {
        (self.config.clone(), CONFIG.to_owned())
    }

    /// Makes the user, and starts.
    pub(super) fn on(&self) -> Vec<Step> {
        // The attestor is started by its socket.
        let started = self.units().filter(|name| *name == SERVICE || name.ends_with(".socket"));
        let mut steps = vec![
            self.systemctl(&["daemon-reload"]),
            self.systemctl(&[&["enable", "--now"][..], &sockets_first(started)].concat()),
        ];
        if !self.user {
            let sysusers = self.systemctl.with_file_name("systemd-sysusers");
            steps.insert(0, Step::Run(sysusers, vec!["ravi-broker.conf".into()]));
        }
        steps
    }

    /// Stops before the files go, and forgets them after.
    pub(super) fn off(&self) -> [Step; 2] {
        let stop = self.systemctl(&[&["disable", "--now"][..], &sockets_first(self.units())].concat());
        [stop, self.systemctl(&["daemon-reload"])]
    }

    /// What `uninstall` does not touch.
    pub(super) fn left(&self) -> String {
        let config = self.config.display();
        match self.user {
            true => format!("{config} and ~/.local/state/ravi-broker"),
            false => format!(
                "{config}, /var/lib/ravi-broker, the user ravi-broker, and a key in /etc/credstore.encrypted \
                 (`ravi-broker logout` removes it)"
            ),
        }
    }

    /// The unit as it is.
    pub(super) fn unit(&self, name: &str) -> Unit {
        let show = ["show", "--property=ActiveState,UnitFileState,FragmentPath", name];
        let mut command = Command::new(&self.systemctl);
        command.args(self.arguments(&show)).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let ours = self.files().into_iter().find(|(path, _)| path.ends_with(name));
        let path = of("FragmentPath").map(PathBuf::from);
        let by = match (&path, ours) {
            (Some(path), Some((own, text))) if *path == own => match Installed::look(path, &text) {
                Ok(Installed::Same) => "command",
                Ok(Installed::Older) => "command (another version)",
                _ => "others",
            },
            (Some(_), _) => "others",
            (None, _) => "none",
        };
        let (active, enabled) = (of("ActiveState").unwrap_or("unknown".into()), of("UnitFileState"));
        Unit { name: name.to_owned(), active, enabled: enabled.unwrap_or_default(), by, path }
    }

    fn systemctl(&self, arguments: &[&str]) -> Step {
        Step::Run(self.systemctl.clone(), self.arguments(arguments))
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let scope = self.user.then_some("--user");
        scope.iter().chain(arguments).map(|&argument| argument.to_owned()).collect()
    }
}

impl Installed {
    pub(super) fn look(path: &Path, text: &str) -> Result<Self, ServiceError> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Absent),
            // A link, for example to /dev/null, which masks a unit.
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Self::Foreign),
            Err(error) => return Err(ServiceError::Io(path.to_owned(), error)),
        };
        let mut found = Vec::new();
        file.take(MAX_BYTES)
            .read_to_end(&mut found)
            .map_err(|error| ServiceError::Io(path.to_owned(), error))?;
        Ok(match found {
            found if found == text.as_bytes() => Self::Same,
            found if found.starts_with(MARK.as_bytes()) => Self::Older,
            _ => Self::Foreign,
        })
    }
}

/// A client must not start again what is stopped.
fn sockets_first(units: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let (mut sockets, services): (Vec<_>, Vec<_>) = units.partition(|name| name.ends_with(".socket"));
    sockets.extend(services);
    sockets
}

/// Whether root alone decides what is there: what the system starts, whoever may change it becomes.
fn is_roots(program: &Path) -> Result<(), ServiceError> {
    let untrusted = || ServiceError::Untrusted(program.to_owned());
    let real = fs::canonicalize(program).map_err(|_| untrusted())?;
    let hidden = HIDDEN.iter().any(|directory| real.starts_with(directory));
    let roots = |path: &Path| {
        fs::metadata(path).is_ok_and(|found| found.uid() == 0 && found.mode() & OTHERS_MAY_WRITE == 0)
    };
    if hidden || !real.ancestors().all(roots) { Err(untrusted()) } else { Ok(()) }
}

fn config_home() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    named.or_else(|| Some(home()?.join(".config")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(user: bool, programs: &str) -> Place {
        let units = PathBuf::from("/nonexistent/units");
        let (config, systemctl) = ("/nonexistent/config.toml".into(), "/usr/bin/systemctl".into());
        Place { user, units, config, programs: programs.into(), systemctl }
    }

    #[test]
    fn the_units_start_the_programs_where_they_lie() {
        for user in [false, true] {
            let files = place(user, "/opt/ravi/bin").files();
            let (_, service) = files.iter().find(|(path, _)| path.ends_with(SERVICE)).unwrap();
            let hidden = if user { "" } else { " --attestor=/run/ravi-broker/attestor" };
            assert!(
                service.contains(&format!("\nExecStart=/opt/ravi/bin/ravi-brokerd{hidden}\n")),
                "{service}"
            );
            assert!(service.contains("\nExecReload=/opt/ravi/bin/ravi-broker reload\n"), "{service}");
            assert!(!files.iter().any(|(_, text)| text.contains(PROGRAMS)));
            assert!(files.iter().all(|(_, text)| text.starts_with(MARK)));
            assert_eq!(files.len(), if user { 3 } else { 6 });
        }
    }

    #[test]
    fn what_others_may_change_is_not_started_by_the_system() {
        use std::os::unix::fs::PermissionsExt;
        // Below a directory in which everybody may write, whoever owns the file.
        let room = tempfile::tempdir().unwrap();
        let program = room.path().join("ravi-brokerd");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_roots(&program).is_err());
        is_roots(Path::new("/bin/sh")).unwrap();
    }

    #[test]
    fn what_somebody_else_wrote_is_told_from_ours() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("a.service");
        let look = || Installed::look(&path, &format!("{MARK}text")).unwrap();
        assert_eq!(look(), Installed::Absent);
        for (text, expected) in [
            (format!("{MARK}text"), Installed::Same),
            (format!("{MARK}older"), Installed::Older),
            ("text".to_owned(), Installed::Foreign),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(look(), expected);
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert_eq!(look(), Installed::Foreign);
    }

    #[test]
    fn the_attestor_is_started_by_its_socket_and_stopped_with_the_rest() {
        let place = place(false, "/opt");
        let on = place.on().last().unwrap().to_string();
        assert!(on.contains(" ravi-broker-attestor.socket ") && on.ends_with(" ravi-broker.service"), "{on}");
        let [off, _] = place.off();
        assert!(off.to_string().ends_with(" ravi-broker.service ravi-broker-attestor.service"), "{off}");
    }

    #[test]
    fn a_user_s_instance_speaks_to_the_user_s_manager() {
        let steps = place(true, "/opt").on();
        assert!(steps.iter().all(|step| step.to_string().contains("systemctl --user ")), "{steps:?}");
        assert!(place(false, "/opt").on()[0].to_string().contains("systemd-sysusers ravi-broker.conf"));
    }
}
