//! The integer stage: codes and scaled integers in place of floats, still in clear.
//!
//! Tree ensembles become diagrams over integer codes, exactly equivalent to the float comparisons; linear maps get
//! integer weights. Networks alternate `affine` (a sparse integer matrix) and `lookup` (a table for each element).
//! `dequantize` gives back floats with a step and an offset for each output.

use crate::diagram::Diagram;
use crate::graph::Stage;
use crate::{attr_enum, attr_record, define_ops};
use std::fmt;
use std::str::FromStr;

attr_enum! {
    /// Where the code of a missing value (NaN) lies among a feature's codes.
    pub enum Missing {
        /// There is none: NaN is an error.
        None = "none",
        /// NaN has code 0, all others start at 1.
        Low = "low",
        /// NaN has the code after the largest.
        High = "high",
    }
}

attr_record! {
    /// How one column of a head value becomes an integer code: the number of boundaries at or below the value, which is
    /// the exact equivalent of the float comparisons. Boundaries are the smallest floats on the upper side of a split.
    pub struct CodedFeature {
        /// Column of the head value.
        pub column: u32,
        /// Strictly increasing boundaries.
        pub boundaries: Vec<f64>,
        /// Where NaN goes.
        pub missing: Missing,
    }
}

impl CodedFeature {
    /// The largest code.
    pub fn largest(&self) -> u32 {
        self.boundaries.len() as u32 + u32::from(self.missing != Missing::None)
    }

    /// The code of a value, or `None` for NaN where there is no code for it.
    pub fn code(&self, value: f64) -> Option<u32> {
        let rank = self.boundaries.partition_point(|&boundary| boundary <= value) as u32;
        match self.missing {
            Missing::None => (!value.is_nan()).then_some(rank),
            Missing::Low => Some(if value.is_nan() { 0 } else { rank + 1 }),
            Missing::High => Some(if value.is_nan() { self.largest() } else { rank }),
        }
    }
}

attr_enum! {
    /// How a look-up runs encrypted.
    pub enum Regime {
        /// A table rotated by selector bits: no evaluation key, one external product a bit and element (R1).
        Rotate = "rotate",
        /// A programmable bootstrap (R2).
        Bootstrap = "bootstrap",
    }
}

/// A sparse matrix by rows: row r has the entries `start[r]..start[r+1]`.
pub(crate) fn check_matrix(start: &[u32], column: &[u32], weights: usize, columns: usize) -> Result<(), String> {
    let ends_fit = start.first() == Some(&0) && start.last().is_some_and(|&end| end as usize == column.len());
    if !ends_fit || start.windows(2).any(|pair| pair[0] > pair[1]) || column.len() != weights {
        return Err("the rows of the matrix are inconsistent".to_owned());
    }
    match column.iter().find(|&&column| column as usize >= columns) {
        Some(column) => Err(format!("column {column} of {columns}")),
        None => Ok(()),
    }
}

/// The sound interval of every row of a sparse matrix.
///
/// # Errors
/// Inconsistent rows, and sums that leave 53 bits.
pub fn matrix_ranges(
    start: &[u32],
    column: &[u32],
    weight: &[i64],
    inputs: &[(i64, i64)],
) -> Result<Vec<(i64, i64)>, String> {
    check_matrix(start, column, weight.len(), inputs.len())?;
    let row = |pair: &[u32]| {
        let mut range = (0i64, 0i64);
        for at in pair[0] as usize..pair[1] as usize {
            let (low, high) = inputs[column[at] as usize];
            let (a, b) = (weight[at].checked_mul(low)?, weight[at].checked_mul(high)?);
            range = (range.0.checked_add(a.min(b))?, range.1.checked_add(a.max(b))?);
        }
        // Room for what follows: sums of such values never overflow 64 bits.
        (range.0.abs().max(range.1.abs()) < 1 << 53).then_some(range)
    };
    start.windows(2).map(|pair| row(pair).ok_or_else(|| "a sum leaves 53 bits".to_owned())).collect()
}

