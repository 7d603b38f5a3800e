//! Tables that are none: those constant or affine over all arguments that can reach them, and those that repeat another.
//!
//! Arguments are bounded from the clear weights: inputs saturate at the ends of the grid that the model has for them or of the
//! range that they have on the calibration rows, and every table at the ends of what it holds.

use super::calibrate::Trace;
use super::grid::Kept;
use super::quantize::{ENTRIES, around_zero};
use super::rows::{Combiner, Row};
use super::trace::{Activation, Network, Output};
use std::collections::HashMap;
use tacit_ir::diag::Result;

/// How far a table may be from a line, as a share of its largest value: functions are evaluated in 32-bit floats, and these are two
/// of their roundings.
const TOLERANCE: f64 = 2.5e-7;

/// How many tables went, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The same value for all arguments.
    pub(crate) constant: u64,
    /// A line over all arguments.
    pub(crate) affine: u64,
    /// The same table of the same sum as another.
    pub(crate) repeated: u64,
    /// Read by nothing.
    pub(crate) unread: u64,
}

/// The network without tables that are none; its atoms are numbered anew.
///
/// # Errors
/// Those of evaluating functions.
pub(crate) fn simplify(network: &Network, trace: &Trace, kept: &Kept, symmetric: bool) -> Result<(Network, Removed)> {
    let mut removed = Removed::default();
    let inputs = network.inputs.len();
    let mut new = network.without_layers();
    // What stands for each atom of the old network in the new one.
    let mut replacements: Vec<Row> = (0..inputs as u32).map(Row::atom).collect();
    // Of atoms of the new network.
    let mut ranges: Vec<(f64, f64)> =
        (0..inputs).map(|atom| input_range(network, trace, kept, symmetric, atom)).collect();
    let mut sums = Combiner::default();
    let mut substitute = |row: &Row, replacements: &[Row]| {
        let terms = row.terms.iter().map(|&(atom, weight)| (&replacements[atom as usize], weight));
        sums.combine(terms, row.constant)
    };
    for layer in &network.layers {
        let rows: Vec<Row> = layer.rows.iter().map(|row| substitute(row, &replacements)).collect();
        let arguments: Vec<(f64, f64)> = rows.iter().map(|row| interval(row, &ranges)).collect();
        let points: Vec<Vec<f64>> = arguments.iter().map(|&(low, high)| entries(low, high)).collect();
        let values = layer.values(&points)?;
        let mut kept =
            Activation { rows: Vec::new(), elements: Vec::new(), first_atom: ranges.len() as u32, ..layer.clone() };
        let mut known: HashMap<Vec<u64>, u32> = HashMap::new();
        for ((element, row), (points, values)) in layer.elements.iter().zip(rows).zip(points.iter().zip(&values)) {
            let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
            if let Some((slope, offset)) = line(points, values) {
                removed.constant += u64::from(slope == 0.0);
                removed.affine += u64::from(slope != 0.0);
                replacements.push(substitute(&Row { terms: vec![(0, slope)], constant: offset }, &[row]));
                continue;
            }
            let next = ranges.len() as u32;
            let atom = *known.entry(key(&row, values)).or_insert(next);
            if atom == next {
                // Between entries a table may go beyond both of them, but by no more than they differ.
                let step = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f64::max);
                ranges.push((low - step, high + step));
                kept.rows.push(row);
                kept.elements.push(*element);
            } else {
                removed.repeated += 1;
            }
            replacements.push(Row::atom(atom));
        }
        if !kept.rows.is_empty() {
            new.layers.push(kept);
        }
    }
    for output in &network.outputs {
        let rows = output.rows.iter().map(|row| substitute(row, &replacements)).collect();
        new.outputs.push(Output { rows, ..output.clone() });
    }
    let (new, unread) = without_unread(&new);
    removed.unread = unread;
    Ok((new, removed))
}

/// The range of an input: of the grid that the model has for it, or that of the calibration rows, widened around zero where
/// its grid is.
fn input_range(network: &Network, trace: &Trace, kept: &Kept, symmetric: bool, atom: usize) -> (f64, f64) {
    if let Some(bounds) = network.bounds[atom] {
        return bounds;
    }
    if let Some(points) = kept.input(&network.inputs[atom]) {
        let (a, b) = (points.low, points.low + points.step * points.steps as f64);
        return (a.min(b), a.max(b));
    }
    let values = trace.atoms.iter().map(|row| row[atom]);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    if symmetric { around_zero(low, high) } else { (low, high) }
}

fn interval(row: &Row, ranges: &[(f64, f64)]) -> (f64, f64) {
    row.terms.iter().fold((row.constant, row.constant), |(low, high), &(atom, weight)| {
        let (a, b) = (weight * ranges[atom as usize].0, weight * ranges[atom as usize].1);
        (low + a.min(b), high + a.max(b))
    })
}

fn entries(low: f64, high: f64) -> Vec<f64> {
    (0..ENTRIES).map(|at| low + (high - low) * at as f64 / (ENTRIES - 1) as f64).collect()
}

/// Slope and offset of the line that the values lie on; `None` where they lie on none, or are not all finite.
fn line(points: &[f64], values: &[f64]) -> Option<(f64, f64)> {
    let (first, last) = (*values.first()?, *values.last()?);
    let (low, high) = (*points.first()?, *points.last()?);
    let slope = if first == last || high <= low { 0.0 } else { (last - first) / (high - low) };
    let tolerance = TOLERANCE * first.abs().max(last.abs()).max(f64::MIN_POSITIVE);
    let on = |(x, y): (&f64, &f64)| (first + slope * (x - low) - y).abs() <= tolerance;
    let all = values.iter().all(|y| y.is_finite()) && points.iter().zip(values).all(on);
    all.then_some((slope, first - slope * low))
}

