//! The order of a graph's nodes.

use super::{loc, undefined};
use onnx_protobuf::GraphProto;
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::diag::{Code, Diagnostic, Result};

/// Node positions in an order that defines values before their uses, as near as can be to the file's.
///
/// # Errors
/// [`Code::GraphCyclic`] for a cycle and for a value that is defined twice, [`Code::ValueUndefined`] for one that nothing
/// defines (`known` tells of inputs and initializers).
pub(super) fn order(proto: &GraphProto, known: impl Fn(&str) -> bool) -> Result<Vec<usize>> {
    let mut producer: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in proto.node.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            if producer.insert(output, index).is_some() || known(output) {
                let message = format!("the value `{output}` is defined twice");
                return Err(Diagnostic::new(Code::GraphCyclic, message).at(loc(index, node).to_string()).help(
                    "every value has a name of its own: rename this output and its uses, or export the model again",
                ));
            }
        }
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); proto.node.len()];
    let mut pending = vec![0usize; proto.node.len()];
    for (index, node) in proto.node.iter().enumerate() {
        for input in node.input.iter().filter(|name| !name.is_empty()) {
            match producer.get(input.as_str()) {
                Some(&from) => {
                    users[from].push(index);
                    pending[index] += 1;
                }
                None if known(input) => {}
                None => return Err(undefined(input, &loc(index, node))),
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..pending.len()).filter(|&index| pending[index] == 0).collect();
    let mut order = Vec::with_capacity(pending.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for &user in &users[next] {
            pending[user] -= 1;
            if pending[user] == 0 {
                ready.insert(user);
            }
        }
    }
    match pending.iter().position(|&count| count > 0) {
        None => Ok(order),
        Some(index) => Err(Diagnostic::new(Code::GraphCyclic, "the graph has a cycle")
            .at(loc(index, &proto.node[index]).to_string())
            .help("export the model again; a valid ONNX graph has no cycles")),
    }
}
