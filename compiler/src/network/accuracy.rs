//! The accuracy of a compiled candidate: its simulated results on calibration rows, with the predicted noise drawn, against the
//! float network's outputs, or against labels where there are any.

use super::calibrate::inputs;
use super::labels::Labels;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use std::collections::BTreeMap;
use tacit_ir::artifact::{ClientSpec, Encoder, Scale, encode};
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::interp::integer::encode_codes;
use tacit_ir::interp::network::Messages;
use tacit_ir::interp::plan::simulate;
use tacit_ir::interp::tensor::evaluate;
use tacit_ir::plan::Plan;
use tacit_ir::stage::quant::CodedFeature;
use tacit_ir::stage::tensor::{Dim, Element, Tensor, TensorOp};

/// Calibration rows that candidates are simulated on at most.
pub(super) const ROWS: usize = 300;
/// Simulations of a candidate at least: fewer rows are simulated several times. Of 30 rows a plan that errs on one in twenty
/// gets all right one time in five, and the search would find it.
const SIMULATIONS: usize = 120;

pub(super) type Rows = BTreeMap<String, Vec<Vec<f64>>>;

/// What candidates are compared with.
pub(super) struct Accuracy<'a> {
    rows: &'a Rows,
    labels: Option<&'a Labels>,
    /// The float model: by encrypted output, row by row.
    float: Vec<Vec<Vec<f64>>>,
    judged: Vec<Judged>,
}

/// How far a candidate is from what it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Losses {
    /// Of accuracy: what `max-accuracy-loss` limits.
    pub(super) loss: f64,
    /// The largest of all outputs' errors' deviation over the output's own.
    pub(super) error: f64,
    /// The error against the labels, where there are any.
    pub(super) of_labels: Option<f64>,
}

impl<'a> Accuracy<'a> {
    /// # Errors
    /// Those of evaluating the float model.
    pub(super) fn new(body: &Graph<Tensor>, rows: &'a Rows, labels: Option<&'a Labels>) -> Result<Self> {
        let judged = body.outputs().iter().map(|(_, id)| Judged::of(body, *id)).collect();
        Ok(Accuracy { rows, labels, float: float_outputs(body, rows)?, judged })
    }

    /// Simulates a candidate on the calibration rows.
    ///
    /// # Errors
    /// Those of the interpreters.
    pub(super) fn of(&self, client: &ClientSpec, plan: &Plan) -> Result<Losses> {
        // The same draws for every candidate and every compilation: artifacts are reproducible.
        let mut rng = ChaCha20Rng::seed_from_u64(0);
        let turns = SIMULATIONS.div_ceil(self.count().max(1));
        let features = client.features()?;
        let all: Vec<Losses> =
            (0..turns).map(|_| self.once(client, &features, plan, &mut rng)).collect::<Result<_>>()?;
        let mean = |of: fn(&Losses) -> f64| all.iter().map(of).sum::<f64>() / turns as f64;
        let of_labels = self.labels.map(|_| mean(|losses| losses.of_labels.unwrap_or_default()));
        Ok(Losses { loss: mean(|losses| losses.loss), error: mean(|losses| losses.error), of_labels })
    }

    /// Rows that there are.
    fn count(&self) -> usize {
        self.float.first().map_or(0, Vec::len)
    }

    fn once(
        &self,
        client: &ClientSpec,
        features: &[Vec<CodedFeature>],
        plan: &Plan,
        rng: &mut ChaCha20Rng,
    ) -> Result<Losses> {
        let count = self.count();
        let mut found: Vec<Vec<Vec<f64>>> = vec![Vec::with_capacity(count); self.float.len()];
        for row in 0..count {
            let messages = messages(client, features, self.rows, row)?;
            let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
            let results = simulate(plan, &client.layout, &messages.inputs(), Some(&mut draw))?;
            for ((found, values), decoder) in found.iter_mut().zip(&results).zip(&client.decoders) {
                let Scale::Torus { unit } = decoder.scale else { continue };
                found.push(encode::reals(decoder, unit, values).collect());
            }
        }
        let pairs = || found.iter().zip(&self.float);
        let error = pairs().map(|(found, float)| output_error(found, float)).fold(0.0, f64::max);
        let Some(labels) = self.labels else {
            let losses = pairs().zip(&self.judged).map(|((found, float), judged)| output_loss(found, float, *judged));
            return Ok(Losses { loss: losses.fold(0.0, f64::max), error, of_labels: None });
        };
        let named: Vec<(&str, &[Vec<f64>])> =
            client.decoders.iter().zip(&found).map(|(own, rows)| (own.value.as_str(), rows.as_slice())).collect();
        let own = labels.error(&named)?;
        Ok(Losses { loss: (own - labels.float_error).max(0.0), error, of_labels: Some(own) })
    }

