//! Graph to text.

use super::VERSION;
use crate::attr::{Attr, OpSet};
use crate::graph::{Graph, Loc, Stage};
use std::fmt::Write;

/// The text of a graph; places appear as comments.
pub fn print<S: Stage>(graph: &Graph<S>) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail, so results of `write!` are dropped below.
    let _ = writeln!(out, "{} @{} version {VERSION} {{", S::NAME, graph.name());
    for id in graph.values() {
        let node = graph.node(id);
        let _ = write!(out, "  {id} = {}", node.op.name());
        for (position, operand) in node.operands.iter().enumerate() {
            let _ = write!(out, "{}{operand}", if position == 0 { " " } else { ", " });
        }
        let attrs = node.op.attrs();
        if !attrs.is_empty() {
            out.push_str(" {");
            print_pairs(&mut out, &attrs, 4);
            out.push_str(" }");
        }
        let _ = write!(out, " : {}", node.ty);
        if let Loc::Onnx { .. } = graph.loc(id) {
            let _ = write!(out, "  ; {}", graph.loc(id));
        }
        out.push('\n');
    }
    for (name, value) in graph.outputs() {
        let _ = writeln!(out, "  output {} = {value}", quoted(name));
    }
    out.push_str("}\n");
    out
}

fn print_pairs(out: &mut String, pairs: &[(String, Attr)], indent: usize) {
    let blocks = pairs.iter().any(|(_, attr)| is_block(attr));
    for (position, (key, attr)) in pairs.iter().enumerate() {
        if position > 0 && !is_block(&pairs[position - 1].1) {
            out.push(',');
        }
        if blocks {
            let _ = write!(out, "\n{:indent$}{key} = ", "");
        } else {
            let _ = write!(out, " {key} = ");
        }
        print_into(out, attr, indent);
    }
    if blocks {
        let _ = write!(out, "\n{:width$}", "", width = indent - 3);
    }
}

fn is_block(attr: &Attr) -> bool {
    matches!(attr, Attr::Lines(_))
}

/// The text of one attribute.
pub fn print_attr(attr: &Attr) -> String {
    let mut out = String::new();
    print_into(&mut out, attr, 0);
    out
}

fn print_into(out: &mut String, attr: &Attr, indent: usize) {
    fn joined<T>(out: &mut String, prefix: &str, items: &[T], show: impl Fn(&T) -> String) {
        let items: Vec<String> = items.iter().map(show).collect();
        let _ = write!(out, "{prefix}[{}]", items.join(", "));
    }
    match attr {
        Attr::Bool(value) => drop(write!(out, "{value}")),
        Attr::Int(value) => drop(write!(out, "{value}")),
        Attr::F32(value) => drop(write!(out, "{value:?}f")),
        Attr::F64(value) => drop(write!(out, "{value:?}")),
        Attr::Str(value) => out.push_str(&quoted(value)),
        Attr::Ints(items) => joined(out, "i64", items, i64::to_string),
        Attr::F32s(items) => joined(out, "f32", items, |item| format!("{item:?}")),
        Attr::F64s(items) => joined(out, "f64", items, |item| format!("{item:?}")),
        Attr::Strs(items) => joined(out, "str", items, |item| quoted(item)),
        Attr::List(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push_str(", ");
                }
                print_into(out, item, indent);
            }
            out.push(']');
        }
        Attr::Record(items) => {
            out.push('{');
            print_pairs(out, items, indent + 2);
            out.push_str(" }");
        }
        Attr::Lines(lines) => {
            for line in lines {
                let _ = write!(out, "\n{:width$}| {line}", "", width = indent + 2);
            }
        }
    }
}

/// A string in quotes; only the backslash, the quote and control characters are escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => drop(write!(out, "\\u{{{:x}}}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
