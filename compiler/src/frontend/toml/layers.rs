//! Layers: operations of the float stage by their names, and shorthands for the usual ones.

use super::{Keys, Reader, span_of, values, wrong};
use tacit_ir::attr::{Attr, AttrMap, Many, OpSet};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{Aggregate, BinaryKind, Dim, Element, Mode, PoolKind, PoolWindow, TensorOp, UnaryKind};
use toml_edit::{Item, TableLike};

/// Shorthands, with what they stand for.
pub(super) const SHORTHANDS: &[(&str, &str)] = &[
    ("linear", "weights (outputs x columns, nested lists or a file), bias"),
    ("conv", "weights (outputs x channels x ..), bias, strides, dilations, pads, group"),
    ("activation", "kind: relu, sigmoid, tanh, softmax, .."),
    ("max_pool", "kernel, strides, pads"),
    ("average_pool", "kernel, strides, pads"),
    ("flatten", ""),
    ("lookup", "keys, values, default"),
    ("tree_ensemble", "targets, base, trees: lists of { feature, threshold, yes, no } and { leaf }"),
    ("add, sub, mul, div, max, min, pow, less, greater, ..", "two inputs, or one and value"),
];

impl Reader<'_> {
    pub(super) fn layer(&mut self, number: usize, item: &Item, table: &dyn TableLike) -> Result<()> {
        let mut keys = Keys::new(table, format!("layer {}", number + 1), span_of(table).or_else(|| item.span()));
        let name = keys.text(self, "name")?.map_or_else(|| format!("layer{}", number + 1), str::to_owned);
        keys.what = format!("layer `{name}`");
        let of_op = keys.need(self, "op")?;
        let op = of_op.as_str().ok_or_else(|| self.at(of_op, "`op` is a text"))?;
        let operands = self.operands(&mut keys, of_op)?;
        let span = keys.span.clone();
        let id = match self.shorthand(op, &name, &mut keys, &operands) {
            Ok(Some(id)) => {
                keys.finish(self)?;
                Ok(id)
            }
            Ok(None) => self.plain(op, of_op, &name, &keys, operands),
            Err(why) => Err(why),
        };
        let id = id.map_err(|why| if why.excerpt.is_none() { why.within(self.text, span) } else { why })?;
        self.define(&name, id, of_op)
    }

    /// The named inputs; the value before where there are none, or all inputs of the model side by side at the first layer.
    fn operands(&mut self, keys: &mut Keys<'_>, of_op: &Item) -> Result<Vec<ValueId>> {
        let Some(item) = keys.get("inputs") else {
            let only_inputs = self.last == self.inputs.last().copied() && self.inputs.len() > 1;
            if !only_inputs {
                return Ok(self.last.into_iter().collect());
            }
            let inputs = self.inputs.clone();
            return Ok(vec![self.side_by_side(&inputs).map_err(|why| self.at(of_op, why.message))?]);
        };
        if let Some(name) = item.as_str() {
            return Ok(vec![self.named(item, name)?]);
        }
        let array = item.as_array().ok_or_else(|| self.at(item, "`inputs` is a name or a list of names"))?;
        let name = |value: &toml_edit::Value| {
            let name = value.as_str().ok_or_else(|| self.at(item, "`inputs` holds names"))?;
            self.named(item, name)
        };
        array.iter().map(name).collect()
    }

    /// Columns of several inputs as one matrix of floats.
    fn side_by_side(&mut self, inputs: &[ValueId]) -> Result<ValueId> {
        let mut floats = Vec::new();
        for id in inputs {
            let cast = self.graph.node(*id).ty.element != Element::F32;
            let as_float = TensorOp::Cast { to: Element::F32 };
            floats.push(if cast { self.push(as_float, vec![*id], "inputs")? } else { *id });
        }
        self.push(TensorOp::Concat { axis: 1 }, floats, "inputs")
    }

    /// An operation of the float stage with its attributes.
    fn plain(
        &mut self,
        op: &str,
        of_op: &Item,
        name: &str,
        keys: &Keys<'_>,
        mut operands: Vec<ValueId>,
    ) -> Result<ValueId> {
        let Some((_, fields)) = TensorOp::FIELDS.iter().find(|(own, _)| *own == op && !["input"].contains(own)) else {
            let known: Vec<&str> = SHORTHANDS
                .iter()
                .map(|s| s.0)
                .chain(TensorOp::NAMES.iter().copied().filter(|own| *own != "input"))
                .collect();
            return Err(self
                .at(of_op, format!("`{op}` is no operation"))
                .help(format!("known are {}", known.join(", "))));
        };
        let mut attrs = Vec::new();
        for (key, item) in keys.rest() {
            let Some((_, ty)) = fields.iter().find(|(own, _)| *own == key) else {
                let names: Vec<&str> = fields.iter().map(|(own, _)| *own).collect();
                return Err(self
                    .at_key(keys.table, key, item, format!("`{op}` has no attribute `{key}`"))
                    .help(format!("its attributes are {}", names.join(", "))));
            };
            let attr = values::attribute(self, item, ty)?;
            match &attr {
                Attr::F64s(own) if ["weights", "bias", "leaf_weight", "base"].contains(&key) => {
                    values::finite(self, item, own)?;
                }
                Attr::F64s(own) if key == "threshold" && own.iter().any(|x| x.is_nan()) => {
                    return Err(self.nan_threshold(item));
                }
                _ => {}
            }
            attrs.push((key.to_owned(), attr));
        }
        let found = TensorOp::from_parts(op, AttrMap(attrs)).map_err(|why| wrong(format!("layer `{name}`: {why}")))?;
        if matches!(found, TensorOp::Constant { .. }) {
            operands.clear();
        }
        self.push(found, operands, name)
    }

    fn shorthand(
        &mut self,
        op: &str,
        name: &str,
        keys: &mut Keys<'_>,
        operands: &[ValueId],
    ) -> Result<Option<ValueId>> {
        let first = operands.first().copied().ok_or_else(|| wrong(format!("layer `{name}` reads nothing")));
        Ok(Some(match op {
            "linear" if keys.table.get("outputs").is_none() => self.linear(name, keys, first?)?,
            "conv" if operands.len() == 1 => self.conv(name, keys, first?)?,
            "activation" => self.activation(name, keys, first?)?,
            "max_pool" => self.pool(name, keys, first?, PoolKind::Max)?,
            "average_pool" => self.pool(name, keys, first?, PoolKind::Average)?,
            "flatten" => {
                let first = first?;
                let sizes = self.graph.node(first).ty.shape.iter().skip(1).map(|dim| match dim {
                    Dim::Fixed(size) => *size as i64,
                    Dim::Batch => 1,
                });
                let columns = sizes.product();
                self.push(TensorOp::Reshape { shape: vec![-1, columns] }, vec![first], name)?
            }
            "lookup" => self.lookup(name, keys, first?)?,
            "tree_ensemble" if keys.table.get("trees").is_some() => self.trees(name, keys, first?)?,
            op => {
                let Some(kind) = BinaryKind::from_name(op) else { return Ok(None) };
                self.arithmetic(name, keys, operands, kind)?
            }
        }))
    }

    fn columns(&self, id: ValueId, name: &str) -> Result<usize> {
        let ty = &self.graph.node(id).ty;
        ty.columns().ok_or_else(|| {
            wrong(format!("layer `{name}` reads {ty}; expected [rows, columns]"))
                .help("put a layer with op = \"flatten\" before it")
        })
    }

    fn linear(&mut self, name: &str, keys: &mut Keys<'_>, x: ValueId) -> Result<ValueId> {
        let item = keys.need(self, "weights")?;
        let weights = values::tensor(self, item)?;
        let columns = self.columns(x, name)?;
        let outputs = match weights.shape.as_slice() {
            [outputs, own] if *own == columns => *outputs,
            [own] if *own == columns => 1,
            shape => {
                return Err(self
                    .at(item, format!("weights of shape {shape:?} for {columns} columns"))
                    .help(format!("weights are [outputs, {columns}] here: one row for each output")));
            }
        };
        let bias = match keys.get("bias") {
            None => vec![0.0; outputs],
            Some(item) => {
                let bias = values::floats(self, item)?;
                if bias.len() != outputs {
                    return Err(self
                        .at(item, format!("{} biases for {outputs} outputs", bias.len()))
                        .help("a bias for each output, which is a row of the weights"));
                }
                bias
            }
        };
        let weights = weights.to_f64().ok_or_else(|| self.at(item, "weights are numbers"))?;
        if outputs == 0 || columns == 0 {
            return Err(self.at(item, "a layer without weights").help("leave the layer out"));
        }
        values::finite(self, item, &weights)?;
        values::finite(self, keys.table.get("bias").unwrap_or(item), &bias)?;
        self.push(TensorOp::Linear { outputs, weights, bias }, vec![x], name)
    }

    /// Sizes for each axis: one number for all, or a list.
    fn per_axis(&self, keys: &mut Keys<'_>, key: &'static str, count: usize, default: usize) -> Result<Vec<usize>> {
        let Some(item) = keys.get(key) else { return Ok(vec![default; count]) };
        match self.sizes(item)?.as_slice() {
            [one] => Ok(vec![*one; count]),
            sizes if sizes.len() == count => Ok(sizes.to_vec()),
            sizes => Err(self.at(item, format!("`{key}` has {} sizes, not 1 or {count}", sizes.len()))),
        }
    }

    fn conv(&mut self, name: &str, keys: &mut Keys<'_>, x: ValueId) -> Result<ValueId> {
        let item = keys.need(self, "weights")?;
        let weights = values::tensor(self, item)?;
        let axes = weights.shape.len().checked_sub(2).filter(|axes| *axes > 0);
        let axes = axes.ok_or_else(|| self.at(item, "weights are [outputs, channels, height, width]"))?;
        let single = |reader: &Self, item: &Item, value: &TensorValue| {
            let numbers = value.to_f64().ok_or_else(|| reader.at(item, "weights are numbers"))?;
            values::finite(reader, item, &numbers)?;
            Ok(TensorValue { shape: value.shape.clone(), data: Data::of_numbers(Element::F32, numbers) })
        };
        if weights.data.is_empty() {
            return Err(self.at(item, "a layer without weights").help("leave the layer out"));
        }
        let weights = single(self, item, &weights)?;
        let mut operands = vec![x, self.constant(&weights, name)?];
        if let Some(item) = keys.get("bias") {
            let bias = single(self, item, &values::tensor(self, item)?)?;
            operands.push(self.constant(&bias, name)?);
        }
        let strides = self.per_axis(keys, "strides", axes, 1)?;
        let dilations = self.per_axis(keys, "dilations", axes, 1)?;
        let pads = self.per_axis(keys, "pads", 2 * axes, 0)?;
        let group = keys.size(self, "group")?.unwrap_or(1);
        self.push(TensorOp::Conv { strides, dilations, pads, group }, operands, name)
    }

    fn pool(&mut self, name: &str, keys: &mut Keys<'_>, x: ValueId, kind: PoolKind) -> Result<ValueId> {
        let axes = self.graph.node(x).ty.shape.len().saturating_sub(2);
        let item = keys.need(self, "kernel")?;
        let kernel = match self.sizes(item)?.as_slice() {
            [one] => vec![*one; axes],
            sizes => sizes.to_vec(),
        };
        let strides = match keys.table.get("strides") {
            Some(_) => self.per_axis(keys, "strides", axes, 1)?,
            None => kernel.clone(),
        };
        let pads = self.per_axis(keys, "pads", 2 * axes, 0)?;
        let window = PoolWindow { dilations: vec![1; axes], kernel, strides, pads, ceil: false };
        self.push(TensorOp::Pool { kind, window, count_pads: false }, vec![x], name)
    }

    fn activation(&mut self, name: &str, keys: &mut Keys<'_>, x: ValueId) -> Result<ValueId> {
        let item = keys.need(self, "kind")?;
        let kind = item.as_str().unwrap_or_default();
        if kind == "softmax" {
            let axis = self.graph.node(x).ty.shape.len().saturating_sub(1);
            return self.push(TensorOp::Softmax { axis, log: false }, vec![x], name);
        }
        let found = UnaryKind::from_name(kind).ok_or_else(|| {
            self.at(item, format!("`{kind}` is no activation")).help("relu, sigmoid, tanh, softmax, ..")
        })?;
        self.push(TensorOp::Unary { kind: found }, vec![x], name)
    }

    /// A value for each key, looked up in clear before the first encrypted operation or after the last.
    fn lookup(&mut self, name: &str, keys: &mut Keys<'_>, x: ValueId) -> Result<ValueId> {
        let (of_keys, of_values) = (keys.need(self, "keys")?, keys.need(self, "values")?);
        let (found, mapped) = (values::list(self, of_keys)?, values::list(self, of_values)?);
        if found.len() != mapped.len() {
            return Err(self.at(of_values, format!("{} values for {} keys", mapped.len(), found.len())));
        }
        let default = match keys.get("default") {
            Some(item) => Some((item, values::tensor(self, item)?.data)),
            None => None,
        };
        let (mut keys_i64, mut keys_f32, mut keys_str) = (None, None, None);
        match found {
            Data::I64(keys) if self.graph.node(x).ty.element == Element::I64 => keys_i64 = Some(keys),
            Data::Str(keys) => keys_str = Some(keys),
            other => {
                let numbers = TensorValue { shape: vec![other.len()], data: other }.to_f64().unwrap_or_default();
                keys_f32 = Some(numbers.into_iter().map(|x| x as f32).collect());
            }
        }
        let (mut values_f32, mut values_str, mut default_f32, mut default_str) = (None, None, None, None);
        match mapped {
            Data::Str(texts) => {
                values_str = Some(texts);
                default_str = Some(match default {
                    Some((_, Data::Str(texts))) => texts.first().cloned().unwrap_or_default(),
                    Some((item, _)) => return Err(self.at(item, "`default` is a text, as the values are")),
                    None => String::new(),
                });
            }
            other => {
                let numbers = |data: Data| TensorValue { shape: vec![data.len()], data }.to_f64().unwrap_or_default();
                values_f32 = Some(numbers(other).into_iter().map(|x| x as f32).collect());
                default_f32 = Some(default.map_or(0.0, |(_, data)| numbers(data).first().map_or(0.0, |x| *x as f32)));
            }
        }
        let op = TensorOp::LabelEncoder {
            keys_i64,
            keys_f32,
            keys_f64: None,
            keys_str,
            values_i64: None,
            values_f32,
            values_f64: None,
            values_str,
            default_i64: None,
            default_f32,
            default_f64: None,
            default_str,
        };
        self.push(op, vec![x], name)
    }

    fn arithmetic(
        &mut self,
        name: &str,
        keys: &mut Keys<'_>,
        operands: &[ValueId],
        kind: BinaryKind,
    ) -> Result<ValueId> {
        let mut operands = operands.to_vec();
        if let Some(item) = keys.get("value") {
            let value = values::tensor(self, item)?;
            let numbers = value.to_f64().ok_or_else(|| self.at(item, "`value` is a number or a list"))?;
            let element = operands.first().map_or(Element::F32, |id| self.graph.node(*id).ty.element);
            let data = Data::of_numbers(element, numbers);
            operands.push(self.constant(&TensorValue { shape: value.shape, data }, name)?);
        }
        if operands.len() != 2 {
            let what = kind.as_str();
            return Err(wrong(format!("layer `{name}`: `{what}` takes two inputs, or one and a `value`")));
        }
        self.push(TensorOp::Binary { kind }, operands, name)
    }

    fn nan_threshold(&self, item: &Item) -> Diagnostic {
        self.at(item, "a threshold is NaN").help("a trained model has finite weights; train or export it again")
    }

    /// Trees as lists of nodes, the root first: `{ feature, threshold, yes, no }`, taken to `yes` where the value is at most the
    /// threshold, and `{ leaf }` with a value for each target.
    fn trees(&mut self, name: &str, keys: &mut Keys<'_>, x: ValueId) -> Result<ValueId> {
        let targets = keys.size(self, "targets")?.unwrap_or(1);
        let base = keys.get("base").map_or(Ok(Vec::new()), |item| values::floats(self, item))?;
        let of_trees = keys.need(self, "trees")?;
        let trees = of_trees.as_array().ok_or_else(|| self.at(of_trees, "`trees` is a list of lists of nodes"))?;
        let (mut roots, mut feature, mut mode, mut threshold) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut on_true, mut on_false, mut missing_true) = (Vec::new(), Vec::new(), Vec::new());
        let (mut leaf_target, mut leaf_weight) = (Vec::new(), Vec::new());
        for tree in trees {
            let nodes = tree.as_array().ok_or_else(|| self.at(of_trees, "a tree is a list of nodes"))?;
            let first = feature.len();
            roots.push(first);
            for node in nodes {
                let table = node.as_inline_table().ok_or_else(|| self.at(of_trees, "a node is { .. }"))?;
                let mut keys = Keys::new(table, "a tree node", node.span());
                if let Some(item) = keys.get("leaf") {
                    let weights = values::floats(self, item)?;
                    if weights.len() != targets {
                        return Err(self.at(item, format!("{} values for {targets} targets", weights.len())));
                    }
                    values::finite(self, item, &weights)?;
                    on_true.push(leaf_weight.len());
                    leaf_target.extend(0..targets);
                    leaf_weight.extend(weights);
                    on_false.push(leaf_weight.len());
                    feature.push(0);
                    mode.push(Mode::Leaf);
                    threshold.push(0.0);
                } else {
                    let size = |keys: &mut Keys<'_>, key| -> Result<usize> {
                        let item = keys.need(self, key)?;
                        let size = item.as_integer().and_then(|size| usize::try_from(size).ok());
                        size.ok_or_else(|| self.at(item, format!("`{key}` is a number from 0 on")))
                    };
                    let (own, yes, no) = (size(&mut keys, "feature")?, size(&mut keys, "yes")?, size(&mut keys, "no")?);
                    let item = keys.need(self, "threshold")?;
                    if yes >= nodes.len() || no >= nodes.len() {
                        return Err(self.at(item, format!("a tree of {} nodes has no such child", nodes.len())));
                    }
                    let number = values::number(self, item)?;
                    if number.is_nan() {
                        return Err(self.nan_threshold(item));
                    }
                    threshold.push(number);
                    if keys.text(self, "missing")? == Some("yes") {
                        missing_true.push(feature.len());
                    }
                    feature.push(own);
                    mode.push(Mode::Leq);
                    on_true.push(first + yes);
                    on_false.push(first + no);
                }
                keys.finish(self)?;
            }
        }
        let op = TensorOp::TreeEnsemble {
            targets,
            aggregate: Aggregate::Sum,
            single: self.graph.node(x).ty.element != Element::F64,
            base,
            roots,
            feature,
            mode: Many(mode),
            threshold,
            on_true,
            on_false,
            missing_true,
            sets: Many(Vec::new()),
            leaf_target,
            leaf_weight,
        };
        self.push(op, vec![x], name)
    }
}
