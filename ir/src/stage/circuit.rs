//! The encrypted stage: what the client sends, what the server computes on it, what comes back.
//!
//! | operation | operands | value |
//! | --- | --- | --- |
//! | `params` | | the parameter set of every ciphertext |
//! | `codes` | | selector bits and thermometer coefficients of integer codes |
//! | `reals` | | a packed GLWE ciphertext of scaled reals |
//! | `decide` | codes, params? | a GLWE ciphertext with one output in each of its first K coefficients (regime R1) |
//! | `polymul` | reals, params? | the same, by products with clear polynomials (regime R0) |
//! | `samples` | codes, params, bootstrap_params? | an LWE ciphertext of each code |
//! | `affine` | lwe... | integer combinations |
//! | `rotate_lookup` | codes..., params? | a table of each sum, rotated by selector bits (regime R1) |
//! | `bootstrap` | lwe, params?, bootstrap_params? | a table of each element (regime R2) |
//! | `extract` | glwe or lwe | the result that leaves the server |
//!
//! `decide` and `polymul` have no noise until `choose-parameters` gives them the `params` operand.

pub mod network;

use super::quant::{CodedFeature, Interval, check_features, parse_interval, parse_runs, runs};
use crate::attr::Many;
use crate::diagram::{Diagram, SelectorCode};
use crate::graph::{Graph, Stage};
use crate::noise;
use crate::params::{BootstrapParams, GadgetParams, GlweParams, LweParams};
use crate::{attr_record, define_ops};
use std::fmt;
use std::str::FromStr;

attr_record! {
    /// How one feature's code is sent as selector bits.
    pub struct SelectorRecord {
        /// Cuts that the bits can tell apart.
        pub cuts: Vec<u32>,
        /// The bit pattern of each interval.
        pub patterns: Vec<u32>,
        /// Number of bits.
        pub bits: u32,
    }
}

impl SelectorRecord {
    /// The same for a diagram.
    pub fn code(&self) -> SelectorCode {
        SelectorCode { cuts: self.cuts.clone(), patterns: self.patterns.clone(), bits: self.bits }
    }
}

impl From<SelectorCode> for SelectorRecord {
    fn from(code: SelectorCode) -> Self {
        let SelectorCode { cuts, patterns, bits } = code;
        SelectorRecord { cuts, patterns, bits }
    }
}

