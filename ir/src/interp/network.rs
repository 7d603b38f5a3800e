//! Networks of LWE ciphertexts in clear: the check, the oracle, and the simulation with predicted noise.

use crate::diag::{Code, Diagnostic, Result};
use crate::noise::{self, bootstrap as noise_of};
use crate::params::{BootstrapParams, KEYSWITCH_BASE_LOG};
use crate::plan::{BLOCK, Layer, Layout, Network};
use crate::stage::quant::check_matrix;

fn wrong<T>(why: impl Into<String>) -> Result<T> {
    Err(Diagnostic::new(Code::NotConformant, why))
}

pub(super) fn check_partitions(partitions: &[BootstrapParams], dimension: u32, small_inputs: u32) -> Result<()> {
    if !partitions.is_empty() && dimension > BootstrapParams::MAX_GLWE_DIMENSION {
        return wrong(format!("bootstraps at k={dimension}"));
    }
    let with_inputs = partitions.iter().filter(|params| params.small_dimension > 0).count();
    if partitions.len() > BootstrapParams::MAX_PARTITIONS || with_inputs > 1 {
        return wrong(format!("{} partitions, {with_inputs} of them with inputs", partitions.len()));
    }
    if small_inputs > 1 << 16 || small_inputs > 0 && with_inputs == 0 {
        return wrong("inputs under a small key without one, or an absurd number");
    }
    partitions.iter().try_for_each(check_partition)
}

fn check_partition(params: &BootstrapParams) -> Result<()> {
    let BootstrapParams { lwe, keyswitch, gadget, small_dimension } = params;
    if !lwe.log2_std.is_finite() || !lwe.is_secure() || lwe.log2_std > -2.0 {
        return wrong(format!("noise 2^{} at dimension {} is below 128 bits of security", lwe.log2_std, lwe.dimension));
    }
    for gadget in keyswitch.iter().chain([gadget]) {
        super::plan::check_gadget(gadget)?;
    }
    if keyswitch.is_some_and(|gadget| gadget.base_log > KEYSWITCH_BASE_LOG || gadget.base_log * gadget.levels > 31) {
        return wrong("a keyswitch with digits of more than 15 bits, or that decomposes more than 31");
    }
    let size = lwe.dimension.checked_div(*small_dimension).unwrap_or(0);
    let fits = size.is_power_of_two() && size >= 64 && size * small_dimension == lwe.dimension;
    if *small_dimension > 0 && !fits {
        return wrong("inputs under the small key do not fit its dimension");
    }
    Ok(())
}

