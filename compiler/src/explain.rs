//! What would become of each operation of a model: where it runs, how, and what share of the time it takes.

use crate::network::{self, trace};
use crate::options::Options;
use crate::passes::{self, DriverOptions, Ir, PIPELINE, PassCx, run_passes};
use crate::{Prepared, calibration_rows, prepared};
use std::collections::BTreeMap;
use tacit_ir::attr::OpSet;
use tacit_ir::cost::CostProfile;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::Graph;
use tacit_ir::interp::tensor::TensorValue;
use tacit_ir::plan::BLOCK;
use tacit_ir::stage::circuit::{Circuit, CircuitOp, CircuitType};
use tacit_ir::stage::tensor::{Tensor, TensorOp};

/// How operations run that need nothing of their own.
const PART: &str = "encrypted: part of a sum or a table";

/// One operation, or those of one node of the model that run alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Where it is in the model.
    pub place: String,
    /// The operations of the float stage.
    pub op: String,
    /// Where and how it runs.
    pub how: String,
    /// Predicted microseconds of one row on one core of the server, where they are known.
    pub cost_us: Option<f64>,
}

/// What the encrypted operations of one place do.
#[derive(Default)]
struct Work {
    /// External products of decision diagrams.
    products: Option<u64>,
    /// Sums of packed inputs.
    packed: u64,
    /// Look-ups whose regime is open.
    look_ups: u64,
    /// Rotated look-ups, and their products.
    rotated: (u64, u64),
    bootstraps: u64,
    /// Least and greatest bits of sums.
    sums: Option<(u32, u32)>,
    us: f64,
}

impl Work {
    fn add_sums(&mut self, bits: u32) {
        let (least, greatest) = self.sums.unwrap_or((bits, bits));
        self.sums = Some((least.min(bits), greatest.max(bits)));
    }

