//! Spells values in every way (`spell`), masks them cut at every place, and looks with decoders of its own
//! (`leak`) for what is left. No failure prints a value.

mod leak;
mod spell;

use std::fmt;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use leak::leaks;
use spell::{Dice, spellings};

const TOKEN: &str = "s3cr3t+tok/en <\"42\"> \\%7E's&Ende";

/// A text that no failure shows.
#[derive(Clone)]
struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of {} bytes", self.0.len())
    }
}

fn mask(values: &[&str]) -> Mask {
    let values: Vec<Secret> = values.iter().map(|value| Secret::copy_of(value)).collect();
    Mask::new(values.iter()).unwrap()
}

/// The output of a mask that is fed these pieces.
fn through<'a>(mask: &Mask, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut stream, mut out) = (mask.stream(), Vec::new());
    pieces.into_iter().for_each(|piece| stream.feed(piece, &mut out));
    stream.finish(&mut out);
    out
}

fn masked(values: &[&str], text: &str) -> String {
    String::from_utf8(through(&mask(values), [text.as_bytes()])).unwrap()
}

#[test]
fn every_spelling_is_masked_wherever_it_is_cut() {
    let multi = "first line of it\nSecond: line, longer\n\"third\"";
    for value in [TOKEN, "pass", "Tr0ub4dor&3", "gr\u{fc}\u{df}e \u{1f511}\u{4e2d}!", multi] {
        let mask = mask(&[value]);
        for (name, spelling) in spellings(value, &mut Dice(7)) {
            let text = [b"<< ", &spelling[..], b" >>"].concat();
            let whole = through(&mask, [&text[..]]);
            for cut in 0..=text.len() {
                let (head, tail) = text.split_at(cut);
                assert!(
                    through(&mask, [head, tail]) == whole,
                    "{name} of {} bytes, cut at {cut}",
                    value.len()
                );
            }
            assert!(through(&mask, text.chunks(1)) == whole, "{name} of {} bytes, byte by byte", value.len());
            assert!(!leaks(value, &whole), "{name} of {} bytes is left", value.len());
            let rest = String::from_utf8_lossy(&whole).replace("[ravi:masked]", "");
            assert!(
                rest.trim_matches(['<', '>', ' ', '\0']).is_empty(),
                "{name} of {} bytes: part is left",
                value.len()
            );
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_spelling_of_any_value_passes(value in value(), before in around(), after in around(), seed: u64) {
        let mask = mask(&[&value.0]);
        let mut dice = Dice(seed | 1);
        for (name, spelling) in spellings(&value.0, &mut dice) {
            let text = [before.0.as_bytes(), &spelling, after.0.as_bytes()].concat();
            let out = through(&mask, cut(&text, &mut dice));
            prop_assert!(!leaks(value.0.trim(), &out), "{} is left", name);
            prop_assert!(out == through(&mask, [&text[..]]), "{}: the cuts make a difference", name);
        }
    }

    #[test]
    fn no_place_inside_a_longer_encoding_hides_a_value(value in value(), before in around(), after in around(), seed: u64) {
        let mask = mask(&[&value.0]);
        let mut dice = Dice(seed | 1);
        let long = format!("{}{}{}", before.0, value.0, after.0);
        for (name, spelling) in spellings(&long, &mut dice) {
            let out = through(&mask, cut(&spelling, &mut dice));
            prop_assert!(!leaks(value.0.trim(), &out), "{} is left", name);
        }
    }

    #[test]
    fn what_is_masked_is_what_the_values_cover(
        values in prop::collection::vec("[ab]{4,7}", 1..5),
        text in "[ab]{0,60}",
    ) {
        let mask = mask(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let out = through(&mask, text.as_bytes().chunks(3));
        prop_assert_eq!(String::from_utf8(out).unwrap(), covered(&values, &text));
    }

    #[test]
    fn other_output_passes_unchanged(text in prop::collection::vec(any::<u8>(), 0..300), seed: u64) {
        let mask = mask(&[TOKEN, "correct horse battery staple", "ghp_0123456789abcdefghijklmnop"]);
        prop_assert_eq!(through(&mask, cut(&text, &mut Dice(seed | 1))), text);
    }

    #[test]
    fn output_full_of_escapes_passes_unchanged(text in r#"([%\\&][%\\&u#x0-9a-f;n]{0,8}|[a-z0-9=\n ]{1,5}){0,40}"#, seed: u64) {
        let mask = mask(&[TOKEN, "correct horse battery staple", "ghp_0123456789abcdefghijklmnop"]);
        let out = through(&mask, cut(text.as_bytes(), &mut Dice(seed | 1)));
        prop_assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}

/// A fourth of the usual cases, each of which is some forty spellings. `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { failure_persistence: None, cases: usual.cases / 4, ..usual }
}

/// Values of four bytes and more without the white space around them.
fn value() -> impl Strategy<Value = Hidden> {
    let text = prop_oneof![
        "[ -~]{4,40}",
        "[a-zA-Z0-9_-]{4,70}",
        "[ -~\n\u{e4}\u{3b1}\u{1f600}]{4,30}",
        "[%&+\\\\;x0-9'\"]{4,12}"
    ];
    text.prop_filter("too short", |text| text.trim().len() >= 4).prop_map(Hidden)
}

/// What may stand around a value: no lone beginning of an escape, which would make the value another.
fn around() -> impl Strategy<Value = Hidden> {
    "[a-zA-Z0-9+/=,.: \n\"]{0,9}".prop_map(Hidden)
}

/// Cuts a text into pieces of up to five bytes.
fn cut<'a>(mut text: &'a [u8], dice: &mut Dice) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let (piece, rest) = text.split_at(text.len().min(dice.below(6)));
        pieces.push(piece);
        text = rest;
    }
    pieces
}

