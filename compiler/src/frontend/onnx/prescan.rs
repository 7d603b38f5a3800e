//! A walk over the wire format before the real parser sees it.
//!
//! The protobuf runtime that `onnx-protobuf` is pinned to skips unknown groups recursively (RUSTSEC-2024-0437): a file of
//! nested group tags overflows its stack. ONNX has no groups, so any is refused, in every message that ONNX nests.

use tacit_ir::diag::{Code, Diagnostic, Result};

/// Levels of nested messages; real models have fewer than ten.
const MAX_DEPTH: usize = 64;

/// Messages of onnx.proto by the fields that hold messages.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Other,
}

/// Fails on groups, on truncation and on excessive nesting.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    // A field number 1 to 26 in the first tag is all that the format gives to recognise a model by.
    let looks_right = bytes.first().is_some_and(|&tag| matches!(tag & 7, 0 | 2) && (1..=26).contains(&(tag >> 3)));
    if !looks_right {
        return Err(Diagnostic::new(Code::NotOnnx, "the file is not an ONNX protobuf")
            .help("give a file that was written by skl2onnx, onnxmltools or torch.onnx"));
    }
    walk(bytes, Kind::Model, 0)
}

fn walk(mut rest: &[u8], kind: Kind, depth: usize) -> Result<()> {
    let truncated = || Diagnostic::new(Code::OnnxTruncated, "the ONNX file is truncated or corrupt");
    if depth > MAX_DEPTH {
        return Err(Diagnostic::new(Code::ModelTooLarge, format!("messages are nested more than {MAX_DEPTH} deep")));
    }
    while !rest.is_empty() {
        let tag = varint(&mut rest).ok_or_else(truncated)?;
        let field = tag >> 3;
        match tag & 7 {
            0 => drop(varint(&mut rest).ok_or_else(truncated)?),
            1 => rest = rest.get(8..).ok_or_else(truncated)?,
            5 => rest = rest.get(4..).ok_or_else(truncated)?,
            2 => {
                let len = varint(&mut rest).and_then(|len| usize::try_from(len).ok()).ok_or_else(truncated)?;
                let (body, after) = rest.split_at_checked(len).ok_or_else(truncated)?;
                rest = after;
                let inner = match (kind, field) {
                    (Kind::Model, 7) => Some(Kind::Graph),
                    (Kind::Model, 8 | 14 | 20 | 25 | 26) => Some(Kind::Other),
                    (Kind::Graph, 1) => Some(Kind::Node),
                    (Kind::Graph, 5 | 11 | 12 | 13 | 14 | 15 | 16) => Some(Kind::Other),
                    (Kind::Node, 5) => Some(Kind::Attribute),
                    (Kind::Attribute, 6 | 11) => Some(Kind::Graph),
                    (Kind::Attribute, 5 | 10 | 14 | 15 | 22 | 23) => Some(Kind::Other),
                    _ => None,
                };
                if let Some(inner) = inner {
                    walk(body, inner, depth + 1)?;
                }
            }
            _ => {
                return Err(Diagnostic::new(
                    Code::NotOnnx,
                    format!("field {field} has wire type {}, which ONNX never uses", tag & 7),
                ));
            }
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
