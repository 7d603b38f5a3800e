//! ONNX to the float stage: messages by `onnx-protobuf`, conversion by us.
//!
//! Every ONNX node becomes one or several operations in normal form. What cannot be converted is collected, and all of it
//! is reported at once.

mod activations;
mod along;
mod attrs;
mod compose;
mod distances;
mod elementwise;
mod external;
mod labels;
mod linear;
mod matrix;
mod node;
mod normalization;
mod order;
mod preprocess;
mod prescan;
mod quantized;
mod rearrange;
mod shape;
mod svm;
mod tensors;
mod tree_scores;
mod trees;
mod window;

pub use external::External;

use node::{Fail, NodeCx};
use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto, ValueInfoProto};
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{Dim, Element, Tensor, TensorOp, TensorType};

/// Limits of the importer, against hostile files. The defaults are far above any model that can run encrypted: 500 trees
/// of depth 8 for each of 10 classes are 2.6 million tree nodes.
#[derive(Clone, Copy, Debug)]
pub struct ImportLimits {
    /// Bytes of the file; protobuf itself ends at 2 GiB.
    pub max_bytes: usize,
    /// Nodes of the graph: 100,000.
    pub max_nodes: usize,
    /// Nodes of all trees together: 20 million.
    pub max_tree_nodes: usize,
    /// Levels of one tree: 1,000, onnxruntime's own limit.
    pub max_tree_depth: usize,
    /// Targets or classes of one ensemble: 100,000.
    pub max_targets: usize,
    /// Elements of all constants together, folded ones included: 2^28.
    pub max_elements: usize,
}

