//! Plans in clear: the check that makes a plan safe to run, and the evaluation that the encrypted one must match.

use super::network::{Draw, Inputs};
use crate::diag::{Code, Diagnostic, Result};
use crate::noise;
use crate::params::GadgetParams;
use crate::plan::{Form, Layout, Plan, Slot, Step};
use std::collections::BTreeSet;

fn wrong<T>(why: impl Into<String>) -> Result<T> {
    Err(Diagnostic::new(Code::NotConformant, why))
}

/// Checks that a layout's parameters are usable, secure and of sane size.
///
/// # Errors
/// [`Code::NotConformant`].
pub fn check_layout(layout: &Layout) -> Result<()> {
    let Layout {
        glwe,
        gadget,
        selectors,
        packed_inputs,
        body_bits,
        result_slots,
        result_bits,
        partitions,
        small_inputs,
        lwe_results,
    } = layout;
    let size_ok = glwe.polynomial_size.is_power_of_two() && (256..=32768).contains(&glwe.polynomial_size);
    let dimension = u64::from(glwe.dimension) * u64::from(glwe.polynomial_size);
    if !size_ok || glwe.dimension == 0 || !(512..=65536).contains(&dimension) {
        return wrong(format!("k={}, N={} is not a usable GLWE shape", glwe.dimension, glwe.polynomial_size));
    }
    if !glwe.log2_std.is_finite() || !glwe.is_secure() || glwe.log2_std > -2.0 {
        return wrong(format!("noise 2^{} at dimension {dimension} is below 128 bits of security", glwe.log2_std));
    }
    match gadget {
        None if *selectors > 0 => return wrong("selectors without a decomposition"),
        Some(gadget) => check_gadget(gadget)?,
        None => {}
    }
    if *selectors > 1 << 20 || *packed_inputs > 1 << 16 || result_slots.len() > 1 << 12 {
        return wrong("an absurd number of inputs or results");
    }
    super::network::check_partitions(partitions, glwe.dimension, *small_inputs)?;
    let values: u64 = lwe_results.iter().map(|&count| u64::from(count)).sum();
    if values > 1 << 20 || lwe_results.len() > 1 << 12 || result_slots.is_empty() && values == 0 {
        return wrong("no result, or an absurd number");
    }
    if !(1..=64).contains(body_bits) || !(1..=64).contains(result_bits) {
        return wrong("bits of coefficients out of range");
    }
    match result_slots.iter().find(|&&slots| slots == 0 || slots > glwe.polynomial_size) {
        Some(slots) => wrong(format!("{slots} outputs in a polynomial of {}", glwe.polynomial_size)),
        None => Ok(()),
    }
}

/// Checks that a decomposition is usable.
pub(super) fn check_gadget(gadget: &GadgetParams) -> Result<()> {
    let bits = u64::from(gadget.base_log) * u64::from(gadget.levels);
    if gadget.base_log == 0 || gadget.levels == 0 || bits > 63 || gadget.levels > 16 {
        return wrong(format!("base 2^{} with {} levels", gadget.base_log, gadget.levels));
    }
    Ok(())
}

