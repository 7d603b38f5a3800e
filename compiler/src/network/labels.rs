//! What a model should answer to its calibration rows, and how far its outputs are from that.
//!
//! Outputs are judged as users see them, behind the client's tail: a label (integer or text), the name or position of the
//! greatest of several scores, or the value of a regression.

use super::accuracy::{ROWS, greatest};
use super::quantize::deviation;
use super::trace::size;
use crate::copier::Copier;
use crate::roles::Roles;
use std::collections::BTreeMap;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};
use tacit_ir::stage::tensor::{Dim, Element, Tensor, TensorOp};

/// Labels of calibration rows, checked against the model.
#[derive(Debug)]
pub(crate) struct Labels {
    tail: Graph<Tensor>,
    /// What the tail reads beside decrypted values.
    passed: BTreeMap<String, TensorValue>,
    /// The model's output that is judged.
    output: String,
    expected: Expected,
    /// The error of the float model.
    pub(crate) float_error: f64,
}

#[derive(Debug)]
enum Expected {
    /// Labels as text; `names` are those of score columns where the output is scores.
    Classes { labels: Vec<String>, names: Option<Vec<String>> },
    /// Values, and their standard deviation.
    Values { values: Vec<f64>, deviation: f64 },
}

/// What labels are compared with; of several kinds of outputs the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Label,
    Scores,
    Value,
}

const LABELS_HELP: &str =
    "give --calibration-labels a file with one label for each calibration row, as the model gives them";

fn invalid(message: String) -> Diagnostic {
    Diagnostic::new(Code::OptionInvalid, message)
}

impl Labels {
    /// Labels of a model (whole, as it was split) for its calibration inputs.
    ///
    /// # Errors
    /// [`Code::OptionInvalid`] for another number of labels than rows, labels that are no class of the model or not finite, and
    /// models without one output that labels can be of; those of evaluating the model.
    pub(crate) fn new(
        model: &Graph<Tensor>,
        roles: &Roles,
        inputs: &BTreeMap<String, TensorValue>,
        labels: &TensorValue,
    ) -> Result<Labels> {
        let rows = inputs.values().next().map_or(0, TensorValue::rows);
        let found = labels.data.len();
        if found != rows || labels.rows() != rows {
            let shape: Vec<String> = labels.shape.iter().map(usize::to_string).collect();
            return Err(invalid(format!("labels of shape [{}] for {rows} calibration rows", shape.join(", ")))
                .help(format!("{LABELS_HELP}; a .csv of text labels begins with a line that names its column")));
        }
        let (output, id, kind) = target(model)?;
        let expected = match kind {
            Kind::Value => values(labels)?,
            Kind::Label => {
                let classes = classes(model, id)?;
                Expected::Classes { labels: texts(labels, classes.as_deref())?, names: None }
            }
            Kind::Scores => {
                let names = score_names(model, id);
                Expected::Classes { labels: texts(labels, Some(&names))?, names: Some(names) }
            }
        };
        let first: BTreeMap<String, TensorValue> =
            inputs.iter().map(|(name, value)| (name.clone(), first_rows(value, ROWS))).collect();
        let mut passed = evaluate(&roles.head, &first)?;
        passed.retain(|name, _| name.starts_with("pass_"));
        let mut out = Labels {
            tail: roles.tail.clone(),
            passed: passed.into_iter().collect(),
            output: output.to_owned(),
            expected,
            float_error: 0.0,
        };
        let outputs = evaluate(model, &first)?;
        out.float_error = outputs.get(output).and_then(|value| out.distance(value)).ok_or_else(|| {
            Diagnostic::internal(format!("the output `{}` has no values that labels compare with", out.output))
        })?;
        Ok(out)
    }

    /// The error of the outputs that the client makes of decrypted values: the share of rows with another label, or the root
    /// mean squared error over the labels' deviation. `decrypted`: by output of the encrypted part, row by row.
    ///
    /// # Errors
    /// Those of evaluating the tail.
    pub(crate) fn error(&self, decrypted: &[(&str, &[Vec<f64>])]) -> Result<f64> {
        let mut inputs = self.passed.clone();
        for id in self.tail.values() {
            let node = self.tail.node(id);
            let TensorOp::Input { name } = &node.op else { continue };
            if let Some((_, rows)) = decrypted.iter().find(|(own, _)| own == name) {
                let flat = rows.iter().flatten().copied().collect();
                inputs.insert(name.clone(), TensorValue::of_type(&node.ty, rows.len(), flat));
            }
        }
        let outputs = evaluate(&self.tail, &inputs)?;
        let error = outputs.get(&self.output).and_then(|value| self.distance(value));
        error.ok_or_else(|| Diagnostic::internal("the tail gives no values that labels compare with"))
    }