    fn parts(&self) -> Vec<String> {
        let counted = |count: u64, text: String| (count > 0).then_some(text);
        let (rotated, products) = self.rotated;
        [
            self.products.map(|products| format!("R1, {products} external products")),
            counted(self.packed, format!("R0, {} sums of packed inputs", self.packed)),
            counted(self.look_ups, format!("{} look-ups", self.look_ups)),
            counted(rotated, format!("R1, {rotated} look-ups by {products} products")),
            counted(self.bootstraps, format!("R2, {} bootstraps", self.bootstraps)),
            self.sums.map(|(least, greatest)| match least == greatest {
                true => format!("sums of {least} bits"),
                false => format!("sums of {least} to {greatest} bits"),
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn how(&self) -> String {
        let parts = self.parts();
        if parts.is_empty() { PART.to_owned() } else { format!("encrypted: {}", parts.join("; ")) }
    }

    fn cost_us(&self) -> Option<f64> {
        (self.us > 0.0).then_some(self.us)
    }
}

/// Explains a model; bits and times of networks need calibration rows.
///
/// # Errors
/// What the split, the tracing of a network or its lowering refuse.
pub fn explain(
    model: Graph<Tensor>,
    options: &Options,
    calibration: &BTreeMap<String, TensorValue>,
) -> Result<Vec<Line>> {
    let all: Vec<(String, String)> = operations(&model).collect();
    let Prepared { roles, .. } = prepared(model, options)?;
    let clear = |graph: &Graph<Tensor>, how: &str| -> Vec<Line> {
        operations(graph).map(|(place, op)| Line { place, op, how: how.to_owned(), cost_us: None }).collect()
    };
    let mut lines = clear(&roles.head, "client, in clear, before encryption");
    let is_network = network::is_network(&roles.body);
    let rows = calibration_rows(&roles.head, calibration)?;
    let mut found: BTreeMap<String, Work> = BTreeMap::new();
    if is_network && rows.is_empty() {
        for layer in &trace(&roles.body, options.head())?.layers {
            found.entry(layer.loc.to_string()).or_default().look_ups += layer.rows.len() as u64;
        }
    } else {
        let kept = network::Kept::of(&roles.head, options)?;
        let searched = network::search::search(&roles.body, &rows, None, options, &kept)?;
        let options = searched.as_ref().map_or(options, |found| &found.options);
        let mut cx = PassCx::new(options, &rows);
        (cx.explain, cx.kept) = (false, kept);
        let (ir, _) = run_passes(Ir::Tensor(roles.body.clone()), PIPELINE, &mut cx, &DriverOptions::default())?;
        let Ir::Circuit(circuit) = ir else {
            return Err(Diagnostic::internal("the pipeline did not end in a circuit"));
        };
        costs(&circuit, &options.cost_profile, &mut found);
    }
    for (place, op) in operations(&roles.body) {
        let work = found.remove(&place).unwrap_or_default();
        lines.push(Line { place, op, how: work.how(), cost_us: work.cost_us() });
    }
    for (place, work) in found {
        lines.push(Line { place, op: String::new(), how: work.how(), cost_us: work.cost_us() });
    }
    lines.extend(clear(&roles.tail, "client, in clear, after decryption"));
    Ok(merged(with_composed(lines, &all)))
}

/// Adds operations that were composed with the linear map behind them, before it.
fn with_composed(mut lines: Vec<Line>, all: &[(String, String)]) -> Vec<Line> {
    for (at, (place, op)) in all.iter().enumerate().rev() {
        let line_of = |place: &String| lines.iter().position(|line| line.place == *place);
        if line_of(place).is_some() {
            continue;
        }
        let next = all[at + 1..].iter().find_map(|(place, _)| line_of(place)).unwrap_or(lines.len());
        let clear = lines.get(next).is_some_and(|line| line.how.starts_with("client"));
        let how = if clear { "client, in clear" } else { "encrypted" };
        let how = format!("{how}: one linear map with what follows");
        lines.insert(next, Line { place: place.clone(), op: op.clone(), how, cost_us: None });
    }
    lines
}

/// Operations of one node of the model that run alike, as one line.
fn merged(lines: Vec<Line>) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::with_capacity(lines.len());
    for line in lines {
        match out.last_mut() {
            Some(last)
                if last.place == line.place
                    && (last.how == line.how || is_part_of(last, &line) || is_part_of(&line, last)) =>
            {
                last.op = format!("{}, {}", last.op, line.op);
                last.cost_us = last.cost_us.or(line.cost_us);
                if last.how == PART {
                    last.how = line.how;
                }
            }
            _ => out.push(line),
        }
    }
    out
}

/// Whether an operation is no more than a part of another that runs encrypted.
fn is_part_of(part: &Line, whole: &Line) -> bool {
    part.how == PART && whole.how.starts_with("encrypted")
}

/// Place and name of everything but inputs and constants.
fn operations(graph: &Graph<Tensor>) -> impl Iterator<Item = (String, String)> + '_ {
    graph.values().filter_map(|id| match &graph.node(id).op {
        TensorOp::Input { .. } | TensorOp::Constant { .. } => None,
        TensorOp::Unary { kind } => Some((graph.loc(id).to_string(), kind.as_str().to_owned())),
        TensorOp::Binary { kind } => Some((graph.loc(id).to_string(), kind.as_str().to_owned())),
        op => Some((graph.loc(id).to_string(), op.name().to_owned())),
    })
}

/// What each place of the circuit does, and its predicted microseconds.
fn costs(graph: &Graph<Circuit>, cost: &CostProfile, out: &mut BTreeMap<String, Work>) {
    let mut params = None;
    let mut inputs = None;
    for id in graph.values() {
        match &graph.node(id).ty {
            CircuitType::Params(glwe, gadget) => params = Some((*glwe, *gadget)),
            CircuitType::BootstrapParams(found) if found.small_dimension > 0 => inputs = Some(found.lwe),
            _ => {}
        }
    }
    let Some((glwe, gadget)) = params else { return };
    let words = |small: bool| match inputs {
        Some(lwe) if small => f64::from(lwe.dimension) + 1.0,
        _ => f64::from(glwe.lwe_dimension()) + 1.0,
    };
    for id in graph.values() {
        let node = graph.node(id);
        let work = out.entry(graph.loc(id).to_string()).or_default();
        match (&node.op, &node.ty) {
            (CircuitOp::Decide { diagram, .. }, _) => {
                let products = diagram.products();
                *work.products.get_or_insert(0) += products;
                work.us += gadget.map_or(0.0, |gadget| products as f64 * cost.external_product_us(&glwe, &gadget));
            }
            (CircuitOp::Polymul { outputs, .. }, _) => work.packed += u64::from(*outputs),
            (CircuitOp::RotateLookup { table, .. }, _) => {
                let turns = passes::turns(graph, id).into_iter().sum::<tacit_ir::stage::circuit::network::Turns>();
                work.rotated.0 += table.len() as u64;
                work.rotated.1 += u64::from(turns.singles) + u64::from(turns.blocks);
                work.us += gadget.map_or(0.0, |gadget| {
                    f64::from(turns.singles) * cost.rotation_us(&glwe, &gadget)
                        + f64::from(turns.blocks) * cost.block_us(&glwe, &gadget, BLOCK as f64)
                });
            }
            (CircuitOp::Bootstrap { table, results, .. }, _) => {
                let count = table.len() / results.unwrap_or(1) as usize;
                let large = node
                    .operands
                    .first()
                    .is_some_and(|operand| matches!(graph.node(*operand).ty, CircuitType::Lwe { small: false, .. }));
                let params = node.operands.iter().find_map(|operand| match &graph.node(*operand).ty {
                    CircuitType::BootstrapParams(params) => Some(params),
                    _ => None,
                });
                let one = params.map_or(0.0, |params| {
                    cost.bootstrap_us(&glwe, params) + if large { cost.keyswitch_us(&glwe, params) } else { 0.0 }
                });
                work.bootstraps += count as u64;
                work.us += count as f64 * one;
            }
            (CircuitOp::Affine { column, .. }, CircuitType::Lwe { ranges, small, .. }) => {
                let widest = ranges.iter().map(|(low, high)| low.abs_diff(*high)).max().unwrap_or(0);
                work.add_sums(u64::BITS - widest.leading_zeros());
                work.us += cost.lwe_term_ns * column.len() as f64 * words(*small) / 1000.0;
            }
            _ => {}
        }
    }
    // Parameters, inputs.
    out.retain(|_, work| !work.parts().is_empty());
}
