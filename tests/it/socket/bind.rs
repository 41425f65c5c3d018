//! One daemon wins, nothing foreign is touched, and there is no moment of a wider mode.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::{Mode as Bits, umask};
use nix::unistd::mkfifo;
use ravi_broker::daemon::listen::{BindError, Occupant};

use super::*;

pub(super) fn play_daemon(socket: &Path) {
    say("ready");
    listen_for_a_line();
    match bind(socket, Mode::Owner) {
        Ok(_bound) => {
            say("won");
            listen_for_a_line();
        }
        Err(BindError::Running { .. }) => say("lost"),
        Err(error) => say(&format!("failed: {error}")),
    }
}

/// Binds again and again, with nothing but the code under test between the socket and the world. The
/// umask is the process's, so this must be a process of its own.
pub(super) fn play_careless_daemon(socket: &Path) {
    umask(Bits::empty());
    let group = 65530;
    let mode = if Uid::effective().is_root() { Mode::Group(group) } else { Mode::Owner };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let Ok(seen) = fs::symlink_metadata(socket) else { continue };
                let bits = seen.mode() & 0o777;
                assert!(bits == 0o600 || (bits == 0o660 && seen.gid() == group), "seen with {bits:o}");
            }
        });
        for _ in 0..500 {
            drop(bind(socket, mode).unwrap());
        }
        done.store(true, Ordering::SeqCst);
    });
    say("never wider");
}

#[test]
fn ten_daemons_start_at_once_and_one_wins() {
    let (_directory, socket) = room();
    let mut daemons: Vec<_> = (0..10).map(|_| Process::start("bind", &socket)).collect();
    daemons.iter_mut().for_each(|daemon| assert_eq!(daemon.hear(), "ready"));
    daemons.iter_mut().for_each(|daemon| daemon.tell("go"));
    let mut results: Vec<_> = daemons.iter_mut().map(|daemon| (daemon.hear(), daemon.pid())).collect();
    results.sort();
    let lost = results.iter().filter(|(said, _)| said == "lost").count();
    assert_eq!((lost, results[9].0.as_str()), (9, "won"), "{results:?}");
    UnixStream::connect(&socket).unwrap();

    daemons.into_iter().for_each(Process::finish);
    assert!(!socket.exists());
}

#[test]
fn a_killed_daemon_leaves_a_socket_that_the_next_one_replaces() {
    let (_directory, socket) = room();
    let mut killed = Process::start("bind", &socket);
    killed.hear();
    killed.tell("go");
    assert_eq!(killed.hear(), "won");
    drop(killed);
    assert!(socket.exists(), "it had no chance to clean up");
    let _bound = bind(&socket, Mode::Owner).unwrap();
    UnixStream::connect(&socket).unwrap();
}

#[test]
fn the_lock_is_free_again_when_the_socket_is_dropped() {
    let (_directory, socket) = room();
    let first = bind(&socket, Mode::Owner).unwrap();
    assert!(matches!(bind(&socket, Mode::Owner), Err(BindError::Running { .. })));
    drop(first);
    bind(&socket, Mode::Owner).unwrap();
}

#[test]
fn a_foreign_object_at_the_path_is_left_alone() {
    type Make = fn(&Path);
    let objects: [(Make, Occupant); 6] = [
        (|path| fs::write(path, "precious").unwrap(), Occupant::File),
        (|path| fs::create_dir(path).unwrap(), Occupant::Directory),
        (|path| mkfifo(path, Bits::S_IRWXU).unwrap(), Occupant::Fifo),
        (|path| symlink("/nowhere", path).unwrap(), Occupant::Symlink),
        (
            |path| {
                let dead = path.with_file_name("dead.sock");
                drop(UnixListener::bind(&dead).unwrap());
                symlink(dead, path).unwrap();
            },
            Occupant::Symlink,
        ),
        (
            |path| {
                let pointed_at = path.with_file_name("file");
                File::create(&pointed_at).unwrap();
                symlink(pointed_at, path).unwrap();
            },
            Occupant::Symlink,
        ),
    ];
    for (make, expected) in objects {
        let (_directory, socket) = room();
        make(&socket);
        assert_untouched(&socket, expected);
    }
}

