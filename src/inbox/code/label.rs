//! What says that a candidate is something else: an order, an account, a signature for a program. Imports
//! `inbox::text`.

use super::cue::{Cue, Hit};
use super::place::{Place, REACH};
use super::shape::Candidate;
use super::words::{BETWEEN, NUMBER, VERBS};

impl Place<'_> {
    /// True if something else is said to have this number.
    pub(super) fn is_labelled(&self) -> bool {
        let range = &self.candidate.range;
        let kinds = [Cue::Code, Cue::Weak, Cue::Approval, Cue::Label, Cue::Soft, Cue::Promo];
        let (before, after) = self.nearest(&kinds);
        if let Some(hit) = before {
            match hit.what {
                Cue::Label | Cue::Promo if self.links(hit.end..range.start, 1) => {
                    return !self.is_led_to_by(&hit);
                }
                Cue::Soft if self.links(hit.end..range.start, 0) => {
                    // `Dear customer, 482913 is …`.
                    let apart = self.scene.lower[hit.end..range.start].contains(&',');
                    let meant = self.is_code_for(&hit) || self.is_led_to_by(&hit) || self.is_named();
                    return !apart && !meant && !self.is_to_be_entered(&hit);
                }
                Cue::Code | Cue::Weak | Cue::Approval if self.links(hit.end..range.start, 1) => return false,
                _ => {}
            }
        }
        if self.candidate.hash || self.is_title() {
            // `#482913` is an order or a ticket, but for `code #482913`.
            return true;
        }
        after.is_some_and(|hit| {
            hit.what == Cue::Label
                && self.links(range.end..hit.start, 1)
                && self.is_verb(range.end..hit.start)
                && !self.is_next_entry(&hit)
                // `Enter 482913 to confirm your mobile`.
                && !self.scene.tells(&(range.end..hit.start), Cue::Auth)
        })
    }

    /// `Case 482913: we are looking into it`.
    fn is_title(&self) -> bool {
        let Candidate { range, .. } = self.candidate;
        let text = &self.scene.lower;
        let goes_on = text[range.end..].starts_with(&[':', ' '])
            && text.get(range.end + 2).is_some_and(|c| c.is_alphabetic());
        let length = text[..range.start.saturating_sub(1)]
            .iter()
            .rev()
            .take(24)
            .take_while(|c| c.is_alphabetic())
            .count();
        let start = range.start.saturating_sub(1 + length);
        let word: String = text[start..range.start].iter().collect();
        let word = word.trim();
        let told = self.scene.within(&(start..range.start)).iter().any(|hit| hit.what != Cue::Soft);
        goes_on && length > 0 && word.len() > 1 && !told && !BETWEEN.has(word) && !VERBS.has(word)
    }

    /// True for what only says whose code it is: `code for your account: 482913`, `code number 482913`.
    fn is_code_for(&self, soft: &Hit<Cue>) -> bool {
        let sentence = self.sentence();
        let codes = self.scene.within(&(sentence.start..soft.start));
        let code = codes.iter().rev().find(|hit| matches!(hit.what, Cue::Code | Cue::Weak | Cue::Approval));
        let Some(code) = code else { return false };
        let gap = &self.scene.lower[soft.end..self.candidate.range.start];
        soft.start - code.end <= 2 || gap.iter().any(|c| matches!(c, ':' | '\n'))
    }

    /// `… account: 482913 is your security code`.
    fn is_named(&self) -> bool {
        let end = self.candidate.range.end;
        let (_, after) = self.nearest(&[Cue::Code, Cue::Weak, Cue::Label]);
        after.is_some_and(|hit| {
            hit.what != Cue::Label && hit.end <= self.sentence().end && self.is_verb(end..hit.start)
        })
    }

    /// `Please fill in the number 482913`.
    fn is_to_be_entered(&self, soft: &Hit<Cue>) -> bool {
        let word: String = self.scene.lower[soft.start..soft.end].iter().collect();
        let sentence = self.scene.sentence(soft.start, REACH);
        NUMBER.has(&word) && self.scene.tells(&(sentence.start..soft.start), Cue::Enter)
    }

    /// `482913 has been accepted`.
    pub(super) fn is_over(&self) -> bool {
        self.scene.tells(&(self.candidate.range.end..self.sentence().end), Cue::Over)
    }

    /// True if the line above leads to a code, and this word only ends it: `Enter this code to see your order:`.
    fn is_led_to_by(&self, hit: &Hit<Cue>) -> bool {
        if !self.scene.lower[hit.end..self.candidate.range.start].contains(&'\n') {
            return false;
        }
        let line = self.scene.line(hit.start, REACH);
        let before = line.start..hit.start;
        self.scene.tells(&before, Cue::Code)
            || self.scene.tells(&before, Cue::Enter)
                && (hit.what == Cue::Soft || self.scene.tells(&before, Cue::Weak))
    }

    /// True for a label on a line further down with a number of its own.
    fn is_next_entry(&self, label: &Hit<Cue>) -> bool {
        let below = self.scene.lower[self.candidate.range.end..label.start].contains(&'\n');
        let line = self.scene.line(label.start, REACH);
        below && self.scene.lower[label.end..line.end.max(label.end)].iter().any(char::is_ascii_digit)
    }

    /// The eleven characters by which Android finds the app: alone on the last line.
    pub(super) fn is_signature(&self) -> bool {
        let text = self.scene.seen.folded();
        let at = self.candidate.range.start;
        let run = |c: &&char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let before = text[..at].iter().rev().take(12).take_while(run).count();
        let length = before + text[at..].iter().take(12).take_while(run).count();
        let last = text[at..].iter().skip(12).take(64).all(|c| c.is_whitespace());
        let begins_line = at - before == 0 || text[at - before - 1].is_whitespace();
        let mixed =
            text[at - before..].iter().take(length).any(|c| c.is_ascii_lowercase() || matches!(c, '+' | '/'));
        length == 11 && last && begins_line && mixed
    }
}