define_ops! {
    /// Operations of the encrypted stage.
    pub enum CircuitOp {
        /// The parameter set.
        Params = "params" {
            /// Number of mask polynomials, k.
            k: u32,
            /// Coefficients per polynomial, N.
            n: u32,
            /// log2 of the fresh noise's standard deviation, as a fraction of the torus.
            log2_std: f64,
            /// log2 of the decomposition base; 0 where there are no selectors.
            base_log: u32,
            /// Number of decomposition levels; 0 where there are no selectors.
            levels: u32,
        },
        /// Integer codes, sent as selector bits and thermometer coefficients.
        Codes = "codes" {
            /// Name of the head's output.
            value: String,
            /// Whether values are rounded to f32 first.
            single: bool,
            /// The features.
            features: Many<CodedFeature>,
            /// Per feature, once `assign-codes` chose it; empty before.
            selectors: Many<SelectorRecord>,
        },
        /// Reals (and a last one that is always 1), scaled by the client and packed into coefficients.
        Reals = "reals" {
            /// Name of the head's output.
            value: String,
            /// Columns, the constant one not counted.
            columns: u32,
        },
        /// A decision diagram.
        Decide = "decide" {
            /// log2 of the torus value of the integer 1.
            log2_delta: u32,
            /// The diagram.
            diagram: Diagram,
        },
        /// Integer combinations of packed reals by products with clear polynomials.
        Polymul = "polymul" {
            /// Number of outputs.
            outputs: u32,
            /// Row-major, outputs x (columns + 1).
            weights: Vec<i64>,
        },
        /// Parameters of bootstraps.
        BootstrapParams = "bootstrap_params" {
            /// Dimension of the small key.
            n: u32,
            /// log2 of the small key's fresh noise.
            log2_std: f64,
            /// Block length of the small key.
            block: u32,
            /// log2 of the keyswitch's base; 0 where there is no keyswitch.
            ks_base_log: u32,
            /// Levels of the keyswitch.
            ks_levels: u32,
            /// log2 of the blind rotation's base.
            base_log: u32,
            /// Levels of the blind rotation.
            levels: u32,
            /// Mask polynomials of inputs under the small key; 0 for none.
            small_dimension: u32,
        },
        /// Codes as LWE ciphertexts: `unit * code` of the torus each.
        Samples = "samples" {
            /// Torus value of 1.
            unit: f64,
            /// Under the small key, where bootstraps need no keyswitch; else under the flattened GLWE key.
            small: bool,
        },
        /// The outputs of a decision diagram as LWE ciphertexts under the flattened GLWE key.
        SampleExtract = "sample_extract" {
            /// That of the diagram.
            log2_delta: u32,
        },
        /// Integer combinations of the elements of all operands, numbered through; a sparse matrix by rows.
        Affine = "affine" {
            /// First entry of each row, and the number of entries.
            start: Vec<u32>,
            /// Column of each entry.
            column: Vec<u32>,
            /// Weight of each entry.
            weight: Vec<i64>,
            /// Typical standard deviation of a sum.
            spread: f64,
            /// Whether noise has to stay within half a step; absent for no.
            exact: Option<bool>,
        },
        /// A table of a sum of codes, by rotating it by each selector bit (regime R1).
        RotateLookup = "rotate_lookup" {
            /// First entry of each row, and the number of entries.
            start: Vec<u32>,
            /// Column of each entry.
            column: Vec<u32>,
            /// Weight of each entry.
            weight: Vec<i64>,
            /// Typical standard deviation of a sum.
            spread: f64,
            /// Per element: the argument of entry 0.
            low: Vec<i64>,
            /// Per element: from one entry's argument to the next.
            stride: Vec<f64>,
            /// Distinct tables.
            tables: Many<Vec<i64>>,
            /// Per element: its table.
            table: Vec<u32>,
            /// Torus value of 1 in the output.
            unit: f64,
        },
        /// Tables of each element of the argument by a programmable bootstrap, after a keyswitch unless the argument is under
        /// the small key (regime R2). Element e gives elements `e * results` on of the output.
        Bootstrap = "bootstrap" {
            /// Per element of the output: the argument of entry 0.
            low: Vec<i64>,
            /// Per element of the output: from one entry's argument to the next.
            stride: Vec<f64>,
            /// Distinct tables.
            tables: Many<Vec<i64>>,
            /// Per element of the output: its table.
            table: Vec<u32>,
            /// Torus value of 1 in the output.
            unit: f64,
            /// Tables that one blind rotation turns, a power of two; absent for 1.
            results: Option<u32>,
        },
        /// The output coefficients leave the server.
        Extract = "extract" {
            /// Per output, the float value of the integer 1.
            step: Vec<f64>,
            /// Per output.
            offset: Vec<f64>,
            /// Whether decoding rounds to the nearest integer.
            exact: bool,
        },
    }
}

/// log2 of a noise standard deviation as a fraction of the torus; compared and printed to a hundredth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log2Std(pub f64);

impl Log2Std {
    /// Whether the two print alike, about; no noise (minus infinity) is near no noise.
    pub(crate) fn is_near(&self, other: &Log2Std) -> bool {
        self.0 == other.0 || (self.0 - other.0).abs() <= 0.01
    }
}

/// The noise bound of each result, in the order of the decoders: results of GLWE ciphertexts, then those of LWE ciphertexts.
pub fn result_noise(graph: &Graph<Circuit>) -> Vec<Log2Std> {
    let results = |lwe: bool| {
        let sources = graph.outputs().iter().filter_map(|(_, id)| graph.node(*id).operands.first());
        sources.filter_map(move |id| match &graph.node(*id).ty {
            CircuitType::Glwe { noise, .. } if !lwe => *noise,
            CircuitType::Lwe { noise, .. } if lwe => *noise,
            _ => None,
        })
    };
    results(false).chain(results(true)).collect()
}

fn same_noise(a: Option<&Log2Std>, b: Option<&Log2Std>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.is_near(b),
        (None, None) => true,
        _ => false,
    }
}

/// What is known of a value of the encrypted stage.
#[derive(Clone, Debug, PartialEq)]
pub enum CircuitType {
    /// A parameter set.
    Params(GlweParams, Option<GadgetParams>),
    /// Codes: largest code and selector bits of each feature.
    Codes {
        /// Largest code of each feature.
        largest: Vec<u32>,
        /// Selector bits of each feature; empty before they are assigned.
        bits: Vec<u32>,
    },
    /// Packed reals (with the constant one).
    Reals(u32),
    /// A GLWE ciphertext with outputs in its first coefficients.
    Glwe {
        /// Sound interval of each output; `None` for combinations of reals, whose scale the client chooses.
        ranges: Option<Vec<(i64, i64)>>,
        /// Number of outputs.
        slots: u32,
        /// Bound of the noise, once parameters are chosen.
        noise: Option<Log2Std>,
    },
    /// Parameters of bootstraps.
    BootstrapParams(BootstrapParams),
    /// LWE ciphertexts.
    Lwe {
        /// Sound interval of each integer.
        ranges: Vec<(i64, i64)>,
        /// log2 of the torus value of 1.
        log2_unit: Log2Std,
        /// Whether they are under the small key.
        small: bool,
        /// Bound of the noise of every element, once parameters are chosen.
        noise: Option<Log2Std>,
    },
    /// A result.
    Result(u32),
}

