//! What the screen shows and what keys do to it. Pure: pictures and keys come in, acts go out. An act holds the
//! handle of what it was asked about, so that a list that moves meanwhile changes nothing. Imports `client`'s
//! types and its neighbours.

use std::collections::VecDeque;

use super::keys::Key;
use super::rows::{Row, RowId, of_audit, of_sessions, of_waiting};
use crate::cli::page::Tone;
use crate::client::{ApprovalDecision, Attention, LeaseInfo, RevokeTarget, SessionInfo, Status};
use crate::clock::BootInstant;
use crate::types::ApprovalId;

/// Points of a graph: more than the widest terminal shows.
const POINTS: usize = 256;
/// Pictures for which a remark stays.
const REMARK: u8 = 6;

/// The daemon at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) status: Status,
    pub(crate) sessions: Vec<SessionInfo>,
    pub(crate) leases: Vec<LeaseInfo>,
    pub(crate) attention: Attention,
    /// Records of the trail, oldest first.
    pub(crate) audit: Vec<String>,
    pub(crate) at: BootInstant,
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum Event {
    Key(Key),
    /// The terminal has another size, or was written to by something else.
    Redraw,
    Picture(Box<Picture>),
    /// The daemon does not answer.
    Lost,
    /// An act is done, or was refused.
    Done(Result<String, String>),
    /// Nothing can come from the terminal any more.
    End,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Revoke(RevokeTarget),
    Lock,
    Unlock,
    Decide(ApprovalId, ApprovalDecision),
    Quit,
}

/// An act that waits for a yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) text: String,
    pub(crate) act: Act,
}

/// A part of the screen with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panel {
    Sessions,
    Waiting,
    Audit,
}

const PANELS: [Panel; 3] = [Panel::Sessions, Panel::Waiting, Panel::Audit];

/// A graph: a point for each picture, newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) points: VecDeque<u64>,
}

impl Graph {
    fn push(&mut self, point: u64) {
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// The newest.
    pub(crate) fn last(&self) -> u64 {
        self.points.back().copied().unwrap_or_default()
    }
}

/// What the graphs show: tenths a second, and calls of the budget that are used up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graphs {
    pub(crate) served: Graph,
    pub(crate) denied: Graph,
    pub(crate) upstream: Graph,
    pub(crate) used: Graph,
}

impl Graphs {
    fn push(&mut self, before: &Picture, now: &Picture) {
        let millis = u64::try_from(now.at.since(before.at).as_millis()).unwrap_or(u64::MAX).max(1);
        // A daemon that was restarted counts from 0 again.
        let rate = |before: u64, now: u64| (now.saturating_sub(before) * 10_000).div_ceil(millis);
        let (old, new) = (&before.status, &now.status);
        self.served.push(rate(old.requests_served, new.requests_served));
        self.denied.push(rate(old.requests_denied, new.requests_denied));
        self.upstream.push(rate(old.upstream_calls, new.upstream_calls));
        self.used.push(new.upstream_budget.calls.saturating_sub(new.upstream_budget.left).into());
    }
}

/// The place of the selection in a panel.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    id: Option<RowId>,
    index: usize,
}

impl Cursor {
    /// Stays with what was selected, or at its place if that is gone.
    fn settle(&mut self, rows: &[Row]) {
        match rows.iter().position(|row| Some(row.id) == self.id) {
            Some(index) => self.index = index,
            None => self.go(rows, self.index),
        }
    }

    fn go(&mut self, rows: &[Row], index: usize) {
        self.index = index.min(rows.len().saturating_sub(1));
        self.id = rows.get(self.index).map(|row| row.id);
    }
}

/// All that the screen is drawn from.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) picture: Option<Picture>,
    /// The last picture is an old one.
    pub(crate) lost: bool,
    pub(crate) graphs: Graphs,
    pub(crate) panel: Panel,
    pub(crate) rows: [Vec<Row>; PANELS.len()],
    cursors: [Cursor; PANELS.len()],
    pub(crate) ask: Option<Ask>,
    pub(crate) help: bool,
    pub(crate) remark: Option<(String, Tone)>,
    remark_left: u8,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            picture: None,
            lost: false,
            graphs: Graphs::default(),
            panel: Panel::Sessions,
            rows: Default::default(),
            cursors: Default::default(),
            ask: None,
            help: false,
            remark: None,
            remark_left: 0,
        }
    }
}

