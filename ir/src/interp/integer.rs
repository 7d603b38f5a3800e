//! Clear interpreter of the integer and the encrypted stage, one row at a time: the oracle of their passes.

use crate::graph::Graph;
use crate::stage::circuit::{Circuit, CircuitOp};
use crate::stage::quant::{CodedFeature, Quant, QuantOp, look_up};
use std::collections::BTreeMap;

/// Head values of one row, by name.
pub type Row = BTreeMap<String, Vec<f64>>;

/// A value while a row is evaluated.
enum Value {
    None,
    Codes(Vec<u32>),
    Reals(Vec<f64>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
}

/// Integer codes of a row. `single`: the model compares 32-bit floats.
///
/// # Errors
/// A missing column, or NaN in a feature without a code for it.
pub fn encode_codes(values: &[f64], single: bool, features: &[CodedFeature]) -> Result<Vec<u32>, String> {
    let code = |feature: &CodedFeature| {
        let value =
            values.get(feature.column as usize).ok_or_else(|| format!("there is no column {}", feature.column))?;
        let value = if single { f64::from(*value as f32) } else { *value };
        feature.code(value).ok_or_else(|| format!("column {} is NaN", feature.column))
    };
    features.iter().map(code).collect()
}

fn reals(row: &Row, value: &str, columns: u32) -> Result<Value, String> {
    let mut values = head(row, value)?.clone();
    if values.len() != columns as usize {
        return Err(format!("`{value}` has {} columns, not {columns}", values.len()));
    }
    values.push(1.0);
    Ok(Value::Reals(values))
}

fn head<'a>(row: &'a Row, value: &str) -> Result<&'a Vec<f64>, String> {
    row.get(value).ok_or_else(|| format!("there is no head value `{value}`"))
}

fn combine(weights: &[i64], columns: &[f64]) -> Value {
    let outputs = weights.chunks(columns.len().max(1));
    Value::Floats(outputs.map(|row| row.iter().zip(columns).map(|(&w, x)| w as f64 * x).sum()).collect())
}

fn affine<'a>(operands: impl Iterator<Item = &'a Value>, start: &[u32], column: &[u32], weight: &[i64]) -> Value {
    let mut inputs: Vec<i64> = Vec::new();
    for operand in operands {
        match operand {
            Value::Ints(ints) => inputs.extend_from_slice(ints),
            Value::Codes(codes) => inputs.extend(codes.iter().map(|&code| i64::from(code))),
            Value::None | Value::Reals(_) | Value::Floats(_) => {}
        }
    }
    let row = |pair: &[u32]| {
        let entries = pair[0] as usize..pair[1] as usize;
        entries.map(|at| weight[at] * inputs.get(column[at] as usize).copied().unwrap_or(0)).sum()
    };
    Value::Ints(start.windows(2).map(row).collect())
}

fn look_up_all(ints: &[i64], low: &[i64], stride: &[f64], tables: &[Vec<i64>], table: &[u32]) -> Vec<i64> {
    let elements = ints.iter().zip(low).zip(stride).zip(table);
    elements.map(|(((&x, &low), &stride), &table)| look_up(x, low, stride, &tables[table as usize])).collect()
}

fn dequantize(value: &Value, step: &[f64], offset: &[f64]) -> Value {
    let scale = |(x, (step, offset)): (f64, (&f64, &f64))| offset + step * x;
    let scales = step.iter().zip(offset);
    Value::Floats(match value {
        Value::Ints(ints) => ints.iter().map(|&x| x as f64).zip(scales).map(scale).collect(),
        Value::Floats(floats) => floats.iter().copied().zip(scales).map(scale).collect(),
        Value::None | Value::Codes(_) | Value::Reals(_) => Vec::new(),
    })
}

fn outputs<'a>(values: &[Value], outputs: impl Iterator<Item = (&'a String, usize)>) -> BTreeMap<String, Vec<f64>> {
    let value = |index: usize| match &values[index] {
        Value::Floats(floats) => floats.clone(),
        Value::Ints(ints) => ints.iter().map(|&x| x as f64).collect(),
        Value::None | Value::Codes(_) | Value::Reals(_) => Vec::new(),
    };
    outputs.map(|(name, index)| (name.clone(), value(index))).collect()
}

