//! `setup`: what it would write is shown, asked for, written whole, and taken out to the byte.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PROGRAM, Run, assert_fields, on_terminal};

/// Somebody else's, and nobody's to see.
const CANARY: &str = "ghp_canary0123456789";

/// A user with a home, and a broker's configuration of their own.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("HOME", self.0.path()).env("PATH", self.path("bin")).stdin(Stdio::null());
        command.env("RAVI_BROKER_CONFIG", self.path("config.toml")).current_dir(self.0.path());
        command.args(line.split_whitespace());
        command
    }

    fn run(&self, line: &str) -> Run {
        Run::of(&self.command(line).output().unwrap())
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    fn roles(&self) -> Vec<String> {
        let shown = self.run("config show --format json").json();
        let keys = shown.as_array().unwrap().iter().map(|setting| setting["key"].as_str().unwrap());
        let identities = keys.filter_map(|key| key.strip_prefix("role.")?.strip_suffix(".identity"));
        identities.map(str::to_owned).collect()
    }
}

fn adapter() -> String {
    Path::new(PROGRAM).with_file_name("ravi-broker-mcp").display().to_string()
}

/// Each host: its file, what stands there, and where our entry is.
const HOSTS: [(&str, &str, &str); 3] = [
    (
        "claude-code",
        ".claude.json",
        "{\n  \"numStartups\": 3,\n  \"mcpServers\": {\n    \"gh\": {\n      \"command\": \"gh\",\n      \"env\": { \"TOKEN\": \"ghp_canary0123456789\" }\n    }\n  },\n  \"oauth\": \"ghp_canary0123456789\"\n}\n",
    ),
    (
        "codex",
        ".codex/config.toml",
        "# mine\nmodel = \"o3\"  # the best\n\n[mcp_servers.gh]\ncommand = 'gh'\nenv = { TOKEN = 'ghp_canary0123456789' }",
    ),
    ("cursor", ".cursor/mcp.json", "{\"mcpServers\":{},\"token\":\"ghp_canary0123456789\"}"),
];

#[test]
fn what_is_written_is_shown_and_comes_out_to_the_byte() {
    for (host, file, before) in HOSTS {
        let home = Home::new();
        home.put(file, before);
        let told = home.run(&format!("setup {host} --role {host}-a --identity laptop --yes")).good();
        assert!(told.contains(&format!("+++ {}", home.path(file).display())), "{told}");
        assert!(told.contains(&adapter()) && told.contains("secret:use") && !told.contains(CANARY), "{told}");
        let after = home.text(file);
        assert!(after.contains(&adapter()) && after.contains("--role") && after.contains(CANARY));
        assert_eq!(fs::metadata(home.path(file)).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(home.roles(), [format!("{host}-a")]);
        assert!(home.text("config.toml").contains("identity = \"laptop\"\nprovision = true"));
        for read in ["secret:read", "password:read", "email:read", "sms:read"] {
            assert!(!home.text("config.toml").contains(&format!("\"{read}")), "{read} was not asked for");
        }
        let config = home.text("config.toml");
        let again = home.run(&format!("setup {host} --role {host}-a")).good();
        assert!(again.contains("nothing to change"), "{again}");
        assert_eq!((home.text(file), home.text("config.toml")), (after, config));
        let record = home.path(".local/state/ravi-broker/setup.json");
        assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!fs::read_to_string(&record).unwrap().contains(CANARY));
        let undone = home.run(&format!("setup {host} --undo --yes")).good();
        assert!(undone.contains("It is taken out.") && !undone.contains(CANARY), "{undone}");
        assert_eq!(home.text(file), before);
        assert!(!record.exists() && !home.path("config.toml").exists());
        assert!(home.run(&format!("setup {host} --undo")).good().contains("Nothing is noted"));
    }
}

#[test]
fn where_nothing_was_a_file_is_made_and_goes_again() {
    for (host, file, _) in HOSTS {
        let home = Home::new();
        home.put(
            "config.toml",
            "version = 1\n\n[role.mine]\nidentity = \"a\"\nmatch = { uid = 0 }\nscopes = [\"secret:read\"]\n",
        );
        let told = home.run(&format!("setup {host} --role mine --yes")).good();
        assert!(told.contains("--- /dev/null") && told.contains("may read values"), "{told}");
        assert_eq!(home.roles(), ["mine"], "a role that is there stays as it is");
        assert_eq!(fs::metadata(home.path(file)).unwrap().permissions().mode() & 0o777, 0o600);
        home.run(&format!("setup {host} --undo --yes")).good();
        assert!(!home.path(file).exists() && home.roles() == ["mine"]);
    }
}