    /// What `error` and `float_error` count, for people.
    pub(crate) fn describe(&self, error: f64) -> String {
        let (own, float) = (100.0 * error, 100.0 * self.float_error);
        match &self.expected {
            Expected::Classes { .. } => format!("{own:.2} % of labels missed, {float:.2} % by the float model"),
            Expected::Values { .. } => {
                format!("an error of {own:.2} % of the labels' deviation, {float:.2} % by the float model")
            }
        }
    }

    fn distance(&self, found: &TensorValue) -> Option<f64> {
        let rows = found.rows().max(1) as f64;
        match &self.expected {
            Expected::Classes { labels, names } => {
                let found = match names {
                    Some(names) => {
                        let best = |row: &Vec<f64>| greatest(row).and_then(|at| names.get(at).cloned());
                        found.to_rows()?.iter().map(|row| best(row).unwrap_or_default()).collect()
                    }
                    None => plain(&found.data),
                };
                Some(found.iter().zip(labels).filter(|(a, b)| a != b).count() as f64 / rows)
            }
            Expected::Values { values, deviation } => {
                let found = found.to_f64()?;
                let squares: f64 = found.iter().zip(values).map(|(a, b)| (a - b).powi(2)).sum();
                Some((squares / rows).sqrt() / deviation)
            }
        }
    }
}

fn first_rows(value: &TensorValue, most: usize) -> TensorValue {
    let rows = value.rows().min(most);
    let shape = [rows].into_iter().chain(value.shape.iter().skip(1).copied()).collect();
    TensorValue { shape, data: value.data.pick(0..rows * value.columns()) }
}

/// The output that labels belong to: the only one with a label a row; else the only one of scores; else of values.
fn target(model: &Graph<Tensor>) -> Result<(&str, ValueId, Kind)> {
    let all: Vec<(&str, ValueId, Kind)> =
        model.outputs().iter().filter_map(|(name, id)| Some((name.as_str(), *id, kind(model, *id)?))).collect();
    let first = all.iter().map(|(_, _, kind)| *kind).min();
    let of_kind: Vec<_> = all.iter().filter(|(_, _, kind)| Some(*kind) == first).collect();
    match of_kind.as_slice() {
        [only] => Ok(**only),
        [] => Err(invalid("no output of the model has one label, score of classes or value a row".to_owned())
            .help("leave --calibration-labels out: accuracy is then measured against the float model's outputs")),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, ..)| *name).collect();
            Err(invalid(format!("labels could be of several outputs of the model: {}", names.join(", ")))
                .help("leave --calibration-labels out, or export the model with the output alone that labels are of"))
        }
    }
}

fn kind(model: &Graph<Tensor>, id: ValueId) -> Option<Kind> {
    match (model.node(id).ty.element, size(&model.node(id).ty)) {
        (Element::I64 | Element::Bool | Element::Str, 1) => Some(Kind::Label),
        (Element::F32 | Element::F64, 1) => Some(Kind::Value),
        (Element::F32 | Element::F64, _) => Some(Kind::Scores),
        _ => None,
    }
}

/// The names of the columns of scores: those that a ZipMap gives, or positions.
fn score_names(model: &Graph<Tensor>, id: ValueId) -> Vec<String> {
    let node = model.node(id);
    if let TensorOp::ZipMap { ints, strings } = &node.op {
        let ints = ints.iter().flatten().map(i64::to_string);
        return ints.chain(strings.iter().flatten().cloned()).collect();
    }
    (0..size(&node.ty)).map(|at| at.to_string()).collect()
}

