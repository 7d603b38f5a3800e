//! ONNX to the float stage: messages by `onnx-protobuf`, conversion by us.
//!
//! Every ONNX node becomes one or several operations in normal form. What cannot be converted is collected, and all of it
//! is reported at once.

mod attrs;
mod generic;
mod linear;
mod node;
mod preprocess;
mod prescan;
mod svm;
mod tensors;
mod trees;

use node::{Fail, NodeCx};
use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto, ValueInfoProto};
use std::collections::BTreeMap;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::interp::tensor::TensorValue;
use tacit_ir::stage::tensor::{Dim, Tensor, TensorOp, TensorType};

/// Limits of the importer, against hostile files.
#[derive(Clone, Copy, Debug)]
pub struct ImportLimits {
    /// Bytes of the file.
    pub max_bytes: usize,
    /// Nodes of the graph.
    pub max_nodes: usize,
    /// Nodes of all trees together.
    pub max_tree_nodes: usize,
    /// Levels of one tree.
    pub max_tree_depth: usize,
    /// Elements of one tensor.
    pub max_elements: usize,
}

impl Default for ImportLimits {
    fn default() -> Self {
        ImportLimits {
            max_bytes: 2 << 30,
            max_nodes: 100_000,
            max_tree_nodes: 20_000_000,
            max_tree_depth: 1_000,
            max_elements: 1 << 28,
        }
    }
}

/// Reads an ONNX model.
///
/// # Errors
/// [`Code::NotOnnx`], [`Code::OnnxTruncated`], [`Code::ModelTooLarge`], [`Code::OpsetUnsupported`],
/// [`Code::OpUnsupported`] (with every unsupported node), [`Code::AttributeInvalid`], [`Code::ValueUndefined`],
/// [`Code::GraphCyclic`], [`Code::ShapeMismatch`], [`Code::WeightNotFinite`].
pub fn import(bytes: &[u8], limits: &ImportLimits) -> Result<Graph<Tensor>> {
    if bytes.len() > limits.max_bytes {
        let message = format!("the file has {} bytes, the limit is {}", bytes.len(), limits.max_bytes);
        return Err(Diagnostic::new(Code::ModelTooLarge, message));
    }
    prescan::check(bytes)?;
    let model = ModelProto::parse_from_bytes(bytes)
        .map_err(|why| Diagnostic::new(Code::OnnxTruncated, format!("the protobuf does not parse: {why}")))?;
    let graph = model.graph.as_ref().filter(|graph| !graph.output.is_empty() || !graph.node.is_empty());
    let graph = graph.ok_or_else(|| {
        Diagnostic::new(Code::NotOnnx, "the file holds no ONNX graph")
            .help("export the model with skl2onnx, onnxmltools or torch.onnx")
    })?;
    let opsets = opsets(&model)?;
    Importer::new(graph, opsets, *limits).run(graph)
}

/// Operator set versions by domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opsets {
    pub(crate) standard: i64,
    pub(crate) ml: i64,
}

fn opsets(model: &ModelProto) -> Result<Opsets> {
    // Without an import the standard set is the oldest; exporters of pure ai.onnx.ml graphs leave it out.
    let mut opsets = Opsets { standard: 9, ml: 1 };
    for import in &model.opset_import {
        match import.domain.as_str() {
            "" | "ai.onnx" => opsets.standard = import.version,
            "ai.onnx.ml" => opsets.ml = import.version,
            _ => {} // Reported with the nodes that use it.
        }
    }
    if !(7..=30).contains(&opsets.standard) || !(1..=6).contains(&opsets.ml) {
        let message = format!("opset {} with ai.onnx.ml {} is outside 9 to 30 and 1 to 6", opsets.standard, opsets.ml);
        return Err(Diagnostic::new(Code::OpsetUnsupported, message).help("export again with target_opset=17"));
    }
    Ok(opsets)
}

pub(crate) struct Importer<'a> {
    graph: Graph<Tensor>,
    /// Values by ONNX name.
    values: BTreeMap<&'a str, ValueId>,
    /// Constants of the new graph, for operations that need theirs known.
    constants: BTreeMap<ValueId, TensorValue>,
    opsets: Opsets,
    limits: ImportLimits,
    tree_nodes: usize,
}

impl<'a> Importer<'a> {
    fn new(graph: &GraphProto, opsets: Opsets, limits: ImportLimits) -> Self {
        let name: String = graph.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let name = if name.is_empty() { "model".to_owned() } else { name };
        Importer {
            graph: Graph::new(name),
            values: BTreeMap::new(),
            constants: BTreeMap::new(),
            opsets,
            limits,
            tree_nodes: 0,
        }
    }