impl fmt::Display for CircuitType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CircuitType::Params(..) => f.write_str("params"),
            CircuitType::Codes { largest, bits } => {
                write!(f, "codes[{}]", runs(largest))?;
                if bits.is_empty() { Ok(()) } else { write!(f, " bits[{}]", runs(bits)) }
            }
            CircuitType::Reals(columns) => write!(f, "reals[{columns}]"),
            CircuitType::Glwe { ranges, slots, noise } => {
                write!(f, "glwe<{slots}>")?;
                if let Some(ranges) = ranges {
                    let ranges: Vec<Interval> = ranges.iter().map(|&(low, high)| Interval(low, high)).collect();
                    write!(f, " range[{}]", runs(&ranges))?;
                }
                match noise {
                    Some(noise) => write!(f, " noise[2^{:.2}]", noise.0),
                    None => Ok(()),
                }
            }
            CircuitType::BootstrapParams(_) => f.write_str("bootstrap_params"),
            CircuitType::Lwe { ranges, log2_unit, small, noise } => {
                let shown: Vec<Interval> = ranges.iter().map(|&(low, high)| Interval(low, high)).collect();
                let key = if *small { "small" } else { "large" };
                write!(f, "lwe<{}> {key} range[{}] unit[2^{:.2}]", ranges.len(), runs(&shown), log2_unit.0)?;
                noise.map_or(Ok(()), |noise| write!(f, " noise[2^{:.2}]", noise.0))
            }
            CircuitType::Result(outputs) => write!(f, "result<{outputs}>"),
        }
    }
}

impl FromStr for CircuitType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a type of the circuit stage");
        // `name`, then `name[list]` parts.
        let part = |name: &str| {
            let start = text.find(&format!("{name}["))? + name.len() + 1;
            Some(text[start..].split_once(']')?.0)
        };
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let slots = || text.split_once('<').and_then(|(_, rest)| number(rest.split_once('>')?.0));
        let parsed = if text.starts_with("codes") {
            let largest = part("codes").and_then(|list| parse_runs(list, number));
            let bits = part("bits").map_or(Some(Vec::new()), |list| parse_runs(list, number));
            largest.zip(bits).map(|(largest, bits)| CircuitType::Codes { largest, bits })
        } else if text.starts_with("reals") {
            part("reals").and_then(number).map(CircuitType::Reals)
        } else if text.starts_with("glwe") {
            let ranges = match part("range") {
                None => None,
                Some(list) => Some(parse_runs(list, parse_interval).ok_or_else(wrong)?),
            };
            let noise = match part("noise") {
                None => None,
                Some(noise) => {
                    Some(noise.strip_prefix("2^").and_then(|n| n.parse().ok()).map(Log2Std).ok_or_else(wrong)?)
                }
            };
            slots().map(|slots| CircuitType::Glwe { ranges, slots, noise })
        } else if text.starts_with("lwe") {
            let power = |part: Option<&str>| {
                part.map(|part| part.strip_prefix("2^").and_then(|n| n.parse().ok()).map(Log2Std).ok_or_else(wrong))
            };
            let ranges = part("range").and_then(|list| parse_runs(list, parse_interval)).ok_or_else(wrong)?;
            let log2_unit = power(part("unit")).ok_or_else(wrong)??;
            let noise = power(part("noise")).transpose()?;
            Some(CircuitType::Lwe { ranges, log2_unit, small: text.contains(" small "), noise })
        } else if text == "bootstrap_params" {
            // As with `params`: agreement is checked by kind alone.
            let gadget = GadgetParams { base_log: 0, levels: 0 };
            let lwe = LweParams { dimension: 0, log2_std: 0.0, block: 1 };
            Some(CircuitType::BootstrapParams(BootstrapParams { lwe, keyswitch: None, gadget, small_dimension: 0 }))
        } else if text.starts_with("result") {
            slots().map(CircuitType::Result)
        } else if text == "params" {
            // The attributes say which; agreement is checked by kind alone.
            Some(CircuitType::Params(GlweParams { dimension: 0, polynomial_size: 0, log2_std: 0.0 }, None))
        } else {
            None
        };
        parsed.ok_or_else(wrong)
    }
}

