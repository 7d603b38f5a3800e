//! What typical inputs do inside a network: the values of every atom.

use super::trace::Network;
use std::collections::BTreeMap;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc};
use tacit_ir::interp::tensor::TensorValue;
use tacit_ir::stage::tensor::{Tensor, TensorOp};

/// Rows that a calibration needs at least.
pub(crate) const LEAST_ROWS: usize = 16;

/// Float values of a network on calibration rows.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Per row: the value of every atom.
    pub(crate) atoms: Vec<Vec<f64>>,
}

/// Evaluates the network in floats on calibration rows of head values.
///
/// # Errors
/// [`Code::OptionInvalid`] without enough rows, or where they or what becomes of them are not finite.
pub(crate) fn run(network: &Network, calibration: &BTreeMap<String, Vec<Vec<f64>>>) -> Result<Trace> {
    let missing = |found: usize| {
        Diagnostic::new(
            Code::OptionInvalid,
            format!("a network or an encrypted head needs calibration data: at least {LEAST_ROWS} rows, found {found}"),
        )
        .help("give --calibration X.npy with some hundred typical rows, in the form of the model's input")
    };
    let mut atoms: Vec<Vec<f64>> = Vec::new();
    for (number, (head, column)) in network.inputs.iter().enumerate() {
        let rows = calibration.get(head).ok_or_else(|| missing(0))?;
        if rows.len() < LEAST_ROWS {
            return Err(missing(rows.len()));
        }
        atoms.resize_with(rows.len(), || vec![0.0; network.atoms()]);
        for (row, (own, values)) in atoms.iter_mut().zip(rows).enumerate() {
            let value = values.get(*column).copied().unwrap_or(f64::NAN);
            if !value.is_finite() {
                return Err(Diagnostic::new(
                    Code::OptionInvalid,
                    format!("calibration row {row}: column {column} is {value}"),
                )
                .help("neural networks have no missing values: leave such rows out"));
            }
            own[number] = value;
        }
    }
    for layer in &network.layers {
        let own: Vec<Vec<f64>> =
            layer.rows.iter().map(|row| atoms.iter().map(|atoms| row.value(atoms)).collect()).collect();
        for (element, values) in layer.values(&own)?.iter().enumerate() {
            held(values, layer.elements[element], &layer.loc)?;
            for (row, value) in atoms.iter_mut().zip(values) {
                row[layer.first_atom as usize + element] = *value;
            }
        }
    }
    for output in &network.outputs {
        for (element, row) in output.rows.iter().enumerate() {
            let values: Vec<f64> = atoms.iter().map(|atoms| row.value(atoms)).collect();
            held(&values, element as u32, &output.loc)?;
        }
    }
    Ok(Trace { atoms })
}

/// The inputs of an encrypted part on at most so many calibration rows.
///
/// # Errors
/// An internal one where an input has no rows.
pub(super) fn inputs(
    graph: &Graph<Tensor>,
    rows: &BTreeMap<String, Vec<Vec<f64>>>,
    most: usize,
) -> Result<BTreeMap<String, TensorValue>> {
    let mut inputs = BTreeMap::new();
    for id in graph.values() {
        let node = graph.node(id);
        let TensorOp::Input { name } = &node.op else { continue };
        let own = rows.get(name).ok_or_else(|| Diagnostic::internal("no calibration rows of a head value"))?;
        let count = own.len().min(most);
        let flat = own.iter().take(count).flatten().copied().collect();
        inputs.insert(name.clone(), TensorValue::of_type(&node.ty, count, flat));
    }
    Ok(inputs)
}

/// Whether values of an element, one a row, are numbers that 32-bit floats hold.
fn held(values: &[f64], element: u32, loc: &Loc) -> Result<()> {
    match values.iter().position(|value| !value.is_finite() || value.abs() > f64::from(f32::MAX)) {
        None => Ok(()),
        Some(row) => Err(Diagnostic::new(
            Code::OptionInvalid,
            format!("calibration row {row}: element {element} is {:e}, which has no range to quantize", values[row]),
        )
        .at(loc.to_string())
        .help(
            "the model itself overflows there, or leaves its domain: leave such rows out, or scale the model's inputs",
        )),
    }
}