impl Default for ImportLimits {
    fn default() -> Self {
        ImportLimits {
            max_bytes: 2 << 30,
            max_nodes: 100_000,
            max_tree_nodes: 20_000_000,
            max_tree_depth: 1_000,
            max_targets: 100_000,
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
    import_with(bytes, limits, &|location, _| {
        Err(Diagnostic::new(Code::FileUnreadable, format!("the weights are in another file, `{location}`"))
            .help("keep that file beside the model, or save the model with its weights inside"))
    })
}

/// Reads an ONNX model whose tensors may be in files beside it: `external` gives the bytes of one, `(offset, length)` of a file
/// that the model names, the length perhaps left open.
///
/// # Errors
/// As [`import`], and those of `external`.
pub fn import_with(bytes: &[u8], limits: &ImportLimits, external: &External<'_>) -> Result<Graph<Tensor>> {
    if bytes.len() > limits.max_bytes {
        let message = format!("the file has {} bytes, the limit is {}", bytes.len(), limits.max_bytes);
        return Err(Diagnostic::new(Code::ModelTooLarge, message));
    }
    prescan::check(bytes, limits).map_err(advised)?;
    let mut model = ModelProto::parse_from_bytes(bytes).map_err(|why| {
        Diagnostic::new(Code::OnnxTruncated, format!("the protobuf does not parse: {why}"))
            .help("copy or export the file again; its size should be that of the original")
    })?;
    for tensor in model.graph.as_mut().into_iter().flat_map(|graph| &mut graph.initializer) {
        external::load(tensor, limits, external)
            .map_err(|why| advised(why).at(format!("initializer \"{}\"", tensor.name)))?;
    }
    let graph = model.graph.as_ref().filter(|graph| !graph.output.is_empty() || !graph.node.is_empty());
    let graph = graph.ok_or_else(|| {
        Diagnostic::new(Code::NotOnnx, "the file holds no ONNX graph")
            .help("export the model with skl2onnx, onnxmltools or torch.onnx")
    })?;
    let opsets = opsets(&model, graph)?;
    let mut importer = Importer::new(graph, opsets, *limits);
    importer.functions = model.functions.iter().map(|own| (own.domain.as_str(), own.name.as_str())).collect();
    importer.run(graph)
}

/// Oldest and newest operator sets of the standard domain, and of ai.onnx.ml.
pub const OPSETS: [std::ops::RangeInclusive<i64>; 2] = [7..=28, 1..=5];

/// Stands in constant shapes for the number of rows, which is only known when the model runs. Any operation that would
/// compute with it is refused.
pub(crate) const BATCH_SIZE: i64 = i64::MIN + 0x7ac17;

/// Operator set versions by domain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opsets {
    pub(crate) standard: i64,
    pub(crate) ml: i64,
}

fn opsets(model: &ModelProto, graph: &GraphProto) -> Result<Opsets> {
    // Without an import the standard set is the oldest; exporters of pure ai.onnx.ml graphs leave it out.
    let mut opsets = Opsets { standard: *OPSETS[0].start(), ml: *OPSETS[1].start() };
    for import in &model.opset_import {
        match import.domain.as_str() {
            "" | "ai.onnx" => opsets.standard = import.version,
            "ai.onnx.ml" => opsets.ml = import.version,
            _ => {} // Reported with the nodes that use it.
        }
    }
    // Versions matter only where nodes of the domain are.
    let used = |ml: bool| graph.node.iter().any(|node| (node.domain == "ai.onnx.ml") == ml);
    for (version, known, name, ml) in
        [(opsets.standard, &OPSETS[0], "ai.onnx", false), (opsets.ml, &OPSETS[1], "ai.onnx.ml", true)]
    {
        if used(ml) && !known.contains(&version) {
            let message = format!("{name} {version}; versions {} to {} are known", known.start(), known.end());
            return Err(Diagnostic::new(Code::OpsetUnsupported, message)
                .help("export again with target_opset={'': 17, 'ai.onnx.ml': 3}"));
        }
    }
    Ok(opsets)
}

/// The inputs of an imported model, by name.
pub fn inputs(model: &Graph<Tensor>) -> Vec<(String, TensorType)> {
    let input = |id| match &model.node(id).op {
        TensorOp::Input { name } => Some((name.clone(), model.node(id).ty.clone())),
        _ => None,
    };
    model.values().filter_map(input).collect()
}

pub(crate) struct Importer<'a> {
    proto: &'a GraphProto,
    graph: Graph<Tensor>,
    /// Values by ONNX name.
    values: BTreeMap<&'a str, ValueId>,
    /// ONNX's element types of initializers, inputs and constants; here all integers are one type.
    codes: BTreeMap<&'a str, i32>,
    /// Constants of the new graph, for operations that need theirs known.
    constants: BTreeMap<ValueId, TensorValue>,
    /// Elements of the constants so far.
    constant_elements: usize,
    /// A value whose first dimension is the batch and whose shape the model asked for.
    batch_source: Option<ValueId>,
    opsets: Opsets,
    /// Domains and names of the functions that the model defines.
    functions: BTreeSet<(&'a str, &'a str)>,
    limits: ImportLimits,
    tree_nodes: usize,
}

impl<'a> Importer<'a> {
    fn new(graph: &'a GraphProto, opsets: Opsets, limits: ImportLimits) -> Self {
        let name: String = graph.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let name = if name.is_empty() { "model".to_owned() } else { name };
        Importer {
            proto: graph,
            graph: Graph::new(name),
            values: BTreeMap::new(),
            codes: BTreeMap::new(),
            constants: BTreeMap::new(),
            constant_elements: 0,
            batch_source: None,
            opsets,
            functions: BTreeSet::new(),
            limits,
            tree_nodes: 0,
        }
    }