/// Checks every index of a plan and that nothing is read before it is written; after it the plan runs without panics.
///
/// # Errors
/// [`Code::NotConformant`].
pub fn check(plan: &Plan, layout: &Layout) -> Result<()> {
    check_layout(layout)?;
    if plan.shared > 1 << 22 || plan.phases.len() > 1 << 20 || plan.results.len() != layout.result_slots.len() {
        return wrong("slots, phases or results do not fit the layout");
    }
    let n = layout.glwe.polynomial_size;
    let mut shared_written = vec![false; plan.shared as usize];
    for phase in &plan.phases {
        let mut read: BTreeSet<u32> = BTreeSet::new();
        let mut written: BTreeSet<u32> = BTreeSet::new();
        for task in &phase.tasks {
            if task.scratch > 1 << 20 {
                return wrong("too many scratch slots");
            }
            let mut scratch_written = vec![false; task.scratch as usize];
            for step in &task.steps {
                for form in step.forms() {
                    for &(slot, _) in &form.slots {
                        let ready = match slot {
                            Slot::Scratch(at) => scratch_written.get(at as usize).copied(),
                            Slot::Shared(at) => {
                                read.insert(at);
                                shared_written.get(at as usize).copied()
                            }
                        };
                        if ready != Some(true) {
                            return wrong(format!("{slot:?} is read before it is written"));
                        }
                        if step.out() == slot {
                            return wrong(format!("{slot:?} is read and written by one step"));
                        }
                    }
                    check_form(form, layout)?;
                }
                match step {
                    Step::CMux { selector, .. } if *selector >= layout.selectors => {
                        return wrong("a selector out of range");
                    }
                    Step::Rotate { rotations, .. }
                        if rotations.iter().any(|&(s, by)| s >= layout.selectors || by == 0 || by >= 2 * n) =>
                    {
                        return wrong("a rotation out of range");
                    }
                    Step::PolyMul { packed, polynomial, .. }
                        if *packed >= layout.packed_inputs || polynomial.len() != n as usize =>
                    {
                        return wrong("a polynomial product out of range");
                    }
                    _ => {}
                }
                match step.out() {
                    Slot::Scratch(at) => match scratch_written.get_mut(at as usize) {
                        Some(flag) => *flag = true,
                        None => return wrong("a scratch slot out of range"),
                    },
                    Slot::Shared(at) => {
                        if at >= plan.shared || !written.insert(at) {
                            return wrong("a shared slot out of range or written twice");
                        }
                    }
                }
            }
        }
        if read.intersection(&written).next().is_some() {
            return wrong("a phase reads a slot that it writes");
        }
        for at in written {
            shared_written[at as usize] = true;
        }
    }
    match plan.results.iter().find(|&&slot| shared_written.get(slot as usize) != Some(&true)) {
        Some(slot) => wrong(format!("result slot {slot} is never written")),
        None if !plan.network.blocks.is_empty() && !plan.phases.is_empty() => {
            wrong("blocks of selectors beside decision diagrams")
        }
        None => super::network::check(&plan.network, layout, &shared_written),
    }
}

fn check_form(form: &Form, layout: &Layout) -> Result<()> {
    let n = layout.glwe.polynomial_size;
    let Form { slots: _, packed, bits, constant } = form;
    if packed.iter().any(|&(input, shift, _)| input >= layout.packed_inputs || shift >= 2 * n)
        || bits.iter().any(|&(selector, shift, _)| selector >= layout.selectors || shift >= 2 * n)
        || constant.iter().any(|&(at, _)| at >= n)
    {
        return wrong("a term of a form is out of range");
    }
    Ok(())
}

/// Adds `weight * X^exponent * source` to `target`, modulo X^N + 1; 0 <= exponent < 2N.
pub fn add_rotated(target: &mut [u64], source: &[u64], exponent: usize, weight: u64) {
    let n = target.len();
    let (shift, sign) = if exponent >= n { (exponent - n, weight.wrapping_neg()) } else { (exponent, weight) };
    let (low, high) = target.split_at_mut(shift);
    for (t, s) in high.iter_mut().zip(source) {
        *t = t.wrapping_add(s.wrapping_mul(sign));
    }
    for (t, s) in low.iter_mut().zip(&source[n - shift..]) {
        *t = t.wrapping_sub(s.wrapping_mul(sign));
    }
}

/// Evaluates a checked plan on clear messages: the selector bits, and the message polynomial of each packed input. Gives
/// the output coefficients of each result, on the torus.
///
/// # Errors
/// [`Code::NotConformant`] where the inputs do not fit the layout.
pub fn evaluate(plan: &Plan, layout: &Layout, inputs: &Inputs<'_>) -> Result<Vec<Vec<u64>>> {
    simulate(plan, layout, inputs, None)
}

