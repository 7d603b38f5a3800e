//! `partition-parameters`: parameter sets and small keys of their own for layers of bootstraps, where that saves enough.
//!
//! One small key serves the most demanding layer, and its length is the time of every bootstrap. GLWE parameters, which all
//! share, and decompositions of selectors are searched outermost, as by `choose-parameters`. Under them every layer first gets
//! a set of its own; layers are then sorted by the time of their bootstraps, and cut into partitions of neighbours, the cut
//! that saves most first. Given partitions and a cap on the noise of each one's outputs, the sets do not depend on each other
//! any more: each is the quickest that fits. The caps are searched by coordinate descent.
//!
//! Layers whose arguments are inputs under a small key share that key, so they stay together. Each further set costs its keys,
//! so it has to save [`SHARE`] of the server's time, and all keys together stay within [`KEY_BYTES`].

use super::choose_network_parameters::{
    At, Choice, Judge, LayerNeeds, Needs, explanation, is_network, needs, rotations_us, search, server_us, sets,
    weighted_us, with_parameters,
};
use super::{Ir, PassCx, PassInfo, StageName};
use tacit_ir::artifact::v1::partition_key_bytes;
use tacit_ir::diag::Result;
use tacit_ir::noise::bootstrap as noise_of;
use tacit_ir::params::{BootstrapParams, GadgetParams, GlweParams};
use tacit_ir::stage::circuit::CircuitOp;

pub(super) static INFO: PassInfo = PassInfo {
    name: "partition-parameters",
    summary: "give layers of bootstraps parameters and small keys of their own where that saves enough",
    from: &[StageName::Circuit],
    to: None,
};

/// Share of the server's time that each further set has to save.
const SHARE: f64 = 0.03;
/// Bytes of evaluation keys that more than one set may take.
const KEY_BYTES: u64 = 60_000_000;

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Circuit(graph) = ir else { return Ok(ir) };
    let sets = graph.values().filter(|id| matches!(graph.node(*id).op, CircuitOp::BootstrapParams { .. })).count();
    if !is_network(&graph) || sets != 1 {
        return Ok(Ir::Circuit(graph));
    }
    let needs = needs(&graph);
    let most = cx.options.partitions as usize;
    let choice = search(&graph, &needs, cx, most)?;
    if cx.explain {
        for note in explanation(&graph, &needs, &choice, cx, most) {
            cx.note(note);
        }
    }
    if choice.partitions.len() < 2 {
        return Ok(Ir::Circuit(graph));
    }
    if cx.explain {
        let one = server_us(&search(&graph, &needs, cx, 1)?, &needs, cx);
        let saved = one - server_us(&choice, &needs, cx);
        let (count, share) = (choice.partitions.len(), 100.0 * saved / one);
        cx.note(format!("{count} parameter sets of bootstraps save {:.1} ms ({share:.0} %) on one core", saved / 1e3));
    }
    cx.count("parameter sets", choice.partitions.len() as u64);
    with_parameters(&graph, &choice, INFO.name).map(Ir::Circuit)
}

