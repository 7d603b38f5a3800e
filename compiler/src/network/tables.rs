//! Tables of a layer: the integers of its values for the integers of its sums.
//!
//! A table is exact, in *steps*, where the values are on a grid of few points, the model's own or one that they happen to lie
//! on, and where the sums are few; each step is found by bisection. Other tables have [`ENTRIES`] entries over the interval of
//! the sums.

use super::function::{Function, Scalar};
use super::grid::{self, MOST_STEPS, Points};
use super::halves;
use super::quantize::{ENTRIES, Grid, natural_grid, range};
use super::trace::Activation;
use crate::options::Options;
use std::collections::HashMap;
use tacit_ir::diag::Result;

/// The sums that a layer reads, row by row.
pub(super) struct Sums<'a> {
    /// `real = offset + step * sum`.
    pub(super) offset: &'a [f64],
    pub(super) step: &'a [f64],
    pub(super) ranges: &'a [(i64, i64)],
    /// Whether the sum is one of a quantized model's integers, with weights that are its own.
    pub(super) kept: &'a [bool],
}

impl Sums<'_> {
    fn real(&self, element: usize, sum: i64) -> f64 {
        self.offset[element] + self.step[element] * sum as f64
    }

    /// Of the sums of each element.
    fn reals(&self, sums: &[Vec<i64>]) -> Vec<Vec<f64>> {
        let real = |(element, own): (usize, &Vec<i64>)| own.iter().map(|&sum| self.real(element, sum)).collect();
        sums.iter().enumerate().map(real).collect()
    }
}

/// The tables of a layer, and the integers of its elements.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) tables: Vec<Vec<i64>>,
    /// Per element: which table, and its stride, 0 for a table of steps.
    pub(super) table: Vec<u32>,
    pub(super) stride: Vec<f64>,
    pub(super) grids: Vec<Grid>,
}

/// How values become integers around a middle.
#[derive(Clone, Copy)]
struct Rounding {
    low: f64,
    high: f64,
    middle: f64,
    step: f64,
    /// The largest integer.
    half: i64,
}

impl Rounding {
    fn on(points: Points) -> Self {
        let Points { low, step, steps } = points;
        let half = steps / 2;
        Rounding { low, high: low + step * steps as f64, middle: low + step * half as f64, step, half: half + 1 }
    }

    fn integer(&self, x: f64) -> i64 {
        // Not a number where no calibration row leads: as good as anything.
        let x = if x.is_nan() { self.middle } else { x.clamp(self.low, self.high) };
        (((x - self.middle) / self.step).round() as i64).clamp(-self.half, self.half)
    }
}

/// A sum and the integer of its value.
type Sample = (i64, i64);

/// Makes the tables of a layer; `reached` has each element's values on the calibration rows.
///
/// # Errors
/// Those of evaluating the layer's function.
pub(super) fn tables(
    layer: &Activation,
    sums: &Sums<'_>,
    reached: impl Fn(usize) -> Vec<f64>,
    options: &Options,
) -> Result<Tables> {
    let few = |element: usize| sums.ranges[element].1 - sums.ranges[element].0 < ENTRIES as i64;
    let stride = |element: usize| {
        let (low, high) = sums.ranges[element];
        (high - low) as f64 / (ENTRIES - 1) as f64
    };
    let arguments: Vec<Vec<i64>> = (0..layer.rows.len())
        .map(|element| {
            let (low, high) = sums.ranges[element];
            let at = |at: usize| {
                if few(element) { low + at as i64 } else { low + (at as f64 * stride(element)).round() as i64 }
            };
            (0..ENTRIES).map(|entry| at(entry).min(high)).collect()
        })
        .collect();
    let values = evaluate(layer, sums, &arguments)?;
    let points = own_points(layer, sums)?;
    let steps = (1i64 << options.activation_bits.clamp(1, 16)) as f64 - 2.0;
    let mut roundings = Vec::with_capacity(values.len());
    let mut kept = Vec::with_capacity(values.len());
    let mut samples: Vec<Vec<Sample>> = Vec::with_capacity(values.len());
    let mut exact = Vec::with_capacity(values.len());
    for (element, own) in values.iter().enumerate() {
        let natural = natural_grid(own, steps + 1.0).map(|(low, step, steps)| Points { low, step, steps });
        let rounding = match points[element].or(natural) {
            Some(points) => Rounding::on(points),
            None => {
                let (low, high) = range(&reached(element), options, steps);
                let step = ((high - low) / steps).max(1e-12);
                Rounding { low, high, middle: (low + high) / 2.0, step, half: (steps / 2.0) as i64 + 1 }
            }
        };
        samples.push(arguments[element].iter().zip(own).map(|(&at, &x)| (at, rounding.integer(x))).collect());
        roundings.push(rounding);
        kept.push(points[element].is_some() || natural.is_some() && sums.kept[element]);
        exact.push(few(element) || points[element].is_some() || natural.is_some());
    }
    let sampled = samples.clone();
    find_steps(layer, sums, &roundings, &exact, &mut samples)?;
    if halves::rounds_to_even(&layer.function) {
        let of_model = |element: usize| points[element].filter(|_| sums.kept[element]).map(|points| points.step);
        let own_steps: Vec<Option<f64>> = (0..points.len()).map(of_model).collect();
        settle_halves(layer, sums, &roundings, &own_steps, &mut samples)?;
    }
    let mut out = Tables::default();
    let mut known: HashMap<Vec<i64>, u32> = HashMap::new();
    for (element, rounding) in roundings.iter().enumerate() {
        let (low, high) = samples[element].iter().fold((i64::MAX, i64::MIN), |(a, b), &(_, v)| (a.min(v), b.max(v)));
        out.grids.push(Grid { offset: rounding.middle, step: rounding.step, low, high, kept: kept[element] });
        let table = if exact[element] {
            steps_table(&samples[element])
        } else {
            sampled[element].iter().map(|sample| sample.1).collect()
        };
        out.stride.push(if exact[element] { 0.0 } else { stride(element) });
        let next = out.tables.len() as u32;
        out.table.push(*known.entry(table).or_insert_with_key(|table| {
            out.tables.push(table.clone());
            next
        }));
    }
    Ok(out)
}

