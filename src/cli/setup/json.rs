//! Changes one member of a JSON text and leaves every other byte as it is.
//!
//! The text is parsed first, so the walk below only ever sees JSON; what comes out is parsed again by the
//! caller. Pure. Imports `piece` for the way to a member.

use std::ops::Range;

use serde_json::Value;

use super::piece::Step;

/// Why a text was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonFault {
    /// It is not JSON: a comment, a comma too many, nothing at all.
    NotJson,
    /// On the way to the member is something other than an object, or the same name twice.
    Shape,
}

/// One name in an object and what it stands for, as places in the text.
struct Member {
    name: String,
    start: usize,
    value: Range<usize>,
}

/// What is at the end of a way.
pub(super) fn value_at(text: &str, way: &[Step]) -> Result<Option<Value>, JsonFault> {
    let mut place = whole(text)?;
    for step in way {
        match down(text, &place, step)? {
            Some(next) => place = next,
            None => return Ok(None),
        }
    }
    serde_json::from_str(&text[place]).map(Some).map_err(|_| JsonFault::NotJson)
}

/// Puts a value at the end of a way, in place of what is there. Objects that are missing on the way are made;
/// returns how many.
pub(super) fn put(text: &str, way: &[Step], value: &Value) -> Result<(String, usize), JsonFault> {
    let mut place = whole(text)?;
    for (depth, step) in way.iter().enumerate() {
        if let Some(next) = down(text, &place, step)? {
            place = next;
            continue;
        }
        let Step::Key(name) = step else { return Err(JsonFault::Shape) };
        let below = &way[depth + 1..];
        let nested = below.iter().rev().try_fold(value.clone(), |inner, step| match step {
            Step::Key(name) => Ok(Value::Object([(name.clone(), inner)].into_iter().collect())),
            Step::Item { .. } => Err(JsonFault::Shape),
        })?;
        return Ok((insert(text, &place, name, &nested)?, below.len()));
    }
    let indent = indent_of(text, place.start);
    let rendered = render(value, &indent, unit(text), is_broken(&text[place.clone()]));
    Ok((splice(text, place, &rendered), 0))
}

/// Takes the member at the end of a way out, and after it up to `made` objects around it that are then empty.
pub(super) fn take(text: &str, way: &[Step], made: usize) -> Result<String, JsonFault> {
    let Some((Step::Key(name), above)) = way.split_last() else { return Err(JsonFault::Shape) };
    let mut place = whole(text)?;
    for step in above {
        place = down(text, &place, step)?.ok_or(JsonFault::Shape)?;
    }
    let members = members(text, &place)?;
    let at = members.iter().position(|member| member.name == *name).ok_or(JsonFault::Shape)?;
    if members.len() == 1 {
        let left = splice(text, place, "{}");
        return if made > 0 { take(&left, above, made - 1) } else { Ok(left) };
    }
    let gone = match members.get(at + 1) {
        Some(next) => members[at].start..next.start,
        None => members[at - 1].value.end..members[at].value.end,
    };
    Ok(splice(text, gone, ""))
}

fn insert(text: &str, object: &Range<usize>, name: &str, value: &Value) -> Result<String, JsonFault> {
    let members = members(text, object)?;
    let key = Value::from(name);
    let Some(last) = members.last() else {
        let around = indent_of(text, object.start);
        let inner = format!("{around}{}", unit(text));
        let rendered = render(value, &inner, unit(text), true);
        return Ok(splice(text, object.clone(), &format!("{{\n{inner}{key}: {rendered}\n{around}}}")));
    };
    let first = &members[0];
    let rendered = if is_broken(&text[object.start..first.start]) {
        let indent = indent_of(text, first.start);
        format!(",\n{indent}{key}: {}", render(value, &indent, unit(text), true))
    } else {
        format!(", {key}: {}", render(value, "", "", false))
    };
    Ok(splice(text, last.value.end..last.value.end, &rendered))
}

