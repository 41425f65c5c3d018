//! Whose message it is.
//!
//! No message names its identity; it names addresses. What Ravi sets itself is held to strictly: a text carries our own
//! number, a mail that went out our address as its sender, or the whole answer is dropped. The recipients of a mail
//! that came in are what its sender wrote: one that was sent to us blind names us nowhere, and may name another identity
//! of the account. Nobody outside may stop an inbox with that, so such a mail is left out and the rest is kept, and
//! then only what names us: an answer with one foreign mail may have others that name nobody. Where nothing is left, the
//! list is empty: an inbox into which nobody else has written yet looks the same as a wrong answer, and neither shows
//! anything.
//! Limit: a mail that names nobody we know is taken for ours where nothing else in the answer is foreign.

use super::super::api::HttpUpstream;
use super::super::pins::{Address, FOREIGN};
use super::super::{Direction, Result};
use super::wire::{MailRow, TextRow};
use crate::clock::BootInstant;
use crate::types::IdentityUuid;

/// Addresses of one header that are looked at.
const MAX_ADDRESSES: usize = 1000;

/// Whose mail it is, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It names our address.
    Us,
    /// It names no identity that is known.
    Unsaid,
    /// It names another identity and not us.
    Another,
}

impl HttpUpstream {
    /// The address of an identity, which is read where it is not known or may have got one since.
    pub(super) async fn own_address(
        &self,
        identity: IdentityUuid,
        kind: Address,
        end: BootInstant,
    ) -> Result<String> {
        if let Some(address) = self.pins.address(identity, kind) {
            return Ok(address);
        }
        self.read_identity_until(identity, end).await?;
        self.pins.address(identity, kind).ok_or(FOREIGN)
    }

    /// What a mail says about its owner. `own` is our address.
    pub(super) fn owner(&self, identity: IdentityUuid, own: &str, mail: &MailRow) -> Result<Owner> {
        let own = plain(own);
        let (from, to, cc) = (&mail.from_email.0, &mail.to_email.0, &mail.cc.0);
        let named: Vec<String> = match mail.direction.0 {
            Some(Direction::Outgoing) => {
                let sent_by_us = addresses(from).contains(&own);
                return if sent_by_us { Ok(Owner::Us) } else { Err(FOREIGN) };
            }
            Some(Direction::Incoming) => [to, cc].into_iter().flat_map(|line| addresses(line)).collect(),
            None => [from, to, cc].into_iter().flat_map(|line| addresses(line)).collect(),
        };
        Ok(match () {
            () if named.contains(&own) => Owner::Us,
            () if named.iter().any(|address| self.pins.is_anothers(identity, address)) => Owner::Another,
            () => Owner::Unsaid,
        })
    }

    /// Every text must be ours.
    pub(super) async fn check_texts(
        &self,
        identity: IdentityUuid,
        texts: &[TextRow],
        end: BootInstant,
    ) -> Result<()> {
        if texts.is_empty() {
            return Ok(());
        }
        let own = self.own_address(identity, Address::Phone, end).await?;
        if texts.iter().all(|text| is_ours(text, &own)) {
            return Ok(());
        }
        // The number may have changed since it was learned.
        self.read_identity_until(identity, end).await?;
        let own = self.pins.address(identity, Address::Phone).ok_or(FOREIGN)?;
        texts.iter().all(|text| is_ours(text, &own)).then_some(()).ok_or(FOREIGN)
    }
}

fn is_ours(text: &TextRow, own: &str) -> bool {
    match text.direction.0 {
        Some(Direction::Incoming) => text.to_number.0 == own,
        Some(Direction::Outgoing) => text.from_number.0 == own,
        None => text.to_number.0 == own || text.from_number.0 == own,
    }
}

/// The addresses of a header in their [`plain`] form: what stands in angle brackets, else what stands between commas. A
/// name in quotation marks is none.
pub(super) fn addresses(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut current, mut quoted, mut escaped, mut angle) = (String::new(), false, false, Angle::Before);
    for c in line.chars().chain([',']) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '<' if angle == Angle::Before => (current, angle) = (String::new(), Angle::Within),
            '>' if angle == Angle::Within => angle = Angle::After,
            ',' | ';' => {
                // The last word: before it stands the name of a group, or a name without marks.
                let word = current.rsplit([' ', '\t', ':']).find(|word| !word.is_empty());
                found.extend(word.filter(|word| word.contains('@')).map(plain));
                (current, angle) = (String::new(), Angle::Before);
                if found.len() == MAX_ADDRESSES {
                    break;
                }
            }
            _ if angle == Angle::After => {}
            c => current.push(c),
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Angle {
    Before,
    Within,
    After,
}

/// In lower case and without what follows a plus sign: mail to both arrives at the same inbox.
fn plain(address: &str) -> String {
    let address = address.to_ascii_lowercase();
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}@{domain}", local.split('+').next().unwrap_or_default()),
        None => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_every_form_of_a_header() {
        for (line, expected) in [
            ("", vec![]),
            ("a@b.c", vec!["a@b.c"]),
            (" A@B.c ,\td@e.f", vec!["a@b.c", "d@e.f"]),
            ("Jane Doe <a@b.c>, d@e.f", vec!["a@b.c", "d@e.f"]),
            ("\"Doe, Jane\" <a@b.c>", vec!["a@b.c"]),
            ("\"x@y.z\" <a@b.c>", vec!["a@b.c"]),
            ("x@y.z <a@b.c>", vec!["a@b.c"]),
            ("x@y.z<a@b.c>", vec!["a@b.c"]),
            ("\"x\\\" <x@y.z>\" <a@b.c>", vec!["a@b.c"]),
            ("Team: a@b.c, d@e.f;", vec!["a@b.c", "d@e.f"]),
            ("undisclosed-recipients:;", vec![]),
            ("a+code@b.c", vec!["a@b.c"]),
            ("<a@b.c> x@y.z", vec!["a@b.c"]),
            ("\"a@b.c", vec![]),
        ] {
            assert_eq!(addresses(line), expected, "{line}");
        }
        assert_eq!(addresses(&"a@b.c,".repeat(5000)).len(), MAX_ADDRESSES);
    }
}