/// The look-up tables of a layer are consistent with its rows; the interval of each element's values.
pub(crate) fn table_ranges(
    rows: usize,
    low: &[i64],
    stride: &[f64],
    tables: &[Vec<i64>],
    table: &[u32],
) -> Result<Vec<(i64, i64)>, String> {
    if low.len() != rows || stride.len() != rows || table.len() != rows {
        return Err(format!(
            "{} offsets, {} strides, {} tables for {rows} elements",
            low.len(),
            stride.len(),
            table.len()
        ));
    }
    if stride.iter().any(|stride| !stride.is_finite() || *stride < 0.0) {
        return Err("a stride is negative".to_owned());
    }
    // Tables by stride and tables of steps, each read at most once.
    let mut known: [Vec<Option<(i64, i64)>>; 2] = [vec![None; tables.len()], vec![None; tables.len()]];
    let mut entries = None;
    let mut out = Vec::with_capacity(rows);
    for (&at, &stride) in table.iter().zip(stride) {
        let own = tables.get(at as usize).ok_or_else(|| format!("there is no table {at}"))?;
        let steps = stride == 0.0;
        let slot = &mut known[usize::from(steps)][at as usize];
        let range = match *slot {
            Some(range) => range,
            None if steps => steps_range(own)?,
            None if own.len() < 2 || *entries.get_or_insert(own.len()) != own.len() => {
                return Err("tables of different sizes, or of less than two entries".to_owned());
            }
            None => own.iter().fold((i64::MAX, i64::MIN), |(a, b), &v| (a.min(v), b.max(v))),
        };
        *slot = Some(range);
        out.push(range);
    }
    Ok(out)
}

/// The interval of the values of a table of steps.
fn steps_range(table: &[i64]) -> Result<(i64, i64), String> {
    let Some((&first, rest)) = table.split_first() else { return Err("a table of no step".to_owned()) };
    let (steps, rest) = rest.as_chunks::<2>();
    if !rest.is_empty() || steps.windows(2).any(|pair| pair[0][0] >= pair[1][0]) {
        return Err("the arguments of a table of steps do not increase".to_owned());
    }
    Ok(steps.iter().fold((first, first), |(a, b), &[_, value]| (a.min(value), b.max(value))))
}

/// Entry of a table for an argument. With a positive stride: the nearest slot, the ends beyond them. With stride 0 the table
/// is one of steps, exact on all integers: its first value, then pairs of the argument from which on it has another value and
/// that value.
pub fn look_up(argument: i64, low: i64, stride: f64, table: &[i64]) -> i64 {
    if stride == 0.0 {
        let Some((&first, rest)) = table.split_first() else { return 0 };
        let steps = rest.as_chunks::<2>().0;
        let passed = steps.partition_point(|[from, _]| *from <= argument);
        return passed.checked_sub(1).map_or(first, |at| steps[at][1]);
    }
    let slot = ((argument - low) as f64 / stride).round().clamp(0.0, (table.len() - 1) as f64);
    table[slot as usize]
}

define_ops! {
    /// Operations of the integer stage.
    pub enum QuantOp {
        /// Columns of a head value as integer codes.
        Codes = "codes" {
            /// Name of the head's output.
            value: String,
            /// Whether the model compares in 32-bit floats: values are rounded to f32 first.
            single: bool,
            /// The features, in the order diagrams number them.
            features: crate::attr::Many<CodedFeature>,
        },
        /// Columns of a head value as reals, and a last column that is always 1.
        Reals = "reals" {
            /// Name of the head's output.
            value: String,
            /// Number of columns, the constant one not counted.
            columns: u32,
        },
        /// A tree ensemble: the sum of decision diagrams over codes.
        Trees = "trees" {
            /// Switches only, one root term a tree.
            diagram: Diagram,
        },
        /// `outputs` integer combinations of the columns (the constant column last).
        Linear = "linear" {
            /// Number of outputs.
            outputs: u32,
            /// Row-major, outputs x (columns + 1).
            weights: Vec<i64>,
        },
        /// Integer combinations of the elements of all operands, numbered through; a sparse matrix by rows.
        Affine = "affine" {
            /// First entry of each row, and the number of entries.
            start: Vec<u32>,
            /// Column of each entry.
            column: Vec<u32>,
            /// Weight of each entry.
            weight: Vec<i64>,
            /// Standard deviation that a sum typically has over inputs (the median over rows): what noise is judged by.
            spread: f64,
            /// Whether noise has to stay within half a step instead, as where truth values are counted; absent for no.
            exact: Option<bool>,
        },
        /// A function of each element: entry `round((x - low) / stride)` of its table.
        Lookup = "lookup" {
            /// How it runs encrypted.
            regime: Regime,
            /// Per element: the argument of entry 0.
            low: Vec<i64>,
            /// Per element: from one entry's argument to the next.
            stride: Vec<f64>,
            /// Distinct tables, of one size.
            tables: crate::attr::Many<Vec<i64>>,
            /// Per element: its table.
            table: Vec<u32>,
        },
        /// Integers back to floats: `offset + step * value`, per output.
        Dequantize = "dequantize" {
            /// Per output.
            step: Vec<f64>,
            /// Per output.
            offset: Vec<f64>,
            /// Whether the values are exact multiples of the step, so that rounding to the nearest integer removes all noise.
            exact: bool,
        },
    }
}

