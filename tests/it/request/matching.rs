//! What a role's `match` asks of a caller: each fact, as the kernel tells it and as a liar would have it.
//!
//! The shipped command line is the caller; it is started in other groups, cgroups and namespaces. Some of that
//! takes rights that a host may not give: such a test says so and does not fail.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_lc_rs::digest::{SHA256, digest};
use nix::unistd::Uid;
use tempfile::TempDir;

use crate::support::Stack;

/// Says so where a test cannot be made. Not `eprintln!`, which the test harness would keep to itself.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// A daemon with one more role for each `match`.
async fn stack(roles: &[(&str, String)]) -> Stack {
    Stack::with(|setup| {
        for (role, matcher) in roles {
            setup.roles.push_str(&format!(
                "[role.{role}]\nidentity = \"deploy-agent\"\nmatch = {matcher}\nscopes = [\"secret:read\"]\n"
            ));
        }
    })
    .await
}

/// Whether a script that ends in `"$0" "$@"` gets the value under the role. Anything but the value and the
/// refusal of the role is a surprise.
fn gets(stack: &Stack, shell: &Path, script: &str, program: &Path, role: &str) -> bool {
    let mut command = Command::new(shell);
    command.arg("-c").arg(script).arg(program).args(["get", "secret/OPENAI_API_KEY", "--role", role]);
    verdict(stack, command)
}

fn verdict(stack: &Stack, mut command: Command) -> bool {
    command.env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
    command.env("RAVI_BROKER_SOCKET", &stack.setup.agent_socket).env("HOME", stack.setup.directory());
    // While another test forks, its child holds for a moment what we have open to write.
    let busy = |output: &Output| String::from_utf8_lossy(&output.stderr).contains("Text file busy");
    let mut outputs = (0..100).map(|_| command.output().unwrap());
    let output = outputs.find(|output| !busy(output)).unwrap();
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => assert_eq!(said, "sandbox-openai-deploy-e2a6c9\n", "{why}"),
        Some(4) => assert!(why.contains("no such role") && said.is_empty(), "{said}{why}"),
        code => panic!("{code:?}: {said}{why}"),
    }
    output.status.success()
}

fn sh() -> &'static Path {
    Path::new("/bin/sh")
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ravi-broker"))
}

/// As a child, so that the shell stays its parent.
const BELOW: &str = "\"$0\" \"$@\"; exit $?";

