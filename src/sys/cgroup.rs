//! A cgroup (version 2) of its own for a process and what it starts.
//!
//! The leaf lies below the cgroup that the process is in, which works where that is delegated to the user
//! or the user is root. Leaves of launchers that were killed are removed by the next one. No `unsafe`;
//! imports nothing of this crate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What names of leaves begin with; the launcher's pid follows.
const PREFIX: &str = "ravi-run-";
/// Entries of a cgroup that are looked at for what dead launchers left.
const MAX_ENTRIES: usize = 4096;

/// A leaf that this process is in. Dropping it moves the process back and removes the leaf.
pub struct Leaf {
    home: PathBuf,
    leaf: PathBuf,
}

impl Leaf {
    /// Makes a leaf and moves this process into it.
    ///
    /// # Errors
    /// The host has no cgroup version 2, or does not let this user make one here.
    pub fn enter() -> io::Result<Self> {
        let home = own_directory()?;
        remove_left_over(&home);
        let leaf = home.join(format!("{PREFIX}{}", std::process::id()));
        // One that is there already is not empty: what is in it has nothing to do with this process.
        fs::create_dir(&leaf)?;
        let entered = Self { home, leaf };
        move_into(&entered.leaf)?;
        Ok(entered)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        // What still runs in it keeps it; then it is removed by a later launcher.
        let _ = move_into(&self.home);
        let _ = fs::remove_dir(&self.leaf);
    }
}

fn move_into(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}

/// Only empty ones can be removed, and only those of launchers that have ended are tried.
fn remove_left_over(home: &Path) {
    let entries = fs::read_dir(home).into_iter().flatten().flatten().take(MAX_ENTRIES);
    for entry in entries {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let dead = |pid: u32| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_some_and(dead) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The directory of the cgroup that this process is in.
fn own_directory() -> io::Result<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    directory(&cgroups, &mounts).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// `cgroups` and `mounts` are `/proc/self/cgroup` (`cgroups(7)`) and `mountinfo` (`proc_pid_mountinfo(5)`).
fn directory(cgroups: &str, mounts: &str) -> Option<PathBuf> {
    let own = Path::new(cgroups.lines().find_map(|line| line.strip_prefix("0::"))?);
    // Outside the root of our cgroup namespace.
    if own.components().any(|part| part.as_os_str() == "..") {
        return None;
    }
    mounts.lines().find_map(|line| {
        let (fields, system) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = (system.split(' ').next()? == "cgroup2").then(|| own.strip_prefix(root).ok())??;
        Some(Path::new(&unescaped(point)).join(below))
    })
}

/// Blanks and the like are written as three octal digits.
fn unescaped(text: &str) -> String {
    [(" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"), ("\\", "\\134")]
        .iter()
        .fold(text.to_owned(), |text, (plain, escaped)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw
31 25 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/uni\\040fied rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
";

    #[test]
    fn the_directory_is_found_where_version_2_is_mounted() {
        let found = directory("1:name=systemd:/x\n0::/user.slice/a.scope\n", MOUNTS);
        assert_eq!(found.unwrap(), Path::new("/sys/fs/cgroup/uni fied/user.slice/a.scope"));
        let bound = MOUNTS.replace("0:28 / ", "0:28 /user.slice ");
        assert_eq!(directory("0::/user.slice/a", &bound).unwrap(), Path::new("/sys/fs/cgroup/uni fied/a"));
    }

    #[test]
    fn a_host_without_version_2_has_no_directory() {
        assert_eq!(directory("1:name=systemd:/x\n", MOUNTS), None);
        assert_eq!(directory("0::/a", "25 30 0:23 / /sys rw - sysfs sysfs rw\n"), None);
        assert_eq!(directory("0::/../a", MOUNTS), None);
        assert_eq!(directory("0::/other", &MOUNTS.replace("0:28 / ", "0:28 /user.slice ")), None);
    }
}
