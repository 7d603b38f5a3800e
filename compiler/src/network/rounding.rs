//! Rounding of weights by what it does to sums.

/// Share of the mean square of an atom's integers that a unit of rounding error costs in addition to its effect on the
/// calibration rows: there are few of them, and errors that cancel on them do not on others.
const DAMPING: f64 = 0.05;
/// Times that all weights are looked at, at most.
const PASSES: usize = 3;
/// Weights nearer to their integer than this keep it.
const NEAR: f64 = 0.2;

/// What an atom is on the calibration rows.
pub(super) struct Atom {
    /// Its integers, less their mean.
    centred: Vec<f64>,
    mean: f64,
    /// The sum of squares.
    square: f64,
}

impl Atom {
    /// From the integers.
    pub(super) fn new(integers: Vec<f64>) -> Atom {
        let mean = integers.iter().sum::<f64>() / integers.len().max(1) as f64;
        let centred: Vec<f64> = integers.into_iter().map(|value| value - mean).collect();
        Atom { mean, square: dot(&centred, &centred), centred }
    }
}

/// An atom of a sum.
pub(super) struct Column<'a> {
    /// Its weight, in units of the sum.
    pub(super) weight: f64,
    pub(super) atom: &'a Atom,
}

/// Integers near the weights, at most `most` in magnitude, such that `target`, the sum on each calibration row in its own
/// units, is met best but for a constant; and that constant.
///
/// Starts from the nearest integers and takes single steps up or down as long as they help (coordinate descent). Rounding each
/// weight on its own is worse, since errors of weights add up in a sum (Nagel, Amjad, van Baalen, Louizos, Blankevoort, "Up or
/// down? Adaptive rounding for post-training quantization", ICML 2020); the constant is bias correction (Nagel, van Baalen,
/// Blankevoort, Welling, "Data-free quantization through weight equalization and bias correction", ICCV 2019).
pub(super) fn round(columns: &[Column<'_>], target: &[f64], most: i64) -> (Vec<i64>, f64) {
    let mut integers: Vec<i64> =
        columns.iter().map(|column| (column.weight.round() as i64).clamp(-most, most)).collect();
    let squares: f64 = columns.iter().map(|column| column.atom.square).sum();
    let damping = DAMPING * squares / columns.len().max(1) as f64;
    let target_mean = target.iter().sum::<f64>() / target.len().max(1) as f64;
    let mut rest: Vec<f64> = target.iter().map(|value| value - target_mean).collect();
    for (column, integer) in columns.iter().zip(&integers) {
        subtract(&mut rest, &column.atom.centred, *integer as f64);
    }
    for _ in 0..PASSES {
        let mut changed = false;
        for (column, integer) in columns.iter().zip(&mut integers) {
            let Atom { centred, square, .. } = column.atom;
            let error = column.weight - *integer as f64;
            if error.abs() < NEAR {
                continue;
            }
            let towards = dot(&rest, centred);
            // Of the squared rest and the damped squared error when the integer grows by `step`.
            let change = |step: f64| square - 2.0 * step * towards + damping * (1.0 - 2.0 * step * error);
            let step = if change(1.0) < change(-1.0) { 1i64 } else { -1 };
            if change(step as f64) < 0.0 && (*integer + step).abs() <= most {
                *integer += step;
                subtract(&mut rest, centred, step as f64);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let sum: f64 = columns.iter().zip(&integers).map(|(column, &integer)| integer as f64 * column.atom.mean).sum();
    (integers, target_mean - sum)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Independent sums, which the compiler may put into vectors.
    let mut sums = [0.0; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

fn subtract(from: &mut [f64], column: &[f64], times: f64) {
    if times != 0.0 {
        from.iter_mut().zip(column).for_each(|(from, value)| *from -= times * value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_errors_cancel() {
        // Two atoms that are always equal: 0.4 + 0.4 is nearer to 1 + 0 than to 0 + 0.
        let integers: Vec<f64> = (0..20).map(f64::from).collect();
        let atom = Atom::new(integers.clone());
        let columns = [0.4, 0.4].map(|weight| Column { weight, atom: &atom });
        let target: Vec<f64> = integers.iter().map(|value| 0.8 * value + 3.0).collect();
        let (integers, constant) = round(&columns, &target, 3);
        assert_eq!(integers.iter().sum::<i64>(), 1);
        assert!((constant - (3.0 - 0.2 * 9.5)).abs() < 1e-9);
    }

    #[test]
    fn without_rows_weights_are_rounded_to_the_nearest() {
        let atom = Atom::new(vec![]);
        let columns = [0.4, -2.6, 9.0].map(|weight| Column { weight, atom: &atom });
        assert_eq!(round(&columns, &[], 3).0, [0, -3, 3]);
    }
}