/// The encrypted stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit;

/// The largest log2 of a step of the 64-bit torus with which all integers of these intervals lie within half of it, so that they
/// are read back with their signs; `None` where there is none.
pub fn most_log2_delta(ranges: &[(i64, i64)]) -> Option<u32> {
    (u64::BITS - 1).checked_sub(u64::BITS - largest_magnitude(ranges).leading_zeros())
}

fn largest_magnitude(ranges: &[(i64, i64)]) -> u64 {
    ranges.iter().map(|&(low, high)| low.unsigned_abs().max(high.unsigned_abs())).max().unwrap_or(0)
}

impl Stage for Circuit {
    type Op = CircuitOp;
    type Type = CircuitType;
    const NAME: &'static str = "circuit";

    fn infer(
        op: &CircuitOp,
        operands: &[&CircuitType],
        _declared: Option<&CircuitType>,
    ) -> Result<CircuitType, String> {
        match (op, operands) {
            (CircuitOp::Params { k, n, log2_std, base_log, levels }, []) => {
                params_type(*k, *n, *log2_std, *base_log, *levels)
            }
            (CircuitOp::Codes { value: _, single: _, features, selectors }, []) => codes_type(features, selectors),
            (CircuitOp::Reals { value: _, columns }, []) => {
                columns.checked_add(1).map(CircuitType::Reals).ok_or_else(|| "too many columns".to_owned())
            }
            (CircuitOp::Decide { log2_delta, diagram }, [CircuitType::Codes { largest, bits }, rest @ ..]) => {
                diagram.check(largest, bits)?;
                let ranges = diagram.ranges();
                if most_log2_delta(&ranges).is_none_or(|most| *log2_delta > most) {
                    let largest = largest_magnitude(&ranges);
                    return Err(format!("{largest} steps of 2^{log2_delta} do not fit half of the 64-bit torus"));
                }
                let noise = match rest {
                    [] => None,
                    [CircuitType::Params(glwe, Some(gadget))] => {
                        Some(Log2Std(0.5 * diagram.noise_bound(glwe, Some(gadget), *log2_delta).log2()))
                    }
                    [CircuitType::Params(glwe, None)] => {
                        Some(Log2Std(0.5 * diagram.noise_bound(glwe, None, *log2_delta).log2()))
                    }
                    _ => return Err("the second operand of `decide` is a `params`".to_owned()),
                };
                Ok(CircuitType::Glwe { slots: diagram.slots, ranges: Some(ranges), noise })
            }
            (CircuitOp::Polymul { outputs, weights }, [CircuitType::Reals(columns), rest @ ..]) => {
                if u64::from(*outputs) * u64::from(*columns) != weights.len() as u64 {
                    return Err(format!("{} weights for {outputs} outputs of {columns} columns", weights.len()));
                }
                let noise = match rest {
                    [] => None,
                    [CircuitType::Params(glwe, _)] => {
                        let norm2 = weights.iter().map(|&weight| (weight as f64).powi(2)).sum::<f64>();
                        Some(Log2Std(0.5 * noise::polynomial_product(glwe, glwe.variance(), norm2).log2()))
                    }
                    _ => return Err("the second operand of `polymul` is a `params`".to_owned()),
                };
                Ok(CircuitType::Glwe { slots: *outputs, ranges: None, noise })
            }
            (CircuitOp::BootstrapParams { .. }, []) => network::bootstrap_params(op),
            (CircuitOp::Samples { unit, small }, [CircuitType::Codes { largest, .. }, rest @ ..]) => {
                network::samples(*unit, *small, largest, rest)
            }
            (
                CircuitOp::SampleExtract { log2_delta },
                [CircuitType::Glwe { ranges: Some(ranges), noise, slots: _ }, rest @ ..],
            ) => network::sample_extract(*log2_delta, ranges, *noise, rest),
            (CircuitOp::Affine { start, column, weight, spread: _, exact: _ }, operands) => {
                network::affine(start, column, weight, operands)
            }
            (CircuitOp::RotateLookup { .. }, operands) => network::rotate_lookup(op, operands),
            (CircuitOp::Bootstrap { .. }, [argument, rest @ ..]) => network::bootstrap(op, argument, rest),
            (
                CircuitOp::Extract { step, offset, exact: _ },
                [CircuitType::Lwe { ranges, log2_unit, small: false, .. }],
            ) => {
                network::check_fits(ranges, log2_unit.0.exp2(), 0.5)?;
                if step.len() != ranges.len() || offset.len() != ranges.len() {
                    return Err(format!(
                        "{} steps and {} offsets for {} outputs",
                        step.len(),
                        offset.len(),
                        ranges.len()
                    ));
                }
                Ok(CircuitType::Result(ranges.len() as u32))
            }
            (CircuitOp::Extract { step, offset, exact: _ }, [CircuitType::Glwe { slots, .. }]) => {
                if step.len() != *slots as usize || offset.len() != *slots as usize {
                    return Err(format!("{} steps and {} offsets for {slots} outputs", step.len(), offset.len()));
                }
                Ok(CircuitType::Result(*slots))
            }
            (
                CircuitOp::Params { .. }
                | CircuitOp::Codes { .. }
                | CircuitOp::Reals { .. }
                | CircuitOp::Decide { .. }
                | CircuitOp::Polymul { .. }
                | CircuitOp::BootstrapParams { .. }
                | CircuitOp::Samples { .. }
                | CircuitOp::Bootstrap { .. }
                | CircuitOp::SampleExtract { .. }
                | CircuitOp::Extract { .. },
                _,
            ) => Err("operands of the wrong number or type".to_owned()),
        }
    }