    fn run(mut self, proto: &'a GraphProto) -> Result<Graph<Tensor>> {
        if proto.node.len() > self.limits.max_nodes {
            let message = format!("{} nodes, the limit is {}", proto.node.len(), self.limits.max_nodes);
            return Err(advised(Diagnostic::new(Code::ModelTooLarge, message)));
        }
        if !proto.sparse_initializer.is_empty() {
            return Err(Diagnostic::new(Code::VariantUnsupported, "the model has sparse initializers")
                .help("convert them to dense initializers"));
        }
        for tensor in &proto.initializer {
            let place = format!("initializer \"{}\"", tensor.name);
            let value = tensors::value(tensor, &self.limits).map_err(|why| advised(why).at(place.clone()))?;
            let id = self.constant(value, &Loc::Unknown).map_err(|why| advised(why).at(place.clone()))?;
            self.codes.insert(&tensor.name, tensor.data_type);
            if self.values.insert(&tensor.name, id).is_some() {
                return Err(twice("the name is defined twice").at(place));
            }
        }
        let mut inputs = BTreeSet::new();
        for input in &proto.input {
            if !inputs.insert(input.name.as_str()) {
                let place = format!("input \"{}\"", input.name);
                return Err(twice("the name is defined twice").at(place));
            }
            // Older files list their initializers among the inputs, as defaults that a caller may override.
            if !self.values.contains_key(input.name.as_str()) {
                self.input(input)?;
            }
        }
        let order = order::order(proto, |name| self.values.contains_key(name))?;
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
                Err(Fail::Error(why)) => return Err(advised(why).at(loc(index, node).to_string())),
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
        let mut names = BTreeSet::new();
        for output in &proto.output {
            let id = *self.values.get(output.name.as_str()).ok_or_else(|| undefined(&output.name, &Loc::Unknown))?;
            let place = format!("output \"{}\"", output.name);
            if !names.insert(output.name.as_str()) {
                return Err(twice("the output is listed twice").at(place));
            }
            if self.holds_batch_size(id) {
                return Err(Diagnostic::new(Code::VariantUnsupported, "the output is a shape, not computed values")
                    .at(place)
                    .help("remove this output from the model"));
            }
            self.graph.output(output.name.clone(), id);
        }
        self.finish()
    }

    /// The graph without dead nodes; inputs stay, since a caller gives them all.
    fn finish(self) -> Result<Graph<Tensor>> {
        let live = self.graph.live();
        let mut new = Graph::new(self.graph.name());
        let mut map = BTreeMap::new();
        // Inputs first, as every front end has them: the circuit's bytes depend on the order.
        let is_input = |id: &ValueId| matches!(self.graph.node(*id).op, TensorOp::Input { .. });
        let others = self.graph.values().filter(|id| !is_input(id));
        for id in self.graph.values().filter(is_input).chain(others) {
            let node = self.graph.node(id);
            if live[id.index()] || is_input(&id) {
                let operands = node.operands.iter().filter_map(|operand| map.get(operand).copied()).collect();
                let copied = new.push(node.op.clone(), operands, Some(node.ty.clone()), self.graph.loc(id).clone());
                map.insert(id, copied.map_err(Diagnostic::internal)?);
            }
        }
        for (name, id) in self.graph.outputs() {
            if let Some(id) = map.get(id) {
                new.output(name.clone(), *id);
            }
        }
        Ok(new)
    }

