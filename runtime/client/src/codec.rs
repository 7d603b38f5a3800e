//! From model inputs to what is encrypted, and from what is decrypted to model outputs.
//!
//! The head runs first, in clear; its values become selector bits and packed coefficients. After decryption results
//! become floats and the tail runs, in clear.

use indexmap::IndexMap;
use std::collections::BTreeMap;
use tacit_ir::artifact::{Artifact, ClientSpec, Decoder, Encoder, Scale, encode};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Stage};
use tacit_ir::interp::integer::{encode_codes, evaluate_quant};
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};
use tacit_ir::stage::quant::{CodedFeature, Quant};
use tacit_ir::stage::tensor::{Tensor, TensorOp, TensorType};
use tacit_ir::text;

/// One row, ready to encrypt.
pub use tacit_ir::interp::network::Messages as EncodedRow;

/// Encoded rows, and the clear values that go around the encrypted part.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedBatch {
    /// The rows.
    pub rows: Vec<EncodedRow>,
    /// Values the tail needs beside the results.
    pub passed: BTreeMap<String, TensorValue>,
}

/// The client's side of a circuit.
#[derive(Debug)]
pub struct Codec {
    spec: ClientSpec,
    head: Graph<Tensor>,
    tail: Graph<Tensor>,
    features: Vec<Vec<CodedFeature>>,
}

/// Inputs larger than 2^this in absolute value cannot be packed: the scale would drown in noise.
const MAX_LOG2_INPUT: i32 = 20;

impl Codec {
    /// The client's side of an artifact or client artifact.
    ///
    /// # Errors
    /// [`Code::NotConformant`] for inconsistent contents.
    pub fn new(artifact: &Artifact) -> Result<Self> {
        let spec = artifact.client.clone();
        let features = spec.features()?;
        Ok(Codec { head: spec.head.to_graph("head")?, tail: spec.tail.to_graph("tail")?, spec, features })
    }

    /// The client's specification.
    pub fn spec(&self) -> &ClientSpec {
        &self.spec
    }

    /// The model's inputs, by name.
    pub fn inputs(&self) -> Vec<(String, TensorType)> {
        let inputs = self.head.values().filter_map(|id| match &self.head.node(id).op {
            TensorOp::Input { name } => Some((name.clone(), self.head.node(id).ty.clone())),
            _ => None,
        });
        inputs.collect()
    }

    /// Whether decoding needs the model's inputs again.
    pub fn needs_inputs_to_decode(&self) -> bool {
        self.head.outputs().iter().any(|(name, _)| name.starts_with("pass_"))
    }