/// The quickest choice that fits, with at most so many partitions.
pub(super) fn best(
    judge: &Judge,
    needs: &Needs,
    shapes: &[(GlweParams, Option<GadgetParams>)],
    cx: &PassCx<'_>,
    most: usize,
) -> Option<Choice> {
    let mut best: Option<(f64, Choice)> = None;
    let mut consider = |shape: &Shape<'_>, solved: &Solved| {
        let us = shape.weighted_us(solved);
        let fits = solved.sets.len() < 2 || shape.key_bytes(solved) <= KEY_BYTES;
        if fits && best.as_ref().is_none_or(|(known, _)| us < *known) {
            best = Some((us, shape.choice(solved)));
        }
        best.as_ref().map_or(f64::INFINITY, |(known, _)| *known)
    };
    let one = Partition::of_layers(&needs.layers);
    let mut partly = Vec::new();
    for (glwe, selectors) in shapes {
        let shape = Shape::new(judge, needs, cx, *glwe, *selectors);
        let of = vec![0; needs.layers.len()];
        let partitions = if needs.layers.is_empty() { vec![] } else { vec![one] };
        if let Some(solved) = shape.descend(&of, &partitions, vec![f64::INFINITY; partitions.len()]) {
            consider(&shape, &solved);
            partly.push((shape, solved));
        }
    }
    let units = units(&needs.layers);
    let count = units.iter().max().map_or(0, |last| last + 1);
    for (shape, one) in partly.iter().filter(|_| most > 1 && count > 1) {
        // Nothing under this shape is quicker than a set for each layer whose arguments get as little noise as they can.
        let known = consider(shape, one);
        if shape.least_us(&units, count, 2) >= known {
            continue;
        }
        let Some(each) = shape.solve(&units, count, vec![one.caps[0]; count]) else { continue };
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| each.sets[*a].bootstrap_us.total_cmp(&each.sets[*b].bootstrap_us));
        // Places in the order where a partition begins.
        let mut cuts: Vec<usize> = Vec::new();
        let mut current = one.clone();
        for partitions in 2..=most.min(count) {
            if shape.weighted(each.us, partitions) >= consider(shape, &current) {
                break;
            }
            let mut next: Option<(usize, Solved)> = None;
            for cut in (1..count).filter(|cut| !cuts.contains(cut)) {
                let group = |unit: usize| {
                    let place = order.iter().position(|known| *known == unit).unwrap_or_default();
                    cuts.iter().chain([&cut]).filter(|cut| **cut <= place).count()
                };
                let of: Vec<usize> = units.iter().map(|unit| group(*unit)).collect();
                // From where they were before the cut.
                let mut caps = vec![0.0; partitions];
                for (group, before) in of.iter().zip(&current.of) {
                    caps[*group] = current.caps[*before];
                }
                let Some(solved) = shape.solve(&of, partitions, caps) else { continue };
                if next.as_ref().is_none_or(|(_, known)| solved.us < known.us) {
                    next = Some((cut, solved));
                }
            }
            let Some((cut, solved)) = next else { break };
            consider(shape, &solved);
            cuts.push(cut);
            current = solved;
        }
    }
    best.map(|(_, choice)| choice)
}

/// What stays together: the layers whose arguments are under a small key, and every other layer. By layer the number of its unit,
/// in the order of the circuit.
fn units(layers: &[LayerNeeds]) -> Vec<usize> {
    let mut small = None;
    let mut next = 0;
    let mut unit = |layer: &LayerNeeds| match (layer.small, small) {
        (true, Some(known)) => known,
        _ => {
            next += 1;
            if layer.small {
                small = Some(next - 1);
            }
            next - 1
        }
    };
    layers.iter().map(&mut unit).collect()
}

/// A parameter set under given GLWE parameters: microseconds and variances.
#[derive(Clone, Copy, Debug)]
struct Set {
    params: BootstrapParams,
    bootstrap_us: f64,
    keyswitch_us: f64,
    /// Of inputs under the small key.
    fresh: f64,
    keyswitch: f64,
    /// With one result of each rotation.
    modulus_switch: f64,
    /// Of a single result.
    output: f64,
}

/// Layers that share a set.
#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    bootstraps: f64,
    keyswitches: f64,
    /// Whether inputs are under its small key.
    inputs: bool,
}

impl Partition {
    fn of_layers<'a>(layers: impl IntoIterator<Item = &'a LayerNeeds>) -> Self {
        layers.into_iter().fold(Partition::default(), |sum, layer| Partition {
            bootstraps: sum.bootstraps + layer.bootstraps as f64,
            keyswitches: sum.keyswitches + if layer.small { 0.0 } else { layer.bootstraps as f64 },
            inputs: sum.inputs || layer.small,
        })
    }
    fn us(&self, set: &Set) -> f64 {
        self.bootstraps * set.bootstrap_us + self.keyswitches * set.keyswitch_us
    }
}

/// What arrives at the arguments of a layer, and what is tolerated there: variances.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    /// Of arguments under a small key, times the variance of fresh inputs.
    arrives: f64,
    small: bool,
    results: u32,
    tolerated: f64,
}

impl Room {
    fn holds(&self, set: &Set) -> bool {
        let argument = if self.small { self.arrives * set.fresh } else { self.arrives + set.keyswitch };
        // It grows by the square of the results.
        argument + f64::from(self.results).powi(2) * set.modulus_switch <= self.tolerated
    }
}