    fn input(&mut self, input: &'a ValueInfoProto) -> Result<()> {
        let place = format!("input \"{}\"", input.name);
        let wrong = |why: &str, help: &str| {
            Diagnostic::new(Code::VariantUnsupported, why.to_owned()).at(place.clone()).help(help)
        };
        let declare = "export the model with the type and shape of its input";
        let ty = input.type_.as_ref().ok_or_else(|| wrong("the input has no type", declare))?;
        if !ty.has_tensor_type() {
            return Err(wrong(
                "the input is not a tensor",
                "take sequences and maps apart before the model: inputs are tensors",
            ));
        }
        let tensor = ty.tensor_type();
        self.codes.insert(&input.name, tensor.elem_type);
        let element = tensors::element(tensor.elem_type).ok_or_else(|| {
            let name = tensors::element_name(tensor.elem_type);
            wrong(&format!("the element type {name} is not supported"), "export the model with 32-bit or 64-bit floats")
        })?;
        let shape = tensor.shape.as_ref().map(|shape| shape.dim.as_slice());
        let shape = shape.ok_or_else(|| wrong("the input has no shape", declare))?;
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, dim) in shape.iter().enumerate() {
            let size = if dim.has_dim_value() { dim.dim_value() } else { 0 };
            dims.push(match usize::try_from(size) {
                Ok(0) if axis == 0 => Dim::Batch,
                Ok(0) => {
                    let name = if dim.has_dim_param() { format!(" (`{}`)", dim.dim_param()) } else { String::new() };
                    return Err(wrong(
                        &format!("dimension {axis}{name} has no fixed size; only the first, the batch, may vary"),
                        "export with a fixed size, or fix it: python -m onnxruntime.tools.make_dynamic_shape_fixed",
                    ));
                }
                // A first dimension of 1 is a batch that the exporter fixed by its example row.
                Ok(1) if axis == 0 => Dim::Batch,
                Ok(size) if size <= self.limits.max_elements => Dim::Fixed(size),
                _ => {
                    let why = Diagnostic::new(Code::ModelTooLarge, format!("dimension {axis} is {size}"));
                    return Err(advised(why).at(place));
                }
            });
        }
        let op = TensorOp::Input { name: input.name.clone() };
        let id = self.graph.push(op, Vec::new(), Some(TensorType { element, shape: dims }), Loc::Unknown);
        self.values.insert(&input.name, id.map_err(Diagnostic::internal)?);
        Ok(())
    }

    fn node(&mut self, index: usize, node: &'a NodeProto) -> std::result::Result<(), Fail> {
        let constant = node.attribute.iter().find(|attribute| node.op_type == "Constant" && attribute.name == "value");
        if let (Some(name), Some(value)) = (node.output.first(), constant.and_then(|constant| constant.t.as_ref())) {
            self.codes.insert(name, value.data_type);
        }
        let mut cx = NodeCx { importer: self, proto: node, loc: loc(index, node), outputs: Vec::new() };
        match (node.domain.as_str(), node.op_type.as_str()) {
            ("ai.onnx.ml", op) => match op {
                "TreeEnsembleClassifier" => tree_scores::classifier(&mut cx),
                "TreeEnsembleRegressor" => tree_scores::regressor(&mut cx),
                "TreeEnsemble" => tree_scores::ensemble(&mut cx),
                "LinearClassifier" => linear::classifier(&mut cx),
                "LinearRegressor" => linear::regressor(&mut cx),
                "SVMRegressor" => svm::regressor(&mut cx),
                "SVMClassifier" => svm::classifier(&mut cx),
                _ => preprocess::convert(&mut cx, op),
            },
            ("" | "ai.onnx", op) => standard(&mut cx, op),
            ("onnx.brevitas" | "qonnx.custom_op.general" | "finn.custom_op.general", op) => {
                quantized::qonnx(&mut cx, op)
            }
            ("com.microsoft", op) if quantized::is_onnxruntimes(op) => quantized::onnxruntimes(&mut cx, op),
            (domain, op) if cx.importer.functions.contains(&(domain, op)) => Err(Fail::unsupported(format!(
                "`{op}` is a function of the model; put its nodes in its place: onnx.inliner.inline_local_functions(model)"
            ))),
            (domain, op) => Err(Fail::unsupported(format!(
                "`{op}` of the custom domain `{domain}`; export the model with standard operations"
            ))),
        }?;
        let outputs = std::mem::take(&mut cx.outputs);
        for (name, id) in node.output.iter().zip(outputs) {
            if !name.is_empty() {
                self.values.insert(name, id);
            }
        }
        Ok(())
    }

    /// A constant; booleans, which constants do not have, are cast from integers.
    pub(crate) fn constant(&mut self, value: TensorValue, loc: &Loc) -> Result<ValueId> {
        self.constant_elements = self.constant_elements.saturating_add(value.data.len());
        if self.constant_elements > self.limits.max_elements {
            let message = format!("the constants have over {} elements together", self.limits.max_elements);
            return Err(Diagnostic::new(Code::ModelTooLarge, message));
        }
        let id = push_constant(&mut self.graph, &value, loc)?;
        self.constants.insert(id, value);
        Ok(id)
    }

    /// Whether a constant holds the number of rows.
    pub(crate) fn holds_batch_size(&self, id: ValueId) -> bool {
        matches!(self.constants.get(&id).map(|value| &value.data), Some(Data::I64(data)) if data.contains(&BATCH_SIZE))
    }

    /// Adds an operation; one whose operands are all constants becomes a constant.
    fn push(&mut self, op: TensorOp, operands: Vec<ValueId>, loc: &Loc) -> std::result::Result<ValueId, Fail> {
        let moves = matches!(
            op,
            TensorOp::Take { .. }
                | TensorOp::Concat { .. }
                | TensorOp::Reshape { .. }
                | TensorOp::Cast { to: Element::I64 }
        );
        if !moves && operands.iter().any(|id| self.holds_batch_size(*id)) {
            return Err(Fail::unsupported(
                "a computation with the number of rows; use -1 or 0 for the rows, and constants for the rest",
            ));
        }
        let wrong = |why| Diagnostic::new(Code::ShapeMismatch, why);
        if operands.is_empty() || !operands.iter().all(|id| self.constants.contains_key(id)) {
            let (along_rows, mixed) = (self.is_along_rows(&op, &operands), self.is_mixed(&op, &operands));
            return self.graph.push(op, operands, None, loc.clone()).map_err(|why| match along_rows {
                true => Fail::unsupported(format!("{why}; a model must treat every row alike: use another axis")),
                false if mixed => Fail::type_mismatch(why),
                false => wrong(why).into(),
            });
        }
        let mut small = Graph::<Tensor>::new("fold");
        let mut ids = Vec::new();
        for operand in &operands {
            ids.push(push_constant(&mut small, &self.constants[operand], loc)?);
        }
        let id = small.push(op, ids, None, loc.clone()).map_err(wrong)?;
        let size = small.node(id).ty.shape.iter().try_fold(1usize, |size, dim| match dim {
            Dim::Fixed(dim) => size.checked_mul(*dim),
            Dim::Batch => None,
        });
        if size.is_none_or(|size| size > self.limits.max_elements) {
            let message =
                format!("a constant of type {} is over {} elements", small.node(id).ty, self.limits.max_elements);
            return Err(Diagnostic::new(Code::ModelTooLarge, message).into());
        }
        small.output("folded", id);
        let folded = tacit_ir::interp::tensor::evaluate(&small, &BTreeMap::new())?;
        let value = folded.into_values().next().ok_or_else(|| Diagnostic::internal("nothing folded"))?;
        Ok(self.constant(value, loc)?)
    }

    /// Whether an operation works along the axis of the rows.
    fn is_along_rows(&self, op: &TensorOp, operands: &[ValueId]) -> bool {
        let axes: &[usize] = match op {
            TensorOp::ArgMax { axis, .. }
            | TensorOp::TopK { axis, .. }
            | TensorOp::Softmax { axis, .. }
            | TensorOp::Take { axis, .. }
            | TensorOp::Concat { axis } => std::slice::from_ref(axis),
            TensorOp::Reduce { axes, .. } => axes,
            _ => return false,
        };
        let batch = |id: &ValueId| axes.iter().any(|axis| self.ty(*id).shape.get(*axis) == Some(&Dim::Batch));
        operands.iter().any(batch)
    }

    /// Whether operands have types that do not go together.
    fn is_mixed(&self, op: &TensorOp, operands: &[ValueId]) -> bool {
        let element = |id: &ValueId| self.ty(*id).element;
        let alike = matches!(op, TensorOp::Binary { .. } | TensorOp::Concat { .. });
        let differ = operands.windows(2).any(|pair| element(&pair[0]) != element(&pair[1]));
        alike && differ || operands.iter().any(|id| element(id) == Element::Str)
    }

    pub(crate) fn ty(&self, id: ValueId) -> &TensorType {
        &self.graph.node(id).ty
    }
}

