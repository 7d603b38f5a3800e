//! Feed-forward networks: from a float graph to alternating affine maps and look-ups.
//!
//! [`trace`] reads any float graph made of affine operations, elementwise functions and maxima as *affine maps over atoms*,
//! where an atom is an input or the output of a function of one affine map. [`quantize`](quantize::quantize) gives every
//! atom integers with a sound interval, and every function a table.

mod accuracy;
pub(crate) mod calibrate;
mod function;
mod grid;
mod halves;
pub(crate) mod heads;
mod labels;
pub(crate) mod quantize;
mod rounding;
mod rows;
pub(crate) mod search;
mod simplify;
mod tables;
pub(crate) mod trace;
pub(crate) mod trees;

pub(crate) use grid::Kept;
pub(crate) use labels::Labels;
pub(crate) use rows::Row;
pub(crate) use trace::{Activation, Output, trace};

use crate::options::HeadRule;
use calibrate::Trace;
use simplify::Removed;
use std::collections::BTreeMap;
use tacit_ir::diag::Result;
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::stage::tensor::{Tensor, TensorOp};
use trace::Network;

/// A float graph as a network without needless tables, its values on the calibration rows, and what was left out; positions
/// of greatest values by this rule; `symmetric` as of the options.
///
/// # Errors
/// Those of [`trace`] and of [`calibrate::run`].
pub(crate) fn prepare(
    graph: &Graph<Tensor>,
    calibration: &BTreeMap<String, Vec<Vec<f64>>>,
    kept: &Kept,
    head: HeadRule,
    symmetric: bool,
) -> Result<(Network, Trace, Removed)> {
    let whole = trace(graph, head)?;
    let calibration = trees::with_outputs(graph, calibration)?;
    let (network, removed) = simplify::simplify(&whole, &calibrate::run(&whole, &calibration)?, kept, symmetric)?;
    let trace = calibrate::run(&network, &calibration)?;
    Ok((network, trace, removed))
}

/// Whether something else than trees and linear maps of inputs is encrypted.
pub(crate) fn is_network(graph: &Graph<Tensor>) -> bool {
    let of_input = |id: &ValueId| matches!(graph.node(*id).op, TensorOp::Input { .. });
    graph.values().any(|id| match &graph.node(id).op {
        TensorOp::Input { .. } | TensorOp::TreeEnsemble { .. } => false,
        TensorOp::Linear { .. } => !graph.node(id).operands.iter().all(of_input),
        _ => true,
    })
}
