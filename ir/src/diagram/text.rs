//! Text form of a diagram, one line a node.

use super::{Atom, Diagram, Form, Node, NodeId};
use crate::attr::{Attr, Field};
use std::fmt;

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut plus = |f: &mut fmt::Formatter<'_>| {
            if std::mem::take(&mut first) { Ok(()) } else { f.write_str(" + ") }
        };
        for (id, &weight) in &self.nodes {
            plus(f)?;
            if weight == 1 {
                write!(f, "{id}")?;
            } else {
                write!(f, "{weight}*{id}")?;
            }
        }
        for (&(atom, slot), &weight) in &self.atoms {
            plus(f)?;
            write!(f, "{weight}@{slot}")?;
            match atom {
                Atom::One => {}
                Atom::AtLeast { feature, cut } => write!(f, "[f{feature}>={cut}]")?,
                Atom::Bit { feature, bit } => write!(f, "[f{feature}.{bit}]")?,
            }
        }
        if self.nodes.is_empty() && self.atoms.is_empty() { f.write_str("0") } else { Ok(()) }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Switch { feature, cuts, branches } => {
                write!(f, "switch f{feature} {{")?;
                for (position, branch) in branches.iter().enumerate() {
                    let from = if position == 0 { 0 } else { cuts.get(position - 1).copied().unwrap_or(0) };
                    write!(f, "{} {from}: {branch}", if position == 0 { "" } else { ";" })?;
                }
                f.write_str(" }")
            }
            Node::Mux { feature, bit, low, high } => write!(f, "mux f{feature}.{bit} {{ 0: {low}; 1: {high} }}"),
            Node::Table { bits, values } => {
                let bits: Vec<String> = bits.iter().map(|(feature, bit)| format!("f{feature}.{bit}")).collect();
                let values: Vec<String> = values.iter().map(Form::to_string).collect();
                write!(f, "table [{}] {{ {} }}", bits.join(", "), values.join("; "))
            }
        }
    }
}

impl Diagram {
    /// The lines of the text form.
    pub fn to_lines(&self) -> Vec<String> {
        let nodes = self.nodes.iter().enumerate().map(|(index, node)| format!("n{index} = {node}"));
        nodes.chain([format!("root = {}", self.root)]).collect()
    }

    /// Reads the lines of the text form.
    ///
    /// # Errors
    /// What is wrong and in which line of the diagram, counted from 1.
    pub fn from_lines(slots: u32, lines: &[String]) -> Result<Diagram, String> {
        let mut diagram = Diagram { slots, ..Diagram::default() };
        let mut root = None;
        for (number, line) in lines.iter().enumerate() {
            let at = |why: String| format!("diagram line {}: {why}", number + 1);
            let (name, body) = line.split_once('=').ok_or_else(|| at("expected `name = node`".to_owned()))?;
            let (name, body) = (name.trim(), body.trim());
            if root.is_some() {
                return Err(at("a node after the root".to_owned()));
            }
            if name == "root" {
                root = Some(parse_form(body).map_err(at)?);
            } else if name == format!("n{}", diagram.nodes.len()) {
                diagram.nodes.push(parse_node(body).map_err(at)?);
            } else {
                return Err(at(format!("expected n{} or root, found `{name}`", diagram.nodes.len())));
            }
        }
        diagram.root = root.ok_or("the diagram has no root")?;
        Ok(diagram)
    }
}