    /// Encodes a batch of model inputs, by name.
    ///
    /// # Errors
    /// [`Code::InputName`], [`Code::ColumnCount`], [`Code::ShapeMismatch`], [`Code::ElementTypeMismatch`],
    /// [`Code::NanWithoutBranch`] and [`Code::ValueOutOfRange`], each with row and column.
    pub fn encode(&self, inputs: &BTreeMap<String, TensorValue>) -> Result<EncodedBatch> {
        let known = self.inputs();
        if let Some(extra) = inputs.keys().find(|name| known.iter().all(|(own, _)| own != *name)) {
            let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Diagnostic::new(Code::InputName, format!("the model has no input `{extra}`"))
                .note(format!("its inputs are: {}", names.join(", "))));
        }
        let values = evaluate(&self.head, inputs)?;
        let rows = inputs.values().next().map_or(0, TensorValue::rows);
        if rows == 0 {
            return Err(Diagnostic::new(Code::ShapeMismatch, "the input has no rows"));
        }
        let mut reals: BTreeMap<&str, (usize, Vec<f64>)> = BTreeMap::new();
        let mut passed = BTreeMap::new();
        for (name, value) in &values {
            if name.starts_with("pass_") {
                passed.insert(name.clone(), value.clone());
            } else {
                let data = value.to_f64();
                let data =
                    data.ok_or_else(|| Diagnostic::new(Code::ElementTypeMismatch, "strings cannot be encrypted"))?;
                if value.rows() != rows {
                    return Err(Diagnostic::new(Code::ShapeMismatch, "inputs with different numbers of rows"));
                }
                reals.insert(name, (value.columns(), data));
            }
        }
        let row = |row: usize| self.encode_row(row, &reals);
        Ok(EncodedBatch { rows: (0..rows).map(row).collect::<Result<_>>()?, passed })
    }

    fn encode_row(&self, row: usize, values: &BTreeMap<&str, (usize, Vec<f64>)>) -> Result<EncodedRow> {
        let layout = &self.spec.layout;
        let mut out = EncodedRow::zeros(layout);
        let of = |name: &str| -> Result<&[f64]> {
            let (columns, data) = values
                .get(name)
                .ok_or_else(|| Diagnostic::new(Code::NotConformant, format!("no head value `{name}`")))?;
            Ok(&data[row * columns..(row + 1) * columns])
        };
        for (encoder, features) in self.spec.encoders.iter().zip(&self.features) {
            match encoder {
                Encoder::Codes { value, single, columns, thermometers, samples } => {
                    let codes = encode_codes(of(value)?, *single, features).map_err(|why| nan_error(&why, row))?;
                    encode::codes(&codes, columns, thermometers, samples, &mut out);
                }
                Encoder::Reals { value, columns, first_packed, per_input, spacing, log2_amplitude } => {
                    let values = of(value)?;
                    if values.len() != *columns as usize {
                        return Err(Diagnostic::new(Code::NotConformant, "the head gives another number of columns"));
                    }
                    let scale = row_scale(values, row)?;
                    let amplitude = f64::from(*log2_amplitude).exp2();
                    for (number, value) in values.iter().chain([&1.0]).enumerate() {
                        let (input, position) = (number / *per_input as usize, number % *per_input as usize);
                        let torus = (value * scale * amplitude).round() as i64 as u64;
                        out.packed[*first_packed as usize + input][position * *spacing as usize] = torus;
                    }
                }
            }
        }
        Ok(out)
    }

    /// The model's outputs by way of the integer stage, in clear: tables are exact there, where a circuit's have as many slots
    /// as its polynomials.
    ///
    /// # Errors
    /// [`Code::NotConformant`] for an artifact without its stages; those of [`Codec::encode`], and of the tail.
    pub fn in_integers(
        &self,
        artifact: &Artifact,
        inputs: &BTreeMap<String, TensorValue>,
    ) -> Result<IndexMap<String, TensorValue>> {
        let stage = artifact.text.iter().find(|(stage, _)| stage == Quant::NAME);
        let stage = stage.ok_or_else(|| Diagnostic::new(Code::NotConformant, "the artifact has no integer stage"))?;
        let stage: Graph<Quant> = text::parse(&stage.1)?;
        let heads = evaluate(&self.head, inputs)?;
        let count = inputs.values().next().map_or(0, TensorValue::rows);
        let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for row in 0..count {
            let own = |(name, value): (&String, &TensorValue)| {
                let columns = value.columns();
                let cells = value.data.pick(row * columns..(row + 1) * columns);
                Some((name.clone(), TensorValue { shape: vec![1, columns], data: cells }.to_f64()?))
            };
            let values = heads.iter().filter(|(name, _)| !name.starts_with("pass_")).filter_map(own).collect();
            for (name, values) in evaluate_quant(&stage, &values).map_err(|why| nan_error(&why, row))? {
                found.entry(name).or_default().extend(values);
            }
        }
        let mut values: BTreeMap<String, TensorValue> =
            heads.into_iter().filter(|(name, _)| name.starts_with("pass_")).collect();
        values.extend(found.into_iter().map(|(name, data)| {
            let shape = vec![count, data.len() / count.max(1)];
            (name, TensorValue { shape, data: Data::F64(data) })
        }));
        evaluate(&self.tail, &values)
    }

    /// Decodes decrypted results, rows x results x slots on the torus, to the model's outputs by name.
    ///
    /// # Errors
    /// [`Code::NotConformant`] where the results do not fit; what the tail refuses.
    pub fn decode(
        &self,
        results: &[Vec<Vec<u64>>],
        passed: &BTreeMap<String, TensorValue>,
    ) -> Result<IndexMap<String, TensorValue>> {
        let mut inputs = passed.clone();
        for (number, decoder) in self.spec.decoders.iter().enumerate() {
            let mut data = Vec::with_capacity(results.len() * decoder.step.len());
            for row in results {
                let slots = row.get(number).filter(|slots| slots.len() >= decoder.step.len());
                let slots = slots.ok_or_else(|| Diagnostic::new(Code::NotConformant, "a result has too few slots"))?;
                data.extend(decode_row(decoder, slots)?);
            }
            if let Some(ty) = input_type(&self.tail, &decoder.value) {
                inputs.insert(decoder.value.clone(), TensorValue::of_type(ty, results.len(), data));
            }
        }
        evaluate(&self.tail, &inputs)
    }
}