/// Partitions with their sets.
#[derive(Clone, Debug)]
struct Solved {
    /// Of all bootstraps and keyswitches.
    us: f64,
    /// Of each layer: its partition.
    of: Vec<usize>,
    sets: Vec<Set>,
    /// Variance that each partition's outputs may have.
    caps: Vec<f64>,
}

/// GLWE parameters and the decomposition of selectors, with the sets of bootstraps there are under them.
struct Shape<'a> {
    judge: &'a Judge,
    needs: &'a Needs,
    cx: &'a PassCx<'a>,
    glwe: GlweParams,
    selectors: Option<GadgetParams>,
    /// Predicted time of rotated look-ups.
    rotations_us: f64,
    switched: Vec<Set>,
    with_inputs: Vec<Set>,
    switched_with_inputs: Vec<Set>,
}

impl<'a> Shape<'a> {
    fn new(
        judge: &'a Judge,
        needs: &'a Needs,
        cx: &'a PassCx<'a>,
        glwe: GlweParams,
        selectors: Option<GadgetParams>,
    ) -> Self {
        let cost = &cx.options.cost_profile;
        let any = |small: bool| needs.layers.iter().any(|layer| layer.small == small);
        let sets = |wanted: bool, inputs, switched| -> Vec<Set> {
            let set = |params: BootstrapParams| Set {
                params,
                bootstrap_us: cost.bootstrap_us(&glwe, &params),
                keyswitch_us: cost.keyswitch_us(&glwe, &params),
                fresh: params.lwe.variance(),
                keyswitch: noise_of::keyswitch(&glwe, &params),
                modulus_switch: noise_of::modulus_switch(&glwe, &params.lwe, 1),
                output: noise_of::blind_rotation(&glwe, &params),
            };
            if wanted { sets(&glwe, inputs, switched).into_iter().map(set).collect() } else { Vec::new() }
        };
        Shape {
            judge,
            needs,
            cx,
            glwe,
            selectors,
            rotations_us: rotations_us(&glwe, selectors.as_ref(), needs, cx),
            switched: sets(any(false), false, true),
            with_inputs: sets(any(true), true, false),
            switched_with_inputs: sets(any(true) && any(false), true, true),
        }
    }

    /// The sets that a partition may have.
    fn sets(&self, partition: &Partition) -> &[Set] {
        match (partition.inputs, partition.keyswitches > 0.0) {
            (false, _) => &self.switched,
            (true, false) => &self.with_inputs,
            (true, true) => &self.switched_with_inputs,
        }
    }

    /// What is minimized, given the time of bootstraps and keyswitches.
    fn weighted(&self, us: f64, partitions: usize) -> f64 {
        let further = partitions.saturating_sub(1) as f64;
        let server_us = (self.rotations_us + us) * (1.0 + SHARE * further);
        weighted_us(server_us, &self.glwe, self.selectors.as_ref(), self.needs, self.cx)
    }

    fn weighted_us(&self, solved: &Solved) -> f64 {
        self.weighted(solved.us, solved.sets.len())
    }

    /// No less than what is minimized for so many partitions of units.
    fn least_us(&self, units: &[usize], count: usize, partitions: usize) -> f64 {
        let members = self.partitions(units, count);
        let least =
            |unit: &usize| self.sets(&members[*unit]).iter().map(|set| set.output).fold(f64::INFINITY, f64::min);
        let outputs: Vec<f64> = units.iter().map(least).collect();
        let Some(rooms) = self.rooms(&outputs) else { return f64::INFINITY };
        let us = |(unit, partition): (usize, &Partition)| {
            self.quickest(unit, partition, units, f64::INFINITY, &rooms).map_or(f64::INFINITY, |set| partition.us(set))
        };
        self.weighted(members.iter().enumerate().map(us).sum(), partitions)
    }

    fn partitions(&self, of: &[usize], count: usize) -> Vec<Partition> {
        let members = |at: usize| self.needs.layers.iter().zip(of).filter(move |(_, own)| **own == at);
        (0..count).map(|at| Partition::of_layers(members(at).map(|(layer, _)| layer))).collect()
    }

