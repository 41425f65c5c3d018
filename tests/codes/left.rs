//! What redaction leaves of the corpus.

use ravi_broker::inbox::code::{Wanted, extract};
use ravi_broker::inbox::redact::redact;

use crate::corpus::read;

/// Letters and digits alone, so that no separator hides a code.
fn squeezed(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[test]
fn nothing_that_is_found_or_labelled_is_left_in_any_form() {
    for labelled in read() {
        let left = redact(&labelled.message());
        let parts = [&left.subject, &left.text, &left.html];
        let found = [Wanted::Code, Wanted::Link]
            .into_iter()
            .filter_map(|wanted| extract(&labelled.message(), wanted));
        let mut values: Vec<String> = found.map(|found| found.value.expose().to_owned()).collect();
        values.extend(labelled.typed());
        values.extend(labelled.link.clone());
        for value in values {
            for part in parts {
                assert!(!part.contains(&value), "{}: {value} is left", labelled.place);
                assert!(
                    !squeezed(part).contains(&squeezed(&value)),
                    "{}: {value} is left without separators",
                    labelled.place
                );
            }
        }
    }
}

#[test]
fn what_is_left_has_no_code_and_no_link() {
    for labelled in read() {
        let left = redact(&labelled.message());
        let again = ravi_broker::inbox::text::Message {
            channel: labelled.channel,
            subject: &left.subject,
            text: &left.text,
            html: &left.html,
        };
        for wanted in [Wanted::Code, Wanted::Link] {
            assert!(extract(&again, wanted).is_none(), "{}: {wanted:?}", labelled.place);
        }
    }
}
