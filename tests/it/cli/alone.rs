//! Without a daemon: transcripts, usage, files, and what happens at the edges of files and pipes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ravi_broker::audit::{AuditFile, Event, Verb};
use tempfile::TempDir;

use super::{PROGRAM, text};

/// Runs the program with nothing of this process's environment but what the test gives it.
fn program(home: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

fn run(home: &Path, arguments: &[&str]) -> Output {
    program(home).args(arguments).output().unwrap()
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn private(home: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = home.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

#[test]
fn transcripts_stay_as_they_are() {
    trycmd::TestCases::new()
        .register_bin("ravi-broker", Path::new(PROGRAM))
        .env("RAVI_BROKER_SESSION_FILE", "")
        .env("RAVI_BROKER_SOCKET", "")
        .env("RAVI_BROKER_CONFIG", "/nonexistent/config.toml")
        .case("tests/cmd/*.trycmd");
}

#[test]
fn completions_are_scripts_that_their_shells_take() {
    let home = home();
    for (shell, mark) in [
        ("bash", "complete -F _ravi__broker"),
        ("zsh", "#compdef ravi-broker\n"),
        ("fish", "complete -c ravi-broker "),
    ] {
        let printed = run(home.path(), &["completions", shell]);
        assert!(printed.status.success() && text(&printed.stdout).contains(mark), "{shell}");
        assert!(text(&printed.stdout).contains("git-credential"), "{shell}");
    }
    let script = home.path().join("bash");
    fs::write(&script, run(home.path(), &["completions", "bash"]).stdout).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-euc", "source \"$0\"; complete -p ravi-broker"]).arg(&script);
    let checked = bash.output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let home = home();
    let directory = home.path().join("man/man1");
    let written = run(home.path(), &["man", "--dir", directory.to_str().unwrap()]);
    assert!(written.status.success() && written.stdout.is_empty(), "{}", text(&written.stderr));
    let pages = fs::read_dir(&directory).unwrap().count();
    assert!(text(&written.stderr).starts_with(&format!("{pages} pages are in ")) && pages > 40);
    let printed = run(home.path(), &["man"]).stdout;
    assert_eq!(printed, fs::read(directory.join("ravi-broker.1")).unwrap());
    let page = fs::read_to_string(directory.join("ravi-broker-lease-acquire.1")).unwrap();
    assert!(page.contains(".SH NAME\nravi\\-broker\\-lease\\-acquire"), "{page}");
}

#[test]
fn an_unreachable_broker_is_exit_3_with_every_place_that_was_tried() {
    let home = home();
    if ["/run/ravi-broker".into(), format!("/run/user/{}/ravi-broker", nix::unistd::geteuid())]
        .iter()
        .any(|directory| Path::new(directory).exists())
    {
        return; // A daemon of this machine would answer.
    }
    let runtime = home.path().join("run");
    let output = program(home.path()).arg("status").env("XDG_RUNTIME_DIR", &runtime).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let error = text(&output.stderr);
    let own = runtime.join("ravi-broker/admin.sock");
    assert!(error.contains(own.to_str().unwrap()), "{error}");
    assert!(error.contains("/run/ravi-broker/admin.sock"), "{error}");
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_socket_file_that_nobody_listens_on_is_told_apart_from_none() {
    let home = home();
    let socket = home.path().join("broker.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let socket = socket.to_str().unwrap();
    let output = run(home.path(), &["get", "secret/A", "--role", "a", "--socket", socket]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("(nobody listens)"), "{}", text(&output.stderr));
}

#[test]
fn an_error_in_json_is_one_object_with_the_promised_fields() {
    let home = home();
    let output = run(home.path(), &["status", "--format", "json", "--admin-socket", "/nonexistent/a.sock"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["reason"], "BROKER_UNREACHABLE");
    assert!(error["error"]["hint"].as_str().unwrap().contains("ravi-brokerd"));
    let output = run(home.path(), &["get", "--format", "json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&error["error"]["reason"], output.status.code()), (&"USAGE".into(), Some(2)));
}

#[test]
fn the_sockets_that_the_configuration_names_are_used() {
    let home = home();
    let text_of = "version = 1\n[listen]\nadmin_socket = \"/nonexistent/named.sock\"\n";
    let config = private(&home, "config.toml", text_of);
    let output = run(home.path(), &["status", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("/nonexistent/named.sock (no such socket)"));
}

#[test]
fn every_mistake_of_a_configuration_is_reported_with_its_line() {
    let home = home();
    let config =
        private(&home, "config.toml", "version = 1\nunknown = 1\n[vault]\nfresh_for = \"5 minutes\"\n");
    let config = config.to_str().unwrap();
    let output = run(home.path(), &["config", "check", "--config", config]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    assert!(report.contains("line 2: ") && report.contains("line 4: "), "{report}");
    let output = run(home.path(), &["config", "check", "--config", config, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["valid"], false);
    assert_eq!(report["problems"][0]["line"], 2);
}

#[test]
fn a_configuration_of_the_working_directory_is_not_read() {
    let (home, elsewhere) = (home(), home());
    for name in ["config.toml", "ravi-broker/config.toml", ".ravi/config.toml"] {
        private(&elsewhere, name, "mistake\n");
    }
    let output =
        program(home.path()).args(["config", "check"]).current_dir(elsewhere.path()).output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!told.is_empty() && !told.contains(elsewhere.path().to_str().unwrap()), "{told}");
}

#[test]
fn the_example_is_a_good_configuration() {
    let home = home();
    let example = run(home.path(), &["config", "example"]);
    let config = private(&home, "config.toml", text(&example.stdout));
    let arguments = ["config", "check", "--config", config.to_str().unwrap()];
    let output = program(home.path()).args(arguments).env("XDG_RUNTIME_DIR", home.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A trail of three records, and its head file, as the daemon writes them.
fn trail(home: &TempDir) -> PathBuf {
    let path = home.path().join("audit.jsonl");
    let clock = std::sync::Arc::new(ravi_broker::clock::SystemClock);
    let audit = AuditFile::open(&path, 1 << 20, clock).unwrap();
    for verb in [Verb::DaemonStarted, Verb::AdminReload, Verb::DaemonStopping] {
        audit.record(&Event::daemon(verb)).unwrap();
    }
    path
}

#[test]
fn a_good_trail_is_whole_and_a_changed_one_is_not() {
    let home = home();
    let path = trail(&home);
    let verify = |extra: &[&str]| {
        let arguments = [&["audit", "verify", path.to_str().unwrap()], extra].concat();
        run(home.path(), &arguments)
    };
    let good = verify(&[]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    assert!(text(&good.stdout).starts_with("whole: records 1 to 3 are whole"), "{}", text(&good.stdout));

    let records = fs::read_to_string(&path).unwrap();
    fs::write(&path, records.replace("admin.reload", "admin.unlock")).unwrap();
    let broken = verify(&["--format", "json"]);
    assert_eq!((broken.status.code(), text(&broken.stderr)), (Some(1), ""));
    let report: serde_json::Value = serde_json::from_slice(&broken.stdout).unwrap();
    assert_eq!((&report["valid"], &report["breach"]["line"]), (&false.into(), &2.into()));

    let two: Vec<_> = records.lines().take(2).collect();
    fs::write(&path, format!("{}\n", two.join("\n"))).unwrap();
    let cut = verify(&[]);
    assert_eq!(cut.status.code(), Some(1));
    assert!(text(&cut.stdout).contains("the end is missing"), "{}", text(&cut.stdout));
}

#[test]
fn a_trail_that_is_not_there_is_told_in_two_lines() {
    let home = home();
    let output = run(home.path(), &["audit", "verify", "/nonexistent/audit.jsonl"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 2, "{}", text(&output.stderr));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let home = home();
    for arguments in [&["--help"][..], &["config", "example"], &["config", "example", "--format", "json"]] {
        let mut child = program(home.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before the program can have written: it may only find out by writing.
        drop(child.stdout.take());
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!((child.wait().unwrap().code(), error.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let home = home();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = program(home.path()).args(["config", "example"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("could not be written"), "{}", text(&output.stderr));
}

#[test]
fn colours_are_off_in_a_pipe_unless_they_are_asked_for() {
    let home = home();
    let plain = run(home.path(), &["whoami"]);
    assert!(!text(&plain.stderr).contains('\x1b'));
    let coloured = run(home.path(), &["whoami", "--color", "always"]);
    assert!(text(&coloured.stderr).contains("\x1b[31merror: "));
}

#[test]
fn keys_are_imported_from_the_home_file_and_not_from_the_working_directory() {
    let home = home();
    let elsewhere = tempfile::tempdir().unwrap();
    private(&elsewhere, ".ravi/config.json", r#"{"management_key":"ravi_mgmt_planted"}"#);
    let login = |directory: &Path| {
        let socket = "/nonexistent/admin.sock";
        let arguments = ["login", "--import", "--admin-socket", socket];
        program(home.path()).args(arguments).current_dir(directory).output().unwrap()
    };
    let output = login(elsewhere.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no file"), "{}", text(&output.stderr));
    private(&home, ".ravi/config.json", r#"{"management_key":"ravi_mgmt_own"}"#);
    // Read and accepted: what is missing now is the daemon.
    assert_eq!(login(elsewhere.path()).status.code(), Some(3));
}

#[test]
fn a_key_file_that_others_can_read_is_refused_and_not_quoted() {
    let home = home();
    let path = private(&home, ".ravi/config.json", r#"{"management_key":"ravi_mgmt_canary"}"#);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let output = run(home.path(), &["login", "--import"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("chmod 600"));
    assert!(!text(&output.stderr).contains("canary"));
}

#[test]
fn a_session_file_that_is_not_there_is_exit_4() {
    let home = home();
    let output = run(home.path(), &["whoami", "--session-file", "/nonexistent/session"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("session open --role"));
}

#[test]
fn a_value_is_read_and_judged_before_anything_is_asked_of_the_broker() {
    let home = home();
    let output = run(home.path(), &["set", "secret/A", "--role", "a", "--socket", "/nonexistent/s"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("standard input is empty"), "{}", text(&output.stderr));
}

/// Runs the program on a terminal, in a home of its own.
fn on_terminal(arguments: &[&str], prompt: &str, keys: &str) -> (String, Option<i32>) {
    let home = home();
    let mut command = program(home.path());
    command.args(arguments);
    super::on_terminal(command, prompt, keys)
}

#[test]
fn a_terminal_gets_a_value_only_when_it_is_asked_for() {
    let get = ["get", "secret/A", "--role", "a", "--socket", "/nonexistent/s"];
    let (shown, code) = on_terminal(&get, "", "");
    assert_eq!(code, Some(2));
    assert!(shown.contains("give --reveal"), "{shown}");
    // Past that door the broker is asked, which is not there.
    let reveal = [&get[..], &["--reveal"]].concat();
    assert_eq!(on_terminal(&reveal, "", "").1, Some(3));
    let username = [&get[..], &["--field", "username"]].concat();
    assert_eq!(on_terminal(&username, "", "").1, Some(3));
    let lease = ["lease", "acquire", "secret/A", "--with-value", "--format", "json"];
    assert!(on_terminal(&lease, "", "").0.contains("TERMINAL_REFUSED"));
}

#[test]
fn a_value_that_is_typed_is_not_shown() {
    let set = ["set", "secret/A", "--role", "a", "--socket", "/nonexistent/s"];
    let (shown, code) = on_terminal(&set, "Value of secret/A: ", "hidden-canary\r");
    // The value was read: what is missing is the daemon.
    assert_eq!(code, Some(3), "{shown}");
    assert!(!shown.contains("canary"), "{shown}");
    let (shown, code) = on_terminal(&set, "Value of secret/A: ", "hidden-canary\x03");
    assert_eq!(code, Some(2), "{shown}");
    assert!(shown.contains("the prompt was left") && !shown.contains("canary"), "{shown}");
}

#[test]
fn colours_are_on_at_a_terminal() {
    let (shown, _) = on_terminal(&["whoami"], "", "");
    assert!(shown.contains("\x1b[31merror: "), "{shown}");
    let (shown, _) = on_terminal(&["whoami", "--color", "never"], "", "");
    assert!(!shown.contains("\x1b["), "{shown}");
}