#[test]
fn another_role_takes_the_place_of_the_one_before() {
    let home = Home::new();
    home.put(".claude.json", HOSTS[0].2);
    home.run("setup claude-code --role one --yes").good();
    home.run("setup claude-code --role two --yes").good();
    let server = &home.json(".claude.json")["mcpServers"]["ravi"];
    assert_eq!(*server, json!({"type": "stdio", "command": adapter(), "args": ["--role", "two"]}));
    assert_eq!(home.roles(), ["one", "two"]);
    home.run("setup claude-code --undo --yes").good();
    assert_eq!(home.text(".claude.json"), HOSTS[0].2);
    assert!(!home.path("config.toml").exists());
}

#[test]
fn nothing_is_written_unasked_and_no_answer_is_a_no() {
    let home = Home::new();
    let run = home.run("setup claude-code");
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.out.contains("+++ ") && run.err.contains("--yes"), "{run:?}");
    let run = home.run("setup claude-code --format json");
    let told: Value = serde_json::from_str(&run.out).unwrap();
    assert_fields(&told, &["host", "role", "changed", "files", "diff", "notes"]);
    assert!(
        run.code == Some(2) && told["changed"] == false && told["diff"].as_str().unwrap().contains("+++ ")
    );
    for (keys, written) in [("n\n", false), ("\n", false), ("y\n", true)] {
        let (shown, code) = on_terminal(home.command("setup claude-code"), "[y/N] ", keys);
        assert_eq!((code == Some(0), home.path(".claude.json").exists()), (written, written), "{shown}");
    }
    let (shown, code) = on_terminal(home.command("setup claude-code --undo"), "[y/N] ", "n\n");
    assert!(code == Some(1) && home.path(".claude.json").exists(), "{shown}");
}

#[test]
fn what_does_not_parse_or_is_somebody_elses_is_left_alone() {
    let foreign = "{\"mcpServers\": {\"ravi\": {\"command\": \"/usr/bin/another\"}}}";
    for (host, file, text) in [
        ("claude-code", ".claude.json", "{\"a\": 1,} // trailing"),
        ("claude-code", ".claude.json", ""),
        ("claude-code", ".claude.json", foreign),
        ("claude-code", ".claude.json", "{\"mcpServers\": []}"),
        ("cursor", ".cursor/mcp.json", foreign),
        ("codex", ".codex/config.toml", "mcp_servers = {}\n"),
        ("codex", ".codex/config.toml", "[mcp_servers.ravi]\ncommand = \"another\"\n"),
        ("codex", ".codex/config.toml", "a = \n"),
        ("claude-code", "config.toml", "version = 1\nunknown = true\n"),
        ("claude-code", "config.toml", "version = 1\nrole = {}\n"),
    ] {
        let home = Home::new();
        home.put(file, text);
        let run = home.run(&format!("setup {host} --yes"));
        assert!(run.code == Some(1) && run.err.contains(file), "{run:?}");
        assert_eq!(home.text(file), text);
        assert!(!home.path(".local/state/ravi-broker/setup.json").exists(), "nothing is noted: {text}");
        let others = [".claude.json", ".codex/config.toml", ".cursor/mcp.json", "config.toml"];
        assert!(
            others.iter().all(|other| *other == file || !home.path(other).exists()),
            "all or nothing: {text}"
        );
    }
}

#[test]
fn what_was_changed_since_is_not_taken_out() {
    for (host, file, before) in HOSTS {
        let home = Home::new();
        home.put(file, before);
        home.run(&format!("setup {host} --role a --yes")).good();
        let changed = home.text(file).replace("\"a\"", "\"b\"");
        fs::write(home.path(file), &changed).unwrap();
        let (what, _) = home.run(&format!("setup {host} --undo --yes")).failed(1);
        assert!(what.contains("was changed since") && what.contains(file), "{what}");
        assert_eq!((home.text(file), home.roles()), (changed, vec!["a".to_owned()]));
    }
}

#[test]
fn a_role_that_was_changed_or_that_another_host_has_stays() {
    let home = Home::new();
    home.run("setup claude-code --role shared --yes").good();
    home.run("setup codex --role shared --yes").good();
    assert!(home.run("setup claude-code --undo --yes").good().contains("another host was set up with it"));
    assert_eq!(home.roles(), ["shared"]);
    let home = Home::new();
    home.run("setup claude-code --role mine --yes").good();
    let config = home.text("config.toml").replace("\"secret:use\"", "\"secret:use:NPM_*\"");
    fs::write(home.path("config.toml"), &config).unwrap();
    assert!(home.run("setup claude-code --undo --yes").good().contains("it was changed since"));
    assert_eq!(home.text("config.toml"), config);
    assert!(!home.path(".claude.json").exists());
}

