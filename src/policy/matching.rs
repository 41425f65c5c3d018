//! Whether a process fits a role's `match`, and the reasons in words for the operator.
//!
//! One list of comparisons serves both, so an explanation cannot differ from the decision. Its text holds
//! the configuration's words and the kernel's facts, nothing that a process says about itself.

use std::fmt::{self, Write};
use std::path::Path;

use nix::unistd::Uid;

use crate::config::MatchConfig;
use crate::peer::{Executable, Namespace, Needs, Peer, Units};
use crate::types::{CgroupPath, FileHash, UnitName};

/// Lines of one explanation.
const MAX_LINES: usize = 128;
/// Bytes of one value in a line: a path can have 4,096, each of which can need escaping.
const MAX_VALUE: usize = 512;

/// What was compared with what when a process asked for a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether an entry held.
    pub holds: bool,
    /// One line for each fact that an entry asks for, in the order of the file: printable text without
    /// control characters, at most 128 lines of about a kilobyte.
    pub lines: Vec<String>,
}

/// Whether all facts of one entry hold.
pub(super) fn matches(entries: &[MatchConfig], peer: &Peer) -> bool {
    entries.iter().any(|entry| holds(&compare(entry, peer)))
}

/// The costly facts that decide about this process: those of entries that hold otherwise.
pub(super) fn needs(entries: &[MatchConfig], peer: &Peer) -> Needs {
    let mut needs = Needs::default();
    for entry in entries {
        let cheap = MatchConfig { exe_sha256: None, parent_exe: None, ..entry.clone() };
        if compare(&cheap, peer).iter().all(|fact| fact.holds) {
            needs.hash |= entry.exe_sha256.is_some();
            needs.parent |= entry.parent_exe.is_some();
        }
    }
    needs
}

/// The same as [`matches`], with its reasons.
pub(super) fn judge(entries: &[MatchConfig], peer: &Peer) -> Verdict {
    let mut lines = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        lines.extend(compare(entry, peer).iter().map(|fact| format!("match[{at}]: {fact}")));
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - (MAX_LINES - 1);
        lines.truncate(MAX_LINES - 1);
        lines.push(format!("and {more} more"));
    }
    Verdict { holds: matches(entries, peer), lines }
}

/// The namespace is a condition of every entry; an entry that asks for nothing else selects nobody.
fn holds(facts: &[Fact<'_>]) -> bool {
    facts.len() > 1 && facts.iter().all(|fact| fact.holds)
}

/// One fact that an entry asks for.
struct Fact<'a> {
    name: &'static str,
    wanted: Value<'a>,
    /// `None`: it was not established.
    found: Option<Value<'a>>,
    holds: bool,
}

