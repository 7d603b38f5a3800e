//! Types of the operations of networks: intervals, places on the torus, noise.

use super::{CircuitOp, CircuitType, Log2Std};
use crate::noise::bootstrap as noise_of;
use crate::params::{BootstrapParams, GadgetParams, LweParams};
use crate::stage::quant::{matrix_ranges, table_ranges};

/// Share of the half torus that the arguments of a bootstrap, and of the torus that results, may fill: the rest keeps
/// noise from wrapping an extreme value around.
pub const FILL: f64 = 15.0 / 16.0;

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
    let mut bits = Vec::new();
    let mut params = None;
    for operand in operands {
        match operand {
            CircuitType::Codes { largest, bits: own } if params.is_none() => {
                inputs.extend(largest.iter().map(|&code| (0, i64::from(code))));
                bits.extend_from_slice(own);
            }
            CircuitType::Params(glwe, Some(gadget)) if params.is_none() => params = Some((glwe, gadget)),
            _ => return Err("operands are codes, then `params`".to_owned()),
        }
    }
    let sums = matrix_ranges(start, column, weight, &inputs)?;
    let ranges = table_ranges(sums.len(), low, stride, tables, table)?;
    let noise = params.map(|(glwe, gadget)| {
        let rotations = start.windows(2).map(|pair| {
            let own = column[pair[0] as usize..pair[1] as usize].iter();
            own.map(|&column| bits.get(column as usize).copied().unwrap_or(0)).sum::<u32>()
        });
        log2_std(noise_of::rotations(glwe, gadget, f64::from(rotations.max().unwrap_or(0))))
    });
    Ok(CircuitType::Lwe { ranges, log2_unit: Log2Std(unit.log2()), small: false, noise })
}

pub(super) fn bootstrap(op: &CircuitOp, argument: &CircuitType, rest: &[&CircuitType]) -> Result<CircuitType, String> {
    let CircuitOp::Bootstrap { low, stride, tables, table, unit } = op else {
        return Err("not a bootstrap".to_owned());
    };
    let CircuitType::Lwe { ranges, log2_unit, small, noise: _ } = argument else {
        return Err("the argument of a bootstrap is LWE ciphertexts".to_owned());
    };
    check_fits(ranges, log2_unit.0.exp2(), 0.25)?;
    let ranges = table_ranges(ranges.len(), low, stride, tables, table)?;
    let noise = match rest {
        [] => None,
        [CircuitType::Params(glwe, _), CircuitType::BootstrapParams(params)] => {
            if !small && params.keyswitch.is_none() {
                return Err("the argument needs a keyswitch, which the parameters do not have".to_owned());
            }
            Some(log2_std(noise_of::blind_rotation(glwe, params)))
        }
        _ => return Err("operands are an argument, `params` and `bootstrap_params`".to_owned()),
    };
    Ok(CircuitType::Lwe { ranges, log2_unit: Log2Std(unit.log2()), small: false, noise })
}