#[test]
fn a_project_gets_its_own_file_and_no_link_leads_out_of_it() {
    for (host, file) in
        [("claude-code", ".mcp.json"), ("codex", ".codex/config.toml"), ("cursor", ".cursor/mcp.json")]
    {
        let home = Home::new();
        let project = home.path("project");
        fs::create_dir(&project).unwrap();
        let run = |line: &str| Run::of(&home.command(line).current_dir(&project).output().unwrap());
        run(&format!("setup {host} --project --yes")).good();
        assert!(project.join(file).is_file() && !home.path(".claude.json").exists());
        run(&format!("setup {host} --project --undo --yes")).good();
        assert!(!project.join(file).exists());
        let (top, elsewhere) = (Path::new(file).iter().next().unwrap(), home.path("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        let _ = fs::remove_dir(project.join(top));
        symlink(&elsewhere, project.join(top)).unwrap();
        run(&format!("setup {host} --project --yes")).failed(1);
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{host}");
    }
    assert_eq!(Home::new().run("setup assistant --project").code, Some(2));
}

#[test]
fn a_host_that_lies_elsewhere_is_found_there() {
    let home = Home::new();
    let run = |variable: &str, line: &str| {
        fs::create_dir_all(home.path("other")).unwrap();
        Run::of(&home.command(line).env(variable, home.path("other")).output().unwrap()).good()
    };
    run("CODEX_HOME", "setup codex --yes");
    run("CLAUDE_CONFIG_DIR", "setup claude-code --yes");
    assert!(home.path("other/config.toml").is_file() && home.path("other/.claude.json").is_file());
    home.run("setup cursor --file there.json --socket run/broker.sock --yes").good();
    let args = &home.json("there.json")["mcpServers"]["ravi"]["args"];
    assert_eq!(*args, json!(["--role", "cursor", "--socket", home.path("run/broker.sock")]));
    home.run("setup cursor --undo --yes").good();
    assert!(!home.path("there.json").exists());
}

#[test]
fn what_starts_the_adapter_is_named_where_it_is_known() {
    let home = Home::new();
    home.put("bin/claude", "\u{7f}ELF");
    home.run("setup claude-code --yes").good();
    let claude = fs::canonicalize(home.path("bin/claude")).unwrap();
    assert!(home.text("config.toml").contains(&format!("parent_exe = {claude:?}")));
    let told = home.run("setup codex --yes").good();
    assert!(told.contains("does not name `codex`"), "{told}");
}

#[test]
fn pi_gets_the_skill_with_its_role() {
    let home = Home::new();
    home.run("setup pi --role notes --yes").good();
    let file = ".pi/agent/skills/ravi-broker/SKILL.md";
    let skill = home.text(file);
    assert!(skill.starts_with(&home.run("skill show").good()) && skill.contains("add `--role notes`"));
    assert!(home.text("config.toml").contains(&format!("exe = {PROGRAM:?}")));
    home.run("setup pi --undo --yes").good();
    assert!(!home.path(file).parent().unwrap().exists());
}

#[test]
fn print_shows_what_any_other_host_takes() {
    let home = Home::new();
    let told = home.run("setup print --role other").good();
    let (snippet, role) = told.split_once("\n\n").unwrap();
    let server = &serde_json::from_str::<Value>(snippet).unwrap()["mcpServers"]["ravi"];
    assert_eq!(*server, json!({"command": adapter(), "args": ["--role", "other"]}));
    assert!(role.contains("[role.other]"));
    let told = home.run("setup print --format json").json();
    assert_fields(&told, &["mcpServers", "role"]);
    home.put("config.toml", &format!("version = 1\n{role}"));
    assert_eq!(home.run("setup print --role other --format json").json()["role"]["text"], Value::Null);
    assert_eq!(fs::read_dir(home.0.path()).unwrap().count(), 1, "nothing is written");
}

#[test]
fn doctor_names_a_host_whose_adapter_has_gone() {
    let home = Home::new();
    home.run("setup claude-code --yes").good();
    let hosts = |home: &Home| {
        let run = home.run("doctor --format json");
        let report: Value = serde_json::from_str(&run.out).unwrap();
        let findings = report["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["check"] == "hosts").unwrap()
    };
    assert_eq!(hosts(&home)["state"], "good");
    let record = ".local/state/ravi-broker/setup.json";
    fs::write(home.path(record), home.text(record).replace(&adapter(), "/opt/gone/ravi-broker-mcp")).unwrap();
    let found = hosts(&home);
    assert_eq!(found["state"], "bad");
    assert!(
        found["fix"].as_str().unwrap().contains("`ravi-broker setup claude-code --role claude-code`"),
        "{found}"
    );
    fs::write(home.path(record), "{}").unwrap();
    assert_eq!(hosts(&home)["state"], "bad");
}