/// Evaluates a quant graph on one row of head values; outputs by name.
///
/// # Errors
/// A missing head value or column, NaN where there is no code for it.
pub fn evaluate_quant(graph: &Graph<Quant>, row: &Row) -> Result<Row, String> {
    let mut values: Vec<Value> = Vec::with_capacity(graph.len());
    for id in graph.values() {
        let node = graph.node(id);
        let operand = node.operands.first().map_or(&Value::None, |id| &values[id.index()]);
        let value = match (&node.op, operand) {
            (QuantOp::Codes { value, single, features }, _) => {
                Value::Codes(encode_codes(head(row, value)?, *single, features)?)
            }
            (QuantOp::Reals { value, columns }, _) => reals(row, value, *columns)?,
            (QuantOp::Trees { diagram }, Value::Codes(codes)) => Value::Ints(diagram.evaluate(codes, &[])),
            (QuantOp::Linear { outputs: _, weights }, Value::Reals(columns)) => combine(weights, columns),
            (QuantOp::Affine { start, column, weight, spread: _, exact: _ }, _) => {
                affine(node.operands.iter().map(|id| &values[id.index()]), start, column, weight)
            }
            (QuantOp::Lookup { regime: _, low, stride, tables, table }, Value::Ints(ints)) => {
                Value::Ints(look_up_all(ints, low, stride, tables, table))
            }
            (QuantOp::Dequantize { step, offset, exact: _ }, value) => dequantize(value, step, offset),
            (QuantOp::Lookup { .. } | QuantOp::Trees { .. } | QuantOp::Linear { .. }, _) => {
                return Err("operands of the wrong type".to_owned());
            }
        };
        values.push(value);
    }
    Ok(outputs(&values, graph.outputs().iter().map(|(name, id)| (name, id.index()))))
}

/// Evaluates a circuit graph on one row of head values; outputs by name, decoded.
///
/// # Errors
/// A missing head value or column, NaN where there is no code for it.
pub fn evaluate_circuit(graph: &Graph<Circuit>, row: &Row) -> Result<Row, String> {
    let mut values: Vec<Value> = Vec::with_capacity(graph.len());
    for id in graph.values() {
        let node = graph.node(id);
        let operand = node.operands.first();
        let value = operand.map_or(&Value::None, |id| &values[id.index()]);
        let value = match (&node.op, value) {
            (CircuitOp::Params { .. }, _) => Value::None,
            (CircuitOp::Codes { value, single, features, selectors: _ }, _) => {
                Value::Codes(encode_codes(head(row, value)?, *single, features)?)
            }
            (CircuitOp::Reals { value, columns }, _) => reals(row, value, *columns)?,
            (CircuitOp::Decide { log2_delta: _, diagram }, Value::Codes(codes)) => {
                let selectors = match operand.map(|id| &graph.node(*id).op) {
                    Some(CircuitOp::Codes { selectors, .. }) => selectors.iter().map(|record| record.code()).collect(),
                    _ => Vec::new(),
                };
                Value::Ints(diagram.evaluate(codes, &selectors))
            }
            (CircuitOp::Polymul { outputs: _, weights }, Value::Reals(columns)) => combine(weights, columns),
            (CircuitOp::BootstrapParams { .. }, _) => Value::None,
            (CircuitOp::Samples { .. }, Value::Codes(codes)) => {
                Value::Ints(codes.iter().map(|&code| i64::from(code)).collect())
            }
            (CircuitOp::SampleExtract { .. }, Value::Ints(ints)) => Value::Ints(ints.clone()),
            (CircuitOp::Affine { start, column, weight, spread: _, exact: _ }, _) => {
                affine(node.operands.iter().map(|id| &values[id.index()]), start, column, weight)
            }
            (CircuitOp::RotateLookup { start, column, weight, low, stride, tables, table, .. }, _) => {
                match affine(node.operands.iter().map(|id| &values[id.index()]), start, column, weight) {
                    Value::Ints(ints) => Value::Ints(look_up_all(&ints, low, stride, tables, table)),
                    other => other,
                }
            }
            (CircuitOp::Bootstrap { low, stride, tables, table, unit: _, results }, Value::Ints(ints)) => {
                let each = results.unwrap_or(1) as usize;
                let arguments: Vec<i64> = ints.iter().flat_map(|&int| std::iter::repeat_n(int, each)).collect();
                Value::Ints(look_up_all(&arguments, low, stride, tables, table))
            }
            (CircuitOp::Extract { step, offset, exact: _ }, value) => dequantize(value, step, offset),
            (
                CircuitOp::Decide { .. }
                | CircuitOp::Polymul { .. }
                | CircuitOp::Samples { .. }
                | CircuitOp::SampleExtract { .. }
                | CircuitOp::Bootstrap { .. },
                _,
            ) => {
                return Err("operands of the wrong type".to_owned());
            }
        };
        values.push(value);
    }
    Ok(outputs(&values, graph.outputs().iter().map(|(name, id)| (name, id.index()))))
}
