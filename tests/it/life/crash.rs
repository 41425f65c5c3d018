//! A daemon that was killed: its sockets are replaced, its audit trail goes on or stops the start.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use ravi_broker::audit;

use super::{assert_two_lines, refused};
use crate::support::{Daemon, Setup, Stack};

/// A daemon that has written some records and was killed in the middle of its life.
async fn killed() -> Stack {
    let mut stack = Stack::start().await;
    let agent = stack.agent("notes").await;
    agent.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    stack.daemon.signal(Signal::SIGKILL);
    stack.daemon.ended().await;
    stack
}

fn head_of(trail: &Path) -> PathBuf {
    let mut name = trail.as_os_str().to_owned();
    name.push(".head");
    name.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_sockets_are_replaced_and_the_chain_goes_on() {
    let mut stack = killed().await;
    assert!(stack.setup.agent_socket.exists() && stack.setup.admin_socket.exists());
    let before = stack.audit().len();
    stack.daemon = Daemon::start(&stack.setup).await;
    stack.agent("notes").await.acquire("secret/OPENAI_API_KEY", None, "").await.unwrap();
    assert_eq!(stack.admin().await.status().await.unwrap().sessions, 1);
    let records = stack.audit();
    assert_eq!(records[before]["event"], "daemon.started");
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], index + 1);
        if index > 0 {
            assert_eq!(record["prev"], records[index - 1]["hash"]);
        }
    }
    let report = audit::verify_path(&stack.setup.audit_file).unwrap();
    assert!(report.is_whole(), "{report}");
    assert_eq!(report.head.sequence, records.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_crash_cut_short_is_dropped_and_that_is_on_record() {
    let mut stack = killed().await;
    let before = stack.audit().len();
    let mut trail = fs::File::options().append(true).open(&stack.setup.audit_file).unwrap();
    trail.write_all(b"{\"seq\":99,\"prev\":\"00").unwrap();
    stack.daemon = Daemon::start(&stack.setup).await;
    assert_eq!(stack.audit()[before]["event"], "audit.recovered");
    assert!(audit::verify_path(&stack.setup.audit_file).unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_was_touched_meanwhile_stops_the_start() {
    type Touch = fn(&Path);
    let touches: [(&str, Touch); 7] = [
        ("a record was edited", |trail| {
            let text = fs::read_to_string(trail).unwrap();
            fs::write(trail, text.replacen("secret/OPENAI_API_KEY", "secret/OPENAI_API_KEX", 1)).unwrap();
        }),
        ("the last record was cut off", |trail| {
            let text = fs::read_to_string(trail).unwrap();
            let end = text.trim_end().rfind('\n').unwrap() + 1;
            fs::write(trail, &text[..end]).unwrap();
        }),
        ("a record was taken out of the middle", |trail| {
            let text = fs::read_to_string(trail).unwrap();
            let kept: String =
                text.split_inclusive('\n').enumerate().filter(|(i, _)| *i != 1).map(|(_, l)| l).collect();
            fs::write(trail, kept).unwrap();
        }),
        ("two records were swapped", |trail| {
            let text = fs::read_to_string(trail).unwrap();
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            lines.swap(0, 1);
            fs::write(trail, lines.concat()).unwrap();
        }),
        ("it was emptied", |trail| fs::write(trail, "").unwrap()),
        ("it was removed", |trail| fs::remove_file(trail).unwrap()),
        ("its head file was removed", |trail| fs::remove_file(head_of(trail)).unwrap()),
    ];
    for (what, touch) in touches {
        let stack = killed().await;
        let trail = &stack.setup.audit_file;
        touch(trail);
        let touched = fs::read(trail).ok();
        assert_refused(&stack.setup, what).await;
        if let Some(touched) = touched {
            assert!(fs::read(trail).unwrap() == touched, "{what}: the evidence was changed");
        }
    }
}

async fn assert_refused(setup: &Setup, what: &str) {
    fs::write(setup.directory().join("log"), "").unwrap();
    let said = refused(setup).await;
    assert_two_lines(&said);
    assert!(said.contains("the audit trail is broken"), "{what}: {said}");
    assert!(said.contains("ravi-broker audit verify"), "{what}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_was_moved_away_whole_makes_room_for_a_new_one() {
    let mut stack = killed().await;
    let trail = stack.setup.audit_file.clone();
    let aside = trail.parent().unwrap().with_file_name("aside");
    fs::create_dir(&aside).unwrap();
    for path in [trail.clone(), head_of(&trail)] {
        fs::rename(&path, aside.join(path.file_name().unwrap())).unwrap();
    }
    stack.daemon = Daemon::start(&stack.setup).await;
    assert_eq!(stack.audit()[0]["seq"], 1);
    assert!(audit::verify_path(&aside.join(trail.file_name().unwrap())).unwrap().is_whole());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_others_can_write_to_stops_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let stack = killed().await;
    fs::set_permissions(&stack.setup.audit_file, fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(stack.setup.directory().join("log"), "").unwrap();
    let said = refused(&stack.setup).await;
    assert_two_lines(&said);
    assert!(said.contains("is not to be trusted"), "{said}");
}
