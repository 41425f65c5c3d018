//! The tools' schemas: what hosts and models read, checked without a daemon, and a small validator for
//! what the tools return.

use serde_json::{Value, json};

use super::{Adapter, TOOLS};

/// JSON Schema as far as the tools use it. A keyword that is not known here fails, so that a check
/// that is not made is not taken for one that passed.
#[track_caller]
pub(super) fn assert_fits(schema: &Value, value: &Value, tool: &str) {
    fits(schema, schema, value).unwrap_or_else(|problem| panic!("{tool}: {problem}"));
}

fn fits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let keywords = schema.as_object().ok_or("a schema is an object")?;
    for (keyword, operand) in keywords {
        let holds = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" => true,
            "$ref" => {
                let name = operand
                    .as_str()
                    .and_then(|path| path.strip_prefix("#/$defs/"))
                    .ok_or("a foreign $ref")?;
                fits(root, &root["$defs"][name], value)?;
                true
            }
            "type" => is_a(operand.as_str().ok_or("one type")?, value),
            "required" => operand
                .as_array()
                .into_iter()
                .flatten()
                .all(|name| value.get(name.as_str().unwrap()).is_some()),
            "properties" => {
                let known = operand.as_object().ok_or("properties is an object")?;
                for (name, member) in value.as_object().into_iter().flatten() {
                    let schema = known.get(name).ok_or(format!("{name} is not in the schema"))?;
                    fits(root, schema, member).map_err(|problem| format!("{name}: {problem}"))?;
                }
                true
            }
            "additionalProperties" => *operand == json!(false),
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| fits(root, operand, item))?;
                true
            }
            "enum" => operand.as_array().is_some_and(|allowed| allowed.contains(value)),
            "maximum" => value.as_u64() <= operand.as_u64(),
            "maxItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 <= operand.as_u64().unwrap())
            }
            "minimum" => value.as_u64() >= operand.as_u64(),
            "minLength" => value.as_str().map(|text| text.chars().count() as u64) >= operand.as_u64(),
            "maxLength" => value.as_str().map(|text| text.chars().count() as u64) <= operand.as_u64(),
            other => return Err(format!("the keyword {other} is not known")),
        };
        if !holds {
            return Err(format!("{keyword} does not hold"));
        }
    }
    Ok(())
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}

async fn tools() -> Vec<Value> {
    let mut adapter = Adapter::start(&[]);
    adapter.open().await;
    let mut listed = adapter.request("tools/list", json!({})).await;
    let tools: Vec<Value> = listed["result"]["tools"].as_array_mut().unwrap().drain(..).collect();
    adapter.input = None;
    adapter.ended_quietly().await;
    assert_eq!(tools.len(), TOOLS.len());
    tools
}

#[tokio::test]
async fn every_tool_says_when_to_use_it_and_what_it_will_not_do() {
    for tool in tools().await {
        let name = tool["name"].as_str().unwrap();
        let description = tool["description"].as_str().unwrap();
        // What it does first, what it will not do somewhere: a model reads both.
        let verbs = ["Shows", "Lists", "Returns", "Creates", "Stores", "Sends"];
        assert!(verbs.iter().any(|verb| description.starts_with(verb)), "{name}");
        let nots = ["no credential", "never", "changes nothing", "Changes nothing"];
        assert!(nots.iter().any(|not| description.contains(not)), "{name}");
        assert!((80..600).contains(&description.len()), "{name}: {} bytes", description.len());
        assert!(!tool["title"].as_str().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn hosts_are_told_which_tools_change_something() {
    for tool in tools().await {
        let name = tool["name"].as_str().unwrap();
        let (read_only, destructive, idempotent, open_world) = match name {
            "ravi_wait_for_code" | "ravi_read_email" | "ravi_read_sms" => (true, false, true, true),
            "ravi_identity_create" | "passwords_create" | "ravi_sso_token" => (false, false, false, false),
            "secrets_set" => (false, true, true, false),
            "ravi_send_email" | "ravi_reply_email" | "ravi_send_sms" => (false, true, false, true),
            _ => (true, false, true, false),
        };
        let expected = json!({
            "title": tool["title"],
            "readOnlyHint": read_only,
            "destructiveHint": destructive,
            "idempotentHint": idempotent,
            "openWorldHint": open_world,
        });
        assert_eq!(tool["annotations"], expected, "{name}");
    }
}

#[tokio::test]
async fn every_argument_is_described_and_bounded() {
    for tool in tools().await {
        let name = tool["name"].as_str().unwrap();
        for side in ["inputSchema", "outputSchema"] {
            let schema = &tool[side];
            assert_eq!(schema["type"], "object", "{name}: {side}");
            assert!(schema["properties"].is_object(), "{name}: {side}");
            for required in schema["required"].as_array().into_iter().flatten() {
                let property = required.as_str().unwrap();
                assert!(schema["properties"].get(property).is_some(), "{name}: {side}: {property}");
            }
        }
        for (argument, schema) in tool["inputSchema"]["properties"].as_object().unwrap() {
            assert!(schema["description"].as_str().is_some_and(|text| text.len() > 20), "{name}: {argument}");
            let bounds = ["maxLength", "maximum", "maxItems", "enum"];
            let bounded =
                schema["type"] == "boolean" || bounds.iter().any(|bound| schema.get(bound).is_some());
            assert!(bounded, "{name}: {argument} has no bound");
        }
        if tool["inputSchema"]["properties"].as_object().is_some_and(|arguments| !arguments.is_empty()) {
            assert_eq!(tool["inputSchema"]["additionalProperties"], false, "{name}");
        }
    }
}

#[tokio::test]
async fn every_part_of_a_result_is_described() {
    for tool in tools().await {
        let name = tool["name"].as_str().unwrap();
        let schema = &tool["outputSchema"];
        let parts = schema["$defs"].as_object().into_iter().flat_map(|parts| parts.values());
        for object in parts.chain([schema]) {
            for (property, schema) in object["properties"].as_object().unwrap() {
                let described = schema["description"].as_str().is_some_and(|text| !text.contains('\n'));
                assert!(described, "{name}: {property}");
            }
        }
    }
}

#[test]
fn the_validator_finds_what_does_not_fit() {
    let schema = json!({
        "type": "object",
        "properties": { "names": { "type": "array", "items": { "$ref": "#/$defs/Name" } } },
        "required": ["names"],
        "$defs": { "Name": { "type": "string", "minLength": 1, "maxLength": 3 } },
    });
    assert_eq!(fits(&schema, &schema, &json!({ "names": ["abc"] })), Ok(()));
    for wrong in [
        json!({}),
        json!([]),
        json!({ "names": [""] }),
        json!({ "names": ["abcd"] }),
        json!({ "names": [1] }),
        json!({ "names": [], "more": 1 }),
    ] {
        assert!(fits(&schema, &schema, &wrong).is_err(), "{wrong}");
    }
    assert!(fits(&schema, &json!({ "anyOf": [] }), &json!(1)).is_err());
}
