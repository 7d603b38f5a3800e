//! Operations that move values between axes, repeat them, or make constants from sizes.

use super::node::{Converted, Fail, NodeCx};
use super::shape::shape_codes;
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{BinaryKind, Dim, Element, ReduceKind, TensorOp};

/// Converts the node if its operation belongs here.
pub(super) fn convert(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<bool> {
    match op {
        "DepthToSpace" => depth_to_space(cx)?,
        "SpaceToDepth" => space_to_depth(cx)?,
        "Resize" | "Upsample" => resize(cx, op)?,
        "Trilu" => trilu(cx)?,
        "CumSum" => cumulative_sum(cx)?,
        "Range" => range(cx)?,
        "EyeLike" => eye_like(cx)?,
        "Size" => size(cx)?,
        "OneHot" => one_hot(cx)?,
        "Hardmax" => hardmax(cx)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn block(cx: &NodeCx<'_, '_>, x: ValueId) -> Converted<(Vec<i64>, i64)> {
    let codes = shape_codes(cx, x);
    let size = cx.int("blocksize")?.filter(|size| *size > 0).ok_or_else(|| Fail::attribute("`blocksize`"))?;
    if codes.len() != 4 || codes[1..].contains(&-1) {
        return Err(Fail::shape(format!("expected [rows, channels, height, width], found {}", cx.ty(x))));
    }
    Ok((codes, size))
}

fn depth_to_space(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let (codes, b) = block(cx, x)?;
    let [n, c, h, w] = codes[..] else { return Err(Fail::shape("rank 4")) };
    if c % (b * b) != 0 {
        return Err(Fail::shape(format!("{c} channels in blocks of {b}x{b}")));
    }
    let depth_first = cx.string("mode")?.is_none_or(|mode| mode == "DCR");
    let (split, order) = if depth_first {
        (vec![n, b, b, c / (b * b), h, w], vec![0, 3, 4, 1, 5, 2])
    } else {
        (vec![n, c / (b * b), b, b, h, w], vec![0, 1, 4, 2, 5, 3])
    };
    let split = cx.reshape(x, split)?;
    let turned = cx.transpose(split, order)?;
    let id = cx.reshape(turned, vec![n, c / (b * b), h * b, w * b])?;
    cx.define(id);
    Ok(())
}

fn space_to_depth(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let (codes, b) = block(cx, x)?;
    let [n, c, h, w] = codes[..] else { return Err(Fail::shape("rank 4")) };
    if h % b != 0 || w % b != 0 {
        return Err(Fail::shape(format!("{h}x{w} in blocks of {b}x{b}")));
    }
    let split = cx.reshape(x, vec![n, c, h / b, b, w / b, b])?;
    let depth_first = cx.string("mode")?.is_none_or(|mode| mode == "DCR");
    let turned = cx.transpose(split, if depth_first { vec![0, 3, 5, 1, 2, 4] } else { vec![0, 1, 3, 5, 2, 4] })?;
    let id = cx.reshape(turned, vec![n, c * b * b, h / b, w / b])?;
    cx.define(id);
    Ok(())
}

/// Nearest neighbours: a choice of positions along each axis.
fn resize(cx: &mut NodeCx<'_, '_>, op: &str) -> Converted<()> {
    let x = cx.operand(0)?;
    let mode = cx.string("mode")?.unwrap_or_else(|| "nearest".to_owned());
    if mode != "nearest" {
        return Err(Fail::unsupported(format!("{op} in mode `{mode}`; only nearest neighbours are supported")));
    }
    if cx.flag("antialias", false)? || cx.string("keep_aspect_ratio_policy")?.is_some_and(|policy| policy != "stretch")
    {
        return Err(Fail::unsupported(format!(
            "{op} with antialiasing or kept aspect ratios; resize by constant factors to nearest neighbours"
        )));
    }
    let rank = cx.ty(x).shape.len();
    let axes = match cx.ints("axes")? {
        Some(axes) => axes.into_iter().map(|axis| cx.axis(axis, x)).collect::<Converted<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    // Opset 10 has scales second, later ones a region of interest before them.
    let of_scales = if op == "Upsample" || cx.importer.opsets.standard < 11 { 1 } else { 2 };
    let scales = match cx.floats("scales")? {
        Some(scales) => Some(scales.iter().map(|scale| f64::from(*scale)).collect()),
        None => cx.known(of_scales, "scale")?.and_then(|value| value.to_f64()),
    };
    let scales: Option<Vec<f64>> = scales.filter(|scales: &Vec<f64>| !scales.is_empty());
    let sizes = if of_scales == 2 { cx.known_shape(3)? } else { None };
    let old = cx.importer.opsets.standard < 11;
    let transform = cx.string("coordinate_transformation_mode")?;
    let transform = transform.unwrap_or_else(|| if old { "asymmetric" } else { "half_pixel" }.to_owned());
    let nearest = cx.string("nearest_mode")?;
    let nearest = nearest.unwrap_or_else(|| if old { "floor" } else { "round_prefer_floor" }.to_owned());
    let mut at = x;
    for (number, axis) in axes.into_iter().enumerate() {
        if cx.ty(x).shape[axis] == Dim::Batch {
            continue;
        }
        let size = cx.size(x, axis)? as f64;
        let scale = scales.as_ref().and_then(|scales| scales.get(number).copied());
        let wanted = sizes.as_ref().and_then(|sizes| sizes.get(number)).map(|size| *size as f64);
        let (scale, out) = match (scale, wanted) {
            (Some(scale), _) => (scale, (size * scale).floor()),
            (None, Some(wanted)) => (wanted / size, wanted),
            (None, None) => return Err(Fail::attribute("neither scales nor sizes are given")),
        };
        if !(scale > 0.0 && (1.0..=16_777_216.0).contains(&out)) {
            return Err(Fail::attribute(format!("axis {axis} resized from {size} by {scale}")));
        }
        let position = |place: f64| -> Converted<f64> {
            Ok(match transform.as_str() {
                "half_pixel" => (place + 0.5) / scale - 0.5,
                "pytorch_half_pixel" if out > 1.0 => (place + 0.5) / scale - 0.5,
                "pytorch_half_pixel" => 0.0,
                "half_pixel_symmetric" => {
                    let center = size / 2.0;
                    center * (1.0 - out / (scale * size)) + (place + 0.5) / scale - 0.5
                }
                "align_corners" if out > 1.0 => place * (size - 1.0) / (out - 1.0),
                "align_corners" => 0.0,
                "asymmetric" => place / scale,
                other => {
                    return Err(Fail::unsupported(format!(
                        "coordinate_transformation_mode `{other}`; use asymmetric or half_pixel"
                    )));
                }
            })
        };
        let mut indices = Vec::with_capacity(out as usize);
        for place in 0..out as usize {
            let position = position(place as f64)?;
            let index = match nearest.as_str() {
                "round_prefer_floor" => (position - 0.5).ceil(),
                "round_prefer_ceil" => (position + 0.5).floor(),
                "floor" => position.floor(),
                "ceil" => position.ceil(),
                other => return Err(Fail::attribute(format!("`nearest_mode` is `{other}`"))),
            };
            indices.push(index.clamp(0.0, size - 1.0) as usize);
        }
        at = cx.take(at, axis, indices)?;
    }
    cx.define(at);
    Ok(())
}

/// Zeros above or below a diagonal of the last two axes.
fn trilu(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let rank = cx.ty(x).shape.len();
    if rank < 2 || matches!(cx.ty(x).element, Element::Str | Element::Bool) {
        return Err(Fail::unsupported(format!("Trilu of {}; multiply by a constant mask instead", cx.ty(x))));
    }
    let (rows, columns) = (cx.size(x, rank - 2)? as i64, cx.size(x, rank - 1)? as i64);
    let upper = cx.flag("upper", true)?;
    let k = cx.known_ints(1)?.and_then(|values| values.first().copied()).unwrap_or(0);
    let keep = |row: i64, column: i64| if upper { column - row >= k } else { column - row <= k };
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let mask = cells.map(|(row, column)| f64::from(u8::from(keep(row, column)))).collect();
    let element = cx.ty(x).element;
    let mask = cx.numbers(element, vec![rows as usize, columns as usize], mask)?;
    let id = cx.binary(BinaryKind::Mul, x, mask)?;
    cx.define(id);
    Ok(())
}

/// A product with a triangle of ones.
fn cumulative_sum(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let axis = cx.known_ints(1)?.and_then(|values| values.first().copied());
    let axis = cx.axis(axis.ok_or_else(|| Fail::attribute("the axis is missing"))?, x)?;
    let count = cx.size(x, axis)?;
    let (exclusive, reverse) = (cx.flag("exclusive", false)?, cx.flag("reverse", false)?);
    let counts = |from: usize, to: usize| {
        let (early, late) = if reverse { (to, from) } else { (from, to) };
        early < late || (early == late && !exclusive)
    };
    let cells = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    let triangle = cells.map(|(from, to)| f64::from(u8::from(counts(from, to)))).collect();
    let element = cx.ty(x).element;
    // [.., n, 1] times [n, n], summed over the first n.
    let codes = shape_codes(cx, x);
    let order: Vec<usize> = (0..codes.len()).filter(|own| *own != axis).chain([axis]).collect();
    let back: Vec<usize> =
        (0..codes.len()).map(|own| order.iter().position(|place| *place == own).unwrap_or(own)).collect();
    let last = cx.transpose(x, order)?;
    let column = shape_codes(cx, last).into_iter().chain([1]).collect();
    let column = cx.reshape(last, column)?;
    let triangle = cx.numbers(element, vec![count, count], triangle)?;
    let products = cx.binary(BinaryKind::Mul, column, triangle)?;
    let rank = codes.len();
    let sums = cx.reduce(ReduceKind::Sum, &[rank - 1], products)?;
    let shape = shape_codes(cx, last);
    let sums = cx.reshape(sums, shape)?;
    let id = cx.transpose(sums, back)?;
    cx.define(id);
    Ok(())
}

fn range(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let number = |position: usize| -> Converted<f64> {
        let value = cx.known(position, "range")?.and_then(|value| value.to_f64());
        value
            .and_then(|values| values.first().copied())
            .ok_or_else(|| Fail::attribute("an end of the range is missing"))
    };
    let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
    let count = ((limit - start) / delta).ceil().max(0.0);
    if !(count.is_finite() && count <= 16_777_216.0) || cx.holds_batch(0) || cx.holds_batch(1) {
        return Err(Fail::unsupported(format!("a range of {count} values; use a constant")));
    }
    let element = cx.ty(cx.operand(0)?).element;
    let values = (0..count as usize).map(|at| start + at as f64 * delta).collect();
    let id = cx.numbers(element, vec![count as usize], values)?;
    cx.define(id);
    Ok(())
}

fn eye_like(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    if cx.ty(x).shape.len() != 2 {
        return Err(Fail::shape(format!("EyeLike of {}", cx.ty(x))));
    }
    let (rows, columns) = (cx.size(x, 0)? as i64, cx.size(x, 1)? as i64);
    let k = cx.int("k")?.unwrap_or(0);
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let ones = cells.map(|(row, column)| f64::from(u8::from(column - row == k))).collect();
    let element = match cx.int("dtype")? {
        Some(code) => i32::try_from(code).ok().and_then(super::tensors::element),
        None => Some(cx.ty(x).element),
    };
    let element = element.filter(|element| !matches!(element, Element::Str | Element::Bool));
    let element = element.ok_or_else(|| Fail::unsupported("EyeLike of this type; use a constant"))?;
    let id = cx.numbers(element, vec![rows as usize, columns as usize], ones)?;
    cx.define(id);
    Ok(())
}

fn size(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let mut count = 1i64;
    for axis in 0..cx.ty(x).shape.len() {
        count = count.saturating_mul(cx.size(x, axis)? as i64);
    }
    let id = cx.push_constant(TensorValue { shape: Vec::new(), data: Data::I64(vec![count]) })?;
    cx.define(id);
    Ok(())
}

/// Whether a value is each position, along an axis of which the values have size 1.
fn indicators(cx: &mut NodeCx<'_, '_>, positions: ValueId, depth: usize, axis: usize) -> Converted<ValueId> {
    let (rank, element) = (cx.ty(positions).shape.len(), cx.ty(positions).element);
    let all = cx.numbers(element, vec![depth], (0..depth).map(|at| at as f64).collect())?;
    let all = cx.along_axis(all, axis, rank)?;
    cx.binary(BinaryKind::Equal, positions, all)
}

fn one_hot(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let positions = cx.operand(0)?;
    let depth = cx.known(1, "depth")?.and_then(|value| value.to_f64()).and_then(|values| values.first().copied());
    let depth = depth.filter(|depth| (1.0..=1e6).contains(depth)).ok_or_else(|| Fail::attribute("the depth"))?;
    let values = cx.operand(2)?;
    let rank = cx.ty(positions).shape.len() as i64 + 1;
    let axis = cx.int("axis")?.unwrap_or(-1);
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|axis| (*axis as i64) < rank);
    let axis = axis.ok_or_else(|| Fail::attribute("`axis` is out of range"))?;
    // Negative positions count from the end.
    let negative = cx.with_constant(BinaryKind::Less, positions, &[0.0])?;
    let raised = cx.with_constant(BinaryKind::Add, positions, &[depth])?;
    let positions = cx.push(TensorOp::Where {}, vec![negative, raised, positions])?;
    let mut codes = shape_codes(cx, positions);
    codes.insert(axis, 1);
    let positions = cx.reshape(positions, codes)?;
    let here = indicators(cx, positions, depth as usize, axis)?;
    let (off, on) = (cx.take(values, 0, vec![0])?, cx.take(values, 0, vec![1])?);
    cx.single(TensorOp::Where {}, vec![here, on, off])
}

/// 1 at the first of the greatest values along an axis.
fn hardmax(cx: &mut NodeCx<'_, '_>) -> Converted<()> {
    let x = cx.operand(0)?;
    let axis = cx.axis(cx.int("axis")?.unwrap_or(-1), x)?;
    let count = cx.size(x, axis)?;
    let best = cx.push(TensorOp::ArgMax { axis, least: false, last: false }, vec![x])?;
    let here = indicators(cx, best, count, axis)?;
    let element = cx.ty(x).element;
    let id = cx.cast(here, element)?;
    cx.define(id);
    Ok(())
}