impl Model {
    /// Takes in what has happened, and says what is to be done.
    pub(crate) fn apply(&mut self, event: Event) -> Option<Act> {
        match event {
            Event::Key(key) => return self.press(key),
            Event::Picture(picture) => self.see(*picture),
            Event::Lost => (self.lost, self.ask) = (true, None),
            Event::Done(Ok(text)) => self.say(text, Tone::Good),
            Event::Done(Err(text)) => self.say(text, Tone::Bad),
            Event::Redraw => {}
            Event::End => return Some(Act::Quit),
        }
        None
    }

    /// The selected row of a panel, by its place.
    pub(crate) fn selected(&self, panel: Panel) -> Option<usize> {
        let cursor = &self.cursors[panel as usize];
        cursor.id.map(|_| cursor.index)
    }

    fn see(&mut self, picture: Picture) {
        if let Some(before) = &self.picture {
            self.graphs.push(before, &picture);
        }
        self.rows = [of_sessions(&picture), of_waiting(&picture), of_audit(&picture)];
        for (cursor, rows) in self.cursors.iter_mut().zip(&self.rows) {
            cursor.settle(rows);
        }
        (self.picture, self.lost) = (Some(picture), false);
        self.remark_left = self.remark_left.saturating_sub(1);
        if self.remark_left == 0 {
            self.remark = None;
        }
    }

    fn say(&mut self, text: String, tone: Tone) {
        (self.remark, self.remark_left) = (Some((text, tone)), REMARK);
    }

    fn press(&mut self, key: Key) -> Option<Act> {
        if let Some(ask) = self.ask.take() {
            return (key == Key::Yes).then_some(ask.act);
        }
        if std::mem::take(&mut self.help) && key != Key::Quit {
            return None;
        }
        match key {
            Key::Quit => return Some(Act::Quit),
            Key::Help => self.help = true,
            Key::Up => self.step(|index| index.saturating_sub(1)),
            Key::Down => self.step(|index| index + 1),
            Key::First => self.step(|_| 0),
            Key::Last => self.step(|_| usize::MAX),
            Key::Next => self.panel = PANELS[(self.panel as usize + 1) % PANELS.len()],
            Key::Previous => self.panel = PANELS[(self.panel as usize + PANELS.len() - 1) % PANELS.len()],
            Key::Revoke | Key::Lock | Key::Unlock | Key::Approve | Key::Deny => self.wish(key),
            Key::Yes | Key::Other => {}
        }
        None
    }

    fn step(&mut self, to: impl FnOnce(usize) -> usize) {
        let at = self.panel as usize;
        let cursor = &mut self.cursors[at];
        cursor.go(&self.rows[at], to(cursor.index));
    }

    /// Asks about an act, or says why there is nothing to ask about.
    fn wish(&mut self, key: Key) {
        if self.lost || self.picture.is_none() {
            return self.say("the daemon does not answer; nothing can be done".into(), Tone::Warn);
        }
        let ask = match key {
            Key::Lock => Some(Ask {
                text: "Lock: end every session, forget every secret, refuse all requests?".into(),
                act: Act::Lock,
            }),
            Key::Unlock => Some(Ask { text: "Unlock: serve again?".into(), act: Act::Unlock }),
            Key::Revoke => self.row(Panel::Sessions).and_then(|row| {
                let act = match row.id {
                    RowId::Session(id) => RevokeTarget::Session(id),
                    RowId::Lease(id) => RevokeTarget::Lease(id),
                    RowId::Approval(_) | RowId::Record(_) => return None,
                };
                Some(Ask { text: format!("Revoke {}?", row.name), act: Act::Revoke(act) })
            }),
            key => self.row(Panel::Waiting).and_then(|row| {
                let RowId::Approval(id) = row.id else { return None };
                let (word, said) = match key {
                    Key::Approve => ("Approve once", ApprovalDecision::Once),
                    _ => ("Deny", ApprovalDecision::Deny),
                };
                Some(Ask { text: format!("{word}: {}?", row.name), act: Act::Decide(id, said) })
            }),
        };
        match ask {
            Some(ask) => self.ask = Some(ask),
            None => self.say("there is nothing of that kind".into(), Tone::Warn),
        }
    }