/// [`evaluate`]; with `draw` the vectors of the network have the noise that their operations are predicted to have. Noise of
/// GLWE results is not drawn: [`noise::for_input`](crate::noise::for_input) predicts it.
///
/// # Errors
/// [`Code::NotConformant`] where the inputs do not fit the layout.
pub fn simulate(
    plan: &Plan,
    layout: &Layout,
    inputs: &Inputs<'_>,
    draw: Option<&mut Draw<'_>>,
) -> Result<Vec<Vec<u64>>> {
    let Inputs { selectors, packed, small } = *inputs;
    let n = layout.glwe.polynomial_size as usize;
    if selectors.len() != layout.selectors as usize
        || packed.len() != layout.packed_inputs as usize
        || packed.iter().any(|message| message.len() != n)
        || small.len() != layout.small_inputs as usize
        || small.iter().any(|message| message.len() != layout.small_size() as usize)
    {
        return wrong("the inputs do not fit the layout");
    }
    let bit_scale = layout.gadget.map_or(0, |gadget| 64 - gadget.base_log * gadget.levels);
    let mut shared: Vec<Vec<u64>> = vec![Vec::new(); plan.shared as usize];
    for phase in &plan.phases {
        for task in &phase.tasks {
            let mut scratch: Vec<Vec<u64>> = vec![Vec::new(); task.scratch as usize];
            for step in &task.steps {
                let value = |form: &Form| {
                    let mut out = vec![0u64; n];
                    for &(slot, weight) in &form.slots {
                        let source = match slot {
                            Slot::Scratch(at) => &scratch[at as usize],
                            Slot::Shared(at) => &shared[at as usize],
                        };
                        add_rotated(&mut out, source, 0, weight as u64);
                    }
                    for &(input, shift, weight) in &form.packed {
                        add_rotated(
                            &mut out,
                            &packed[input as usize],
                            (2 * n - shift as usize) % (2 * n),
                            weight as u64,
                        );
                    }
                    for &(selector, shift, weight) in &form.bits {
                        if selectors[selector as usize] {
                            let mut unit = vec![0u64; n];
                            unit[0] = 1u64.wrapping_shl(bit_scale);
                            add_rotated(&mut out, &unit, shift as usize, weight as u64);
                        }
                    }
                    for &(at, torus) in &form.constant {
                        out[at as usize] = out[at as usize].wrapping_add(torus);
                    }
                    out
                };
                let result = match step {
                    Step::CMux { out: _, selector, base, difference } => {
                        let mut result = value(base);
                        if selectors[*selector as usize] {
                            add_rotated(&mut result, &value(difference), 0, 1);
                        }
                        result
                    }
                    Step::Rotate { out: _, table, rotations } => {
                        let mut result = value(table);
                        for &(selector, by) in rotations {
                            if selectors[selector as usize] {
                                let mut rotated = vec![0u64; n];
                                add_rotated(&mut rotated, &result, (2 * n - by as usize) % (2 * n), 1);
                                result = rotated;
                            }
                        }
                        result
                    }
                    Step::Sum { out: _, form } => value(form),
                    Step::PolyMul { out: _, packed: input, polynomial } => {
                        let mut result = vec![0u64; n];
                        for (exponent, &weight) in polynomial.iter().enumerate().filter(|(_, weight)| **weight != 0) {
                            add_rotated(&mut result, &packed[*input as usize], exponent, weight as u64);
                        }
                        result
                    }
                };
                match step.out() {
                    Slot::Scratch(at) => scratch[at as usize] = result,
                    Slot::Shared(at) => shared[at as usize] = result,
                }
            }
        }
    }
    let results = plan.results.iter().zip(&layout.result_slots);
    let glwe = results.map(|(&slot, &slots)| shared[slot as usize][..slots as usize].to_vec());
    let variances = if draw.is_some() && plan.network.reads_slots() { noise::slots(plan, layout) } else { Vec::new() };
    let slots = super::network::Shared { values: &shared, variances: &variances };
    Ok(glwe.chain(super::network::evaluate(&plan.network, layout, inputs, &slots, draw)).collect())
}