    /// What each layer has room for when the outputs of layers have these variances; `None` where that is too much elsewhere.
    fn rooms(&self, outputs: &[f64]) -> Option<Vec<Room>> {
        let mut rooms = vec![Room::default(); self.needs.layers.len()];
        let mut fits = true;
        self.judge.walk(&self.glwe, self.selectors.as_ref(), 1.0, outputs, |judged| {
            let tolerated = judged.limit * judged.limit;
            match judged.at {
                At::Elsewhere => fits &= judged.variance <= tolerated,
                At::Bootstrap { layer, small, results } => {
                    rooms[layer] = Room { arrives: judged.variance, small, results, tolerated };
                }
            }
        });
        fits.then_some(rooms)
    }

    /// The quickest set of partition `at` with outputs of at most this variance, for which its layers have room.
    fn quickest(&self, at: usize, partition: &Partition, of: &[usize], cap: f64, rooms: &[Room]) -> Option<&Set> {
        let mut best: Option<(f64, &Set)> = None;
        for set in self.sets(partition).iter().filter(|set| set.output <= cap) {
            let us = partition.us(set);
            let quicker = best.is_none_or(|(known, _)| us < known);
            if quicker && rooms.iter().zip(of).all(|(room, own)| *own != at || room.holds(set)) {
                best = Some((us, set));
            }
        }
        best.map(|(_, set)| set)
    }

    /// The quickest sets under these caps.
    fn under(&self, of: &[usize], partitions: &[Partition], caps: &[f64]) -> Option<Solved> {
        // At most, as in `noise_of::result_in_sums`.
        let in_sums = |layer: &LayerNeeds| 1.0 + 0.5 * (f64::from(layer.results) - 1.0);
        let outputs: Vec<f64> =
            of.iter().zip(&self.needs.layers).map(|(at, layer)| caps[*at] * in_sums(layer)).collect();
        let rooms = self.rooms(&outputs)?;
        let set = |(at, partition): (usize, &Partition)| self.quickest(at, partition, of, caps[at], &rooms).copied();
        let sets: Vec<Set> = partitions.iter().enumerate().map(set).collect::<Option<_>>()?;
        let us = sets.iter().zip(partitions).map(|(set, partition)| partition.us(set)).sum();
        Some(Solved { us, of: of.to_vec(), sets, caps: caps.to_vec() })
    }

    fn solve(&self, of: &[usize], count: usize, caps: Vec<f64>) -> Option<Solved> {
        self.descend(of, &self.partitions(of, count), caps)
    }

    /// Coordinate descent over the caps, from these on.
    fn descend(&self, of: &[usize], partitions: &[Partition], mut caps: Vec<f64>) -> Option<Solved> {
        let mut best = self.under(of, partitions, &caps);
        loop {
            let before = best.as_ref().map(|best| best.us);
            for (at, partition) in partitions.iter().enumerate() {
                let mut outputs: Vec<f64> = self.sets(partition).iter().map(|set| set.output).collect();
                outputs.sort_by(f64::total_cmp);
                outputs.dedup();
                for cap in outputs {
                    let known = std::mem::replace(&mut caps[at], cap);
                    match self.under(of, partitions, &caps) {
                        Some(solved) if best.as_ref().is_none_or(|best| solved.us < best.us) => best = Some(solved),
                        _ => caps[at] = known,
                    }
                }
            }
            if best.as_ref().map(|best| best.us) == before {
                return best;
            }
        }
    }

    fn key_bytes(&self, solved: &Solved) -> u64 {
        solved.sets.iter().map(|set| partition_key_bytes(&self.glwe, &set.params)).sum()
    }

    /// Partitions are numbered in the order of their first layers.
    fn choice(&self, solved: &Solved) -> Choice {
        let mut order: Vec<usize> = Vec::new();
        for at in &solved.of {
            if !order.contains(at) {
                order.push(*at);
            }
        }
        let number = |at: &usize| order.iter().position(|known| known == at).unwrap_or_default();
        Choice {
            glwe: self.glwe,
            selectors: self.selectors,
            partitions: order.iter().map(|at| solved.sets[*at].params).collect(),
            of: solved.of.iter().map(number).collect(),
        }
    }
}