/// The value as text: over several lines, whose first stands where `indent` leads, or in one.
fn render(value: &Value, indent: &str, unit: &str, broken: bool) -> String {
    if !broken {
        return value.to_string();
    }
    match value {
        Value::Object(members) if !members.is_empty() => {
            let inner = format!("{indent}{unit}");
            let lines = members.iter().map(|(name, value)| {
                let value = render(value, &inner, unit, true);
                format!("{inner}{}: {value}", Value::from(name.as_str()))
            });
            format!("{{\n{}\n{indent}}}", lines.collect::<Vec<_>>().join(",\n"))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(Value::to_string).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn splice(text: &str, place: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..place.start], &text[place.end..])
}

/// The place of the document in a text that is JSON.
fn whole(text: &str) -> Result<Range<usize>, JsonFault> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| JsonFault::NotJson)?;
    let start = skip_space(text.as_bytes(), 0);
    Ok(start..text.trim_end().len())
}

/// One step: into a member of an object, or into the item of an array that says of itself what is looked for.
fn down(text: &str, place: &Range<usize>, step: &Step) -> Result<Option<Range<usize>>, JsonFault> {
    match step {
        Step::Key(name) => {
            let mut found = members(text, place)?.into_iter().filter(|member| member.name == *name);
            let first = found.next();
            // Which of them a reader takes is its own affair.
            if found.next().is_some() { Err(JsonFault::Shape) } else { Ok(first.map(|member| member.value)) }
        }
        Step::Item { key, is } => {
            let is_it = |item: &Range<usize>| {
                let value: Option<Value> = serde_json::from_str(&text[item.clone()]).ok();
                value.is_some_and(|value| value.get(key).and_then(Value::as_str) == Some(is))
            };
            Ok(items(text, place)?.into_iter().find(is_it))
        }
    }
}

fn members(text: &str, object: &Range<usize>) -> Result<Vec<Member>, JsonFault> {
    let bytes = text.as_bytes();
    if bytes[object.start] != b'{' {
        return Err(JsonFault::Shape);
    }
    let (mut members, mut at) = (Vec::new(), skip_space(bytes, object.start + 1));
    while bytes[at] != b'}' {
        let start = at;
        let end = value_end(bytes, at);
        let name = serde_json::from_str(&text[start..end]).map_err(|_| JsonFault::NotJson)?;
        // Past the colon.
        let value = skip_space(bytes, skip_space(bytes, end) + 1);
        let after = value_end(bytes, value);
        members.push(Member { name, start, value: value..after });
        at = past_comma(bytes, after);
    }
    Ok(members)
}

fn items(text: &str, array: &Range<usize>) -> Result<Vec<Range<usize>>, JsonFault> {
    let bytes = text.as_bytes();
    if bytes[array.start] != b'[' {
        return Err(JsonFault::Shape);
    }
    let (mut items, mut at) = (Vec::new(), skip_space(bytes, array.start + 1));
    while bytes[at] != b']' {
        let end = value_end(bytes, at);
        items.push(at..end);
        at = past_comma(bytes, end);
    }
    Ok(items)
}