/// What is known of a value of the integer stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantType {
    /// Codes, with the largest code of each feature.
    Codes(Vec<u32>),
    /// Real columns (with the constant one).
    Reals(u32),
    /// Integers with a sound interval each.
    Ints(Vec<(i64, i64)>),
    /// Integer combinations of reals.
    Combined(u32),
    /// Floats.
    Floats(u32),
}

/// `a, b, c`, or `a x 8` for a run; keeps long types readable and is read back.
pub(crate) fn runs<T: PartialEq + fmt::Display>(items: &[T]) -> String {
    let runs = items.chunk_by(|a, b| a == b);
    let shown = runs.map(|run| if run.len() == 1 { run[0].to_string() } else { format!("{} x {}", run[0], run.len()) });
    shown.collect::<Vec<_>>().join(", ")
}

/// Reads what [`runs`] writes; at most 2^20 items.
pub(crate) fn parse_runs<T: Clone>(text: &str, item: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let mut out = Vec::new();
    for run in text.split(',').map(str::trim).filter(|run| !run.is_empty()) {
        let (value, count) = match run.split_once(" x ") {
            None => (run, 1),
            Some((value, count)) => (value, count.trim().parse::<usize>().ok()?),
        };
        if count > 1 << 20 || out.len() + count > 1 << 20 {
            return None;
        }
        out.extend(std::iter::repeat_n(item(value.trim())?, count));
    }
    Some(out)
}

pub(crate) struct Interval(pub(crate) i64, pub(crate) i64);

impl PartialEq for Interval {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0, self.1)
    }
}

pub(crate) fn parse_interval(text: &str) -> Option<(i64, i64)> {
    let (low, high) = text.split_once("..")?;
    Some((low.trim().parse().ok()?, high.trim().parse().ok()?))
}

impl fmt::Display for QuantType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuantType::Codes(largest) => write!(f, "codes[{}]", runs(largest)),
            QuantType::Reals(columns) => write!(f, "reals[{columns}]"),
            QuantType::Ints(ranges) => {
                let ranges: Vec<Interval> = ranges.iter().map(|&(low, high)| Interval(low, high)).collect();
                write!(f, "int[{}]", runs(&ranges))
            }
            QuantType::Combined(outputs) => write!(f, "combined[{outputs}]"),
            QuantType::Floats(outputs) => write!(f, "float[{outputs}]"),
        }
    }
}

impl FromStr for QuantType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a type of the quant stage");
        let (kind, inner) = text.split_once('[').ok_or_else(wrong)?;
        let inner = inner.strip_suffix(']').ok_or_else(wrong)?;
        let number = |inner: &str| inner.trim().parse::<u32>().ok();
        let parsed = match kind.trim() {
            "codes" => parse_runs(inner, number).map(QuantType::Codes),
            "reals" => number(inner).map(QuantType::Reals),
            "int" => parse_runs(inner, parse_interval).map(QuantType::Ints),
            "combined" => number(inner).map(QuantType::Combined),
            "float" => number(inner).map(QuantType::Floats),
            _ => None,
        };
        parsed.ok_or_else(wrong)
    }
}

/// The integer stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quant;