fn evaluate(layer: &Activation, sums: &Sums<'_>, arguments: &[Vec<i64>]) -> Result<Vec<Vec<f64>>> {
    layer.values(&sums.reals(arguments))
}

/// Makes the arguments of all elements as many, by sums that there are.
fn fill_up(arguments: &mut [Vec<i64>], sums: &Sums<'_>) {
    let most = arguments.iter().map(Vec::len).max().unwrap_or(0);
    arguments.iter_mut().zip(sums.ranges).for_each(|(own, range)| own.resize(most, range.0));
}

/// The points that the model itself rounds an element's values to, or that a maximum of such values has.
fn own_points(layer: &Activation, sums: &Sums<'_>) -> Result<Vec<Option<Points>>> {
    let of_model = match &layer.function {
        Function::Graph(graph) => match graph.outputs().first() {
            Some((_, id)) => grid::of_value(graph, *id)?,
            None => None,
        },
        Function::Scalar(_) => None,
    };
    let own = |(element, at): (usize, &u32)| match &of_model {
        Some(points) => {
            points.get(*at as usize).or(points.first().filter(|_| points.len() == 1)).map(|p| p.increasing())
        }
        None => {
            let steps = sums.ranges[element].1.min(MOST_STEPS as i64);
            let maximum = layer.function == Function::Scalar(Scalar::Relu) && sums.kept[element] && steps > 0;
            maximum.then_some(Points { low: 0.0, step: sums.step[element], steps })
        }
    };
    Ok(layer.elements.iter().enumerate().map(own).collect())
}

/// Adds samples of exact tables until neighbours of different values are neighbouring integers.
fn find_steps(
    layer: &Activation,
    sums: &Sums<'_>,
    roundings: &[Rounding],
    exact: &[bool],
    samples: &mut [Vec<Sample>],
) -> Result<()> {
    loop {
        let mut middles: Vec<Vec<i64>> = Vec::with_capacity(samples.len());
        for (own, exact) in samples.iter_mut().zip(exact) {
            *own = without_runs(own);
            let apart = |pair: &[Sample]| {
                (pair[0].1 != pair[1].1 && pair[1].0 - pair[0].0 > 1).then(|| pair[0].0.midpoint(pair[1].0))
            };
            middles.push(if *exact { own.windows(2).filter_map(apart).collect() } else { Vec::new() });
        }
        if middles.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let counts: Vec<usize> = middles.iter().map(Vec::len).collect();
        fill_up(&mut middles, sums);
        let values = evaluate(layer, sums, &middles)?;
        for (element, own) in samples.iter_mut().enumerate() {
            let new = middles[element].iter().zip(&values[element]).take(counts[element]);
            own.extend(new.map(|(&at, &x)| (at, roundings[element].integer(x))));
            own.sort_unstable();
        }
    }
}

/// Gives samples beside a step that lie midway between two integers of the model the even one; `own_steps` of the elements that
/// are sums of its integers.
fn settle_halves(
    layer: &Activation,
    sums: &Sums<'_>,
    roundings: &[Rounding],
    own_steps: &[Option<f64>],
    samples: &mut [Vec<Sample>],
) -> Result<()> {
    let beside_a_step = |own: &[Sample], at: usize| {
        let differs = |other: Option<&Sample>| other.is_some_and(|other| other.1 != own[at].1);
        differs(at.checked_sub(1).and_then(|before| own.get(before))) || differs(own.get(at + 1))
    };
    let places: Vec<Vec<usize>> = samples
        .iter()
        .zip(own_steps)
        .map(|(own, step)| (0..own.len()).filter(|&at| step.is_some() && beside_a_step(own, at)).collect())
        .collect();
    let at_places = |(own, places): (&Vec<Sample>, &Vec<usize>)| places.iter().map(|at| own[*at].0).collect();
    let mut arguments: Vec<Vec<i64>> = samples.iter().zip(&places).map(at_places).collect();
    fill_up(&mut arguments, sums);
    let even = halves::even_values(layer, &sums.reals(&arguments), own_steps)?;
    for (((own, places), even), rounding) in samples.iter_mut().zip(&places).zip(&even).zip(roundings) {
        for (at, value) in places.iter().zip(even) {
            own[*at].1 = value.map_or(own[*at].1, |value| rounding.integer(value));
        }
    }
    Ok(())
}

/// The first and the last sample of each run of one value.
fn without_runs(samples: &[Sample]) -> Vec<Sample> {
    let inner = |at: usize| {
        at > 0 && samples[at - 1].1 == samples[at].1 && samples.get(at + 1).is_some_and(|next| next.1 == samples[at].1)
    };
    (0..samples.len()).filter(|at| !inner(*at)).map(|at| samples[at]).collect()
}

/// The first value, then each argument from which on there is another value, and that value.
fn steps_table(samples: &[Sample]) -> Vec<i64> {
    let mut out: Vec<i64> = samples.first().map(|first| first.1).into_iter().collect();
    for pair in samples.windows(2).filter(|pair| pair[0].1 != pair[1].1) {
        out.extend([pair[1].0, pair[1].1]);
    }
    out
}
