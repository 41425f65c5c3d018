//! Messages made to hurt: they cost time in proportion to their length, and nothing more.

#![allow(clippy::disallowed_methods, reason = "it measures how long real work takes")]

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use ravi_broker::inbox::code::{Wanted, extract};
use ravi_broker::inbox::redact::redact;
use ravi_broker::inbox::text::{MAX_INPUT, MAX_SEEN, Message, Seen};
use ravi_broker::types::Channel;

fn mail<'a>(text: &'a str, html: &'a str) -> Message<'a> {
    Message { channel: Channel::Email, subject: "", text, html }
}

fn code(text: &str, html: &str) -> Option<String> {
    extract(&mail(text, html), Wanted::Code).map(|found| found.value.expose().to_owned())
}

/// What a trap repeats.
const TRAPS: &[&str] = &[
    "<",
    ">",
    "&",
    "<a ",
    "<a href=\"",
    "<!--",
    "<!-- -",
    "</",
    "</x>",
    "<div>",
    "<b><i>",
    "<p>",
    "<td>",
    "<script>",
    "<style>.a{",
    "<style>@media{",
    "<div style=\"/*",
    "<div style=\"display:none;",
    "&#x3",
    "1",
    "1 ",
    "1-",
    "12 34 ",
    "123456 ",
    "123456\n",
    "A1-",
    "code ",
    "code 1234 ",
    "otp otp",
    "verification ",
    "https://",
    "https://a.b/c?d=e ",
    "https://a.b/",
    "@a.b #1234 ",
    "(",
    "))",
    "\n",
    " \n",
    "验证码",
    "is your ",
    "<a href=https://a.b/verify?token=abcdef12>verify ",
    "4829134829",
    "*1",
    "<br>",
    "\u{200b}",
    "a.b/",
    "a@b.c ",
    "<ul><li>",
    "$1",
    "verify https://a.b/verify/Ab12Cd34Ef ",
    "<table><tr><td>1</td>",
    "your code is 1234. ",
];

#[test]
fn time_is_linear_in_every_trap() {
    const PARTS: usize = 16;
    // Of this thread alone: what else the machine does is not counted.
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let cost = |text: &str, times: usize| {
        let start = now();
        for _ in 0..times {
            extract(&mail(text, ""), Wanted::Either);
            extract(&mail("", text), Wanted::Either);
            redact(&mail(text, text));
        }
        now() - start
    };
    cost("The words of all languages are read once: 482913.", 1);
    for trap in TRAPS {
        // The same bytes, in parts and at once. Linear is the same time; quadratic is up to sixteen times as long.
        let part = trap.repeat(512 / trap.len());
        let (in_parts, at_once) = (cost(&part, PARTS), cost(&part.repeat(PARTS), 1));
        println!("{trap:?}: {in_parts:?} in parts, {at_once:?} at once");
        assert!(at_once < in_parts * 3, "{trap:?}: {in_parts:?} in parts, {at_once:?} at once");
    }
}

#[test]
fn the_longest_message_that_is_read_takes_seconds_and_one_byte_more_is_not_read() {
    for filler in ["<", "7", "<!-- x -->"] {
        let long = filler.repeat(MAX_INPUT / filler.len());
        let start = Instant::now();
        redact(&mail(&long, &long));
        assert!(start.elapsed() < Duration::from_secs(60), "{filler:?}: {:?}", start.elapsed());
    }
    let text = format!("Your code is 482913. {}", " ".repeat(MAX_INPUT));
    assert_eq!(code(&text, ""), None);
    assert!(!redact(&mail(&text, "")).text.contains("482913"));
}

#[test]
fn what_is_kept_of_a_message_is_bounded() {
    let long = "code 1234 ".repeat(MAX_INPUT / 10);
    for seen in [Seen::plain("", &long), Seen::html("", &long)] {
        assert!(seen.folded().len() <= MAX_SEEN && seen.is_cut());
    }
    let links = "<a href=\"https://a.example/\">x</a>".repeat(100_000);
    assert!(Seen::html("", &links).links().len() <= 1024);
}

#[test]
fn elements_nested_half_a_million_deep_hide_nothing_and_show_nothing() {
    let deep = 1 << 19;
    let html = format!("{}Your code is 482913{}", "<div>".repeat(deep), "</div>".repeat(deep));
    assert_eq!(code("", &html).as_deref(), Some("482913"));
    let html = format!("{}<p style=\"display:none\">Your code is 482913</p>", "<div>".repeat(deep));
    assert_eq!(code("", &html), None);
}

#[test]
fn a_hidden_code_is_not_found_and_does_not_compete() {
    for hidden in [
        "<div style=\"display:none\">Your code is 111111</div>",
        "<span style=\"font-size:0\">Your code is 111111</span>",
        "<p style=\"color:#fff;background:#fff\">Your code is 111111</p>",
        "<p hidden>Your code is 111111</p>",
        "<!-- Your code is 111111 -->",
        "<script>Your code is 111111</script>",
        "<p style=\"opacity:0\">Your code is 111111</p>",
        "<p style=\"visibility:hidden\">Your code is 111111</p>",
    ] {
        assert_eq!(code("", hidden), None, "{hidden}");
        assert_eq!(
            code("", &format!("{hidden}<p>Your code is 482913</p>")).as_deref(),
            Some("482913"),
            "{hidden}"
        );
    }
}

#[test]
fn a_code_in_other_characters_is_found_in_ascii() {
    for text in [
        "４８２９１３",
        "4\u{200b}8\u{200c}2\u{2060}9\u{feff}1\u{ad}3",
        "\u{202a}482913\u{202c}",
        "٤٨٢٩١٣",
        "𝟒𝟖𝟐𝟗𝟏𝟑",
        "482\u{a0}913",
        "482\u{202f}913",
        "482\u{2011}913",
    ] {
        assert_eq!(
            code(&format!("Your verification code is {text}."), "").as_deref(),
            Some("482913"),
            "{text}"
        );
    }
}

#[test]
fn parts_that_disagree_have_no_code() {
    assert_eq!(code("Your code is 111111", "<p>Your code is 482913</p>"), None);
    assert_eq!(code("Your code is 482913", "<p>Your code is 482913</p>").as_deref(), Some("482913"));
    assert_eq!(code("Your code is 111111", "<p>Please see the app</p>"), None);
    assert_eq!(code("Your code is 111111. Your code is 222222.", ""), None);
}