    fn row(&self, panel: Panel) -> Option<&Row> {
        self.rows[panel as usize].get(self.selected(panel)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, picture};
    use super::*;

    fn seen() -> Model {
        let mut model = Model::default();
        model.apply(Event::Picture(Box::new(picture())));
        model
    }

    fn keys(model: &mut Model, keys: &[Key]) -> Option<Act> {
        keys.iter().fold(None, |_, key| model.apply(Event::Key(*key)))
    }

    #[test]
    fn what_changes_something_is_asked_about_and_only_yes_does_it() {
        for (key, expected) in [(Key::Lock, Act::Lock), (Key::Unlock, Act::Unlock)] {
            let mut model = seen();
            assert_eq!(keys(&mut model, &[key]), None);
            assert_eq!(keys(&mut model, &[Key::Yes]), Some(expected));
            assert_eq!(keys(&mut model, &[key, Key::Other, Key::Yes]), None);
            assert_eq!(keys(&mut model, &[key, Key::Quit]), None, "that was a no");
        }
        let mut model = seen();
        let decided = keys(&mut model, &[Key::Approve, Key::Yes]);
        assert!(matches!(decided, Some(Act::Decide(_, ApprovalDecision::Once))), "{decided:?}");
        let decided = keys(&mut model, &[Key::Deny, Key::Yes]);
        assert!(matches!(decided, Some(Act::Decide(_, ApprovalDecision::Deny))), "{decided:?}");
    }

    #[test]
    fn the_selected_session_or_lease_is_revoked_also_when_the_list_moves_meanwhile() {
        let mut model = seen();
        let session = model.picture.as_ref().unwrap().sessions[0].session_id;
        keys(&mut model, &[Key::Revoke]);
        let mut later = picture();
        later.sessions.remove(0);
        model.apply(Event::Picture(Box::new(later)));
        let act = keys(&mut model, &[Key::Yes]);
        assert_eq!(act, Some(Act::Revoke(RevokeTarget::Session(session))));

        let mut model = seen();
        let lease = model.picture.as_ref().unwrap().leases[0].lease_id;
        let act = keys(&mut model, &[Key::Down, Key::Revoke, Key::Yes]);
        assert_eq!(act, Some(Act::Revoke(RevokeTarget::Lease(lease))));
    }

    #[test]
    fn the_selection_stays_with_its_row_and_at_its_place_when_that_is_gone() {
        let mut model = seen();
        keys(&mut model, &[Key::Last]);
        let last = model.rows[0].len() - 1;
        assert_eq!(model.selected(Panel::Sessions), Some(last));
        let mut later = picture();
        later.leases.remove(0);
        model.apply(Event::Picture(Box::new(later)));
        assert_eq!(model.selected(Panel::Sessions), Some(last - 1));
        let mut empty = picture();
        (empty.sessions, empty.leases) = (Vec::new(), Vec::new());
        model.apply(Event::Picture(Box::new(empty)));
        assert_eq!(model.selected(Panel::Sessions), None);
        assert_eq!(keys(&mut model, &[Key::Revoke, Key::Yes]), None);
        assert!(model.remark.is_some());
    }

    #[test]
    fn while_the_daemon_does_not_answer_nothing_is_asked_and_a_question_is_dropped() {
        let mut model = seen();
        keys(&mut model, &[Key::Lock]);
        model.apply(Event::Lost);
        assert_eq!(keys(&mut model, &[Key::Yes, Key::Lock, Key::Yes]), None);
        model.apply(Event::Picture(Box::new(picture())));
        assert!(!model.lost);
    }

    #[test]
    fn graphs_show_rates_and_a_restarted_daemon_makes_no_spike() {
        let mut model = seen();
        let mut later = picture();
        later.at = at(3);
        later.status.requests_served += 10;
        later.status.upstream_budget.left = 40;
        model.apply(Event::Picture(Box::new(later)));
        assert_eq!((model.graphs.served.last(), model.graphs.used.last()), (50, 20));
        let mut again = picture();
        (again.at, again.status.requests_served) = (at(4), 1);
        model.apply(Event::Picture(Box::new(again)));
        assert_eq!(model.graphs.served.last(), 0);
        for seconds in 5..1000 {
            let mut later = picture();
            later.at = at(seconds);
            model.apply(Event::Picture(Box::new(later)));
        }
        assert_eq!(model.graphs.served.points.len(), POINTS);
    }
}