    /// What the loss is a loss of, for people.
    pub(super) fn describe(&self, losses: &Losses) -> String {
        let rows = self.count();
        let loss = 100.0 * losses.loss;
        match (self.labels, losses.of_labels) {
            (Some(labels), Some(error)) => {
                format!(
                    "on the labels of {rows} simulated calibration rows {loss:.2} % loss ({})",
                    labels.describe(error)
                )
            }
            _ => format!("on {rows} simulated calibration rows {loss:.2} % loss against the float model"),
        }
    }

    /// What candidates are judged by, in messages.
    pub(super) fn measure(&self) -> &'static str {
        if self.labels.is_some() { "on the labels of the calibration rows" } else { "on the calibration rows" }
    }
}

/// The float values of every output on the calibration rows, output by output, row by row.
fn float_outputs(body: &Graph<Tensor>, rows: &Rows) -> Result<Vec<Vec<Vec<f64>>>> {
    let outputs = evaluate(body, &inputs(body, rows, ROWS)?)?;
    Ok(outputs.values().map(|value| value.to_rows().unwrap_or_default()).collect())
}

/// How the outputs of a row are compared with the float model's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Judged {
    /// Scores: the share of rows whose greatest is another.
    Greatest,
    /// Whole numbers: the share of rows with another one.
    Whole,
    /// Values: the error's deviation over the value's.
    Values,
}

impl Judged {
    fn of(body: &Graph<Tensor>, output: ValueId) -> Judged {
        let node = body.node(output);
        let single = node.ty.shape.iter().all(|dim| matches!(dim, Dim::Batch | Dim::Fixed(1)));
        match (&node.op, node.ty.element) {
            (_, Element::I64 | Element::Bool) => Judged::Whole,
            // In order already.
            (TensorOp::TopK { .. }, _) => Judged::Values,
            _ if single => Judged::Values,
            _ => Judged::Greatest,
        }
    }
}

/// The position of the greatest value, the last of equal ones.
pub(super) fn greatest(row: &[f64]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}

fn output_loss(found: &[Vec<f64>], float: &[Vec<f64>], judged: Judged) -> f64 {
    let rows = float.len().max(1) as f64;
    let whole = |row: &[f64]| row.iter().map(|x| x.round() as i64).collect::<Vec<_>>();
    let pairs = || found.iter().zip(float);
    match judged {
        Judged::Greatest => pairs().filter(|(a, b)| greatest(a) != greatest(b)).count() as f64 / rows,
        Judged::Whole => pairs().filter(|(a, b)| whole(a) != whole(b)).count() as f64 / rows,
        Judged::Values => output_error(found, float),
    }
}

fn output_error(found: &[Vec<f64>], float: &[Vec<f64>]) -> f64 {
    let mean = float.iter().flatten().sum::<f64>() / float.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let variance = float.iter().flatten().map(|x| (x - mean).powi(2)).sum::<f64>();
    let error = found.iter().flatten().zip(float.iter().flatten()).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    (error / variance.max(f64::MIN_POSITIVE)).sqrt()
}

fn messages(client: &ClientSpec, features: &[Vec<CodedFeature>], rows: &Rows, row: usize) -> Result<Messages> {
    let mut out = Messages::zeros(&client.layout);
    for (encoder, features) in client.encoders.iter().zip(features) {
        let Encoder::Codes { value, single, columns, thermometers, samples } = encoder else { continue };
        let values = rows.get(value).and_then(|rows| rows.get(row));
        let values = values.ok_or_else(|| Diagnostic::internal("a calibration row is missing"))?;
        let codes = encode_codes(values, *single, features).map_err(Diagnostic::internal)?;
        encode::codes(&codes, columns, thermometers, samples, &mut out);
    }
    Ok(out)
}
