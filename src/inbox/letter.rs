//! What is sent, and to whom: plain text as the HTML that Ravi takes, and the recipients that an answer has. Pure.
//!
//! Recipients are read strictly: whom policy is asked about must be who gets the mail, so a header that is not plainly
//! a list of addresses has none. Imports `inbox`'s judges, `secret`, `types` and `upstream`.

use zeroize::Zeroizing;

use super::redact::{CODE, CUT, LINK, redact};
use super::sender::Sender;
use super::text::Message;
use crate::secret::Secret;
use crate::types::{Channel, EmailAddress};
use crate::upstream::Mail;

/// Recipients of one mail.
pub const MAX_RECIPIENTS: usize = 50;
/// Columns from one tab stop to the next.
const TAB: usize = 8;
/// Longest header that is read, in bytes.
const MAX_LINE: usize = 32 * 1024;

/// Plain text as HTML that shows the same: nothing in it is markup, lines and columns stay where they are.
pub fn html_of(text: &str) -> Secret {
    // Never grown, so that no half of it stays behind: six bytes are the longest that one becomes, a tab aside.
    let tabs = text.bytes().filter(|byte| *byte == b'\t').count();
    let mut html = Zeroizing::new(String::with_capacity((text.len() + tabs * TAB) * 6));
    let (mut after_space, mut column) = (true, 0);
    for c in text.replace_breaks() {
        // A reader of HTML shows a tab like a space.
        let width = if c == '\t' { TAB - column % TAB } else { 1 };
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' => html.push_str("<br>\n"),
            '\t' => (0..width).for_each(|_| html.push_str("&nbsp;")),
            ' ' if after_space => html.push_str("&nbsp;"),
            c => html.push(c),
        }
        after_space = matches!(c, ' ' | '\n');
        column = if c == '\n' { 0 } else { column + width };
    }
    Secret::copy_of(&html)
}

/// One kind of line break.
trait Breaks {
    fn replace_breaks(&self) -> impl Iterator<Item = char>;
}

impl Breaks for str {
    fn replace_breaks(&self) -> impl Iterator<Item = char> {
        let mut characters = self.chars().peekable();
        std::iter::from_fn(move || match characters.next()? {
            '\r' => {
                let _ = characters.next_if_eq(&'\n');
                Some('\n')
            }
            c => Some(c),
        })
    }
}

/// Who sent a mail, if its `From` says so plainly.
pub fn sender_of(from: &str) -> Option<EmailAddress> {
    match Sender::mail(from) {
        Ok(Sender::Mail { local, domain }) => format!("{local}@{domain}").parse().ok(),
        _ => None,
    }
}

/// Every address of a header, if all of it is plainly a list of them. An empty header has none.
pub fn addresses_of(line: &str) -> Option<Vec<EmailAddress>> {
    if line.trim().is_empty() {
        return Some(Vec::new());
    }
    if line.len() > MAX_LINE {
        return None;
    }
    split_at_commas(line)?.into_iter().map(sender_of).collect()
}

/// `None`: a quotation mark or a bracket is left open.
fn split_at_commas(line: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped, mut within) = (false, false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '<' => within = true,
            '>' => within = false,
            ',' if !within => {
                parts.push(&line[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&line[start..]);
    (!quoted && !within && parts.len() <= MAX_RECIPIENTS * 2).then_some(parts)
}

/// Whether mail to `address` comes to `own`: what follows a plus sign does not matter.
pub fn is_own(address: &EmailAddress, own: &EmailAddress) -> bool {
    let plain = |address: &EmailAddress| {
        let local = address.as_str().split(['+', '@']).next().unwrap_or_default().to_owned();
        (local, address.domain().to_owned())
    };
    plain(address) == plain(own)
}

/// Whether a mail holds something that a plain read leaves out, a code or a link that signs in; or more than is looked
/// at, which may.
pub fn holds_secret(mail: &Mail) -> bool {
    let (subject, text, html) = (mail.subject.expose(), mail.text.expose(), mail.html.expose());
    let left = redact(&Message { channel: Channel::Email, subject, text, html });
    let marked = |part: &String| [CODE, LINK, CUT].iter().any(|mark| part.contains(mark));
    mail.oversized || [left.subject, left.text, left.html].iter().any(marked)
}

/// Each once, in the order in which they first came.
pub fn without_doubles(addresses: Vec<EmailAddress>) -> Vec<EmailAddress> {
    let mut once: Vec<EmailAddress> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !once.contains(&address) {
            once.push(address);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(line: &str) -> Option<Vec<String>> {
        Some(addresses_of(line)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn plain_text_shows_the_same_and_holds_no_markup() {
        let html = html_of("<b>Jane's \"1 & 2\"</b>\r\n  two\tcolumns\rend");
        assert_eq!(
            html.expose(),
            "&lt;b&gt;Jane&#39;s &quot;1 &amp; 2&quot;&lt;/b&gt;<br>\n&nbsp;&nbsp;two&nbsp;&nbsp;&nbsp;columns<br>\nend"
        );
        assert_eq!(html_of("a  b").expose(), "a &nbsp;b");
    }

    #[test]
    fn whom_an_answer_goes_to_is_read_strictly_or_not_at_all() {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(addresses(""), list(&[]));
        assert_eq!(addresses("A@b.example"), list(&["a@b.example"]));
        assert_eq!(
            addresses("\"Doe, Jane\" <a@b.example>, c@d.example"),
            list(&["a@b.example", "c@d.example"])
        );
        for line in [
            "a@b.example,",
            "Team: a@b.example;",
            "undisclosed-recipients:;",
            "\"a@b.example",
            "<a@b.example",
            "a@b.example <x@y.example>, nobody",
            "a@b.example\n, c@d.example",
        ] {
            assert_eq!(addresses(line), None, "{line:?}");
        }
        assert_eq!(sender_of("Jane <Jane@B.example>").unwrap().as_str(), "jane@b.example");
        assert!(sender_of("a@b.example, c@d.example").is_none());
    }

    #[test]
    fn the_own_address_is_known_with_a_tag_too() {
        let address = |text: &str| text.parse::<EmailAddress>().unwrap();
        assert!(is_own(&address("me+x@a.example"), &address("me@a.example")));
        assert!(!is_own(&address("me@b.example"), &address("me@a.example")));
        assert!(!is_own(&address("you@a.example"), &address("me@a.example")));
    }
}
