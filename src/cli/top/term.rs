//! The terminal: raw mode and the alternate screen, taken and given back, and its keys.
//!
//! It is given back when [`Screen`] goes, in a panic before its message is printed, and at the signals that end the
//! program, since the loop that waits for them drops the screen. One thread reads keys; it ends with its receiver.

use std::io::{self, Stdout, stdout};
use std::panic;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event as Input};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::sync::mpsc;

use super::keys;
use super::state::{Event, Model};
use super::view;

/// Between two looks whether anybody still wants keys.
const LOOK: Duration = Duration::from_millis(200);

/// The terminal while it is ours.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    colour: bool,
}

impl Screen {
    /// Takes the terminal.
    pub(crate) fn take(colour: bool) -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            give_back();
            before(panicked);
        }));
        enable_raw_mode()?;
        let taken = execute!(stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        let terminal = taken.inspect_err(|_| give_back())?;
        Ok(Self { terminal, colour })
    }

    /// Draws what has changed.
    pub(crate) fn draw(&mut self, model: &Model) -> io::Result<()> {
        let colour = self.colour;
        self.terminal.draw(|frame| view::draw(model, colour, frame.area(), frame.buffer_mut())).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// As it was. A terminal that is gone takes nothing back, which is no harm.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

/// Tells keys from a thread of its own, since reading them blocks.
pub(crate) fn tell_keys(events: mpsc::Sender<Event>) {
    std::thread::spawn(move || {
        while !events.is_closed() {
            let told = match read() {
                Ok(Some(event)) => events.blocking_send(event),
                Ok(None) => Ok(()),
                Err(_) => {
                    let _ = events.blocking_send(Event::End);
                    return;
                }
            };
            if told.is_err() {
                return;
            }
        }
    });
}

fn read() -> io::Result<Option<Event>> {
    if !event::poll(LOOK)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Input::Key(key) => keys::key(key).map(Event::Key),
        Input::Resize(..) | Input::FocusGained => Some(Event::Redraw),
        _ => None,
    })
}