/// What masking should give, by looking for every value, forwards and backwards, at every place.
fn covered(values: &[String], text: &str) -> String {
    let mut hidden = vec![false; text.len()];
    let backwards = values.iter().map(|value| value.chars().rev().collect());
    for pattern in values.iter().cloned().chain(backwards) {
        for at in 0..text.len() {
            if text[at..].starts_with(&pattern) {
                hidden[at..at + pattern.len()].fill(true);
            }
        }
    }
    let mut out = String::new();
    for (at, letter) in text.char_indices() {
        match (hidden[at], at > 0 && hidden[at - 1]) {
            (false, _) => out.push(letter),
            (true, false) => out.push_str("[ravi:masked]"),
            (true, true) => {}
        }
    }
    out
}

#[test]
fn a_replacement_tells_neither_length_nor_spelling() {
    for text in
        ["key=hunter2!", "key=aHVudGVyMiE=", "key=68756E74657232 21", "key=hunter2%21", "key=!2retnuh"]
    {
        assert_eq!(masked(&["hunter2!"], text), "key=[ravi:masked]");
    }
    assert_eq!(masked(&["hunter2!"], "hunter2!hunter2! hunter2!"), "[ravi:masked] [ravi:masked]");
}

#[test]
fn a_value_at_the_end_is_masked_at_once_though_a_longer_one_may_follow() {
    let mask = mask(&["pass", "password1", "word1-x"]);
    let (mut stream, mut out) = (mask.stream(), Vec::new());
    stream.feed(b"is: pass", &mut out);
    assert_eq!(out, b"is: [ravi:masked]");
    stream.feed(b"word1-x!", &mut out);
    assert_eq!(out, b"is: [ravi:masked]!");
}

#[test]
fn values_that_overlap_or_hold_each_other_are_masked_as_one() {
    assert_eq!(
        masked(&["abcdef", "defghi", "cde!"], "-abcdefghi-abcde!-"),
        "-[ravi:masked]-ab[ravi:masked]-"
    );
    assert_eq!(
        masked(&["inner", "the inner value"], "the inner value, the inner"),
        "[ravi:masked], the [ravi:masked]"
    );
}

#[test]
fn white_space_around_a_value_does_not_matter() {
    assert_eq!(masked(&["\tsecret-1\n"], "a secret-1 b secret-1\nc"), "a [ravi:masked] b [ravi:masked]\nc");
    assert_eq!(masked(&["secret-1\n"], "c2VjcmV0LTE= c2VjcmV0LTEK"), "[ravi:masked] [ravi:masked]K");
}

#[test]
fn values_too_short_to_be_masked_are_named() {
    let mask = mask(&["four", "abc", " \n\t \r\n ", "", " xy  ", "fives"]);
    assert_eq!(mask.too_short(), [1, 2, 3, 4]);
    assert_eq!(through(&mask, [&b"abc four \n\t xy"[..]]), b"abc [ravi:masked] \n\t xy");
}

#[test]
fn each_longer_line_of_a_value_is_masked_by_itself_but_pem_armour_is_not() {
    let key =
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\nabc=\n-----END PRIVATE KEY-----\n";
    let out = masked(&[key], "-----BEGIN PRIVATE KEY-----\n  hkiG9w0BAQEFAASC\n> MIIEvQIBADANBgkq abc=\n");
    assert_eq!(out, "-----BEGIN PRIVATE KEY-----\n  [ravi:masked]\n> [ravi:masked] abc=\n");
    let terminal = key.replace('\n', "\r\n");
    assert_eq!(masked(&[key], &terminal), "[ravi:masked]\r\n");
}

