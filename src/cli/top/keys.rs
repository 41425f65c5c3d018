//! Which key means what. Imports nothing of this crate.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    First,
    Last,
    Next,
    Previous,
    Revoke,
    Lock,
    Unlock,
    Approve,
    Deny,
    Yes,
    Help,
    Quit,
    /// No to a question, and otherwise nothing.
    Other,
}

/// The keys and what they do, for the help.
pub(crate) const HELP: [(&str, &str); 9] = [
    ("up, down, j, k", "select; g and G: first and last"),
    ("tab, left, right", "next panel"),
    ("r", "revoke the selected session or lease"),
    ("a", "approve the selected request, for one use"),
    ("d", "deny it; the same is then refused for ten minutes"),
    ("l", "lock: end everything, forget every secret"),
    ("u", "unlock"),
    ("?", "this help"),
    ("q, ctrl-c", "quit"),
];

/// Reads a key. `None` where it is let go.
pub(crate) fn key(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return Some(if event.code == KeyCode::Char('c') { Key::Quit } else { Key::Other });
    }
    Some(match event.code {
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::Home | KeyCode::Char('g') => Key::First,
        KeyCode::End | KeyCode::Char('G') => Key::Last,
        KeyCode::Tab | KeyCode::Right => Key::Next,
        KeyCode::BackTab | KeyCode::Left => Key::Previous,
        KeyCode::Char('r') => Key::Revoke,
        KeyCode::Char('l') => Key::Lock,
        KeyCode::Char('u') => Key::Unlock,
        KeyCode::Char('a') => Key::Approve,
        KeyCode::Char('d') => Key::Deny,
        KeyCode::Char('y') => Key::Yes,
        KeyCode::Char('?' | 'h') => Key::Help,
        KeyCode::Char('q') => Key::Quit,
        _ => Key::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_c_quits_and_other_keys_with_control_do_nothing() {
        let with = |code, modifiers| key(KeyEvent::new(KeyCode::Char(code), modifiers));
        assert_eq!(with('c', KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(with('l', KeyModifiers::CONTROL), Some(Key::Other));
        assert_eq!(with('l', KeyModifiers::NONE), Some(Key::Lock));
        assert_eq!(with('G', KeyModifiers::SHIFT), Some(Key::Last));
    }
}
