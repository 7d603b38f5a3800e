//! Distances to constant points, which skl2onnx writes as a `Scan` over the points.

use super::node::{Converted, Fail, NodeCx, finite};
use onnx_protobuf::GraphProto;
use tacit_ir::stage::tensor::{BinaryKind, Element, ReduceKind, TensorOp};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    if op != "Scan" || !cx.attribute("body").and_then(|body| body.g.as_ref()).is_some_and(is_squared_distance) {
        return Ok(false);
    }
    if cx.int("num_scan_inputs")? != Some(1) || cx.proto.input.len() != 2 {
        return Ok(false);
    }
    let x = cx.operand(0)?;
    let points = cx.known(1, "point")?.ok_or_else(|| Fail::attribute("the points are missing"))?;
    let columns = cx.columns(x)?;
    let [count, width] = points.shape.as_slice() else { return Err(Fail::shape("points are [points, columns]")) };
    if *width != columns {
        return Err(Fail::shape(format!("points of {width} columns for rows of {columns}")));
    }
    let values = points.to_f64().unwrap_or_default();
    finite("coordinate", &values)?;
    // |x - p|^2 = |x|^2 - 2 p x + |p|^2: all but the product is the client's. In doubles, since the terms nearly cancel.
    let (element, wide) = (cx.ty(x).element, cx.cast(x, Element::F64)?);
    let square = cx.reduce(ReduceKind::SumSquare, &[1], wide)?;
    let weights = values.iter().map(|value| -2.0 * value).collect();
    let bias = values.chunks(columns.max(1)).map(|point| point.iter().map(|value| value * value).sum()).collect();
    let products = cx.push(TensorOp::Linear { outputs: *count, weights, bias }, vec![wide])?;
    let products = cx.cast(products, Element::F64)?;
    let sums = cx.binary(BinaryKind::Add, products, square)?;
    let sums = cx.push(TensorOp::Clip { low: Some(0.0), high: None }, vec![sums])?;
    let sums = cx.cast(sums, element)?;
    let distances = cx.transpose(sums, vec![1, 0])?;
    // The state, which passes through, and the distances, point by point.
    cx.define(x);
    cx.define(distances);
    Ok(true)
}

/// `sum((state - point)^2)` along the columns, and the state as it is.
fn is_squared_distance(body: &GraphProto) -> bool {
    let ([state, point], [next, out]) = (body.input.as_slice(), body.output.as_slice()) else { return false };
    let node = |name: &str| body.node.iter().find(|node| node.output.first().is_some_and(|own| own == name));
    // What a name stands for behind identities.
    let source = |name: &str| {
        let mut name = name.to_owned();
        while let Some(node) = node(&name).filter(|node| node.op_type == "Identity") {
            let Some(before) = node.input.first().cloned() else { break };
            name = before;
        }
        name
    };
    let inputs = |name: &str, op: &str| node(&source(name)).filter(|node| node.op_type == op).map(|node| &node.input);
    let Some(difference) = inputs(&out.name, "ReduceSumSquare").and_then(|inputs| inputs.first()) else { return false };
    let Some([a, b]) = inputs(difference, "Sub").map(Vec::as_slice) else { return false };
    let (a, b) = (source(a), source(b));
    let pair = (a == state.name && b == point.name) || (a == point.name && b == state.name);
    pair && source(&next.name) == state.name && body.node.iter().filter(|node| node.op_type != "Identity").count() == 2
}
