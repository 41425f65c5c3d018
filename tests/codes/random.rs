//! Arbitrary text: no panic, and nothing found that was not there to be seen.

use proptest::prelude::*;
use ravi_broker::inbox::code::{Wanted, extract};
use ravi_broker::inbox::redact::redact;
use ravi_broker::inbox::text::{Channel, Message, Seen};

/// Pieces of messages, so that chance finds more than noise.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[0-9]{1,12}",
        "[A-Z0-9]{3,5}-[A-Z0-9]{3,5}",
        "[<>&;/=\"'#:. \n-]{1,8}",
        Just("Your verification code is ".to_owned()),
        Just("\n\n".to_owned()),
        Just("<div style=\"display:none\">".to_owned()),
        Just("</div><p><span>".to_owned()),
        Just("https://example.com/verify?token=".to_owned()),
        Just("<a href=\"https://example.com/login/".to_owned()),
        Just("Confirm your email ".to_owned()),
        Just("&#x38;\u{200b}\u{202e}".to_owned()),
        Just("認証コード：".to_owned()),
        Just("@example.com #".to_owned()),
        Just(" expires in 10 minutes. Do not share it".to_owned()),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn alphanumeric(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_was_seen_and_is_not_left(subject in text(), plain in text(), html in text(), mail in any::<bool>()) {
        let channel = if mail { Channel::Mail } else { Channel::Sms };
        let message = Message { channel, subject: &subject, text: &plain, html: &html };
        let left = redact(&message);
        let left = [left.subject, left.text, left.html];
        let seen = [Seen::plain(&subject, &plain), Seen::html(&subject, &html)];
        for wanted in [Wanted::Code, Wanted::Link, Wanted::Either] {
            let Some(found) = extract(&message, wanted) else { continue };
            let written = found.written.expose();
            let shown = |seen: &Seen| seen.text().contains(written) || seen.links().iter().any(|link| link.href == written);
            prop_assert!(seen.iter().any(shown));
            for part in &left {
                prop_assert!(!part.contains(written));
                prop_assert!(!alphanumeric(part).contains(&alphanumeric(found.value.expose())));
            }
        }
    }
}