fn past_comma(bytes: &[u8], at: usize) -> usize {
    let at = skip_space(bytes, at);
    if bytes[at] == b',' { skip_space(bytes, at + 1) } else { at }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Where the value that begins at `at` ends.
fn value_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            // The end of what is around a number or a word.
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return at,
            byte if byte.is_ascii_whitespace() && depth == 0 => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The space before the first character of the line of `at`.
fn indent_of(text: &str, at: usize) -> String {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    text[line..at].chars().take_while(|c| matches!(c, ' ' | '\t')).collect()
}

/// By what the text is indented: what the first line that is indented begins with.
fn unit(text: &str) -> &str {
    let indented = text.lines().find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
    indented.map_or("  ", |line| &line[..line.len() - line.trim_start().len()])
}

fn is_broken(text: &str) -> bool {
    text.contains('\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn way(names: &[&str]) -> Vec<Step> {
        names.iter().map(|name| Step::Key((*name).to_owned())).collect()
    }

    fn server() -> Value {
        json!({"command": "/opt/ravi-broker-mcp", "args": ["--role", "a"]})
    }

    /// Puts the server in, and asserts that taking it out again leaves what there was.
    #[track_caller]
    fn both_ways(text: &str) -> String {
        let at = way(&["mcpServers", "ravi"]);
        let (with, made) = put(text, &at, &server()).unwrap();
        assert_eq!(value_at(&with, &at).unwrap(), Some(server()), "{with}");
        assert_eq!(take(&with, &at, made).unwrap(), text, "{with}");
        with
    }

    #[test]
    fn a_member_is_added_in_the_style_of_the_text_and_taken_out_to_the_byte() {
        let two = "{\n  \"a\": 1,\n  \"mcpServers\": {\n    \"gh\": {\"x\": [1, {}]}\n  },\n  \"z\": \"}\\\"{\"\n}\n";
        let with = both_ways(two);
        let ours = "    \"gh\": {\"x\": [1, {}]},\n    \"ravi\": {\n      \"args\": [\"--role\", \"a\"],\n      \
                    \"command\": \"/opt/ravi-broker-mcp\"\n    }\n  },\n";
        assert!(with.contains(ours), "{with}");
        assert!(
            both_ways("{\n\t\"a\": 1\n}").contains("\n\t\"mcpServers\": {\n\t\t\"ravi\": {\n\t\t\t\"args\"")
        );
        assert!(!both_ways("{\"mcpServers\": {\"gh\": 1}, \"b\": [2]}").contains('\n'));
        both_ways("{}");
        both_ways("{}\n");
        both_ways(" {\"a\": {\"b\": \"\\\\\"}} ");
    }

    #[test]
    fn an_item_is_found_by_what_it_says_of_itself() {
        let text = r#"{"agents": [{"agentId": "a"}, {"agentId": "b", "chat": {"config": {}}}]}"#;
        let at = |id: &str| {
            let item = Step::Item { key: "agentId".into(), is: id.into() };
            [way(&["agents"]), vec![item], way(&["chat", "config", "wrapper"])].concat()
        };
        let (with, made) = put(text, &at("b"), &json!({"path": "/w"})).unwrap();
        assert_eq!(value_at(&with, &at("b")).unwrap(), Some(json!({"path": "/w"})));
        assert_eq!((made, take(&with, &at("b"), made).unwrap().as_str()), (0, text));
        let (with, made) = put(text, &at("a"), &json!({})).unwrap();
        assert_eq!((made, take(&with, &at("a"), made).unwrap().as_str()), (2, text));
        assert_eq!(put(text, &at("c"), &json!({})), Err(JsonFault::Shape));
    }

    #[test]
    fn what_is_not_json_or_of_another_shape_is_refused() {
        let at = way(&["mcpServers", "ravi"]);
        for text in ["", " ", "// c\n{}", "{\"a\": 1,}", "{\"a\": 1} x", "\u{feff}{}", "{"] {
            assert_eq!(put(text, &at, &server()), Err(JsonFault::NotJson), "{text}");
        }
        for text in ["[]", "1", "{\"mcpServers\": []}", "{\"mcpServers\": {}, \"mcpServers\": {}}"] {
            assert_eq!(put(text, &at, &server()), Err(JsonFault::Shape), "{text}");
        }
    }

    #[test]
    fn a_value_is_replaced_in_its_place() {
        let text = "{\n  \"mcpServers\": {\n    \"ravi\": {\n      \"command\": \"old\"\n    },\n    \"b\": 1\n  }\n}\n";
        let at = way(&["mcpServers", "ravi"]);
        let (with, made) = put(text, &at, &server()).unwrap();
        assert_eq!((made, value_at(&with, &at).unwrap()), (0, Some(server())));
        assert!(with.ends_with("    },\n    \"b\": 1\n  }\n}\n"), "{with}");
        let gone = take(&with, &at, 0).unwrap();
        assert_eq!(gone, "{\n  \"mcpServers\": {\n    \"b\": 1\n  }\n}\n");
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i32>().prop_map(Value::from), "\\PC{0,8}".prop_map(Value::from)];
        let tree = leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\ ]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-z\"{}]{1,4}", tree, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn of_any_document_all_but_the_member_stays(document in document(), pretty: bool) {
            let text =
                if pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
            let at = way(&["mcpServers", "ravi"]);
            let (with, made) = put(&text, &at, &server()).unwrap();
            let mut expected = document;
            expected["mcpServers"]["ravi"] = server();
            prop_assert_eq!(serde_json::from_str::<Value>(&with).unwrap(), expected);
            prop_assert_eq!(take(&with, &at, made).unwrap(), text);
        }
    }
}