    fn run(mut self, proto: &'a GraphProto) -> Result<Graph<Tensor>> {
        if proto.node.len() > self.limits.max_nodes {
            let message = format!("{} nodes, the limit is {}", proto.node.len(), self.limits.max_nodes);
            return Err(Diagnostic::new(Code::ModelTooLarge, message));
        }
        if !proto.sparse_initializer.is_empty() {
            return Err(Diagnostic::new(Code::VariantUnsupported, "the model has sparse initializers")
                .help("convert them to dense initializers"));
        }
        for tensor in &proto.initializer {
            let place = format!("initializer \"{}\"", tensor.name);
            let value = tensors::value(tensor, &self.limits).map_err(|why| why.at(place.clone()))?;
            let id = self
                .constant(value, Loc::Unknown)
                .map_err(|why| Diagnostic::new(Code::ShapeMismatch, why).at(place))?;
            self.values.insert(&tensor.name, id);
        }
        for input in &proto.input {
            if !self.values.contains_key(input.name.as_str()) {
                self.input(input)?;
            }
        }
        let order = self.order(proto)?;
        let mut unsupported = Vec::new();
        for index in order {
            let node = &proto.node[index];
            let missing = node.input.iter().find(|name| !name.is_empty() && !self.values.contains_key(name.as_str()));
            if let Some(missing) = missing {
                // Only reachable behind an unsupported node, or order() would have failed.
                let known = unsupported.is_empty();
                if known {
                    return Err(undefined(missing, &loc(index, node)));
                }
                continue;
            }
            match self.node(index, node) {
                Ok(()) => {}
                Err(Fail::Unsupported(why)) => unsupported.push(format!("{}: {why}", loc(index, node))),
                Err(Fail::Error(why)) => return Err(why.at(loc(index, node).to_string())),
            }
        }
        if !unsupported.is_empty() {
            let message =
                format!("{} unsupported node{}", unsupported.len(), if unsupported.len() == 1 { "" } else { "s" });
            let mut report = Diagnostic::new(Code::OpUnsupported, message)
                .help("export a part of the model without these nodes, or replace them as noted");
            report.notes = unsupported;
            return Err(report);
        }
        for output in &proto.output {
            let id = self.values.get(output.name.as_str());
            let id = id.ok_or_else(|| undefined(&output.name, &Loc::Unknown))?;
            self.graph.output(output.name.clone(), *id);
        }
        self.graph.rewrite(|new, _, node, operands, loc| {
            new.push(node.op.clone(), operands, Some(node.ty.clone()), loc.clone()).map_err(Diagnostic::internal)
        })
    }

