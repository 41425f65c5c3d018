//! What the daemon still needs once its configuration is known, and the end of all other rights.
//!
//! To be called before a key is read, a socket is bound or a thread is started. The directories that it
//! will write to are made first, as nothing can be made beside them afterwards. Whoever adds a file or
//! a port to the daemon's needs adds it here. May import `config`, `sys` and its neighbours.

use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::listen::{self, Adopted, BindError, Mode};
use super::notify;
use super::settings::Settings;
use crate::config::{Config, Variable, paths};
use crate::sys::Protection;
use crate::sys::confine::{Allowed, confine};

/// What name look-ups (users, groups, hosts) read, late and by libraries that are loaded then; what
/// tells how many processors there are; and where systems without `/usr` keep libraries.
const READ: [&str; 19] = [
    "/etc",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/gnu/store",
    "/run/systemd/resolve",
    "/run/systemd/userdb",
    "/run/NetworkManager",
    "/run/nscd",
    "/var/lib/sss",
    "/dev/urandom",
];
/// `/dev/sysgenid` says that a virtual machine was copied, and random numbers with it.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/sysgenid"];
/// Files that may be links to where something else keeps them up to date.
const MAY_BE_LINKS: [&str; 7] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
];
/// Names are looked up over TCP when an answer is too large for a datagram.
const DNS: u16 = 53;
const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// Makes the directories that are written to, and confines the process. `config_path` is the file that
/// was read; a reload reads it again.
pub(super) fn to_its_needs(
    config: &Config,
    config_path: &Path,
    settings: &Settings,
    adopted: &Adopted,
) -> Result<Vec<Protection>, BindError> {
    let allowed = Allowed {
        read: readable(config, config_path, settings),
        write: writable(config, settings, adopted)?,
        devices: DEVICES.map(PathBuf::from).to_vec(),
        tcp_ports: tcp_ports(config),
        abstract_sockets: notify::manager_is_abstract(),
    };
    let reached = confine(&allowed);
    for missed in reached.iter().filter(|protection| !protection.full) {
        tracing::warn!(protection = missed.name, reached = missed.tier, "not protected as far as can be");
    }
    Ok(reached)
}

/// Ravi's, that of the hosts to which it has attachments uploaded, that of name servers, that of a collector, and
/// those of callbacks.
pub(super) fn tcp_ports(config: &Config) -> Vec<u16> {
    let mut ports = vec![upstream_port(config), HTTPS, DNS];
    ports.extend(config.otlp.port());
    ports.extend(config.dispatches.iter().map(|rule| rule.to.port()));
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn readable(config: &Config, config_path: &Path, settings: &Settings) -> Vec<PathBuf> {
    let mut read: Vec<PathBuf> = READ.map(PathBuf::from).to_vec();
    read.extend(MAY_BE_LINKS.iter().filter_map(|link| directory_of_target(Path::new(link))));
    // Editors and configuration management replace the file, or what it is a link to.
    let usual = paths::config_candidates(&settings.environment);
    for file in usual.iter().map(PathBuf::as_path).chain([config_path]) {
        read.push(file.to_owned());
        read.extend(directory_of(file));
        read.extend(directory_of_target(file));
    }
    read.extend(settings.environment.path(Variable::CredentialsDirectory));
    read.extend(config.upstream.ca_file.clone());
    read.extend(config.otlp.ca_file.clone());
    // Keys of callbacks are read again after a lock, and may be replaced meanwhile.
    let hooks = config.dispatches.iter().filter_map(|rule| rule.form.key_file());
    read.extend(hooks.filter_map(|file| directory_of(file)));
    // A configuration without a file has a name that is no path.
    read.retain(|path| path.is_absolute());
    read.sort_unstable();
    read.dedup();
    read
}

/// The state, the directory of the key file, and those of the sockets that are bound here.
fn writable(config: &Config, settings: &Settings, adopted: &Adopted) -> Result<Vec<PathBuf>, BindError> {
    let mut write = Vec::new();
    write.extend(directory_of(&config.audit.file));
    // The pipe to what seals a key.
    write.extend(settings.environment.path(Variable::StateDirectory));
    if let Some(directory) = config.upstream.management_key_file.as_deref().and_then(directory_of) {
        // Where it cannot be made, a login says that it cannot write there.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        write.push(directory);
    }
    let agent_mode = config.listen.group.map_or(Mode::Owner, Mode::Group);
    for (is_adopted, socket, mode) in [
        (adopted.agent.is_some(), &config.listen.agent_socket, agent_mode),
        (adopted.admin.is_some(), &config.listen.admin_socket, Mode::Owner),
    ] {
        if !is_adopted {
            listen::prepare(socket, mode)?;
            write.extend(directory_of(socket));
        }
    }
    Ok(write)
}

/// Never the root, which would be everything.
fn directory_of(file: &Path) -> Option<PathBuf> {
    let directory = file.parent().filter(|_| file.is_absolute())?;
    (directory.as_os_str().as_bytes() != b"/").then(|| directory.to_owned())
}

fn directory_of_target(file: &Path) -> Option<PathBuf> {
    directory_of(&file.canonicalize().ok()?)
}

fn upstream_port(config: &Config) -> u16 {
    let uri = config.upstream.base_url.uri();
    let usual = if uri.scheme_str() == Some("http") { HTTP } else { HTTPS };
    uri.port_u16().unwrap_or(usual)
}