/// Operations of the standard domain, by group.
fn standard(cx: &mut NodeCx<'_, '_>, op: &str) -> node::Converted<()> {
    for group in [
        elementwise::convert,
        activations::convert,
        shape::convert,
        rearrange::convert,
        along::convert,
        matrix::convert,
        window::convert,
        normalization::convert,
        quantized::convert,
        distances::convert,
    ] {
        if group(cx, op)? {
            return Ok(());
        }
    }
    let advice = match op {
        "If" | "Loop" | "Scan" => "control flow; unroll it, or export the branch that is used",
        "LSTM" | "GRU" | "RNN" | "Attention" => {
            "a layer of a sequence network, which are not supported; over a window of fixed length use Conv or Gemm layers"
        }
        "StringNormalizer" | "TfIdfVectorizer" | "RegexFullMatch" | "StringSplit" | "StringConcat" => {
            "text processing; do it before the model and give its output as input"
        }
        "NonZero" | "Unique" | "Compress" | "NonMaxSuppression" => {
            "a result whose size depends on the data; compute it outside the model"
        }
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "Multinomial" | "Bernoulli" => {
            "random numbers; a model must be deterministic: export it for inference"
        }
        _ => "not known to Tacit; remove it or compute it outside the model",
    };
    Err(Fail::unsupported(format!("`{op}` (opset {}): {advice}", cx.importer.opsets.standard)))
}