fn parse_node(text: &str) -> Result<Node, String> {
    let (head, body) = text.split_once('{').ok_or("expected `{`")?;
    let body = body.trim().strip_suffix('}').ok_or("expected `}` at the end of the line")?;
    let (kind, subject) = head.trim().split_once(' ').ok_or("expected a node kind and its subject")?;
    let arms: Vec<&str> = body.split(';').map(str::trim).collect();
    let keyed = |arm: &&str| -> Result<(u32, Form), String> {
        let (key, form) = arm.split_once(':').ok_or_else(|| format!("expected `key: form` in `{arm}`"))?;
        Ok((number(key)?, parse_form(form)?))
    };
    match kind {
        "switch" => {
            let feature = number(subject.trim().strip_prefix('f').ok_or("expected a feature such as f3")?)?;
            let arms: Vec<(u32, Form)> = arms.iter().map(keyed).collect::<Result<_, _>>()?;
            if arms.first().map(|arm| arm.0) != Some(0) {
                return Err("the first branch of a switch starts at 0".to_owned());
            }
            let cuts = arms.iter().skip(1).map(|arm| arm.0).collect();
            Ok(Node::Switch { feature, cuts, branches: arms.into_iter().map(|arm| arm.1).collect() })
        }
        "mux" => {
            let (feature, bit) = bit_name(subject)?;
            let arms: Vec<(u32, Form)> = arms.iter().map(keyed).collect::<Result<_, _>>()?;
            match <[(u32, Form); 2]>::try_from(arms) {
                Ok([(0, low), (1, high)]) => Ok(Node::Mux { feature, bit, low, high }),
                _ => Err("a mux has branches 0 and 1".to_owned()),
            }
        }
        "table" => {
            let list = subject.trim().strip_prefix('[').and_then(|s| s.strip_suffix(']')).ok_or("expected [bits]")?;
            let bits = list.split(',').map(bit_name).collect::<Result<_, _>>()?;
            let values = arms.iter().map(|arm| parse_form(arm)).collect::<Result<_, _>>()?;
            Ok(Node::Table { bits, values })
        }
        other => Err(format!("`{other}` is not switch, mux or table")),
    }
}

fn bit_name(text: &str) -> Result<(u32, u32), String> {
    let inner = text.trim().strip_prefix('f').and_then(|s| s.split_once('.'));
    let (feature, bit) =
        inner.ok_or_else(|| format!("expected a selector bit such as f3.1, found `{}`", text.trim()))?;
    Ok((number(feature)?, number(bit)?))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("`{}` is not a number in range", text.trim()))
}

fn parse_form(text: &str) -> Result<Form, String> {
    let mut form = Form::default();
    if text.trim() == "0" {
        return Ok(form);
    }
    for term in text.split(" + ").map(str::trim) {
        if let Some((weight, slot)) = term.split_once('@') {
            let weight = number(weight)?;
            let (slot, condition) = match slot.split_once('[') {
                None => (slot, None),
                Some((slot, condition)) => (slot, Some(condition.strip_suffix(']').ok_or("expected `]`")?)),
            };
            let atom = match condition {
                None => Atom::One,
                Some(condition) => match condition.split_once(">=") {
                    None => bit_name(condition).map(|(feature, bit)| Atom::Bit { feature, bit })?,
                    Some((feature, cut)) => {
                        let feature = number(feature.trim().strip_prefix('f').ok_or("expected a feature")?)?;
                        Atom::AtLeast { feature, cut: number(cut)? }
                    }
                },
            };
            form.add_atom(atom, number(slot)?, weight);
        } else {
            let (weight, node) = term.split_once('*').map_or((Ok(1), term), |(w, node)| (number(w), node));
            let id = node.strip_prefix('n').ok_or_else(|| format!("`{term}` is not a term"))?;
            form.add_node(NodeId(number(id)?), weight?);
        }
    }
    Ok(form)
}

/// As an attribute: the number of slots, then the lines.
impl Field for Diagram {
    fn to_attr(&self) -> Option<Attr> {
        let mut lines = vec![format!("slots {}", self.slots)];
        lines.extend(self.to_lines());
        Some(Attr::Lines(lines))
    }
    fn from_attr(attr: Option<Attr>) -> Result<Self, Option<String>> {
        match attr {
            None => Err(None),
            Some(Attr::Lines(lines)) => {
                let (first, rest) = lines.split_first().ok_or_else(|| Some("an empty diagram".to_owned()))?;
                let slots = first.strip_prefix("slots ").and_then(|slots| slots.trim().parse().ok());
                let slots = slots.ok_or_else(|| Some("a diagram starts with `slots` and a number".to_owned()))?;
                Diagram::from_lines(slots, rest).map_err(Some)
            }
            Some(other) => Err(Some(format!("expected a diagram, found {}", other.kind()))),
        }
    }
}