/// Boundaries must be finite or infinite floats in strictly increasing order.
pub(crate) fn check_features(features: &[CodedFeature]) -> Result<(), String> {
    for (index, feature) in features.iter().enumerate() {
        if feature.boundaries.iter().any(|boundary| boundary.is_nan()) {
            return Err(format!("f{index} has a NaN boundary"));
        }
        if feature.boundaries.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("the boundaries of f{index} do not increase"));
        }
    }
    Ok(())
}

impl Stage for Quant {
    type Op = QuantOp;
    type Type = QuantType;
    const NAME: &'static str = "quant";

    fn infer(op: &QuantOp, operands: &[&QuantType], _declared: Option<&QuantType>) -> Result<QuantType, String> {
        match (op, operands) {
            (QuantOp::Codes { value: _, single: _, features }, []) => {
                check_features(features)?;
                Ok(QuantType::Codes(features.iter().map(CodedFeature::largest).collect()))
            }
            (QuantOp::Reals { value: _, columns }, []) => {
                columns.checked_add(1).map(QuantType::Reals).ok_or_else(|| "too many columns".to_owned())
            }
            (QuantOp::Trees { diagram }, [QuantType::Codes(largest)]) => {
                diagram.check(largest, &[])?;
                Ok(QuantType::Ints(diagram.ranges()))
            }
            (QuantOp::Linear { outputs, weights }, [QuantType::Reals(columns)]) => {
                if u64::from(*outputs) * u64::from(*columns) != weights.len() as u64 {
                    return Err(format!("{} weights for {outputs} outputs of {columns} columns", weights.len()));
                }
                Ok(QuantType::Combined(*outputs))
            }
            (QuantOp::Affine { start, column, weight, spread: _, exact: _ }, operands) if !operands.is_empty() => {
                let mut ranges = Vec::new();
                for operand in operands {
                    match operand {
                        QuantType::Ints(own) => ranges.extend_from_slice(own),
                        QuantType::Codes(largest) => ranges.extend(largest.iter().map(|&code| (0, i64::from(code)))),
                        _ => return Err("an operand that is neither codes nor integers".to_owned()),
                    }
                }
                matrix_ranges(start, column, weight, &ranges).map(QuantType::Ints)
            }
            (QuantOp::Lookup { regime: _, low, stride, tables, table }, [QuantType::Ints(ranges)]) => {
                table_ranges(ranges.len(), low, stride, tables, table).map(QuantType::Ints)
            }
            (QuantOp::Dequantize { step, offset, exact: _ }, [QuantType::Ints(ranges)]) => {
                dequantized(step, offset, ranges.len())
            }
            (QuantOp::Dequantize { step, offset, exact: _ }, [QuantType::Combined(outputs)]) => {
                dequantized(step, offset, *outputs as usize)
            }
            (
                QuantOp::Codes { .. }
                | QuantOp::Reals { .. }
                | QuantOp::Trees { .. }
                | QuantOp::Linear { .. }
                | QuantOp::Affine { .. }
                | QuantOp::Lookup { .. }
                | QuantOp::Dequantize { .. },
                _,
            ) => Err("operands of the wrong number or type".to_owned()),
        }
    }
}

fn dequantized(step: &[f64], offset: &[f64], outputs: usize) -> Result<QuantType, String> {
    if step.len() != outputs || offset.len() != outputs {
        return Err(format!("{} steps and {} offsets for {outputs} outputs", step.len(), offset.len()));
    }
    Ok(QuantType::Floats(outputs as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_exact_on_all_integers_and_checked() {
        let table = [-2, -5, 0, 7, 3];
        let found: Vec<i64> = [-1000, -6, -5, 6, 7, 1000].map(|at| look_up(at, 99, 0.0, &table)).to_vec();
        assert_eq!(found, [-2, -2, 0, 0, 3, 3]);
        let ranges = |tables: &[Vec<i64>], stride: f64| table_ranges(1, &[0], &[stride], tables, &[0]);
        assert_eq!(ranges(&[table.to_vec()], 0.0), Ok(vec![(-2, 3)]));
        assert_eq!(ranges(&[table.to_vec()], 1.0), Ok(vec![(-5, 7)]));
        for wrong in [vec![], vec![1, 2], vec![1, 5, 2, 5, 3], vec![1, 5, 2, 4, 3]] {
            assert!(ranges(&[wrong], 0.0).is_err());
        }
        assert!(ranges(&[table.to_vec()], -1.0).is_err());
    }
}
