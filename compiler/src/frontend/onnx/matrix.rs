//! Matrix products: with a constant side they are linear maps.

use super::node::{Converted, Fail, NodeCx, finite};
use super::shape::{drop_axes, shape_codes};
use std::collections::BTreeSet;
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::TensorValue;
use tacit_ir::stage::tensor::{BinaryKind, Dim, ReduceKind, TensorOp};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "MatMul" => matmul(cx)?,
        "Gemm" => gemm(cx)?,
        "Einsum" => einsum(cx)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// numpy's `matmul`.
fn matmul(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    let id = matrix_product(cx, x, w)?;
    cx.define(id);
    Ok(())
}

/// The product of two tensors as numpy's `matmul` has it: of matrices in the last two axes, others broadcast.
pub(super) fn matrix_product(cx: &mut NodeCx<'_, '_>, a: ValueId, b: ValueId) -> Converted<ValueId> {
    let (of_a, of_b) = (cx.ty(a).shape.len(), cx.ty(b).shape.len());
    if of_a == 0 || of_b == 0 {
        return Err(Fail::shape("a product of matrices with a scalar"));
    }
    let rows_first = |cx: &NodeCx<'_, '_>, id| cx.ty(id).shape.first() == Some(&Dim::Batch);
    if of_a == 2 && of_b <= 2 && cx.constant(b).is_some() && cx.constant(a).is_none() {
        return linear(cx, a, b);
    }
    if of_b == 2 && of_a >= 3 && cx.constant(b).is_some() && rows_first(cx, a) {
        return last_axis_product(cx, a, b);
    }
    // Vectors are matrices of one row, or column.
    let mut left = shape_codes(cx, a);
    let mut right = shape_codes(cx, b);
    if of_a == 1 {
        left.insert(0, 1);
    }
    if of_b == 1 {
        right.push(1);
    }
    let (inner, other) = (left[left.len() - 1], right[right.len() - 2]);
    if inner != other || inner < 0 {
        return Err(Fail::shape(format!("a product of {} and {}", cx.ty(a), cx.ty(b))));
    }
    // [.., m, k, 1] times [.., 1, k, n], summed over k.
    left.push(1);
    right.insert(right.len() - 2, 1);
    let (left, right) = (cx.reshape(a, left)?, cx.reshape(b, right)?);
    let products = cx.binary(BinaryKind::Mul, left, right)?;
    check_size(cx, products)?;
    let rank = cx.ty(products).shape.len();
    let sums = cx.reduce(ReduceKind::Sum, &[rank - 2], products)?;
    let mut dropped = vec![rank - 2];
    if of_a == 1 {
        dropped.push(rank - 3);
    }
    if of_b == 1 {
        dropped.push(rank - 1);
    }
    drop_axes(cx, sums, &dropped)
}

/// Refuses an intermediate result that would not fit into memory.
fn check_size(cx: &NodeCx<'_, '_>, id: ValueId) -> Converted<()> {
    let size = cx.ty(id).shape.iter().try_fold(1usize, |size, dim| match dim {
        Dim::Fixed(dim) => size.checked_mul(*dim),
        Dim::Batch => Some(size),
    });
    match size {
        Some(size) if size <= cx.importer.limits.max_elements => Ok(()),
        _ => Err(Fail::unsupported(format!("a product with {} terms; use smaller matrices", cx.ty(id)))),
    }
}

fn linear(cx: &mut NodeCx<'_, '_>, x: ValueId, w: ValueId) -> Converted<ValueId> {
    let (rows, columns, weights) = constant_matrix(cx, w)?;
    let vector = cx.ty(w).shape.len() == 1;
    let x = cx.as_float(x)?;
    check_inner(cx, x, rows)?;
    let op =
        TensorOp::Linear { outputs: columns, weights: transposed(&weights, rows, columns), bias: vec![0.0; columns] };
    let id = cx.push(op, vec![x])?;
    if vector { cx.push(TensorOp::Reshape { shape: vec![-1] }, vec![id]) } else { Ok(id) }
}

/// `[rows, .., k]` times a constant `[k, n]`: a convolution of one element over the positions between.
fn last_axis_product(cx: &mut NodeCx<'_, '_>, x: ValueId, w: ValueId) -> Converted<ValueId> {
    let (inner, outputs, weights) = constant_matrix(cx, w)?;
    let x = cx.as_float(x)?;
    let codes = shape_codes(cx, x);
    let positions: i64 = codes[1..codes.len() - 1].iter().product();
    if codes.last() != Some(&(inner as i64)) {
        return Err(Fail::shape(format!("a product of {} and {}", cx.ty(x), cx.ty(w))));
    }
    let flat = cx.reshape(x, vec![-1, positions, inner as i64])?;
    let channels = cx.transpose(flat, vec![0, 2, 1])?;
    let element = cx.ty(x).element;
    let kernel = cx.numbers(element, vec![outputs, inner, 1], transposed(&weights, inner, outputs))?;
    let op = TensorOp::Conv { strides: vec![1], dilations: vec![1], pads: vec![0, 0], group: 1 };
    let sums = cx.push(op, vec![channels, kernel])?;
    let back = cx.transpose(sums, vec![0, 2, 1])?;
    let codes = codes[..codes.len() - 1].iter().copied().chain([outputs as i64]).collect();
    cx.reshape(back, codes)
}

