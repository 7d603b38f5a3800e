//! Types of the operations of networks: intervals, places on the torus, noise.

use super::{CircuitOp, CircuitType, Log2Std};
use crate::noise::bootstrap as noise_of;
use crate::params::{BootstrapParams, GadgetParams, LweParams};
use crate::plan::BLOCK;
use crate::stage::quant::{matrix_ranges, table_ranges};

/// Share of the half torus that the arguments of a bootstrap, and of the torus that results, may fill: the rest keeps
/// noise from wrapping an extreme value around.
pub const FILL: f64 = 15.0 / 16.0;

/// The selector bits of codes 0 to `largest` when a code is the sum of its bits' values: in each digit at most one bit is 1.
///
/// The fewest bits are those of binary digits. With more, digits have base 4 and a bit for each value but 0 (one-hot), so
/// that the three bits of a digit rotate a table together (Lee, Min, Seo, Song, "Faster TFHE bootstrapping with block binary
/// keys", AsiaCCS 2023).
pub fn digits(largest: u32, bits: u32) -> Vec<Vec<u32>> {
    let binary = u32::BITS - largest.leading_zeros();
    if bits <= binary {
        return (0..binary).map(|bit| vec![1 << bit]).collect();
    }
    let digit = |place: u32| (1..=(largest >> place).min(3)).map(|value| value << place).collect();
    (0..binary).step_by(2).map(digit).collect()
}

/// The number of bits of one-hot digits of base 4.
pub fn one_hot_bits(largest: u32) -> u32 {
    digits(largest, u32::MAX).iter().map(|digit| digit.len() as u32).sum()
}

/// The bits, numbered through the digits from bit 0 on, that are 1 in a code.
pub fn pattern(digits: &[Vec<u32>], code: u32) -> u32 {
    let (mut rest, mut end, mut pattern) = (code, digits.iter().map(Vec::len).sum::<usize>(), 0);
    // The highest digit first: all lower ones together are less than its least value.
    for digit in digits.iter().rev() {
        end -= digit.len();
        if let Some((at, value)) = digit.iter().enumerate().rfind(|(_, value)| **value <= rest) {
            rest -= value;
            pattern |= 1 << (end + at);
        }
    }
    pattern
}

/// Rotations of a table by codes: single selectors, and blocks of three of which at most one is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turns {
    /// Blocks.
    pub blocks: u32,
    /// Single selectors.
    pub singles: u32,
}

impl Turns {
    /// Of one code.
    pub fn of(largest: u32, bits: u32) -> Turns {
        let digits = digits(largest, bits);
        let blocks = digits.iter().filter(|digit| digit.len() == BLOCK).count() as u32;
        let all: usize = digits.iter().map(Vec::len).sum();
        Turns { blocks, singles: all as u32 - blocks * BLOCK as u32 }
    }
}

impl std::iter::Sum for Turns {
    fn sum<I: Iterator<Item = Turns>>(turns: I) -> Turns {
        turns.fold(Turns::default(), |a, b| Turns { blocks: a.blocks + b.blocks, singles: a.singles + b.singles })
    }
}

/// `(2 * half)` of the torus holds the widest interval.
pub(super) fn check_fits(ranges: &[(i64, i64)], unit: f64, half: f64) -> Result<(), String> {
    let widest = ranges.iter().map(|&(low, high)| (high - low) as f64).fold(0.0, f64::max);
    if widest * unit > 2.0 * half * FILL + 1e-9 {
        return Err(format!("{widest} steps of 2^{:.2} do not fit {FILL} of {} of the torus", unit.log2(), 2.0 * half));
    }
    Ok(())
}