#[test]
fn a_live_socket_is_left_alone_even_without_a_lock() {
    let (_directory, socket) = room();
    let live = UnixListener::bind(&socket).unwrap();
    assert_untouched(&socket, Occupant::LiveSocket);
    UnixStream::connect(&socket).unwrap();
    drop(live);
    fs::remove_file(&socket).unwrap();
    let _live = UnixDatagram::bind(&socket).unwrap();
    assert_untouched(&socket, Occupant::LiveSocket);
}

#[test]
fn a_socket_of_another_user_is_left_alone() {
    if !can_become_others() {
        return;
    }
    let (_directory, socket) = room();
    drop(UnixListener::bind(&socket).unwrap());
    chown(&socket, Some(STRANGER), None).unwrap();
    assert_untouched(&socket, Occupant::ForeignSocket);
}

fn assert_untouched(socket: &Path, expected: Occupant) {
    let look =
        || fs::symlink_metadata(socket).map(|seen| (seen.ino(), seen.mode(), seen.len(), seen.mtime_nsec()));
    let before = look().unwrap();
    match bind(socket, Mode::Owner) {
        Err(BindError::Occupied { occupant, .. }) => assert_eq!(occupant, expected),
        other => panic!("{expected}: {other:?}"),
    }
    assert_eq!(look().unwrap(), before, "{expected}");
}

#[test]
fn a_directory_that_others_control_is_refused() {
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        let (directory, socket) = room();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode)).unwrap();
        assert!(matches!(bind(&socket, Mode::Owner), Err(BindError::Directory { .. })), "{mode:o}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{mode:o}");
    }
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !can_become_others() {
        return;
    }
    let (directory, socket) = room();
    chown(directory.path(), Some(STRANGER), None).unwrap();
    assert!(matches!(bind(&socket, Mode::Owner), Err(BindError::Directory { .. })));
}

#[test]
fn a_symlink_as_the_directory_is_refused() {
    let (directory, _) = room();
    let real = directory.path().join("real");
    fs::create_dir(&real).unwrap();
    let link = directory.path().join("link");
    symlink(&real, &link).unwrap();
    assert!(matches!(bind(&link.join("broker.sock"), Mode::Owner), Err(BindError::Directory { .. })));
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0);

    let dangling = directory.path().join("dangling");
    symlink(directory.path().join("nowhere"), &dangling).unwrap();
    assert!(matches!(bind(&dangling.join("broker.sock"), Mode::Owner), Err(BindError::Directory { .. })));
    assert!(!directory.path().join("nowhere").exists());
}

#[test]
fn only_the_last_missing_directory_is_made() {
    let (directory, _) = room();
    let made = directory.path().join("made");
    let _bound = bind(&made.join("broker.sock"), Mode::Owner).unwrap();
    assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
    let deep = directory.path().join("a/b/broker.sock");
    assert!(matches!(bind(&deep, Mode::Owner), Err(BindError::System { .. })));
    assert!(!directory.path().join("a").exists());
}

#[test]
fn a_path_that_cannot_be_a_socket_is_refused() {
    let long = format!("/{}", "x".repeat(107));
    for path in ["broker.sock", "./broker.sock", "/", "/tmp/..", "", long.as_str()] {
        assert!(matches!(bind(Path::new(path), Mode::Owner), Err(BindError::Path { .. })), "{path}");
    }
}

