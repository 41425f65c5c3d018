//! Values: how they reach the program, and where they are not.

use data_encoding::{BASE64, HEXLOWER};
use ravi_broker::secret::Secret;

use super::{CANARY, KEY, fs, showing, stack};
use crate::support::{NOTES, bounded, until};

const ALONE: &str = "canary-9b3f4c20-alone";

fn file() -> String {
    format!("F={KEY}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_reaches_the_program_in_every_way_that_was_asked_for() {
    let stack = stack().await;
    let (file, fd, env) = (file(), format!("7={KEY}"), format!("E={KEY}"));
    let options = ["--file", &file, "--fd", &fd, "--stdin", KEY, "--env", &env, "--no-mask", "--quiet"];
    // A path is read as often as it is opened, also by what the program starts.
    let script = r#"cat "$F"; cat "$F"; sh -c 'cat "$F"'; cat <&7; cat; printf %s "$E""#;
    let run = stack.launch(&options, script);
    assert_eq!(run.err, "");
    assert_eq!(run.good(), CANARY.repeat(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sealed_and_for_its_owner_to_read() {
    let stack = stack().await;
    let script = r#"stat -Lc %a "$F"; (echo x >> "$F") 2>/dev/null || echo sealed; wc -c < "$F""#;
    assert_eq!(stack.launch(&["--file", &file()], script).good(), format!("400\nsealed\n{}\n", CANARY.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_descriptors_do_not_hit_each_other() {
    let stack = stack().await;
    let wanted: Vec<String> = (3..=22).map(|number| format!("{number}={KEY}")).collect();
    let files: Vec<String> = (0..8).map(|number| format!("F{number}={KEY}")).collect();
    let options = wanted.iter().flat_map(|fd| ["--fd", fd]);
    let options: Vec<&str> = options.chain(files.iter().flat_map(|file| ["--file", file])).collect();
    let script = r#"for n in $(seq 3 22); do cat /proc/self/fd/$n; done; cat "$F0" "$F7""#;
    let run = stack.launch(&[&options[..], &["--no-mask"]].concat(), script);
    assert_eq!(run.good(), CANARY.repeat(22));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_name_of_a_password_is_a_reference_of_its_own() {
    let stack = stack().await;
    let listed = stack.run("list passwords --role notes --format json").json();
    let name = listed[0]["username"].as_str().unwrap().to_owned();
    let user = format!("U=ravi://password/github.com/{name}#username");
    let run = stack.launch(&["--env", &user, "--quiet"], "echo \"$U\"");
    // It is no secret, and not masked.
    assert_eq!(run.good(), format!("{name}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_environment_and_no_command_line_shows_a_value_or_the_token() {
    let stack = stack().await;
    // Of this test alone: others run at the same time, and inject into environments.
    stack.control().set_secret(NOTES, "OPENAI_API_KEY", Secret::copy_of(ALONE)).unwrap();
    let (file, fd) = (file(), format!("7={KEY}"));
    let options = ["--file", &file, "--fd", &fd, "--stdin", KEY];
    let script = r#"sh -c 'sleep 60' & trap "kill $!" TERM; echo "$RAVI_BROKER_SESSION_FILE"; wait"#;
    let mut launched = stack.started(&options, script);
    let path = launched.hear();
    let stored: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let token = stored["token"].as_str().unwrap();
    // The scan finds what is there.
    until(async || showing(&path).len() >= 2).await;
    assert!(showing(&file).contains(&launched.pid()));
    assert!(showing(ALONE).is_empty(), "a value is shown");
    assert!(showing(token).is_empty(), "the token is shown");
    launched.signal(super::Signal::SIGTERM);
    launched.ended();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_for_the_environment_is_in_that_of_the_program_alone_and_said_to_be_exposed() {
    let stack = stack().await;
    let env = format!("E={KEY}");
    let mut launched = stack.started(&["--env", &env], "echo $$; trap 'exit 0' TERM; sleep 60 & wait");
    let program: u32 = launched.hear().parse().unwrap();
    let showing = showing(CANARY);
    assert!(showing.contains(&program) && !showing.contains(&launched.pid()), "{showing:?}");
    launched.signal(super::Signal::SIGTERM);
    let run = launched.ended();
    assert_eq!((run.code, run.err.lines().count()), (Some(0), 1), "{run:?}");
    assert!(run.err.contains("/proc/PID/environ") && run.err.contains("crash reports"), "{run:?}");
    assert_eq!(stack.launch(&["--env", &env, "--quiet"], ":").err, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_shows_no_value_however_it_is_written() {
    let stack = stack().await;
    let run = stack.launch(
        &["--file", &file()],
        r#"v=$(cat "$F"); echo "one $v two"; echo "$v" >&2
           for i in $(seq 1 ${#v}); do printf %s "$v" | cut -c "$i" | tr -d '\n'; done; echo; printf "$v$v""#,
    );
    assert!(!run.out.contains(CANARY) && !run.err.contains(CANARY), "a value is shown");
    assert_eq!(run.out.lines().count(), 3);
    let masked = run.out.lines().next().unwrap();
    assert!(masked.starts_with("one [") && masked.ends_with("] two"), "{masked}");
    let shown = stack.launch(&["--file", &file(), "--no-mask"], r#"cat "$F""#);
    assert_eq!(shown.good(), CANARY);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_spellings_of_a_value_are_masked_too() {
    let stack = stack().await;
    let spellings = [CANARY.to_owned(), BASE64.encode(CANARY.as_bytes()), HEXLOWER.encode(CANARY.as_bytes())];
    let script = r#"v=$(cat "$F"); printf %s "$v" | base64; printf %s "$v" | od -An -tx1 | tr -d ' \n'; echo
                    printf %s "$v" | base64 | fold -w 5 >&2"#;
    let run = stack.launch(&["--file", &file()], script);
    for spelling in &spellings {
        let shown = [&run.out, &run.err].map(|text| text.replace('\n', "").contains(spelling.as_str()));
        assert_eq!(shown, [false, false], "a value is shown");
    }
    assert_eq!(run.out.lines().count(), 2);
    // The same without the mask shows that there was something to find.
    let open = stack.launch(&["--file", &file(), "--no-mask"], script);
    assert!(spellings[1..].iter().all(|spelling| open.out.contains(spelling.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_does_not_get_the_callers_keys() {
    let stack = stack().await;
    let mut command = stack.launcher(&["--file", &file(), "--unset", "UNWANTED", "--verbose"], &["env"]);
    for (name, value) in [
        ("RAVI_API_KEY", "kept-1"),
        ("SOME_KEY", "ravi_mgmt_kept-2"),
        ("CREDENTIALS_DIRECTORY", "/kept-3"),
        ("NOTIFY_SOCKET", "/kept-4"),
        ("LISTEN_FDS", "kept-5"),
        ("RAVI_BROKER_SESSION_FILE", "/kept-6"),
        ("COPY", CANARY),
        ("UNWANTED", "kept-7"),
        ("WANTED", "handed on"),
    ] {
        command.env(name, value);
    }
    let run = super::ended(command);
    let said = run.err.clone();
    let shown = run.good();
    assert!(shown.contains("WANTED=handed on\n") && shown.contains("\nF=/proc/self/fd/"), "{shown}");
    for name in ["kept-", "COPY=", "RAVI_API_KEY", "SOME_KEY", "LISTEN_FDS"] {
        assert!(!shown.contains(name), "{name}");
    }
    assert!(said.contains("SOME_KEY is kept from the program") && !said.contains("kept-2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_injected_is_refused_before_the_program_runs() {
    let stack = stack().await;
    let marker = stack.setup.directory().join("marker");
    let touch = format!("touch {}", marker.display());
    let (file, other) = (file(), "F=ravi://secret/OPENAI_ORG_ID");
    stack.launch(&["--file", &file, "--env", other], &touch).failed(2);
    stack.launch(&["--file", "F=ravi://secret/NOT_MINE"], &touch).failed(4);
    stack.launch(&["--fd", &format!("2={KEY}")], &touch).failed(2);
    assert!(!marker.exists());
    // Nothing is left open.
    bounded(async { while stack.admin().await.status().await.unwrap().sessions > 0 {} }).await;
    let files = fs::read_dir(stack.setup.directory().join("ravi-broker/sessions")).unwrap();
    assert_eq!(files.count(), 0);
}