#[test]
fn only_what_may_begin_a_match_is_held_back() {
    let mask = mask(&["hunter2-abcdefgh"]);
    let (mut stream, mut out) = (mask.stream(), Vec::new());
    let mut held_after = |text: &str| {
        stream.feed(text.as_bytes(), &mut out);
        stream.held()
    };
    assert_eq!(held_after("Password: "), 0);
    assert_eq!(held_after("it was hunter"), "hunter".len());
    assert_eq!(held_after("s. Done."), 0);
    assert_eq!(held_after("%68%"), "%68%".len());
    assert_eq!(held_after("unter!"), 0);
    assert_eq!(held_after("68 75\n6"), "68 75\n6".len());
    assert_eq!(held_after(" hunter2-abcdefgh"), 0, "what is masked already is not held");
}

#[test]
fn what_stands_after_a_match_or_a_lone_digit_is_not_held_back() {
    let mask = mask(&["hunter2-abcdefg~", "\u{df}-value-1234"]);
    let (mut stream, mut out) = (mask.stream(), Vec::new());
    for text in ["aHVudGVyMi1hYmNkZWZnfg==\n", "68756E746572322D616263646566677E\r\n", "choose a, b or c: "] {
        stream.feed(text.as_bytes(), &mut out);
        assert_eq!(stream.held(), 0, "after {text:?}");
    }
}

#[test]
fn escapes_that_look_like_the_value_or_end_with_the_output_are_masked_as_a_whole() {
    assert_eq!(masked(&["1abc"], "-%31abc-"), "-[ravi:masked]-");
    assert_eq!(masked(&["nabc"], "-\\u006eabc-"), "-[ravi:masked]-");
    assert_eq!(masked(&["abcd%"], "-%61bcd%"), "-[ravi:masked]");
    assert_eq!(masked(&["abcd\\"], "-\\x61bcd\\"), "-[ravi:masked]");
}

#[test]
fn what_is_held_back_has_a_bound_whatever_comes() {
    let value = "a".repeat(50);
    let mask = mask(&[&value, "%%%%%%%%%%%%", "0000000000000000000000000", "==========="]);
    let bound = 6 * value.len() * (escape::LONGEST + 32);
    for unit in [
        "a",
        "%61",
        "&#x0000061;",
        "\\u0061",
        "6 1\n",
        "Y\nW\n",
        "\0",
        "%%",
        "\\",
        "&#",
        "6\n \t   ",
        "a\0\0\0\r",
        "0",
        "=",
    ] {
        for text in [unit.repeat(40), unit.repeat(5000)] {
            let (mut stream, mut out) = (mask.stream(), Vec::new());
            for piece in text.as_bytes().chunks(7) {
                stream.feed(piece, &mut out);
                assert!(stream.held() <= bound, "{} bytes of {unit:?} are held back", stream.held());
            }
        }
    }
    let passed_over = format!("a{}", "\0".repeat(1000));
    let (mut stream, mut out) = (mask.stream(), Vec::new());
    stream.feed(passed_over.as_bytes(), &mut out);
    assert_eq!(stream.held(), 0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test is about the time that passes")]
fn near_misses_do_not_slow_a_long_stream_down() {
    let value = format!("{}~", "a".repeat(16 * 1024));
    let mask = mask(&[&value, &value.replace('a', "%"), &value.replace('a', "\\")]);
    for unit in ["a", "%61", "YWFh", "61", "%", "\\", "%%41"] {
        let text = unit.repeat(256 * 1024 / unit.len());
        let start = std::time::Instant::now();
        let out = through(&mask, text.as_bytes().chunks(4096));
        // A matcher that compares at every place needs 4 * 10^9 comparisons.
        assert!(start.elapsed() < Duration::from_secs(15), "{unit:?} took {:?}", start.elapsed());
        assert!(out == text.as_bytes(), "{unit:?} was changed");
    }
}

#[test]
fn a_pause_releases_the_last_letters_of_a_prompt_and_no_more() {
    let mask = mask(&["d-value-1234"]);
    let (mut stream, mut out) = (mask.stream(), Vec::new());
    stream.feed(b"Password", &mut out);
    assert_eq!(out, b"Passwor");
    stream.idle(&mut out);
    assert_eq!(out, b"Password");
    stream.feed(b"-value", &mut out);
    stream.idle(&mut out);
    assert_eq!(out, b"Password", "so much of a value waits for what follows");
    stream.feed(b"-1234 d-value-1234.", &mut out);
    assert_eq!(out, b"Password[ravi:masked] [ravi:masked].");
}

#[test]
fn too_much_to_mask_is_refused() {
    let value = Secret::new("x".repeat(64 * 1024));
    assert_eq!(Mask::new([&value; 5].into_iter()).err(), Some(MaskError::TooLarge { bytes: 5 * 64 * 1024 }));
    let mask = Mask::new([&value; 4].into_iter()).unwrap();
    assert!(through(&mask, [value.expose().as_bytes()]) == REPLACEMENT);
}

#[test]
fn without_values_nothing_changes() {
    assert_eq!(masked(&[], "a %41 \\n &amp; b"), "a %41 \\n &amp; b");
}