/// Checks every index of a network that reads these shared slots.
///
/// # Errors
/// [`Code::NotConformant`].
pub(super) fn check(network: &Network, layout: &Layout, written: &[bool]) -> Result<()> {
    let n = layout.glwe.polynomial_size;
    let mut lengths: Vec<usize> = Vec::with_capacity(network.layers.len());
    let small = network.small();
    let apart = network.blocks.is_sorted_by(|a, b| b.saturating_sub(*a) >= BLOCK as u32);
    if !apart || network.blocks.last().is_some_and(|last| last.saturating_add(BLOCK as u32) > layout.selectors) {
        return wrong("blocks of selectors out of range");
    }
    if !network.blocks.is_empty() && layout.glwe.dimension > BootstrapParams::MAX_GLWE_DIMENSION {
        return wrong("blocks of selectors at a large k");
    }
    for layer in &network.layers {
        match layer {
            Layer::Samples { small, first, count } => {
                let (size, inputs) =
                    if *small { (layout.small_size(), layout.small_inputs) } else { (n, layout.packed_inputs) };
                let used = count.div_ceil(size.max(1));
                if size == 0 || first.checked_add(used).is_none_or(|end| end > inputs) {
                    return wrong("samples of inputs out of range");
                }
            }
            Layer::SampleExtract { slot, count } => {
                if written.get(*slot as usize) != Some(&true) || *count > n {
                    return wrong("coefficients of a slot that is never written, or more than there are");
                }
            }
            Layer::Rotate { tables, table, rotations } => {
                check_tables(tables, table, n)?;
                let bad = |&(s, by): &(u32, u32)| s >= layout.selectors || by == 0 || by >= 2 * n;
                if rotations.len() != table.len() || rotations.iter().flatten().any(bad) {
                    return wrong("a rotation out of range");
                }
                if layout.gadget.is_none() && rotations.iter().any(|own| !own.is_empty()) {
                    return wrong("a rotation without a decomposition");
                }
            }
            Layer::Affine { operands, start, column, weight, constant } => {
                let known = |at: &u32| lengths.get(*at as usize).copied();
                let Some(columns) = operands.iter().map(known).sum::<Option<usize>>() else {
                    return wrong("a layer is read before it is made");
                };
                let keys = operands.iter().map(|at| small[*at as usize]);
                if operands.is_empty() || keys.clone().any(|key| Some(key) != keys.clone().next()) {
                    return wrong("operands under different keys");
                }
                check_matrix(start, column, weight.len(), columns).or_else(wrong)?;
                if start.len() != constant.len() + 1 {
                    return wrong("the rows of a matrix are inconsistent");
                }
            }
            Layer::Bootstrap { partition, operand, results, tables, table } => {
                if !BootstrapParams::may_give(*results) {
                    return wrong(format!("{results} results of a rotation"));
                }
                check_tables(tables, table, n)?;
                if lengths.get(*operand as usize) != Some(&table.len()) {
                    return wrong("a bootstrap of a vector of another length");
                }
                let under_small = small[*operand as usize];
                let fits = |params: &BootstrapParams| {
                    if under_small { params.small_dimension > 0 } else { params.keyswitch.is_some() }
                };
                if !layout.partitions.get(*partition as usize).is_some_and(fits) {
                    return wrong("a bootstrap without the parameters for it");
                }
            }
        }
        if layer.is_empty() || layer.len() > 1 << 20 {
            return wrong("a layer of no elements or too many");
        }
        lengths.push(layer.len());
    }
    let found: Option<Vec<u32>> = network
        .results
        .iter()
        .map(|at| lengths.get(*at as usize).filter(|_| !small[*at as usize]).map(|&len| len as u32))
        .collect();
    if found.as_ref() != Some(&layout.lwe_results) {
        return wrong("the network's results do not fit the layout");
    }
    Ok(())
}

fn check_tables(tables: &[Vec<u32>], table: &[u32], n: u32) -> Result<()> {
    if tables.iter().any(|own| own.len() != n as usize) || table.iter().any(|&at| at as usize >= tables.len()) {
        return wrong("a table of the wrong size, or out of range");
    }
    Ok(())
}

/// Values of the inputs of one row, on the 64-bit torus.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Selector bits.
    pub selectors: &'a [bool],
    /// Packed inputs.
    pub packed: &'a [Vec<u64>],
    /// Inputs under a small key.
    pub small: &'a [Vec<u64>],
}

/// What one row encrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Selector bits.
    pub selectors: Vec<bool>,
    /// Message polynomial of each packed input, on the torus.
    pub packed: Vec<Vec<u64>>,
    /// Message polynomial of each input under a small key.
    pub small: Vec<Vec<u64>>,
}

impl Messages {
    /// All zero, in the shapes of a layout.
    pub fn zeros(layout: &Layout) -> Self {
        Messages {
            selectors: vec![false; layout.selectors as usize],
            packed: vec![vec![0; layout.glwe.polynomial_size as usize]; layout.packed_inputs as usize],
            small: vec![vec![0; layout.small_size() as usize]; layout.small_inputs as usize],
        }
    }

    /// The same, borrowed.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs { selectors: &self.selectors, packed: &self.packed, small: &self.small }
    }
}

/// Noise draws: given a standard deviation as a fraction of the torus, a torus value.
pub type Draw<'a> = dyn FnMut(f64) -> f64 + 'a;

/// Shared slots of a plan that a network reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared<'a> {
    /// The value of each slot.
    pub values: &'a [Vec<u64>],
    /// The variance that each is predicted to have; empty for none.
    pub variances: &'a [f64],
}

