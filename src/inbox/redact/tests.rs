//! What is left of a message.

use super::*;

fn sms(text: &str) -> String {
    redact(&Message { channel: Channel::Sms, subject: "", text, html: "" }).text
}

#[test]
fn what_could_be_a_code_is_replaced_and_words_are_left() {
    for text in [
        "Your code is 482913.",
        "Your code is 482 913.",
        "Your code is 4 8 2 9 1 3.",
        "Your code is 4-8-2-9-1-3.",
        "Your code is K7QX-2MPA.",
        "Your code is ４８２９１３.",
        "Your code is 4\u{200b}82913.",
    ] {
        assert_eq!(sms(text), format!("Your code is {CODE}."), "{text}");
    }
    assert_eq!(sms("Dinner at 8? Bring 2 friends"), "Dinner at 8? Bring 2 friends");
}

#[test]
fn a_link_with_a_token_is_replaced_and_one_without_is_left() {
    assert_eq!(sms("Open https://example.com/verify?token=abc now"), format!("Open {LINK} now"));
    assert_eq!(sms("Read https://example.com/about now"), "Read https://example.com/about now");
}

#[test]
fn html_is_answered_as_its_text() {
    let html = r#"<p>Hi <b>you</b></p><a href="https://example.com/m?t=Zk29xQ">Sign in</a> <a href="https://example.com/about">About</a>"#;
    let left = redact(&Message { channel: Channel::Mail, subject: "Code 482913", text: "", html });
    assert_eq!(left.subject, format!("Code {CODE}"));
    assert_eq!(left.html, format!("Hi you\nSign in {LINK} About <https://example.com/about>"));
}

#[test]
fn a_code_that_is_found_is_left_in_no_other_spelling() {
    assert_eq!(
        sms("Your code is 482913. Once more: 48/29/13."),
        format!("Your code is {CODE}. Once more: {CODE}.")
    );
}

#[test]
fn a_number_that_nobody_calls_a_code_is_replaced_all_the_same() {
    assert_eq!(sms("Room 12 345, gate a1b2"), format!("Room {CODE}, gate {CODE}"));
}

#[test]
fn what_is_not_shown_is_not_handed_on() {
    let long = format!("Hello {}secret words", "a ".repeat(crate::inbox::text::MAX_SEEN));
    let left = sms(&long);
    assert!(left.ends_with(CUT) && !left.contains("secret words"));
}
