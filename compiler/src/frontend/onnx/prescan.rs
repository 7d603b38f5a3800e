//! A walk over the wire format before the real parser sees it.
//!
//! The protobuf runtime that `onnx-protobuf` is pinned to skips unknown groups recursively (RUSTSEC-2024-0437): a file of
//! nested group tags overflows its stack. ONNX has no groups, so any is refused, in every message that the parser knows.
//! Messages are counted too, since an empty one takes two bytes in the file and hundreds in memory.

use super::ImportLimits;
use tacit_ir::diag::{Code, Diagnostic, Result};

/// Levels of nested messages; real models have fewer than ten. The parser's own limit is 100.
const MAX_DEPTH: usize = 64;

/// Messages allowed for each allowed node: a node with its attributes takes about twenty.
const MESSAGES_PER_NODE: usize = 32;

/// The messages of onnx.proto.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    ValueInfo,
    Tensor,
    SparseTensor,
    TensorAnnotation,
    Type,
    TypeTensor,
    TypeOfElement,
    TypeMap,
    Shape,
    TrainingInfo,
    Function,
    /// A message that holds none.
    Leaf,
}

impl Kind {
    /// The message that a field holds, by onnx.proto; `None` for strings, bytes and packed numbers.
    fn field(self, number: u64) -> Option<Kind> {
        Some(match (self, number) {
            (Kind::Model, 7) => Kind::Graph,
            (Kind::Model, 20) => Kind::TrainingInfo,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Model, 8 | 14) => Kind::Leaf,
            (Kind::Graph, 1) => Kind::Node,
            (Kind::Graph, 5) => Kind::Tensor,
            (Kind::Graph, 11..=13) => Kind::ValueInfo,
            (Kind::Graph, 14) => Kind::TensorAnnotation,
            (Kind::Graph, 15) => Kind::SparseTensor,
            (Kind::Graph, 16) => Kind::Leaf,
            (Kind::Node, 5) => Kind::Attribute,
            (Kind::Node, 9) => Kind::Leaf,
            (Kind::Attribute, 5 | 10) => Kind::Tensor,
            (Kind::Attribute, 6 | 11) => Kind::Graph,
            (Kind::Attribute, 14 | 15) => Kind::Type,
            (Kind::Attribute, 22 | 23) => Kind::SparseTensor,
            (Kind::ValueInfo, 2) => Kind::Type,
            (Kind::ValueInfo, 4) => Kind::Leaf,
            (Kind::Tensor, 3 | 13 | 16) => Kind::Leaf,
            (Kind::SparseTensor, 1 | 2) => Kind::Tensor,
            (Kind::TensorAnnotation, 2) => Kind::Leaf,
            (Kind::Type, 1 | 8) => Kind::TypeTensor,
            (Kind::Type, 4 | 9) => Kind::TypeOfElement,
            (Kind::Type, 5) => Kind::TypeMap,
            (Kind::TypeTensor, 2) => Kind::Shape,
            (Kind::TypeOfElement, 1) | (Kind::TypeMap, 2) => Kind::Type,
            (Kind::Shape, 1) => Kind::Leaf,
            (Kind::TrainingInfo, 1 | 2) => Kind::Graph,
            (Kind::TrainingInfo, 3 | 4) => Kind::Leaf,
            (Kind::Function, 7) => Kind::Node,
            (Kind::Function, 11) => Kind::Attribute,
            (Kind::Function, 12) => Kind::ValueInfo,
            (Kind::Function, 9 | 14) => Kind::Leaf,
            _ => return None,
        })
    }
}

/// Fails on groups, on truncation, on excessive nesting and on far too many messages.
pub(super) fn check(bytes: &[u8], limits: &ImportLimits) -> Result<()> {
    // A field number 1 to 26 in the first tag is all that the format gives to recognise a model by.
    let looks_right = bytes.first().is_some_and(|&tag| matches!(tag & 7, 0 | 2) && (1..=26).contains(&(tag >> 3)));
    if !looks_right {
        return Err(not_onnx("it does not begin as a protobuf does"));
    }
    walk(bytes, Kind::Model, 0, &mut limits.max_nodes.saturating_mul(MESSAGES_PER_NODE))
}

fn not_onnx(why: &str) -> Diagnostic {
    Diagnostic::new(Code::NotOnnx, format!("the file is not an ONNX model: {why}"))
        .help("give a file that was written by skl2onnx, onnxmltools or torch.onnx")
}

fn walk(mut rest: &[u8], kind: Kind, depth: usize, messages: &mut usize) -> Result<()> {
    let truncated = || {
        Diagnostic::new(Code::OnnxTruncated, "the ONNX file is truncated or corrupt")
            .help("copy or export the file again; its size should be that of the original")
    };
    if depth > MAX_DEPTH {
        return Err(Diagnostic::new(Code::ModelTooLarge, format!("messages are nested more than {MAX_DEPTH} deep")));
    }
    *messages = messages.checked_sub(1).ok_or_else(|| {
        Diagnostic::new(Code::ModelTooLarge, "the file has far more parts than the limit of nodes allows")
    })?;
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
                if let Some(inner) = kind.field(field) {
                    walk(body, inner, depth + 1, messages)?;
                }
            }
            other => {
                return Err(not_onnx(&format!("field {field} has wire type {other}, which ONNX never uses")));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: &[u8]) -> Option<Code> {
        check(bytes, &ImportLimits::default()).err().map(|why| why.code)
    }

    /// `inner` as a length-delimited field.
    fn field(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut len = inner.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend(inner);
        out
    }

    #[test]
    fn groups_are_refused_wherever_the_parser_reads() {
        let groups = [0x7b; 64]; // Start-group tags of field 15.
        assert_eq!(code(&[&[0x08, 0x07], groups.as_slice()].concat()), Some(Code::NotOnnx));
        // Inside a dimension of the type of an input of the graph.
        let nested = [1u8, 2, 1, 2, 11, 7].iter().fold(groups.to_vec(), |inner, &number| field(number, &inner));
        assert_eq!(code(&nested), Some(Code::NotOnnx));
        // Inside a training graph.
        assert_eq!(code(&field(7, &field(1, &field(5, &field(5, &field(13, &groups)))))), Some(Code::NotOnnx));
    }

    #[test]
    fn other_files_and_truncated_ones_are_told_apart() {
        assert_eq!(code(b""), Some(Code::NotOnnx));
        assert_eq!(code(b"PK\x03\x04"), Some(Code::NotOnnx));
        assert_eq!(code(&[0x3a, 0x10, 0x0a]), Some(Code::OnnxTruncated));
        assert_eq!(code(&[0x08, 0xff, 0xff]), Some(Code::OnnxTruncated));
    }

    #[test]
    fn nesting_and_counts_are_limited() {
        // A graph in an attribute of a node of a graph, and so on.
        let deep = (0..40).fold(Vec::new(), |inner, _| field(1, &field(5, &field(6, &inner))));
        assert_eq!(code(&field(7, &deep)), Some(Code::ModelTooLarge));
        let limits = ImportLimits { max_nodes: 10, ..ImportLimits::default() };
        let nodes = field(7, &field(1, &[]).repeat(400));
        assert_eq!(check(&nodes, &limits).unwrap_err().code, Code::ModelTooLarge);
    }
}
