//! `skill`: what is written is shown, asked for, and taken away again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{PROGRAM, Run, on_terminal};

fn program(home: &Path, line: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    command.args(line.split_whitespace());
    command
}

fn run(home: &TempDir, line: &str) -> Run {
    Run::of(&program(home.path(), line).output().unwrap())
}

#[test]
fn a_skill_is_shown_installed_and_taken_away() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".claude/skills/ravi-broker/SKILL.md");
    let shown = run(&home, "skill show").good();
    let installed = run(&home, "skill install --yes");
    assert!(installed.err.contains(&shown) && installed.err.contains(path.to_str().unwrap()));
    assert_eq!(fs::read_to_string(&path).unwrap(), shown);
    assert!(run(&home, "skill install").err.contains("there already"));
    // One of another version is ours as well.
    fs::write(&path, format!("{shown}more\n")).unwrap();
    run(&home, "skill install --yes").good();
    assert_eq!(fs::read_to_string(&path).unwrap(), shown);
    run(&home, "skill uninstall --yes").good();
    assert!(!path.parent().unwrap().exists() && path.parent().unwrap().parent().unwrap().exists());
    assert!(run(&home, "skill uninstall --yes").err.contains("There is no skill"));
}

#[test]
fn nothing_is_written_unasked_and_no_answer_is_a_no() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("skills");
    let run = run(&home, "skill install --to skills");
    assert!(run.code == Some(1) && run.err.contains("--yes"), "{run:?}");
    for (keys, written) in [("n\n", false), ("\n", false), ("y\n", true)] {
        let command = program(home.path(), "skill install --to skills");
        let (shown, code) = on_terminal(command, "[y/N] ", keys);
        assert_eq!((code == Some(0), directory.exists()), (written, written), "{shown}");
    }
}

#[test]
fn what_somebody_else_put_there_stays() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("skills/ravi-broker/SKILL.md");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let refused = |what: &str| {
        for line in ["skill install --to skills --yes", "skill uninstall --to skills --yes"] {
            let (told, _) = run(&home, line).failed(1);
            assert!(told.starts_with("another skill is at "), "{what}: {told}");
        }
    };
    fs::write(&path, "---\nname: mine\n---\n").unwrap();
    refused("a file");
    assert_eq!(fs::read_to_string(&path).unwrap(), "---\nname: mine\n---\n");
    fs::remove_file(&path).unwrap();
    let ours = home.path().join("elsewhere");
    fs::write(&ours, run(&home, "skill show").good()).unwrap();
    symlink(&ours, &path).unwrap();
    refused("a link");
    assert!(ours.exists() && fs::symlink_metadata(&path).unwrap().is_symlink());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused("a directory");
}
