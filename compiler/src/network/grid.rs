//! Grids that a model itself puts its values on, as quantized models do.

use crate::copier::Copier;
use crate::options::Options;
use std::collections::BTreeMap;
use tacit_ir::diag::Result;
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_ir::stage::tensor::{BinaryKind, Dim, Element, Tensor, TensorOp, UnaryKind};

/// Equidistant points: `low + step * i` for i from 0 to `steps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Points {
    pub(crate) low: f64,
    /// Negative where the model multiplies by a negative number; never 0.
    pub(crate) step: f64,
    pub(crate) steps: i64,
}

impl Points {
    /// The same points in increasing order.
    pub(crate) fn increasing(self) -> Points {
        let Points { low, step, steps } = self;
        if step > 0.0 { self } else { Points { low: low + step * steps as f64, step: -step, steps } }
    }
}

/// What a quantized model brings and the options leave as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// The points of each column of head values, by name; of those that the model quantizes.
    pub(crate) inputs: BTreeMap<String, Vec<Points>>,
    /// Whether integer weights of quantized values stay what they are.
    pub(crate) weights: bool,
    /// Whether `input-bits` puts coarser grids in the place of the model's.
    pub(crate) overridden: bool,
}

impl Kept {
    /// Of the model whose head this is.
    ///
    /// # Errors
    /// Those of evaluating the head.
    pub(crate) fn of(head: &Graph<Tensor>, options: &Options) -> Result<Kept> {
        let mut inputs = of_outputs(head)?;
        let found = inputs.len();
        if let Some(bits) = options.input_bits {
            inputs.retain(|_, points| points.iter().all(|own| own.steps < 1 << bits));
        }
        Ok(Kept { overridden: inputs.len() < found, inputs, weights: options.weight_bits.is_none() })
    }

    /// The points of a column of a head value.
    pub(crate) fn input(&self, (name, column): &(String, usize)) -> Option<Points> {
        self.inputs.get(name)?.get(*column).copied()
    }
}

/// Steps of grids that are kept at most: values of more bits are as good as floats.
pub(super) const MOST_STEPS: f64 = 1023.0;

/// The points of a graph's outputs, of those that are quantized.
fn of_outputs(graph: &Graph<Tensor>) -> Result<BTreeMap<String, Vec<Points>>> {
    let mut out = BTreeMap::new();
    for (name, id) in graph.outputs() {
        if let Some(points) = of_value(graph, *id)? {
            out.insert(name.clone(), points);
        }
    }
    Ok(out)
}

/// The points of each element of a value that is an affine function, of constants alone, of rounded and limited integers.
///
/// # Errors
/// Those of evaluating that function.
pub(crate) fn of_value(graph: &Graph<Tensor>, id: ValueId) -> Result<Option<Vec<Points>>> {
    let Some((source, low, high)) = integers(graph, id) else { return Ok(None) };
    let mut part = Copier::new(graph, "dequantize");
    part.provide(source, TensorOp::Input { name: "x".to_owned() })?;
    let y = part.copy(id)?;
    let mut part = part.new;
    part.output("y", y);
    let ty = &graph.node(source).ty;
    let width: usize = ty.shape.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).product();
    let data = [vec![low; width], vec![high; width]].concat();
    let Ok(ends) = TensorValue::of_type(ty, 2, data).cast(ty.element) else { return Ok(None) };
    let found = evaluate(&part, &BTreeMap::from([("x".to_owned(), ends)]))?;
    let ends = found.values().next().and_then(TensorValue::to_f64).unwrap_or_default();
    let (lows, highs) = ends.split_at(ends.len() / 2);
    let points = |(&first, &last): (&f64, &f64)| Points {
        low: first,
        step: (last - first) / (high - low),
        steps: (high - low) as i64,
    };
    let points: Vec<Points> = lows.iter().zip(highs).map(points).collect();
    Ok(points.iter().all(|own| own.step.is_finite() && own.step != 0.0).then_some(points))
}

/// The limited integers that a value is an affine function of, and their limits.
fn integers(graph: &Graph<Tensor>, id: ValueId) -> Option<(ValueId, f64, f64)> {
    let constant = |id: &ValueId| matches!(graph.node(*id).op, TensorOp::Constant { .. });
    let one_operand = |id: ValueId| {
        let mut operands = graph.node(id).operands.iter().copied().filter(|id| !constant(id));
        operands.next().filter(|_| operands.next().is_none())
    };
    // Whether the value just above is rounded.
    let mut rounded = false;
    let mut at = id;
    loop {
        let node = graph.node(at);
        let below = one_operand(at)?;
        match &node.op {
            TensorOp::Clip { low: Some(low), high: Some(high) } => {
                let whole = low.fract() == 0.0 && high.fract() == 0.0 && (1.0..=MOST_STEPS).contains(&(high - low));
                let integers = rounded || is_rounded(graph, below, &one_operand);
                return (whole && integers).then_some((at, *low, *high));
            }
            TensorOp::Unary { kind: UnaryKind::Round | UnaryKind::Floor | UnaryKind::Ceil } => rounded = true,
            TensorOp::Cast { to: Element::I64 } => {}
            TensorOp::Cast { to: Element::F32 | Element::F64 }
            | TensorOp::Unary { kind: UnaryKind::Neg }
            | TensorOp::Reshape { .. }
            | TensorOp::Transpose { .. }
            | TensorOp::Take { .. }
            | TensorOp::Binary { kind: BinaryKind::Add | BinaryKind::Sub | BinaryKind::Mul } => rounded = false,
            // A constant divided by the value is no affine function of it.
            TensorOp::Binary { kind: BinaryKind::Div } if node.operands.first() == Some(&below) => rounded = false,
            _ => return None,
        }
        at = below;
    }
}

/// Whether a value is rounded, perhaps with an integer added.
fn is_rounded(graph: &Graph<Tensor>, id: ValueId, one_operand: &impl Fn(ValueId) -> Option<ValueId>) -> bool {
    let mut at = id;
    loop {
        match &graph.node(at).op {
            TensorOp::Unary { kind: UnaryKind::Round | UnaryKind::Floor | UnaryKind::Ceil } => return true,
            TensorOp::Binary { kind: BinaryKind::Add | BinaryKind::Sub } if has_integers(graph, at) => {}
            TensorOp::Cast { .. } | TensorOp::Clip { .. } => {}
            _ => return false,
        }
        let Some(below) = one_operand(at) else { return false };
        at = below;
    }
}

/// Whether the constant operands of a node are integers.
fn has_integers(graph: &Graph<Tensor>, id: ValueId) -> bool {
    let whole = |id: &ValueId| match &graph.node(*id).op {
        TensorOp::Constant { f32, f64, i64, .. } => {
            let singles = f32.iter().flatten().all(|x| x.fract() == 0.0);
            i64.is_some() || singles && f64.iter().flatten().all(|x| x.fract() == 0.0)
        }
        // Casts of constants are constants that are not computed yet.
        _ => true,
    };
    graph.node(id).operands.iter().all(whole)
}