/// Every vector of a checked network on one row, on the 32-bit torus; with `draw` each ciphertext has the noise that its
/// operation is predicted to have.
pub fn vectors(
    network: &Network,
    layout: &Layout,
    inputs: &Inputs<'_>,
    shared: &Shared<'_>,
    mut draw: Option<&mut Draw<'_>>,
) -> Vec<Vec<u32>> {
    let glwe = &layout.glwe;
    let n = glwe.polynomial_size;
    let mut noisy = |value: u32, variance: f64| match &mut draw {
        None => value,
        Some(draw) => value.wrapping_add((draw(variance.sqrt()) * 32f64.exp2()).round() as i64 as u32),
    };
    let small = network.small();
    let mut values: Vec<Vec<u32>> = Vec::with_capacity(network.layers.len());
    for layer in &network.layers {
        let made = match layer {
            Layer::Samples { small, first, count } => {
                let (source, size, variance) = match (small, layout.input_partition()) {
                    (true, Some((_, params))) => (inputs.small, layout.small_size(), params.lwe.variance()),
                    _ => (inputs.packed, n, noise::fresh(layout)),
                };
                let at = |e: u32| (source[(first + e / size) as usize][(e % size) as usize] >> 32) as u32;
                (0..*count).map(|e| noisy(at(e), variance)).collect()
            }
            Layer::SampleExtract { slot, count } => {
                let at = *slot as usize;
                let variance = shared.variances.get(at).copied().unwrap_or(0.0) + noise_of::lwe_rounding(glwe);
                shared.values[at].iter().take(*count as usize).map(|x| noisy((x >> 32) as u32, variance)).collect()
            }
            Layer::Rotate { tables, table, rotations } => {
                let element = |(&table, own): (&u32, &Vec<(u32, u32)>)| {
                    let rotation = |&(selector, shift): &(u32, u32)| noise_of::Rotation {
                        shift,
                        in_block: network.block_of(selector).is_some(),
                        bit: inputs.selectors[selector as usize],
                    };
                    let rotations = own.iter().map(rotation);
                    let slot = rotations.clone().filter(|own| own.bit).map(|own| own.shift).sum::<u32>() % (2 * n);
                    let variance = layout.gadget.map_or(0.0, |g| noise_of::known_rotations(glwe, &g, rotations));
                    noisy(read(&tables[table as usize], slot, n), variance)
                };
                table.iter().zip(rotations).map(element).collect()
            }
            Layer::Affine { operands, start, column, weight, constant } => {
                let all: Vec<u32> = operands.iter().flat_map(|at| values[*at as usize].iter().copied()).collect();
                let row = |(pair, constant): (&[u32], &u32)| {
                    (pair[0] as usize..pair[1] as usize).fold(*constant, |sum, at| {
                        sum.wrapping_add(all[column[at] as usize].wrapping_mul(weight[at] as u32))
                    })
                };
                start.windows(2).zip(constant).map(row).collect()
            }
            Layer::Bootstrap { partition, operand, results, tables, table } => {
                let params = &layout.partitions[*partition as usize];
                let before = noise_of::argument(glwe, params, 0.0, small[*operand as usize], *results);
                let (own, through_key) = noise_of::rotation_parts(glwe, params);
                // Of several results, what arrives through the key is half common to all.
                let common = if *results > 1 { 0.5 * through_key } else { 0.0 };
                let mut made = Vec::with_capacity(layer.len());
                for (&value, &table) in values[*operand as usize].iter().zip(table) {
                    let slot = slot_of(noisy(value, before), n / results) * results;
                    let shift = if common > 0.0 { noisy(0, common) } else { 0 };
                    for at in 0..*results {
                        let entry = read(&tables[table as usize], slot + at, n).wrapping_add(shift);
                        made.push(noisy(entry, own + through_key - common));
                    }
                }
                made
            }
        };
        values.push(made);
    }
    values
}

/// The multiple of 1/2n nearest to a torus value.
pub fn slot_of(value: u32, n: u32) -> u32 {
    let drop = 31 - n.trailing_zeros();
    (value.wrapping_add(1 << (drop - 1)) >> drop) & (2 * n - 1)
}

/// Coefficient 0 of `X^-slot` times a table: entry `slot`, below 2N, negated from N on.
fn read(table: &[u32], slot: u32, n: u32) -> u32 {
    if slot < n { table[slot as usize] } else { table[(slot - n) as usize].wrapping_neg() }
}

/// The results of a checked network on one row, on the 64-bit torus.
pub fn evaluate(
    network: &Network,
    layout: &Layout,
    inputs: &Inputs<'_>,
    shared: &Shared<'_>,
    draw: Option<&mut Draw<'_>>,
) -> Vec<Vec<u64>> {
    let values = vectors(network, layout, inputs, shared, draw);
    let wide = |at: &u32| values[*at as usize].iter().map(|&value| u64::from(value) << 32).collect();
    network.results.iter().map(wide).collect()
}