fn push_constant(graph: &mut Graph<Tensor>, value: &TensorValue, loc: &Loc) -> Result<ValueId> {
    let wrong = |why| Diagnostic::new(Code::ShapeMismatch, why);
    let id = graph.push(value.constant_op(), Vec::new(), None, loc.clone()).map_err(wrong)?;
    match value.data {
        Data::Bool(_) => graph.push(TensorOp::Cast { to: Element::Bool }, vec![id], None, loc.clone()).map_err(wrong),
        _ => Ok(id),
    }
}

fn loc(index: usize, node: &NodeProto) -> Loc {
    Loc::Onnx { index, name: node.name.clone(), op: node.op_type.clone() }
}

/// What to do about an error that does not say it, by its code.
fn advised(mut why: Diagnostic) -> Diagnostic {
    let help = match why.code {
        Code::AttributeInvalid => {
            "the node contradicts the ONNX standard; export the model again with a current exporter"
        }
        Code::ShapeMismatch => {
            "the file contradicts itself; onnx.shape_inference.infer_shapes(model, strict_mode=True) says where it begins"
        }
        Code::ElementTypeMismatch => "put a Cast before the node, to the type of its other operands",
        Code::ModelTooLarge => "export a smaller model, or the part that is used",
        Code::WeightNotFinite => "a trained model has finite weights; train or export it again",
        _ => return why,
    };
    why.help.get_or_insert_with(|| help.to_owned());
    why
}

/// Of names.
fn twice(why: &str) -> Diagnostic {
    Diagnostic::new(Code::GraphCyclic, why).help("every value has a name of its own: rename one of them and its uses")
}

fn undefined(name: &str, loc: &Loc) -> Diagnostic {
    let message = format!("the value `{name}` is neither an input, an initializer nor the output of a node");
    let report =
        Diagnostic::new(Code::ValueUndefined, message).help("the file may have lost its initializers; export it again");
    if *loc == Loc::Unknown { report } else { report.at(loc.to_string()) }
}