    /// Node positions in an order that defines values before their uses, as near as can be to the file's.
    fn order(&self, proto: &GraphProto) -> Result<Vec<usize>> {
        let mut producer: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, node) in proto.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                if producer.insert(output, index).is_some() || self.values.contains_key(output.as_str()) {
                    let message = format!("the value `{output}` is defined twice");
                    return Err(Diagnostic::new(Code::GraphCyclic, message).at(loc(index, node).to_string()));
                }
            }
        }
        let mut graph = petgraph_lite(proto.node.len());
        for (index, node) in proto.node.iter().enumerate() {
            for input in node.input.iter().filter(|name| !name.is_empty()) {
                match producer.get(input.as_str()) {
                    Some(&from) => {
                        graph.0[from].push(index);
                        graph.1[index] += 1;
                    }
                    None if self.values.contains_key(input.as_str()) => {}
                    None => return Err(undefined(input, &loc(index, node))),
                }
            }
        }
        let (users, mut pending) = graph;
        let mut ready: std::collections::BTreeSet<usize> = (0..pending.len()).filter(|&i| pending[i] == 0).collect();
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
        match (0..pending.len()).find(|&index| pending[index] > 0) {
            None => Ok(order),
            Some(index) => Err(Diagnostic::new(Code::GraphCyclic, "the graph has a cycle")
                .at(loc(index, &proto.node[index]).to_string())
                .help("export the model again; a valid ONNX graph has no cycles")),
        }
    }

    fn input(&mut self, input: &'a ValueInfoProto) -> Result<()> {
        let place = format!("input \"{}\"", input.name);
        let wrong = |why: &str| Diagnostic::new(Code::VariantUnsupported, why.to_owned()).at(place.clone());
        let ty = input.type_.as_ref().ok_or_else(|| wrong("the input has no type"))?;
        let tensor =
            if ty.has_tensor_type() { ty.tensor_type() } else { return Err(wrong("the input is not a tensor")) };
        let element = tensors::element(tensor.elem_type).ok_or_else(|| wrong("the element type is not supported"))?;
        let shape = tensor.shape.as_ref().map(|shape| shape.dim.as_slice());
        let shape =
            shape.ok_or_else(|| wrong("the input has no shape; export the model with its number of columns"))?;
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, dim) in shape.iter().enumerate() {
            let size = if dim.has_dim_value() { dim.dim_value() } else { 0 };
            dims.push(match usize::try_from(size) {
                Ok(0) if axis == 0 => Dim::Batch,
                Ok(0) => return Err(wrong(&format!("dimension {axis} has no fixed size; only the first may vary"))),
                // A first dimension of 1 is a batch that the exporter fixed by its example row.
                Ok(1) if axis == 0 => Dim::Batch,
                Ok(size) if size <= self.limits.max_elements => Dim::Fixed(size),
                _ => return Err(Diagnostic::new(Code::ModelTooLarge, format!("dimension {axis} is {size}")).at(place)),
            });
        }
        let op = TensorOp::Input { name: input.name.clone() };
        let id = self.graph.push(op, Vec::new(), Some(TensorType { element, shape: dims }), Loc::Unknown);
        self.values.insert(&input.name, id.map_err(Diagnostic::internal)?);
        Ok(())
    }

    fn node(&mut self, index: usize, node: &'a NodeProto) -> std::result::Result<(), Fail> {
        let mut cx = NodeCx { importer: self, proto: node, loc: loc(index, node), outputs: Vec::new() };
        match (node.domain.as_str(), node.op_type.as_str()) {
            ("ai.onnx.ml", op) => match op {
                "TreeEnsembleClassifier" => trees::classifier(&mut cx),
                "TreeEnsembleRegressor" => trees::regressor(&mut cx),
                "TreeEnsemble" => trees::ensemble(&mut cx),
                "LinearClassifier" => linear::classifier(&mut cx),
                "LinearRegressor" => linear::regressor(&mut cx),
                "SVMRegressor" => svm::regressor(&mut cx),
                "SVMClassifier" => svm::classifier(&mut cx),
                _ => preprocess::convert(&mut cx, op),
            },
            ("" | "ai.onnx", op) => generic::convert(&mut cx, op),
            (domain, op) => Err(Fail::unsupported(format!("`{op}` of the custom domain `{domain}`"))),
        }?;
        let outputs = std::mem::take(&mut cx.outputs);
        for (name, id) in node.output.iter().zip(outputs) {
            if let (false, Some(id)) = (name.is_empty(), id) {
                self.values.insert(name, id);
            }
        }
        Ok(())
    }

    pub(crate) fn constant(&mut self, value: TensorValue, loc: Loc) -> std::result::Result<ValueId, String> {
        let id = self.graph.push(tensors::constant_op(&value), Vec::new(), None, loc)?;
        self.constants.insert(id, value);
        Ok(id)
    }

    /// Adds an operation; one whose operands are all constants becomes a constant.
    pub(crate) fn push(
        &mut self,
        op: TensorOp,
        operands: Vec<ValueId>,
        loc: &Loc,
    ) -> std::result::Result<ValueId, Diagnostic> {
        let folds = !operands.is_empty() && operands.iter().all(|id| self.constants.contains_key(id));
        if folds {
            let mut small = Graph::<Tensor>::new("fold");
            let mut ids = Vec::new();
            for operand in &operands {
                let op = tensors::constant_op(&self.constants[operand]);
                ids.push(small.push(op, Vec::new(), None, Loc::Unknown).map_err(Diagnostic::internal)?);
            }
            let id = small.push(op, ids, None, loc.clone()).map_err(|why| Diagnostic::new(Code::ShapeMismatch, why))?;
            small.output("folded", id);
            let folded = tacit_ir::interp::tensor::evaluate(&small, &BTreeMap::new())?;
            let value = folded.into_values().next().ok_or_else(|| Diagnostic::internal("nothing folded"))?;
            return self.constant(value, loc.clone()).map_err(Diagnostic::internal);
        }
        self.graph.push(op, operands, None, loc.clone()).map_err(|why| Diagnostic::new(Code::ShapeMismatch, why))
    }

    pub(crate) fn ty(&self, id: ValueId) -> &TensorType {
        &self.graph.node(id).ty
    }
}

/// Users of each node and the number of operands each waits for.
fn petgraph_lite(nodes: usize) -> (Vec<Vec<usize>>, Vec<usize>) {
    (vec![Vec::new(); nodes], vec![0; nodes])
}

fn loc(index: usize, node: &NodeProto) -> Loc {
    Loc::Onnx { index, name: node.name.clone(), op: node.op_type.clone() }
}

fn undefined(name: &str, loc: &Loc) -> Diagnostic {
    let message = format!("the value `{name}` is neither an input, an initializer nor the output of a node");
    let report =
        Diagnostic::new(Code::ValueUndefined, message).help("the file may have lost its initializers; export it again");
    if *loc == Loc::Unknown { report } else { report.at(loc.to_string()) }
}
