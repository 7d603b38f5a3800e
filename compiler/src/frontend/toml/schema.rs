//! The JSON schema of models in TOML, from the declarations of the operations.

use super::layers::SHORTHANDS;
use std::fmt::Write;
use tacit_ir::stage::tensor::TensorOp;

/// A JSON schema (draft 2020-12) that editors check model files with.
pub fn schema() -> String {
    let mut ops: Vec<&str> =
        SHORTHANDS.iter().flat_map(|(names, _)| names.split(", ")).filter(|s| *s != "..").collect();
    ops.extend(TensorOp::NAMES.iter().filter(|name| **name != "input"));
    ops.sort_unstable();
    ops.dedup();
    let names: Vec<String> = ops.iter().map(|op| format!("\"{op}\"")).collect();
    let mut rules = String::new();
    for (op, fields) in TensorOp::FIELDS.iter().filter(|(op, _)| *op != "input" && !is_shorthand(op)) {
        let properties: Vec<String> = fields.iter().map(|(name, ty)| format!("\"{name}\": {}", kind(ty))).collect();
        let needed = fields.iter().filter(|(_, ty)| !ty.starts_with("Option")).map(|(name, _)| format!("\"{name}\""));
        let needed: Vec<String> = needed.collect();
        let comma = if rules.is_empty() { "" } else { ",\n" };
        let _ = write!(
            rules,
            "{comma}        {{ \"if\": {{ \"properties\": {{ \"op\": {{ \"const\": \"{op}\" }} }} }}, \"then\": {{ \"required\": [{}], \"properties\": {{ {} }} }} }}",
            needed.join(", "),
            properties.join(", ")
        );
    }
    format!(
        r#"{{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "A Tacit model",
  "type": "object",
  "required": ["input"],
  "additionalProperties": false,
  "properties": {{
    "model": {{ "type": "object", "properties": {{ "name": {{ "type": "string" }} }}, "additionalProperties": false }},
    "options": {{ "type": "object" }},
    "input": {{
      "type": "array",
      "items": {{
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {{
          "name": {{ "type": "string" }},
          "type": {{ "type": "string" }},
          "columns": {{ "type": "integer", "minimum": 0 }},
          "shape": {{ "type": "array", "items": {{ "type": "integer", "minimum": 0 }} }},
          "range": {{ "type": "array", "items": {{ "type": "number" }}, "minItems": 2, "maxItems": 2 }},
          "categories": {{ "type": "array" }},
          "encoding": {{ "enum": ["one-hot", "ordinal"] }}
        }}
      }}
    }},
    "layer": {{
      "type": "array",
      "items": {{
        "type": "object",
        "required": ["op"],
        "properties": {{
          "name": {{ "type": "string" }},
          "op": {{ "enum": [{names}] }},
          "inputs": {{ "anyOf": [{{ "type": "string" }}, {{ "type": "array", "items": {{ "type": "string" }} }}] }}
        }},
        "allOf": [
{rules}
        ]
      }}
    }},
    "output": {{
      "type": "array",
      "items": {{
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {{
          "name": {{ "type": "string" }},
          "from": {{ "type": "string" }},
          "labels": {{ "type": "array" }},
          "threshold": {{ "type": "number" }}
        }}
      }}
    }}
  }}
}}
"#,
        names = names.join(", ")
    )
}

fn is_shorthand(op: &str) -> bool {
    SHORTHANDS.iter().any(|(names, _)| names.split(", ").any(|name| name == op))
}

/// The schema of an attribute's type; numbers may be in weight files.
fn kind(ty: &str) -> &'static str {
    let ty: String = ty.chars().filter(|c| !c.is_whitespace()).collect();
    let ty = ty.strip_prefix("Option<").and_then(|ty| ty.strip_suffix('>')).unwrap_or(&ty);
    match ty {
        "bool" => r#"{ "type": "boolean" }"#,
        "i64" | "usize" | "u32" => r#"{ "type": "integer" }"#,
        "f32" | "f64" => r#"{ "type": "number" }"#,
        "Vec<f32>" | "Vec<f64>" | "Vec<i64>" | "Vec<usize>" | "Vec<u32>" => {
            r#"{ "type": ["array", "number", "object"] }"#
        }
        "Vec<String>" => r#"{ "type": "array", "items": { "type": "string" } }"#,
        ty if ty.contains("Many<") => r#"{ "type": "array" }"#,
        ty if ty.ends_with("Window") => r#"{ "type": "object" }"#,
        _ => r#"{ "type": "string" }"#,
    }
}