    fn agrees(declared: &CircuitType, inferred: &CircuitType) -> bool {
        match (declared, inferred) {
            (CircuitType::Params(..), CircuitType::Params(..))
            | (CircuitType::BootstrapParams(_), CircuitType::BootstrapParams(_)) => true,
            (
                CircuitType::Lwe { ranges, log2_unit, small, noise },
                CircuitType::Lwe { ranges: new_ranges, log2_unit: new_unit, small: new_small, noise: new_noise },
            ) => {
                ranges == new_ranges
                    && small == new_small
                    && log2_unit.is_near(new_unit)
                    && same_noise(noise.as_ref(), new_noise.as_ref())
            }
            (
                CircuitType::Glwe { ranges, slots, noise },
                CircuitType::Glwe { ranges: new_ranges, slots: new_slots, noise: new_noise },
            ) => slots == new_slots && ranges == new_ranges && same_noise(noise.as_ref(), new_noise.as_ref()),
            _ => declared == inferred,
        }
    }
}

fn params_type(k: u32, n: u32, log2_std: f64, base_log: u32, levels: u32) -> Result<CircuitType, String> {
    if !n.is_power_of_two() || !(256..=32768).contains(&n) || k == 0 || k > 64 {
        return Err(format!(
            "k={k}, N={n} is not a usable GLWE shape (N a power of two from 256 to 32768, k from 1 to 64)"
        ));
    }
    let glwe = GlweParams { dimension: k, polynomial_size: n, log2_std };
    if !glwe.is_secure() {
        return Err(format!("noise 2^{log2_std} at dimension {} is below 128 bits of security", glwe.lwe_dimension()));
    }
    let gadget = match (base_log, levels) {
        (0, 0) => None,
        (base_log, levels) if base_log >= 1 && levels >= 1 && u64::from(base_log) * u64::from(levels) <= 63 => {
            Some(GadgetParams { base_log, levels })
        }
        _ => {
            return Err(format!("base 2^{base_log} with {levels} levels is not a decomposition of 64 bits"));
        }
    };
    Ok(CircuitType::Params(glwe, gadget))
}

fn codes_type(features: &[CodedFeature], selectors: &[SelectorRecord]) -> Result<CircuitType, String> {
    check_features(features)?;
    let largest: Vec<u32> = features.iter().map(CodedFeature::largest).collect();
    if selectors.is_empty() {
        return Ok(CircuitType::Codes { largest, bits: Vec::new() });
    }
    if selectors.len() != features.len() {
        return Err(format!("{} selector codes for {} features", selectors.len(), features.len()));
    }
    for (index, (selector, &largest)) in selectors.iter().zip(&largest).enumerate() {
        let SelectorRecord { cuts, patterns, bits } = selector;
        let increasing = cuts.windows(2).all(|pair| pair[0] < pair[1]) && patterns.windows(2).all(|p| p[0] < p[1]);
        let in_range = cuts.iter().all(|&cut| cut >= 1 && cut <= largest)
            && *bits <= 20
            && patterns.iter().all(|&pattern| u64::from(pattern) < 1u64 << bits);
        if !increasing || !in_range || patterns.len() != cuts.len() + 1 {
            return Err(format!("the selector code of f{index} is inconsistent"));
        }
    }
    Ok(CircuitType::Codes { largest, bits: selectors.iter().map(|selector| selector.bits).collect() })
}