/// All labels that an output can have, where they are a function of a position: of a greatest value or a threshold.
fn classes(model: &Graph<Tensor>, id: ValueId) -> Result<Option<Vec<String>>> {
    let depends = {
        let mut depends = vec![false; model.len()];
        for at in model.values() {
            let node = model.node(at);
            depends[at.index()] = matches!(node.op, TensorOp::Input { .. })
                || node.operands.iter().any(|operand| depends[operand.index()]);
        }
        depends
    };
    let mut at = id;
    let count = loop {
        let node = model.node(at);
        let source = node.operands.first().map(|operand| &model.node(*operand).ty);
        match (&node.op, source) {
            (TensorOp::ArgMax { axis, .. } | TensorOp::TopK { axis, positions: true, .. }, Some(ty)) => {
                match ty.shape.get(*axis) {
                    Some(Dim::Fixed(size)) => break *size,
                    _ => return Ok(None),
                }
            }
            (TensorOp::BinaryLabel { .. }, _) => break 2,
            _ if node.ty.element == Element::Bool => break 2,
            _ => {}
        }
        let mut variable = node.operands.iter().copied().filter(|operand| depends[operand.index()]);
        match (variable.next(), variable.next()) {
            (Some(only), None) => at = only,
            _ => return Ok(None),
        }
    };
    let mut part = Copier::new(model, "labels");
    part.provide(at, TensorOp::Input { name: "x".to_owned() })?;
    let label = part.copy(id)?;
    let mut part = part.new;
    part.output("y", label);
    let positions = TensorValue::of_type(&model.node(at).ty, count, (0..count).map(|at| at as f64).collect());
    // A part that cannot be evaluated alone says nothing about labels.
    let Ok(found) = evaluate(&part, &BTreeMap::from([("x".to_owned(), positions)])) else { return Ok(None) };
    Ok(found.values().next().map(|value| plain(&value.data)))
}

/// Labels as text, each one of the classes where they are known.
fn texts(labels: &TensorValue, classes: Option<&[String]>) -> Result<Vec<String>> {
    let texts = plain(&labels.data);
    for (row, text) in texts.iter().enumerate() {
        if text == "NaN" && !matches!(labels.data, Data::Str(_)) {
            return Err(missing(row, text));
        }
        if let Some(classes) = classes.filter(|classes| !classes.contains(text)) {
            let known: Vec<&str> = classes.iter().take(12).map(String::as_str).collect();
            let more = if classes.len() > known.len() { ", ..." } else { "" };
            return Err(invalid(format!("label `{text}` of row {row} is no class of the model"))
                .help(format!("its classes are {}{more}", known.join(", "))));
        }
    }
    Ok(texts)
}

fn missing(row: usize, text: &str) -> Diagnostic {
    invalid(format!("the label of row {row} is {text}"))
        .help("leave rows without a label out, of the labels and of the calibration rows")
}

fn values(labels: &TensorValue) -> Result<Expected> {
    let values = labels
        .to_f64()
        .ok_or_else(|| invalid("labels are texts, and the model's output is a number".to_owned()).help(LABELS_HELP))?;
    if let Some(row) = values.iter().position(|value| !value.is_finite()) {
        return Err(missing(row, &values[row].to_string()));
    }
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = deviation(&values);
    if deviation <= 1e-12 * mean.abs() {
        return Err(invalid(format!("all labels are {mean}, and the loss is a share of their deviation"))
            .help("give labels that differ, or leave --calibration-labels out"));
    }
    Ok(Expected::Values { values, deviation })
}

/// Values as text, whole numbers without a point.
fn plain(data: &Data) -> Vec<String> {
    let number = |x: f64| if x.fract() == 0.0 && x.abs() < 1e15 { (x as i64).to_string() } else { x.to_string() };
    match data {
        Data::Str(texts) => texts.clone(),
        Data::I64(values) => values.iter().map(i64::to_string).collect(),
        Data::Bool(values) => values.iter().map(|x| i64::from(*x).to_string()).collect(),
        Data::F32(values) => values.iter().map(|x| number(f64::from(*x))).collect(),
        Data::F64(values) => values.iter().map(|x| number(*x)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_any_type_are_the_same_text() {
        let text = |data| plain(&data).join(" ");
        assert_eq!(text(Data::F64(vec![2.0, -1.0, 0.5, f64::NAN])), "2 -1 0.5 NaN");
        assert_eq!(text(Data::I64(vec![2, -1])), text(Data::F32(vec![2.0, -1.0])));
        assert_eq!(text(Data::Bool(vec![true, false])), "1 0");
    }
}