fn input_type<'a>(graph: &'a Graph<Tensor>, wanted: &str) -> Option<&'a TensorType> {
    let named = |op: &TensorOp| matches!(op, TensorOp::Input { name } if name == wanted);
    graph.values().map(|id| graph.node(id)).find(|node| named(&node.op)).map(|node| &node.ty)
}

fn nan_error(why: &str, row: usize) -> Diagnostic {
    let code = if why.contains("NaN") { Code::NanWithoutBranch } else { Code::ColumnCount };
    Diagnostic::new(code, why.to_owned())
        .at(format!("row {row}"))
        .help("fill in missing values, or train the model with missing values so that it has branches for them")
}

/// The power of two that brings a row to at most 1 in absolute value.
fn row_scale(values: &[f64], row: usize) -> Result<f64> {
    let largest = values.iter().fold(0.0f64, |a, b| if b.is_nan() { f64::NAN } else { a.max(b.abs()) });
    if let Some(column) = values.iter().position(|value| value.is_nan()) {
        return Err(nan_error(&format!("column {column} is NaN"), row));
    }
    let exponent = if largest <= 1.0 { 0 } else { largest.log2().ceil() as i32 };
    if exponent > MAX_LOG2_INPUT {
        return Err(Diagnostic::new(Code::ValueOutOfRange, format!("the value {largest} is over 2^{MAX_LOG2_INPUT}"))
            .at(format!("row {row}"))
            .help("scale the inputs, for instance with StandardScaler in the model's pipeline"));
    }
    Ok(f64::from(-exponent).exp2())
}

fn decode_row(decoder: &Decoder, slots: &[u64]) -> Result<Vec<f64>> {
    let outputs = decoder.step.iter().zip(&decoder.offset).zip(slots);
    match &decoder.scale {
        Scale::Integers { log2_delta, exact } => Ok(outputs
            .map(|((step, offset), &torus)| {
                let value = torus as i64 as f64 / f64::from(*log2_delta).exp2();
                offset + step * if *exact { value.round() } else { value }
            })
            .collect()),
        Scale::Torus { unit } => Ok(encode::reals(decoder, *unit, slots).collect()),
        Scale::Reals { encoder: _, log2_amplitude } => {
            // The last slot holds three quarters of 2^62 times the scale, a power of two: noise cannot move it past the next.
            let scale = slots.last().map_or(0.0, |&torus| torus as i64 as f64 / 62f64.exp2());
            let exponent = scale.max(f64::MIN_POSITIVE).log2().ceil();
            if !(-f64::from(MAX_LOG2_INPUT)..=0.0).contains(&exponent) {
                return Err(Diagnostic::new(Code::NotConformant, "a result does not hold the scale of its query")
                    .help("the result was made by another query or key, or was corrupted"));
            }
            let unit = (f64::from(*log2_amplitude) + exponent).exp2();
            Ok(outputs.map(|((step, offset), &torus)| offset + step * (torus as i64 as f64 / unit)).collect())
        }
    }
}