/// Sums of products named by letters, without repeated letters in an operand and without an ellipsis.
fn einsum(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let equation = cx.string("equation")?.ok_or_else(|| Fail::attribute("`equation` is missing"))?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let plain = |labels: &str| {
        let distinct: BTreeSet<char> = labels.chars().collect();
        labels.chars().all(|c| c.is_ascii_alphabetic()) && distinct.len() == labels.len()
    };
    let (inputs, output) = equation.split_once("->").map_or((equation.as_str(), None), |(a, b)| (a, Some(b)));
    let inputs: Vec<&str> = inputs.split(',').collect();
    let implicit: String = {
        let all: BTreeSet<char> = inputs.iter().flat_map(|labels| labels.chars()).collect();
        all.into_iter().filter(|c| inputs.iter().map(|labels| labels.matches(*c).count()).sum::<usize>() == 1).collect()
    };
    let output = output.unwrap_or(&implicit);
    let operands = cx.operands()?;
    if inputs.len() != operands.len() || !inputs.iter().all(|labels| plain(labels)) || !plain(output) {
        return Err(Fail::unsupported(format!("`{equation}`; without ellipses, one letter an axis")));
    }
    let summed: BTreeSet<char> = inputs.iter().flat_map(|i| i.chars()).filter(|c| !output.contains(*c)).collect();
    let all: Vec<char> = output.chars().chain(summed.iter().copied()).collect();
    let mut product: Option<ValueId> = None;
    for (labels, operand) in inputs.iter().zip(operands) {
        let labels: Vec<char> = labels.chars().collect();
        if cx.ty(operand).shape.len() != labels.len() {
            return Err(Fail::shape(format!("`{equation}` with {}", cx.ty(operand))));
        }
        let codes = shape_codes(cx, operand);
        let place = |c: &char| labels.iter().position(|own| own == c);
        let order: Vec<usize> = all.iter().filter_map(place).collect();
        let shape = all.iter().map(|c| place(c).map_or(1, |at| codes[at])).collect();
        let turned = cx.transpose(operand, order)?;
        let spread = cx.reshape(turned, shape)?;
        product = Some(match product {
            Some(product) => cx.binary(BinaryKind::Mul, product, spread)?,
            None => spread,
        });
    }
    let product = product.ok_or_else(|| Fail::attribute("no operands"))?;
    check_size(cx, product)?;
    let axes: Vec<usize> = (output.len()..all.len()).collect();
    let sums = if axes.is_empty() { product } else { cx.reduce(ReduceKind::Sum, &axes, product)? };
    let id = drop_axes(cx, sums, &axes)?;
    cx.define(id);
    Ok(())
}

fn check_inner(cx: &NodeCx<'_, '_>, x: ValueId, inner: usize) -> Converted<()> {
    match cx.ty(x).columns() {
        Some(columns) if columns != inner => Err(Fail::shape(format!("{columns} columns times weights for {inner}"))),
        _ => Ok(()),
    }
}

fn transposed(weights: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| weights[r * columns + c])).collect()
}

/// Rows, columns and row-major weights; a vector is one column.
fn constant_matrix(cx: &NodeCx<'_, '_>, id: ValueId) -> Converted<(usize, usize, Vec<f64>)> {
    let value = cx.constant(id).ok_or_else(|| {
        Fail::unsupported("a product whose second factor is not constant; only x times constant weights is supported")
    })?;
    let weights = value.to_f64().ok_or_else(|| {
        Fail::type_mismatch("a matrix of strings").help("weights are numbers; export the model again")
    })?;
    finite("weight", &weights)?;
    match value.shape.as_slice() {
        [rows, columns] => Ok((*rows, *columns, weights)),
        [rows] => Ok((*rows, 1, weights)),
        other => Err(Fail::unsupported(format!("a product with a tensor of rank {}; use a matrix", other.len()))),
    }
}

fn gemm(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let (x, w) = (cx.operand(0)?, cx.operand(1)?);
    if cx.flag("transA", false)? {
        return Err(Fail::unsupported("Gemm with transA; transpose the input before"));
    }
    let alpha = f64::from(cx.float("alpha")?.unwrap_or(1.0));
    let beta = f64::from(cx.float("beta")?.unwrap_or(1.0));
    let (rows, columns, weights) = constant_matrix(cx, w)?;
    let (outputs, weights) =
        if cx.flag("transB", false)? { (rows, weights) } else { (columns, transposed(&weights, rows, columns)) };
    check_inner(cx, x, weights.len() / outputs.max(1))?;
    let weights: Vec<f64> = weights.into_iter().map(|w| w * alpha).collect();
    // One number, or one a column, is part of the map; anything else is added behind it.
    let constant = cx.optional(2).and_then(|id| cx.constant(id));
    let row_like = constant.filter(|value| matches!(value.shape.as_slice(), [] | [_] | [1, _]));
    let mut added = None;
    let bias = match (cx.optional(2), row_like.and_then(TensorValue::to_f64)) {
        (None, _) => vec![0.0; outputs],
        (Some(_), Some(bias)) => {
            if bias.len() != 1 && bias.len() != outputs {
                return Err(Fail::shape(format!("{} biases for {outputs} outputs", bias.len())));
            }
            (0..outputs).map(|i| beta * bias[if bias.len() == 1 { 0 } else { i }]).collect()
        }
        (Some(id), None) => {
            added = Some(id);
            vec![0.0; outputs]
        }
    };
    finite("scaled weight", &weights)?;
    finite("bias", &bias)?;
    let x = cx.as_float(x)?;
    let mut sums = cx.push(TensorOp::Linear { outputs, weights, bias }, vec![x])?;
    if let Some(added) = added {
        let element = cx.ty(sums).element;
        let added = cx.cast(added, element)?;
        let scaled = if beta == 1.0 { added } else { cx.with_constant(BinaryKind::Mul, added, &[beta])? };
        sums = cx.binary(BinaryKind::Add, sums, scaled)?;
    }
    cx.define(sums);
    Ok(())
}