pub(super) fn bootstrap_params(op: &CircuitOp) -> Result<CircuitType, String> {
    let CircuitOp::BootstrapParams { n, log2_std, block, ks_base_log, ks_levels, base_log, levels, small_dimension } =
        op
    else {
        return Err("not bootstrap parameters".to_owned());
    };
    let lwe = LweParams { dimension: *n, log2_std: *log2_std, block: *block };
    if !lwe.is_secure() {
        return Err(format!("n={n}, block {block}, noise 2^{log2_std} is below 128 bits of security or not estimated"));
    }
    let keyswitch = (*ks_levels > 0).then_some(GadgetParams { base_log: *ks_base_log, levels: *ks_levels });
    let gadget = GadgetParams { base_log: *base_log, levels: *levels };
    for gadget in keyswitch.iter().chain([&gadget]) {
        if gadget.base_log == 0 || gadget.levels == 0 || gadget.base_log.saturating_mul(gadget.levels) > 60 {
            return Err(format!("base 2^{} with {} levels", gadget.base_log, gadget.levels));
        }
    }
    let fits = *small_dimension == 0
        || n.is_multiple_of(*small_dimension) && (n / small_dimension).is_power_of_two() && n / small_dimension >= 64;
    if !fits {
        return Err(format!("n={n} is not {small_dimension} polynomials of a power of two of coefficients"));
    }
    Ok(CircuitType::BootstrapParams(BootstrapParams { lwe, keyswitch, gadget, small_dimension: *small_dimension }))
}

fn log2_std(variance: f64) -> Log2Std {
    Log2Std(0.5 * variance.max(1e-300).log2())
}

pub(super) fn samples(unit: f64, small: bool, largest: &[u32], rest: &[&CircuitType]) -> Result<CircuitType, String> {
    if !(unit.is_finite() && unit > 0.0 && unit < 1.0) {
        return Err(format!("a unit of {unit}"));
    }
    let variance = match (small, rest) {
        (_, []) => None,
        (false, [CircuitType::Params(glwe, _)]) => Some(glwe.variance()),
        (true, [CircuitType::Params(..), CircuitType::BootstrapParams(params)]) => Some(params.lwe.variance()),
        _ => return Err("parameters of the wrong kind".to_owned()),
    };
    Ok(CircuitType::Lwe {
        ranges: largest.iter().map(|&code| (0, i64::from(code))).collect(),
        log2_unit: Log2Std(unit.log2()),
        small,
        noise: variance.map(log2_std),
    })
}

pub(super) fn sample_extract(
    log2_delta: u32,
    ranges: &[(i64, i64)],
    noise: Option<Log2Std>,
    rest: &[&CircuitType],
) -> Result<CircuitType, String> {
    let log2_unit = Log2Std(f64::from(log2_delta) - 64.0);
    let noise = match (noise, rest) {
        (_, []) => None,
        (noise, [CircuitType::Params(glwe, _)]) => {
            noise.map(|noise| log2_std((2.0 * noise.0).exp2() + noise_of::lwe_rounding(glwe)))
        }
        _ => return Err("the second operand of `sample_extract` is a `params`".to_owned()),
    };
    Ok(CircuitType::Lwe { ranges: ranges.to_vec(), log2_unit, small: false, noise })
}

/// The largest sum of squares of a row's weights.
pub fn largest_norm2(start: &[u32], weight: &[i64]) -> f64 {
    let row = |pair: &[u32]| weight[pair[0] as usize..pair[1] as usize].iter().map(|&w| (w as f64).powi(2)).sum();
    start.windows(2).map(row).fold(0.0, f64::max)
}

