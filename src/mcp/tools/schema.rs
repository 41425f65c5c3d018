//! How a tool is described to a host: schemas from types, and hints of what it does.

use std::sync::Arc;

use rmcp::handler::server::common::schema_for_empty_input;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// What a tool does, as hosts are told it.
#[derive(Clone, Copy)]
pub(super) enum Effect {
    /// Changes nothing, and shows what the broker and Ravi hold.
    Reads,
    /// Changes nothing, and shows what strangers wrote.
    ReadsStrangers,
    /// Makes something new and touches nothing that is there.
    Creates,
    /// Replaces what was there.
    Replaces,
    /// Reaches somebody, and cannot be called back.
    Sends,
}

impl Effect {
    fn annotations(self, title: &str) -> ToolAnnotations {
        let (read_only, destructive, idempotent, open_world) = match self {
            Self::Reads => (true, false, true, false),
            Self::ReadsStrangers => (true, false, true, true),
            Self::Creates => (false, false, false, false),
            Self::Replaces => (false, true, true, false),
            Self::Sends => (false, true, false, true),
        };
        ToolAnnotations::with_title(title)
            .read_only(read_only)
            .destructive(destructive)
            .idempotent(idempotent)
            .open_world(open_world)
    }
}

/// A tool with arguments.
pub(super) fn tool<I, O>(
    effect: Effect,
    name: &'static str,
    title: &'static str,
    description: &'static str,
) -> Tool
where
    I: JsonSchema + 'static,
    O: JsonSchema + 'static,
{
    tool_without_arguments::<O>(effect, name, title, description).with_input_schema::<I>()
}

/// Such a tool ignores what a model sends all the same.
pub(super) fn tool_without_arguments<O>(
    effect: Effect,
    name: &'static str,
    title: &'static str,
    description: &'static str,
) -> Tool
where
    O: JsonSchema + 'static,
{
    Tool::new(name, description, schema_for_empty_input())
        .with_title(title)
        .with_output_schema::<O>()
        .with_annotations(effect.annotations(title))
}

/// The tool with results of another form as well: what only one of them has is not required.
pub(super) fn or_else<O: JsonSchema + 'static>(mut tool: Tool) -> Tool {
    let other = tool.clone().with_output_schema::<O>().output_schema;
    let (Some(one), Some(other)) = (tool.output_schema.take(), other) else { return tool };
    let mut either = JsonObject::clone(&one);
    for part in ["properties", "$defs"] {
        let Some(Value::Object(more)) = other.get(part) else { continue };
        match either.get_mut(part) {
            Some(Value::Object(all)) => all.extend(more.clone()),
            _ => drop(either.insert(part.to_owned(), Value::Object(more.clone()))),
        }
    }
    let required = |schema: &JsonObject| schema.get("required").and_then(Value::as_array).cloned();
    let others = required(&other).unwrap_or_default();
    if let Some(Value::Array(names)) = either.get_mut("required") {
        names.retain(|name| others.contains(name));
    }
    tool.output_schema = Some(Arc::new(either));
    tool
}

/// Without the `format` that the derived schema adds: JSON Schema knows none for integers, and hosts
/// complain about it.
pub(in crate::mcp) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 0 })
}
