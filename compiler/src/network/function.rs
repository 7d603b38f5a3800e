//! A function of one number per element: a piece of the float graph, or one that a rewriting introduced.

use crate::copier::Copier;
use std::collections::BTreeMap;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::{Graph, ValueId};
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_ir::stage::tensor::{Tensor, TensorOp, TensorType};

/// An elementwise function over the elements of one value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Function {
    /// The same function of every element.
    Scalar(Scalar),
    /// A float graph from `x` to `y`, elementwise; elements of different channels may be treated differently.
    Graph(Box<Graph<Tensor>>),
}

/// What operations of several encrypted values are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    /// max(x, 0): of a maximum.
    Relu,
    /// x^2: of a product.
    Square,
    Abs,
    Sqrt,
    Exp,
    Log,
    Reciprocal,
    /// 1 above the limit, else 0: of a comparison of the difference, or of a logical operation on the sum.
    Above(f64),
    /// 1 at the limit and above.
    From(f64),
    /// 1 below the limit.
    Below(f64),
    /// 1 at the limit and below.
    UpTo(f64),
    /// 1 between the limits.
    Between(f64, f64),
}

impl Scalar {
    /// Whether all of its values are 0 or 1.
    pub(crate) fn is_indicator(self) -> bool {
        match self {
            Scalar::Above(_) | Scalar::From(_) | Scalar::Below(_) | Scalar::UpTo(_) | Scalar::Between(..) => true,
            Scalar::Relu
            | Scalar::Square
            | Scalar::Abs
            | Scalar::Sqrt
            | Scalar::Exp
            | Scalar::Log
            | Scalar::Reciprocal => false,
        }
    }

    fn of(self, x: f64) -> f64 {
        let indicator = |holds: bool| f64::from(u8::from(holds));
        match self {
            Scalar::Relu => x.max(0.0),
            Scalar::Square => x * x,
            Scalar::Abs => x.abs(),
            Scalar::Sqrt => x.max(0.0).sqrt(),
            Scalar::Exp => x.exp(),
            Scalar::Log => x.ln(),
            Scalar::Reciprocal => 1.0 / x,
            Scalar::Above(limit) => indicator(x > limit),
            Scalar::From(limit) => indicator(x >= limit),
            Scalar::Below(limit) => indicator(x < limit),
            Scalar::UpTo(limit) => indicator(x <= limit),
            Scalar::Between(low, high) => indicator(low < x && x < high),
        }
    }
}

/// Points that one evaluation of the float interpreter takes at most, times elements.
const CHUNK: usize = 1 << 20;

impl Function {
    /// The part of `graph` from `source` to `target`; everything between depends on `source` and constants alone.
    pub(crate) fn between(graph: &Graph<Tensor>, source: ValueId, target: ValueId) -> Result<Self> {
        Function::between_as(graph, source, graph.node(source).ty.clone(), target)
    }

    /// The same with the source broadcast to this type.
    pub(crate) fn between_as(graph: &Graph<Tensor>, source: ValueId, ty: TensorType, target: ValueId) -> Result<Self> {
        let mut part = Copier::new(graph, "function");
        part.provide_as(source, TensorOp::Input { name: "x".to_owned() }, ty)?;
        let y = part.copy(target)?;
        let mut part = part.new;
        part.output("y", y);
        Ok(Function::Graph(Box::new(part)))
    }

    /// The values at `points[element]`, all of one number of points, for every element.
    pub(crate) fn values(&self, points: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let graph = match self {
            Function::Scalar(scalar) => {
                return Ok(points.iter().map(|own| own.iter().map(|&x| scalar.of(x)).collect()).collect());
            }
            Function::Graph(graph) => graph,
        };
        let count = points.first().map_or(0, Vec::len);
        let input = graph.values().find(|id| matches!(graph.node(*id).op, TensorOp::Input { .. }));
        let ty = input.map(|id| graph.node(id).ty.clone());
        let ty = ty.ok_or_else(|| Diagnostic::internal("a function without an argument"))?;
        let mut out = vec![Vec::with_capacity(count); points.len()];
        let chunk = (CHUNK / points.len().max(1)).max(1);
        for start in (0..count).step_by(chunk) {
            let end = (start + chunk).min(count);
            // The batch runs over points: all elements are evaluated at their own at once.
            let data = (start..end).flat_map(|at| points.iter().map(move |own| own[at])).collect();
            let value = TensorValue::of_type(&ty, end - start, data);
            let found = evaluate(graph, &BTreeMap::from([("x".to_owned(), value)]))?;
            let found = found.values().next().and_then(TensorValue::to_f64).unwrap_or_default();
            for row in found.chunks(points.len().max(1)) {
                for (own, value) in out.iter_mut().zip(row) {
                    own.push(*value);
                }
            }
        }
        Ok(out)
    }
}