pub(super) fn affine(
    start: &[u32],
    column: &[u32],
    weight: &[i64],
    operands: &[&CircuitType],
) -> Result<CircuitType, String> {
    let mut all = Vec::new();
    let mut shared: Option<(Log2Std, bool)> = None;
    let mut worst: Option<f64> = None;
    let mut unknown = false;
    for operand in operands {
        let CircuitType::Lwe { ranges, log2_unit, small, noise } = operand else {
            return Err("an operand that is not LWE ciphertexts".to_owned());
        };
        all.extend_from_slice(ranges);
        match shared {
            None => shared = Some((*log2_unit, *small)),
            Some((unit, key)) if (unit.0 - log2_unit.0).abs() <= 0.01 && key == *small => {}
            Some(_) => return Err("operands of different units or under different keys".to_owned()),
        }
        match noise {
            Some(noise) => worst = Some(worst.unwrap_or(f64::NEG_INFINITY).max(noise.0)),
            None => unknown = true,
        }
    }
    let (log2_unit, small) = shared.ok_or("no operand")?;
    let ranges = matrix_ranges(start, column, weight, &all)?;
    let noise = worst.filter(|_| !unknown).map(|noise| {
        // Elements are independent: each has noise of its own.
        log2_std((2.0 * noise).exp2() * largest_norm2(start, weight).max(1.0))
    });
    Ok(CircuitType::Lwe { ranges, log2_unit, small, noise })
}

pub(super) fn rotate_lookup(op: &CircuitOp, operands: &[&CircuitType]) -> Result<CircuitType, String> {
    let CircuitOp::RotateLookup { start, column, weight, spread: _, low, stride, tables, table, unit } = op else {
        return Err("not a rotated look-up".to_owned());
    };
    let mut inputs = Vec::new();
    let mut turns = Vec::new();
    let mut params = None;
    for operand in operands {
        match operand {
            CircuitType::Codes { largest, bits: own } if params.is_none() => {
                inputs.extend(largest.iter().map(|&code| (0, i64::from(code))));
                turns.extend(largest.iter().zip(own).map(|(&largest, &bits)| Turns::of(largest, bits)));
            }
            CircuitType::Params(glwe, Some(gadget)) if params.is_none() => params = Some((glwe, gadget)),
            _ => return Err("operands are codes, then `params`".to_owned()),
        }
    }
    let sums = matrix_ranges(start, column, weight, &inputs)?;
    let ranges = table_ranges(sums.len(), low, stride, tables, table)?;
    let noise = params.map(|(glwe, gadget)| {
        let turns = start.windows(2).map(|pair| {
            let own = column[pair[0] as usize..pair[1] as usize].iter();
            own.filter_map(|&column| turns.get(column as usize).copied()).sum::<Turns>()
        });
        log2_std(turns.map(|turns| noise_of::rotations(glwe, gadget, turns)).fold(0.0, f64::max))
    });
    Ok(CircuitType::Lwe { ranges, log2_unit: Log2Std(unit.log2()), small: false, noise })
}

pub(super) fn bootstrap(op: &CircuitOp, argument: &CircuitType, rest: &[&CircuitType]) -> Result<CircuitType, String> {
    let CircuitOp::Bootstrap { low, stride, tables, table, unit, results } = op else {
        return Err("not a bootstrap".to_owned());
    };
    let results = results.unwrap_or(1);
    if !BootstrapParams::may_give(results) {
        return Err(format!(
            "{results} results of a rotation, not a power of two up to {}",
            BootstrapParams::MAX_RESULTS
        ));
    }
    let CircuitType::Lwe { ranges, log2_unit, small, noise: _ } = argument else {
        return Err("the argument of a bootstrap is LWE ciphertexts".to_owned());
    };
    check_fits(ranges, log2_unit.0.exp2(), 0.25)?;
    let ranges = table_ranges(ranges.len() * results as usize, low, stride, tables, table)?;
    let noise = match rest {
        [] => None,
        [CircuitType::Params(glwe, _), CircuitType::BootstrapParams(params)] => {
            if !small && params.keyswitch.is_none() {
                return Err("the argument needs a keyswitch, which the parameters do not have".to_owned());
            }
            Some(log2_std(noise_of::result_in_sums(glwe, params, results)))
        }
        _ => return Err("operands are an argument, `params` and `bootstrap_params`".to_owned()),
    };
    Ok(CircuitType::Lwe { ranges, log2_unit: Log2Std(unit.log2()), small: false, noise })
}