/// What makes two elements of a layer the same.
fn key(row: &Row, values: &[f64]) -> Vec<u64> {
    let terms = row.terms.iter().flat_map(|&(atom, weight)| [u64::from(atom), weight.to_bits()]);
    terms.chain([row.constant.to_bits()]).chain(values.iter().map(|value| value.to_bits())).collect()
}

/// Leaves out elements that no later layer and no output reads.
fn without_unread(network: &Network) -> (Network, u64) {
    let mut read = vec![false; network.atoms()];
    let see = |rows: &[Row], read: &mut Vec<bool>| {
        for (atom, _) in rows.iter().flat_map(|row| &row.terms) {
            read[*atom as usize] = true;
        }
    };
    for output in &network.outputs {
        see(&output.rows, &mut read);
    }
    for layer in network.layers.iter().rev() {
        let first = layer.first_atom as usize;
        for (element, row) in layer.rows.iter().enumerate() {
            if read[first + element] {
                see(std::slice::from_ref(row), &mut read);
            }
        }
    }
    let inputs = network.inputs.len();
    let mut new = network.without_layers();
    let mut number: Vec<u32> = (0..inputs as u32).collect();
    let mut next = inputs as u32;
    let mut unread = 0;
    let renumber = |row: &Row, number: &[u32]| Row {
        terms: row.terms.iter().map(|&(atom, weight)| (number[atom as usize], weight)).collect(),
        constant: row.constant,
    };
    for layer in &network.layers {
        let mut kept = Activation { rows: Vec::new(), elements: Vec::new(), first_atom: next, ..layer.clone() };
        for (at, (row, element)) in layer.rows.iter().zip(&layer.elements).enumerate() {
            number.push(next);
            if read[layer.first_atom as usize + at] {
                kept.rows.push(renumber(row, &number));
                kept.elements.push(*element);
                next += 1;
            } else {
                unread += 1;
            }
        }
        if !kept.rows.is_empty() {
            new.layers.push(kept);
        }
    }
    let renumbered = |output: &Output| Output {
        rows: output.rows.iter().map(|row| renumber(row, &number)).collect(),
        ..output.clone()
    };
    new.outputs = network.outputs.iter().map(renumbered).collect();
    (new, unread)
}

#[cfg(test)]
mod tests {
    use super::super::function::{Function, Scalar};
    use super::*;
    use tacit_ir::graph::Loc;

    fn relu(rows: Vec<Row>, first_atom: u32) -> Activation {
        let elements = (0..rows.len() as u32).collect();
        let width = rows.len();
        let function = Function::Scalar(Scalar::Relu);
        Activation { rows, elements, width, function, first_atom, exact: false, loc: Loc::Unknown }
    }

    fn row(terms: &[(u32, f64)], constant: f64) -> Row {
        Row { terms: terms.to_vec(), constant }
    }

    #[test]
    fn lines_constants_and_copies_go_and_values_stay() {
        let network = Network {
            inputs: vec![("x".to_owned(), 0), ("x".to_owned(), 1)],
            bounds: vec![None; 2],
            layers: vec![
                // A table, one never below zero, one never above, a copy of the first, one that nothing reads.
                relu(
                    vec![
                        row(&[(0, 1.0), (1, -1.0)], 0.0),
                        row(&[(0, 2.0)], 5.0),
                        row(&[(1, 1.0)], -9.0),
                        row(&[(0, 1.0), (1, -1.0)], 0.0),
                        row(&[(1, 3.0)], 0.5),
                    ],
                    2,
                ),
                // Once the second is a line, this is one of inputs.
                relu(vec![row(&[(2, 1.0), (3, -1.0), (4, 1.0), (5, 2.0)], 0.25)], 7),
            ],
            outputs: vec![Output {
                name: "y".to_owned(),
                rows: vec![row(&[(7, 1.0), (3, 1.0)], 1.0)],
                exact: false,
                loc: Loc::Unknown,
            }],
        };
        let trace = Trace { atoms: vec![vec![-1.0, -1.0], vec![1.0, 1.0]] };
        let (simple, removed) = simplify(&network, &trace, &Kept::default(), false).unwrap();
        assert_eq!(removed, Removed { constant: 1, affine: 1, repeated: 1, unread: 1 });
        assert_eq!(simple.layers.iter().map(|layer| layer.rows.len()).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(simple.layers[1].rows[0], row(&[(0, -2.0), (2, 3.0)], -4.75));
        for (a, b) in [(-1.0, 1.0), (0.3, -0.2), (1.0, 1.0), (0.9, -1.0)] {
            let mut all = [network.clone(), simple.clone()].map(|network| {
                let mut atoms = vec![a, b];
                for layer in &network.layers {
                    let points: Vec<Vec<f64>> = layer.rows.iter().map(|row| vec![row.value(&atoms)]).collect();
                    atoms.extend(layer.values(&points).unwrap().into_iter().flatten());
                }
                network.outputs[0].rows[0].value(&atoms)
            });
            all.sort_by(f64::total_cmp);
            assert!((all[1] - all[0]).abs() < 1e-12, "{a} {b}: {all:?}");
        }
    }
}