#[test]
fn something_else_in_place_of_the_lock_is_left_alone() {
    type Make = fn(&Path);
    let objects: [Make; 5] = [
        |path| fs::create_dir(path).unwrap(),
        |path| mkfifo(path, Bits::S_IRWXU).unwrap(),
        |path| symlink(path.with_file_name("planted"), path).unwrap(),
        |path| symlink("/dev/null", path).unwrap(),
        |path| drop(UnixListener::bind(path).unwrap()),
    ];
    for (case, make) in objects.into_iter().enumerate() {
        let (directory, socket) = room();
        make(&directory.path().join("broker.sock.lock"));
        assert!(matches!(bind(&socket, Mode::Owner), Err(BindError::Lock { .. })), "{case}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "{case}");
    }
}

#[test]
fn the_socket_and_its_lock_are_ours_alone() {
    let (directory, socket) = room();
    let _bound = bind(&socket, Mode::Owner).unwrap();
    let seen = fs::symlink_metadata(&socket).unwrap();
    assert!(seen.file_type().is_socket());
    assert_eq!(seen.mode() & 0o777, 0o600);
    let lock = fs::symlink_metadata(directory.path().join("broker.sock.lock")).unwrap();
    assert_eq!((lock.mode() & 0o777, lock.len()), (0o600, 0));
}

#[test]
fn a_group_gets_the_socket_and_the_way_to_it() {
    if !can_become_others() {
        return;
    }
    let (directory, _) = room();
    let made = directory.path().join("made");
    let socket = made.join("broker.sock");
    let _bound = bind(&socket, Mode::Group(STRANGER)).unwrap();
    let shape =
        |path: &Path| fs::symlink_metadata(path).map(|seen| (seen.mode() & 0o777, seen.gid(), seen.uid()));
    assert_eq!(shape(&made).unwrap(), (0o750, STRANGER, 0));
    assert_eq!(shape(&socket).unwrap(), (0o660, STRANGER, 0));
    assert_eq!(Process::start_as(STRANGER, "connect", &socket).hear(), "connected");
    assert_eq!(Process::start_as(NOBODY, "connect", &socket).hear(), "refused: PermissionDenied");
}

#[test]
fn a_second_user_cannot_connect_to_a_socket_without_a_group() {
    if !can_become_others() {
        return;
    }
    let (_directory, socket) = room();
    let _bound = bind(&socket, Mode::Owner).unwrap();
    assert_eq!(Process::start_as(STRANGER, "connect", &socket).hear(), "refused: PermissionDenied");
}

#[test]
fn a_group_that_we_may_not_give_to_is_an_error_and_leaves_no_socket() {
    if !can_become_others() {
        return;
    }
    let (directory, socket) = room();
    chown(directory.path(), Some(STRANGER), None).unwrap();
    let mut stranger = Process::start_as(STRANGER, "harden", &socket);
    assert_eq!(stranger.hear(), "bound, and not to a foreign group");
    stranger.finish();
    assert!(!socket.exists());
}

#[test]
fn at_no_moment_is_the_socket_wider_than_in_the_end() {
    let (_directory, socket) = room();
    let mut careless = Process::start("bind with an open umask", &socket);
    assert_eq!(careless.hear(), "never wider");
    careless.finish();
}

#[test]
fn dropping_removes_no_other_socket_than_the_one_that_was_bound() {
    let (_directory, socket) = room();
    let bound = bind(&socket, Mode::Owner).unwrap();
    fs::remove_file(&socket).unwrap();
    let _successor = UnixListener::bind(&socket).unwrap();
    drop(bound);
    UnixStream::connect(&socket).unwrap();
}

#[test]
fn every_refusal_says_what_happened_and_what_to_do() {
    let (directory, socket) = room();
    let _bound = bind(&socket, Mode::Owner).unwrap();
    let taken = directory.path().join("taken");
    fs::write(&taken, "").unwrap();
    let deep = directory.path().join("a/b/c");
    for path in
        [socket.as_path(), taken.as_path(), deep.as_path(), Path::new("relative"), Path::new("/tmp/x")]
    {
        let text = bind(path, Mode::Owner).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
