//! Sums of a quantized model's integers whose value lies exactly midway between two integers: the mean of 3 and 4.
//!
//! The float function decides them by its rounding errors. Quantized models round halves to even (ONNX's QuantizeLinear), so
//! that is what their tables do.

use super::function::Function;
use super::trace::Activation;
use tacit_ir::diag::Result;
use tacit_ir::graph::Graph;
use tacit_ir::stage::tensor::{Tensor, TensorOp, UnaryKind};

/// What a chain of operations in 32-bit floats errs by, relative to its argument.
const ROUNDING: f64 = 3e-7;

/// Whether a layer's function rounds halves to even.
pub(super) fn rounds_to_even(function: &Function) -> bool {
    let rounds = |graph: &Graph<Tensor>, kinds: &[UnaryKind]| {
        graph.values().any(|id| matches!(&graph.node(id).op, TensorOp::Unary { kind } if kinds.contains(kind)))
    };
    match function {
        Function::Graph(graph) => {
            rounds(graph, &[UnaryKind::Round]) && !rounds(graph, &[UnaryKind::Floor, UnaryKind::Ceil])
        }
        Function::Scalar(_) => false,
    }
}

/// For arguments of each element, all of one number: where the values on both sides are neighbouring multiples of the element's
/// step, the even one. Elements without a step have none.
///
/// # Errors
/// Those of evaluating the layer's function.
pub(super) fn even_values(
    layer: &Activation,
    arguments: &[Vec<f64>],
    steps: &[Option<f64>],
) -> Result<Vec<Vec<Option<f64>>>> {
    let moved = |by: f64| -> Vec<Vec<f64>> {
        arguments.iter().map(|own| own.iter().map(|x| x + by * x.abs()).collect()).collect()
    };
    let (below, above) = (layer.values(&moved(-ROUNDING))?, layer.values(&moved(ROUNDING))?);
    let even = |step: f64, below: f64, above: f64| {
        let (low, high) = ((below / step).round(), (above / step).round());
        let whole = (below / step - low).abs() < 1e-3 && (above / step - high).abs() < 1e-3;
        let value = if low % 2.0 == 0.0 { below } else { above };
        (whole && (low - high).abs() == 1.0).then_some(value)
    };
    let of_element = |((step, below), above): ((&Option<f64>, &Vec<f64>), &Vec<f64>)| {
        below.iter().zip(above).map(|(below, above)| step.and_then(|step| even(step, *below, *above))).collect()
    };
    Ok(steps.iter().zip(&below).zip(&above).map(of_element).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tacit_ir::graph::Loc;
    use tacit_ir::text;

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let quantizer = r#"tensor @quantizer version 1 {
  %0 = input { name = "x" } : f32[?, 1]
  %1 = constant { shape = i64[], f32 = f32[0.1] }
  %2 = binary %0, %1 { kind = "div" }
  %3 = unary %2 { kind = "round" }
  %4 = clip %3 { low = -8.0, high = 7.0 }
  %5 = binary %4, %1 { kind = "mul" }
  output "y" = %5
}
"#;
        let function = Function::Graph(Box::new(text::parse::<Tensor>(quantizer).unwrap()));
        assert!(rounds_to_even(&function));
        let floor = quantizer.replace("round", "floor");
        assert!(!rounds_to_even(&Function::Graph(Box::new(text::parse::<Tensor>(&floor).unwrap()))));
        let layer = Activation {
            rows: Vec::new(),
            function,
            elements: vec![0],
            width: 1,
            first_atom: 0,
            exact: false,
            loc: Loc::Pass("a test"),
        };
        let step = f64::from(0.1f32);
        // Beyond 7 all values are the same; a hundredth of a step beside a half is none.
        let arguments = [2.5, 3.5, -2.5, 0.5, 2.49, 3.0, 7.5].map(|steps| steps * step).to_vec();
        let found = even_values(&layer, &[arguments], &[Some(step)]).unwrap();
        let steps: Vec<Option<i64>> = found[0].iter().map(|own| own.map(|y| (y / step).round() as i64)).collect();
        assert_eq!(steps, [Some(2), Some(4), Some(-2), Some(0), None, None, None]);
    }
}