enum Value<'a> {
    Id(u32),
    Path(&'a Path),
    Hash(FileHash),
    Unit(&'a UnitName),
    Units(Units),
    Cgroup(&'a CgroupPath),
    Text(&'static str),
}

fn compare<'a>(entry: &'a MatchConfig, peer: &'a Peer) -> Vec<Fact<'a>> {
    let id = |name, wanted: u32, found: u32| Fact {
        name,
        wanted: Value::Id(wanted),
        found: Some(Value::Id(found)),
        holds: wanted == found,
    };
    let executable = |name, wanted: &'a Path, found: Option<&'a Executable>| Fact {
        name,
        wanted: Value::Path(wanted),
        found: found.map(|file| Value::Path(&file.path)),
        holds: found.is_some_and(|file| file.is_at(wanted)),
    };
    let hash = |wanted: FileHash| {
        let found = peer.hashed.map(|hashed| hashed.hash);
        Fact {
            name: "exe_sha256",
            wanted: Value::Hash(wanted),
            found: found.map(Value::Hash),
            holds: found == Some(wanted),
        }
    };
    [
        Some(namespace(entry, peer)),
        entry.uid.map(|uid| id("uid", uid, peer.uid)),
        entry.gid.map(|gid| id("gid", gid, peer.gid)),
        entry.exe.as_deref().map(|path| executable("exe", path, peer.executable.as_ref())),
        entry.exe_sha256.map(hash),
        entry
            .parent_exe
            .as_deref()
            .map(|path| executable("parent_exe", path, peer.parent_executable.as_ref())),
        entry.unit.as_ref().map(|wanted| unit(wanted, peer)),
        entry.cgroup.as_ref().map(|wanted| Fact {
            name: "cgroup",
            wanted: Value::Cgroup(wanted),
            found: peer.cgroup.as_ref().map(Value::Cgroup),
            holds: peer.cgroup.as_ref().is_some_and(|cgroup| cgroup.is_within(wanted)),
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A process whose numbers mean nothing here matches nothing, whatever an entry says.
fn namespace<'a>(entry: &MatchConfig, peer: &Peer) -> Fact<'a> {
    let found = match (peer.foreign, peer.namespace) {
        (true, _) => Some("another, without a pid or a user here"),
        (false, Namespace::Ours) => Some("ours"),
        (false, Namespace::Other) => Some("another"),
        (false, Namespace::Unknown) => None,
    };
    Fact {
        name: "namespace",
        wanted: Value::Text(if entry.foreign { "any (foreign = true)" } else { "ours" }),
        found: found.map(Value::Text),
        holds: !peer.foreign && (entry.foreign || peer.namespace == Namespace::Ours),
    }
}

fn unit<'a>(wanted: &'a UnitName, peer: &Peer) -> Fact<'a> {
    let units = peer.units();
    let holds = units.as_ref().is_some_and(|units| units.include(wanted, Uid::effective().as_raw()));
    Fact { name: "unit", wanted: Value::Unit(wanted), found: units.map(Value::Units), holds }
}

impl fmt::Display for Fact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, ", self.name, self.wanted)?;
        match (&self.found, self.holds) {
            (None, true) => write!(f, "the caller's was not established: holds"),
            (None, false) => write!(f, "the caller's was not established: does not hold"),
            (Some(found), true) => write!(f, "the caller's is {found}: holds"),
            (Some(found), false) => write!(f, "the caller's is {found}: does not hold"),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Path(path) => escaped(f, &path.to_string_lossy()),
            Self::Hash(hash) => hash.fmt(f),
            Self::Unit(unit) => unit.fmt(f),
            Self::Units(units) => units.fmt(f),
            Self::Cgroup(path) => escaped(f, path.as_str()),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Whoever may make a directory chooses what is in a path: escape sequences for the terminal, text in the
/// other direction.
fn escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut left = MAX_VALUE;
    for char in text.chars() {
        let plain = !char.is_control() && (char.is_ascii() || char.is_alphanumeric());
        let shown = if plain { char.to_string() } else { char.escape_default().to_string() };
        left = match left.checked_sub(shown.len()) {
            Some(left) => left,
            None => return f.write_char('…'),
        };
        f.write_str(&shown)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Hashed;

    fn file(path: &str) -> Executable {
        Executable { path: path.into(), device: 1, inode: 2 }
    }

    /// A process of which everything is known.
    fn known() -> Peer {
        let mut peer = Peer::imagined(1, 2, None, Some(file("/usr/bin/agent")));
        peer.hashed = Some(Hashed::imagined(FileHash([0xab; 32])));
        peer.parent_executable = Some(file("/usr/bin/launcher"));
        peer.cgroup = Some("/system.slice/agents.service/run-1".parse().unwrap());
        peer
    }

    fn but(change: impl FnOnce(&mut Peer)) -> Peer {
        let mut peer = known();
        change(&mut peer);
        peer
    }

    /// The same process, of which the kernel said no more than who connected.
    fn bare() -> Peer {
        Peer::imagined(1, 2, None, None)
    }

    fn whole() -> MatchConfig {
        MatchConfig {
            uid: Some(1),
            gid: Some(2),
            exe: Some("/usr/bin/agent".into()),
            exe_sha256: Some(FileHash([0xab; 32])),
            parent_exe: Some("/usr/bin/launcher".into()),
            unit: Some("agents.service".parse().unwrap()),
            cgroup: Some("/system.slice".parse().unwrap()),
            foreign: false,
        }
    }

    fn one(entry: &MatchConfig, peer: &Peer) -> bool {
        matches(std::slice::from_ref(entry), peer)
    }

    /// Each selector alone: right, and wrong.
    fn selectors() -> Vec<(MatchConfig, MatchConfig)> {
        let none = MatchConfig::default;
        let with = |wrong: MatchConfig, right: MatchConfig| (right, wrong);
        vec![
            with(MatchConfig { uid: Some(9), ..none() }, MatchConfig { uid: Some(1), ..none() }),
            with(MatchConfig { gid: Some(9), ..none() }, MatchConfig { gid: Some(2), ..none() }),
            with(
                MatchConfig { exe: Some("/usr/bin/other".into()), ..none() },
                MatchConfig { exe: whole().exe, ..none() },
            ),
            with(
                MatchConfig { exe_sha256: Some(FileHash([0xac; 32])), ..none() },
                MatchConfig { exe_sha256: whole().exe_sha256, ..none() },
            ),
            with(
                MatchConfig { parent_exe: Some("/usr/bin/agent".into()), ..none() },
                MatchConfig { parent_exe: whole().parent_exe, ..none() },
            ),
            with(
                MatchConfig { unit: Some("run-1.service".parse().unwrap()), ..none() },
                MatchConfig { unit: whole().unit, ..none() },
            ),
            with(
                MatchConfig { cgroup: Some("/system.slice/agents".parse().unwrap()), ..none() },
                MatchConfig { cgroup: Some("/system.slice/agents.service".parse().unwrap()), ..none() },
            ),
        ]
    }

    #[test]
    fn each_fact_alone_selects() {
        for (right, wrong) in selectors() {
            assert!(one(&right, &known()), "{right:?}");
            assert!(!one(&wrong, &known()), "{wrong:?}");
        }
    }

    #[test]
    fn all_facts_of_an_entry_must_hold() {
        assert!(one(&whole(), &known()));
        for (_, wrong) in selectors() {
            let entry = MatchConfig {
                uid: wrong.uid.or(whole().uid),
                gid: wrong.gid.or(whole().gid),
                exe: wrong.exe.or(whole().exe),
                exe_sha256: wrong.exe_sha256.or(whole().exe_sha256),
                parent_exe: wrong.parent_exe.or(whole().parent_exe),
                unit: wrong.unit.or(whole().unit),
                cgroup: wrong.cgroup.or(whole().cgroup),
                foreign: false,
            };
            assert!(!one(&entry, &known()), "{entry:?}");
            assert!(matches(&[entry, whole()], &known()), "one entry suffices");
        }
    }

    #[test]
    fn a_fact_that_is_not_known_holds_for_no_entry_that_asks_for_it() {
        for (right, _) in selectors() {
            let of_connect = right.uid.is_some() || right.gid.is_some();
            assert_eq!(one(&right, &bare()), of_connect, "{right:?}");
        }
    }

    #[test]
    fn an_entry_that_asks_for_nothing_matches_nobody() {
        assert!(!one(&MatchConfig::default(), &known()));
        assert!(!one(&MatchConfig { foreign: true, ..MatchConfig::default() }, &known()));
        assert!(!matches(&[], &known()));
    }

    #[test]
    fn a_process_of_another_namespace_matches_where_the_entry_says_so() {
        let foreign = MatchConfig { foreign: true, ..whole() };
        for namespace in [Namespace::Other, Namespace::Unknown] {
            let peer = but(|peer| peer.namespace = namespace);
            assert!(!one(&whole(), &peer) && one(&foreign, &peer), "{namespace:?}");
        }
        assert!(one(&foreign, &known()));
        let nobody = but(|peer| peer.foreign = true);
        assert!(!one(&foreign, &nobody), "its numbers mean nothing at all");
    }

    #[test]
    fn a_costly_fact_is_needed_only_where_it_decides() {
        let both = Needs { hash: true, parent: true };
        assert_eq!(needs(&[whole()], &known()), both);
        for (_, wrong) in selectors() {
            let cheap = wrong.exe_sha256.is_none() && wrong.parent_exe.is_none();
            let entry = MatchConfig { exe_sha256: whole().exe_sha256, ..wrong };
            assert_eq!(needs(&[entry], &known()).hash, !cheap);
        }
        let other = but(|peer| peer.namespace = Namespace::Other);
        assert_eq!(needs(&[whole()], &other), Needs::default());
        assert_eq!(
            needs(&[MatchConfig { uid: Some(1), ..MatchConfig::default() }], &known()),
            Needs::default()
        );
    }

    #[test]
    fn an_explanation_says_what_was_compared_with_what() {
        let entry = MatchConfig {
            uid: Some(1),
            exe: Some("/bin/other".into()),
            unit: whole().unit,
            ..MatchConfig::default()
        };
        let verdict = judge(&[entry, whole()], &but(|peer| peer.cgroup = None));
        assert!(!verdict.holds);
        assert_eq!(
            verdict.lines[..6],
            [
                "match[0]: namespace ours, the caller's is ours: holds",
                "match[0]: uid 1, the caller's is 1: holds",
                "match[0]: exe /bin/other, the caller's is /usr/bin/agent: does not hold",
                "match[0]: unit agents.service, the caller's was not established: does not hold",
                "match[1]: namespace ours, the caller's is ours: holds",
                "match[1]: uid 1, the caller's is 1: holds",
            ]
        );
        assert_eq!(verdict.lines.len(), 4 + 8);
        assert!(judge(&[whole()], &known()).holds);
    }

    #[test]
    fn an_explanation_is_bounded_and_cannot_move_the_cursor() {
        let hostile = "/\u{1b}[2J\n\u{202e}x\u{7f}".to_owned() + &"é\u{9b}".repeat(500);
        let mut peer = known();
        peer.cgroup = Some(hostile.parse().unwrap());
        let verdict = judge(&vec![whole(); 64], &peer);
        assert_eq!(verdict.lines.len(), MAX_LINES);
        assert_eq!(verdict.lines[MAX_LINES - 1], format!("and {} more", 64 * 8 - (MAX_LINES - 1)));
        for line in &verdict.lines {
            assert!(line.len() < 1200 && !line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line}");
        }
        assert!(verdict.lines[7].contains("\\u{1b}[2J\\n\\u{202e}x\\u{7f}é\\u{9b}"), "{}", verdict.lines[7]);
    }
}