/// A place that programs may be started from.
fn room() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A copy of the program with `more` at its end, which changes nothing but its hash.
fn copy(place: &TempDir, name: &str, more: &[u8]) -> (PathBuf, String) {
    let path = place.path().join(name);
    let content = [&fs::read(program()).unwrap(), more].concat();
    fs::copy(program(), &path).unwrap();
    fs::write(&path, &content).unwrap();
    let hash = digest(&SHA256, &content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    (path, hash)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_the_one_that_the_process_has() {
    const GROUP: u32 = 65_531;
    let stack = stack(&[("grouped", format!("{{ gid = {GROUP} }}"))]).await;
    assert!(!gets(&stack, sh(), BELOW, program(), "grouped"));
    if !Uid::effective().is_root() {
        return skipped("it takes root to be of another group");
    }
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program());
    command.gid(GROUP).args(["get", "secret/OPENAI_API_KEY", "--role", "grouped"]);
    assert!(verdict(&stack, command));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_holds_for_that_content_wherever_it_lies_and_for_no_other() {
    let place = room();
    let (program, hash) = copy(&place, "program", b"");
    let (second, _) = copy(&place, "second", b"");
    let (changed, changed_hash) = copy(&place, "changed", b"\n");
    let stack = stack(&[
        ("pinned", format!("{{ exe_sha256 = \"{hash}\" }}")),
        ("later", format!("{{ exe_sha256 = \"{changed_hash}\" }}")),
        ("both", format!("{{ exe = {program:?}, exe_sha256 = \"{hash}\" }}")),
    ])
    .await;
    let gets = |program: &Path, role: &str| gets(&stack, sh(), BELOW, program, role);
    for (program, pinned, later, both) in
        [(&program, true, false, true), (&second, true, false, false), (&changed, false, true, false)]
    {
        assert_eq!(gets(program, "pinned"), pinned, "{program:?}");
        assert_eq!(gets(program, "later"), later, "{program:?}");
        assert_eq!(gets(program, "both"), both, "{program:?}");
    }
    // The same file, with another content: what was known of it is not believed.
    fs::OpenOptions::new().append(true).open(&program).unwrap().write_all(b"\n").unwrap();
    assert!(!gets(&program, "pinned") && !gets(&program, "both") && gets(&program, "later"));
    // With the old times put back.
    let old = fs::metadata(&second).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(&second).unwrap();
    let mut content = fs::read(&second).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&second, content).unwrap();
    file.set_modified(old).unwrap();
    drop(file);
    assert!(!gets(&second, "pinned"));
    assert_eq!(stack.audited("session.denied").last().unwrap()["cause"], "role_mismatch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_is_known_by_the_program_that_it_runs() {
    let place = room();
    let launcher = place.path().join("launcher");
    fs::copy(fs::canonicalize(sh()).unwrap(), &launcher).unwrap();
    let stack = stack(&[("launched", format!("{{ parent_exe = {launcher:?} }}"))]).await;
    assert!(gets(&stack, &launcher, BELOW, program(), "launched"));
    assert!(!gets(&stack, sh(), BELOW, program(), "launched"));
    let between = format!("{} -c '\"$0\" \"$@\"; exit $?' \"$0\" \"$@\"; exit $?", sh().display());
    assert!(!gets(&stack, &launcher, &between, program(), "launched"), "a grandparent is no parent");
    assert!(!gets(&stack, &launcher, "exec \"$0\" \"$@\"", program(), "launched"), "it is gone");
}

/// A cgroup of the test's own, removed at its end.
pub(super) struct Groups {
    /// As a directory.
    pub(super) directory: PathBuf,
    /// As `/proc/<pid>/cgroup` prints it.
    path: String,
}

impl Groups {
    /// Below the root of the unified hierarchy, wherever that is mounted.
    pub(super) fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let mut fields = mount.split(' ').skip(3);
        let (root, directory) = (fields.next()?, fields.next()?);
        let name = format!("ravibroker{}{name}.slice", std::process::id());
        let directory = Path::new(directory).join(&name);
        fs::create_dir(&directory).ok().filter(|()| root == "/")?;
        let groups = Self { directory, path: format!("/{name}") };
        // Joining one can be forbidden where making one is not.
        let joined = groups.join_script("probe.service");
        let joins = Command::new(sh()).args(["-c", &format!("{joined} true")]).status().ok()?;
        joins.success().then_some(groups)
    }

    /// What a shell runs to be in a group below.
    fn join_script(&self, group: &str) -> String {
        let directory = self.directory.join(group);
        fs::create_dir_all(&directory).unwrap();
        format!("echo $$ > {}/cgroup.procs || exit 99;", directory.display())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        fn remove(directory: &Path) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(directory);
        }
        remove(&self.directory);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cgroup_holds_what_is_in_it_and_below_it() {
    let Some(groups) = Groups::new("cgroup") else {
        return skipped("this host lets us make no cgroup (v2)");
    };
    let top = &groups.path;
    let stack = stack(&[
        ("agents", format!("{{ cgroup = \"{top}/agents\" }}")),
        ("whole", format!("{{ cgroup = \"{top}\", uid = UID }}")),
    ])
    .await;
    let gets = |group: &str, role: &str| {
        gets(&stack, sh(), &format!("{} {BELOW}", groups.join_script(group)), program(), role)
    };
    assert!(gets("agents", "agents") && gets("agents/run-1/leaf", "agents") && gets("agents", "whole"));
    assert!(!gets("agents2", "agents") && gets("agents2", "whole"));
    assert!(!gets("other/agents", "agents"));
    assert!(!self::gets(&stack, sh(), BELOW, program(), "whole"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_the_group_that_the_manager_made_and_none_that_is_named_like_it() {
    let Some(groups) = Groups::new("unit") else {
        return skipped("this host lets us make no cgroup (v2)");
    };
    let stack = stack(&[("unit", "{ unit = \"agents.service\" }".to_owned())]).await;
    let gets = |group: &str| {
        gets(&stack, sh(), &format!("{} {BELOW}", groups.join_script(group)), program(), "unit")
    };
    let uid = Uid::effective();
    assert!(gets("agents.service") && gets("agents.service/leaf") && gets("a.slice/agents.service"));
    assert!(gets(&format!("user@{uid}.service/app.slice/agents.service")), "of our own user's manager");
    assert!(!gets("web.service/agents.service"), "who is delegated a group may name groups below");
    assert!(!gets("user@4242.service/app.slice/agents.service"), "another user's manager");
    assert!(!gets("agents.service2") && !gets("agents"));
    assert!(!self::gets(&stack, sh(), BELOW, program(), "unit"));
}

/// Runs `unshare` with these flags in front of the program.
fn unshared(flags: &str) -> Option<String> {
    let tried = Command::new("unshare").args(flags.split(' ')).arg("true").output();
    tried.is_ok_and(|tried| tried.status.success()).then(|| format!("exec unshare {flags} \"$0\" \"$@\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_namespace_matches_only_where_the_role_says_so() {
    let exe = program();
    let stack = stack(&[
        ("ours", "{ uid = UID }".to_owned()),
        ("any", "[{ uid = 4242, foreign = true }, { uid = UID, foreign = true }]".to_owned()),
        ("exe", format!("{{ exe = {exe:?} }}")),
        ("exe-any", format!("{{ exe = {exe:?}, foreign = true }}")),
    ])
    .await;
    for role in ["ours", "any", "exe", "exe-any"] {
        assert!(gets(&stack, sh(), BELOW, program(), role), "{role}");
    }
    for flags in ["--pid --fork", "--user", "--user --map-root-user", "--user --pid --fork --map-root-user"] {
        let Some(script) = unshared(flags) else {
            skipped(&format!("this host does not let us `unshare {flags}`"));
            continue;
        };
        for (role, may) in [("ours", false), ("any", true), ("exe", false), ("exe-any", true)] {
            assert_eq!(gets(&stack, sh(), &script, program(), role), may, "{role} with {flags}");
        }
    }
}

/// Only root can make such a namespace. Nothing tells it apart but itself, and to look at that takes the right
/// to trace.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_namespace_that_maps_all_users_as_ours_does_is_still_another_one() {
    if unshared("--user").is_none() || !Uid::effective().is_root() {
        return skipped("this host does not let us make a user namespace with every user");
    }
    let stack =
        stack(&[("ours", "{ uid = UID }".into()), ("any", "{ uid = UID, foreign = true }".into())]).await;
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap();
    if maps.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"] {
        return skipped("the tests run in a user namespace of their own");
    }
    let script = r#"
        unshare --user sh -c 'until grep -q . /proc/self/gid_map; do :; done; exec "$0" "$@"' "$0" "$@" & its=$!
        until { echo 0 0 4294967295 > /proc/$its/uid_map; } 2>/dev/null; do kill -0 $its || exit 99; done
        echo 0 0 4294967295 > /proc/$its/gid_map
        wait $its; exit $?"#;
    assert!(!gets(&stack, sh(), script, program(), "ours"));
    assert!(gets(&stack, sh(), script, program(), "any"));
}

/// Whoever has a mount namespace of his own decides what lies at a path, for himself.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_mounted_over_another_is_not_taken_for_it() {
    let place = room();
    let (named, named_hash) = copy(&place, "named", b"");
    let (other, other_hash) = copy(&place, "other", b"\n");
    let stack = stack(&[
        ("exe", format!("{{ exe = {named:?}, foreign = true }}")),
        ("hash", format!("{{ exe_sha256 = \"{named_hash}\", foreign = true }}")),
        ("other", format!("{{ exe_sha256 = \"{other_hash}\", foreign = true }}")),
    ])
    .await;
    for role in ["exe", "hash"] {
        assert!(gets(&stack, sh(), BELOW, &named, role));
    }
    for flags in ["--mount", "--user --map-root-user --mount"] {
        if unshared(flags).is_none() {
            skipped(&format!("this host does not let us `unshare {flags}`"));
            continue;
        }
        let mounted = |what: &Path, over: &Path| {
            let (what, over) = (what.display(), over.display());
            format!(
                "exec unshare {flags} sh -c 'mount --bind {what} {over} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
            )
        };
        for role in ["exe", "hash", "other"] {
            let script = mounted(&other, &named);
            assert!(!gets(&stack, sh(), &script, &named, role), "{role}: another file at the path, {flags}");
            // Its path means nothing here, so not even its content is looked at.
            let script = mounted(&named, &other);
            assert!(!gets(&stack, sh(), &script, &other, role), "{role}: at another path, {flags}");
        }
    }
}
