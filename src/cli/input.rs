//! Reads the value of a secret: from a pipe or file, or from a prompt that shows nothing.
//!
//! The value is read into one buffer that never grows and is wiped once the [`Secret`] is made, so no part
//! of it is left behind. Bounded: the broker takes at most 48 KiB. Imports `secret` alone.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Longest value (`SetSecretRequest.value`).
const MAX_BYTES: usize = 48 * 1024;
const ETX: u8 = 3;
const EOT: u8 = 4;
const BACKSPACE: u8 = 8;
const KILL_LINE: u8 = 21;
const DELETE: u8 = 127;

/// Why no value was read.
#[derive(Debug, Error)]
pub(crate) enum InputError {
    #[error("the value on standard input is empty\npipe it in: ravi-broker set secret/KEY < file")]
    Empty,
    #[error("the value is longer than 48 KiB\nRavi does not store it; keep large material elsewhere")]
    TooLong,
    #[error("standard input is longer than it may be\ngive it less")]
    RequestTooLong,
    #[error("the value is not UTF-8 text\nencode it first, for example with base64")]
    NotText,
    #[error("the prompt was left\nnothing was changed")]
    Cancelled,
    #[error("standard input could not be read: {}\npipe the value in, or run the command on a terminal", .0.kind())]
    Unreadable(io::Error),
}

/// Reads standard input to its end, or one line from the terminal.
pub(crate) fn secret(prompt: &str, keep_newline: bool) -> Result<Secret, InputError> {
    let stdin = io::stdin();
    let terminal = stdin.is_terminal();
    // The descriptor itself: the standard library would keep a buffer of its own.
    let input = stdin.as_fd().try_clone_to_owned().map(File::from).map_err(InputError::Unreadable)?;
    if terminal { from_terminal(&input, prompt) } else { from_pipe(&input, keep_newline) }
}

/// Reads what another program asks, to its end.
pub(crate) fn request(longest: usize) -> Result<Zeroizing<Vec<u8>>, InputError> {
    let input = io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(InputError::Unreadable)?;
    let (mut buffer, filled) = filled(&input, longest + 1)?;
    buffer.truncate(filled);
    if filled > longest { Err(InputError::RequestTooLong) } else { Ok(buffer) }
}

/// A buffer of this size, and how much of it the input fills.
fn filled(mut input: impl Read, size: usize) -> Result<(Zeroizing<Vec<u8>>, usize), InputError> {
    let mut buffer = Zeroizing::new(vec![0; size]);
    let mut filled = 0;
    loop {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => return Ok((buffer, filled)),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(InputError::Unreadable(error)),
        }
    }
}

fn from_pipe(input: impl Read, keep_newline: bool) -> Result<Secret, InputError> {
    let (buffer, mut filled) = filled(input, MAX_BYTES + 3)?;
    if !keep_newline {
        filled -= newline_at_end(&buffer[..filled]);
    }
    to_secret(&buffer[..filled])
}

fn newline_at_end(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r\n") { 2 } else { usize::from(bytes.ends_with(b"\n")) }
}

fn to_secret(bytes: &[u8]) -> Result<Secret, InputError> {
    if bytes.len() > MAX_BYTES {
        return Err(InputError::TooLong);
    }
    match std::str::from_utf8(bytes) {
        Ok("") => Err(InputError::Empty),
        Ok(text) => Ok(Secret::copy_of(text)),
        Err(_) => Err(InputError::NotText),
    }
}

fn from_terminal(input: &File, prompt: &str) -> Result<Secret, InputError> {
    let _silent = Silence::on(input.as_fd())?;
    // A prompt that cannot be shown still has its answer read.
    let _ = io::stderr().write_all(format!("{prompt}: ").as_bytes());
    let line = read_line(input);
    let _ = io::stderr().write_all(b"\n");
    line
}

/// Reads keys up to Enter. Ctrl-C and Ctrl-D leave, Backspace and Ctrl-U correct.
fn read_line(mut input: impl Read) -> Result<Secret, InputError> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
    let mut key = Zeroizing::new([0; 1]);
    loop {
        input.read_exact(&mut key[..]).map_err(InputError::Unreadable)?;
        match key[0] {
            b'\n' | b'\r' => return to_secret(&line),
            ETX | EOT => return Err(InputError::Cancelled),
            KILL_LINE => line.clear(),
            BACKSPACE | DELETE => remove_last_character(&mut line),
            _ if line.len() == line.capacity() => return Err(InputError::TooLong),
            byte => line.push(byte),
        }
    }
}

fn remove_last_character(line: &mut Vec<u8>) {
    let continues = |byte: u8| byte & 0xc0 == 0x80;
    while line.pop().is_some_and(continues) {}
}

/// A terminal that echoes nothing and hands over each key, until dropped.
struct Silence<'fd> {
    terminal: BorrowedFd<'fd>,
    before: Termios,
}

impl<'fd> Silence<'fd> {
    fn on(terminal: BorrowedFd<'fd>) -> Result<Self, InputError> {
        let unreadable = |error: nix::Error| InputError::Unreadable(error.into());
        let before = termios::tcgetattr(terminal).map_err(unreadable)?;
        let mut silent = before.clone();
        // Without signals as well: one of them would leave the terminal silent.
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        termios::tcsetattr(terminal, SetArg::TCSAFLUSH, &silent).map_err(unreadable)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to restore.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piped(bytes: &[u8], keep_newline: bool) -> Result<String, InputError> {
        from_pipe(bytes, keep_newline).map(|secret| secret.expose().to_owned())
    }

    fn typed(keys: &[u8]) -> Result<String, InputError> {
        read_line(keys).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn one_newline_at_the_end_is_dropped_unless_it_is_to_be_kept() {
        assert_eq!(piped(b"value\n", false).unwrap(), "value");
        assert_eq!(piped(b"value\r\n", false).unwrap(), "value");
        assert_eq!(piped(b"a\nb\n\n", false).unwrap(), "a\nb\n");
        assert_eq!(piped(b"value\n", true).unwrap(), "value\n");
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        assert!(matches!(piped(b"", false), Err(InputError::Empty)));
        assert!(matches!(piped(b"\n", false), Err(InputError::Empty)));
        assert!(matches!(piped(b"\xff\xfe", false), Err(InputError::NotText)));
        assert!(piped(&[b'a'; MAX_BYTES], false).is_ok());
        assert!(piped(&[&[b'a'; MAX_BYTES][..], b"\r\n"].concat(), false).is_ok());
        assert!(matches!(piped(&[b'a'; MAX_BYTES + 1], false), Err(InputError::TooLong)));
        assert!(matches!(piped(&vec![b'a'; 1 << 20], false), Err(InputError::TooLong)));
    }

    #[test]
    fn a_typed_line_can_be_corrected_and_left() {
        assert_eq!(typed(b"abx\x7fc\n").unwrap(), "abc");
        assert_eq!(typed("aö\x08b\r".as_bytes()).unwrap(), "ab");
        assert_eq!(typed(b"wrong\x15right\n").unwrap(), "right");
        assert!(matches!(typed(b"abc\x03"), Err(InputError::Cancelled)));
        assert!(matches!(typed(b"\n"), Err(InputError::Empty)));
        assert!(matches!(typed(&vec![b'a'; MAX_BYTES + 10]), Err(InputError::TooLong)));
    }
}
