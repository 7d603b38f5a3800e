//! `share-rotations`: one blind rotation turns several tables of one sum, where that is predicted to be quicker.
//!
//! Sums are one if they have the same weights, or the same with the other sign: then the table is read backwards. The tables of
//! t results fill one polynomial in turn, so that each has N/t entries, and arguments are rounded t times as coarsely
//! (Chillotti, Ligier, Orfila, Tap, "Improved programmable bootstrapping with larger precision and efficient arithmetic
//! circuits for TFHE", ASIACRYPT 2021). Whether that pays depends on the parameters it asks for: they are searched for every
//! t, with arguments as they are and with more room beside them, and the quickest circuit is kept. Tables that repeat another of
//! the same sum are dropped on the way.

use super::choose_network_parameters::{is_network, needs, search, server_us};
use super::diagrams::{ill_typed, rebuild_ops};
use super::{Ir, PassCx, PassInfo, StageName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tacit_ir::attr::Many;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, Node, ValueId};
use tacit_ir::params::BootstrapParams;
use tacit_ir::stage::circuit::{Circuit, CircuitOp, CircuitType, network};

pub(super) static INFO: PassInfo = PassInfo {
    name: "share-rotations",
    summary: "turn several tables of one sum by one blind rotation where that is quicker",
    from: &[StageName::Circuit],
    to: None,
};

/// With units so much smaller, the arguments of rotations fill 7/8 in place of 15/16 of the half torus: twice the room for noise
/// beside them, of which they get more when they are rounded more coarsely.
const ROOMIER: f64 = 7.0 / 8.0 / network::FILL;

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Circuit(graph) = ir else { return Ok(ir) };
    let has_parameters = graph.values().any(|id| matches!(graph.node(id).op, CircuitOp::Params { .. }));
    if !cx.options.share_rotations || has_parameters || !is_network(&graph) {
        return Ok(Ir::Circuit(graph));
    }
    let original = live(&graph)?;
    if family(&original).is_none() {
        return Ok(Ir::Circuit(graph));
    }
    let us = |graph: &Graph<Circuit>| {
        let needs = needs(graph);
        search(graph, &needs, cx, 1).map_or(f64::INFINITY, |choice| server_us(&choice, &needs, cx))
    };
    let mut best = (us(&graph), graph);
    for results in (1..=BootstrapParams::MAX_RESULTS.ilog2()).map(|log2| 1 << log2) {
        let mut shared = original.clone();
        while let Some(found) = family(&shared) {
            // Values keep their numbers, as all are live.
            let level = level_units(&shared, &found.bootstraps)?;
            shared = merge(&level, &found, results)?;
        }
        let roomier = with_units(&shared, &added_with(&shared, &arguments(&shared)), |unit| unit * ROOMIER)?;
        for shared in [shared, roomier] {
            let own = us(&shared);
            if own < best.0 {
                best = (own, shared);
            }
        }
    }
    cx.count("blind rotations saved", rotations(&original).saturating_sub(rotations(&best.1)));
    Ok(Ir::Circuit(best.1))
}

/// The graph without values that no output needs.
fn live(graph: &Graph<Circuit>) -> Result<Graph<Circuit>> {
    rebuild_ops(graph, |_, _, op| Ok(op.clone()))
}

fn rotations(graph: &Graph<Circuit>) -> u64 {
    needs(graph).layers.iter().map(|layer| layer.bootstraps).sum()
}

/// A bootstrap's table of a sum.
struct Table {
    /// The sum's weights by column, turned so that the first is positive.
    row: Vec<(u32, i64)>,
    /// Whether they were.
    turned: bool,
    low: i64,
    stride: f64,
    entries: Vec<i64>,
    /// The value and the element that it made.
    made: (ValueId, u32),
}

/// Bootstraps of sums of the same vectors, of which two sums are one.
struct Family {
    /// In order.
    bootstraps: Vec<ValueId>,
    tables: Vec<Table>,
}

/// What makes sums of bootstraps comparable: the vectors they add, and whether they are exact.
type Vectors = (Vec<ValueId>, Option<bool>);

/// The first family of a graph whose values are all live, of bootstraps that do not share rotations yet.
fn family(graph: &Graph<Circuit>) -> Option<Family> {
    let mut readers: BTreeMap<Vectors, Vec<ValueId>> = BTreeMap::new();
    for id in graph.values() {
        let node = graph.node(id);
        if let (CircuitOp::Bootstrap { results: None, .. }, [sums]) = (&node.op, node.operands.as_slice())
            && let CircuitOp::Affine { exact, .. } = &graph.node(*sums).op
            && only_summed(graph, id)
        {
            readers.entry((graph.node(*sums).operands.clone(), *exact)).or_default().push(id);
        }
    }
    let families = readers.into_values().map(|bootstraps| {
        let tables = bootstraps.iter().flat_map(|id| tables(graph, *id)).collect();
        Family { bootstraps, tables }
    });
    families.filter(Family::has_twins).min_by_key(|family| family.bootstraps.first().copied())
}

/// Whether nothing but sums reads a value.
fn only_summed(graph: &Graph<Circuit>, id: ValueId) -> bool {
    let mut readers = graph.values().map(|at| graph.node(at)).filter(|node| node.operands.contains(&id));
    readers.all(|node| matches!(node.op, CircuitOp::Affine { .. }))
}

fn tables(graph: &Graph<Circuit>, id: ValueId) -> Vec<Table> {
    let node = graph.node(id);
    let sums = node.operands.first().map(|sums| &graph.node(*sums).op);
    let (
        CircuitOp::Bootstrap { low, stride, tables, table, .. },
        Some(CircuitOp::Affine { start, column, weight, .. }),
    ) = (&node.op, sums)
    else {
        return Vec::new();
    };
    let of = |(element, pair): (u32, &[u32])| {
        let at = element as usize;
        let entries = pair[0] as usize..pair[1] as usize;
        let mut row: Vec<(u32, i64)> = entries.map(|at| (column[at], weight[at])).collect();
        row.sort_unstable();
        let turned = row.first().is_some_and(|(_, weight)| *weight < 0);
        for (_, weight) in row.iter_mut().filter(|_| turned) {
            *weight = -*weight;
        }
        let entries = tables[table[at] as usize].clone();
        Table { row, turned, low: low[at], stride: stride[at], entries, made: (id, element) }
    };
    (0..).zip(start.windows(2)).map(of).collect()
}

impl Family {
    /// Tables by sum, in the order of their first ones.
    fn by_sum(&self) -> Vec<Vec<&Table>> {
        let mut known: HashMap<&[(u32, i64)], usize> = HashMap::new();
        let mut groups: Vec<Vec<&Table>> = Vec::new();
        for table in &self.tables {
            let at = *known.entry(&table.row).or_insert(groups.len());
            if at == groups.len() {
                groups.push(Vec::new());
            }
            groups[at].push(table);
        }
        groups
    }

    fn has_twins(&self) -> bool {
        // Tables by stride have as many entries in one operation.
        let mut lengths = self.tables.iter().filter(|table| table.stride > 0.0).map(|table| table.entries.len());
        let first = lengths.next();
        lengths.all(|length| Some(length) == first) && self.by_sum().iter().any(|group| group.len() > 1)
    }
}

impl Table {
    /// As a table of the sum that has the other sign, if `other`: `(low, stride, entries)`.
    fn of_sum(&self, other: bool) -> (i64, f64, Vec<i64>) {
        let Table { low, stride, entries, .. } = self;
        if !other {
            return (*low, *stride, entries.clone());
        }
        if *stride > 0.0 {
            let last = *low as f64 + stride * (entries.len() - 1) as f64;
            return (-last.round() as i64, *stride, entries.iter().rev().copied().collect());
        }
        // A step at s, from which on there is another value, is one behind -s.
        let (first, steps) =
            entries.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest.as_chunks::<2>().0));
        let mut turned = vec![steps.last().map_or(first, |[_, value]| *value)];
        for (at, [from, _]) in steps.iter().enumerate().rev() {
            turned.extend([1 - from, at.checked_sub(1).map_or(first, |before| steps[before][1])]);
        }
        (0, 0.0, turned)
    }
}

/// What is added with these values, directly or through others.
fn added_with(graph: &Graph<Circuit>, values: &[ValueId]) -> BTreeSet<ValueId> {
    let mut class: BTreeSet<ValueId> = values.iter().copied().collect();
    loop {
        let before = class.len();
        for id in graph.values() {
            let Node { op: CircuitOp::Affine { .. }, operands, .. } = graph.node(id) else { continue };
            // A sum that is added itself has the unit of what it adds.
            if class.contains(&id) || operands.iter().any(|operand| class.contains(operand)) {
                class.extend(operands);
            }
        }
        if class.len() == before {
            return class;
        }
    }
}

/// What the arguments of rotations of several results add.
fn arguments(graph: &Graph<Circuit>) -> Vec<ValueId> {
    let shared = graph.values().map(|id| graph.node(id));
    let shared = shared.filter(|node| matches!(node.op, CircuitOp::Bootstrap { results: Some(_), .. }));
    shared.filter_map(|node| node.operands.first()).flat_map(|sums| graph.node(*sums).operands.clone()).collect()
}

/// The graph in which everything that is added with these values has one unit, the least.
fn level_units(graph: &Graph<Circuit>, values: &[ValueId]) -> Result<Graph<Circuit>> {
    let class = added_with(graph, values);
    let unit_of = |id: &ValueId| match &graph.node(*id).op {
        CircuitOp::Samples { unit, .. } | CircuitOp::RotateLookup { unit, .. } | CircuitOp::Bootstrap { unit, .. } => {
            *unit
        }
        CircuitOp::SampleExtract { log2_delta } => (f64::from(*log2_delta) - 64.0).exp2(),
        _ => f64::INFINITY,
    };
    let least = class.iter().map(unit_of).fold(f64::INFINITY, f64::min);
    with_units(graph, &class, |_| least)
}

/// The graph with other units of the values of a class; with a diagram among them, the next powers of two below.
fn with_units(
    graph: &Graph<Circuit>,
    class: &BTreeSet<ValueId>,
    change: impl Fn(f64) -> f64,
) -> Result<Graph<Circuit>> {
    let diagrams: BTreeSet<ValueId> = class
        .iter()
        .map(|id| graph.node(*id))
        .filter(|node| matches!(node.op, CircuitOp::SampleExtract { .. }))
        .flat_map(|node| node.operands.first().copied())
        .collect();
    let change = |unit: f64| {
        let unit = change(unit);
        if diagrams.is_empty() { unit } else { unit.log2().floor().exp2() }
    };
    graph.rewrite(|new, id, node, operands, loc| {
        let mut op = node.op.clone();
        match &mut op {
            CircuitOp::Samples { unit, .. }
            | CircuitOp::RotateLookup { unit, .. }
            | CircuitOp::Bootstrap { unit, .. }
                if class.contains(&id) =>
            {
                *unit = change(*unit);
            }
            CircuitOp::SampleExtract { log2_delta } | CircuitOp::Decide { log2_delta, .. }
                if class.contains(&id) || diagrams.contains(&id) =>
            {
                let unit = change((f64::from(*log2_delta) - 64.0).exp2());
                *log2_delta = (64.0 + unit.log2()).max(1.0) as u32;
            }
            _ => {}
        }
        new.push(op, operands, None, loc.clone()).map_err(|why| ill_typed(&why))
    })
}

/// A sparse matrix by rows.
#[derive(Default)]
struct Matrix {
    start: Vec<u32>,
    column: Vec<u32>,
    weight: Vec<i64>,
}

impl Matrix {
    fn push(&mut self, row: impl IntoIterator<Item = (u32, i64)>) {
        self.start.push(self.column.len() as u32);
        for (column, weight) in row {
            self.column.push(column);
            self.weight.push(weight);
        }
    }

    fn sums(mut self, spread: f64, exact: Option<bool>) -> CircuitOp {
        self.start.push(self.column.len() as u32);
        CircuitOp::Affine { start: self.start, column: self.column, weight: self.weight, spread, exact }
    }
}

/// A bootstrap of some results that takes the place of a family's.
#[derive(Default)]
struct Shared {
    sums: Matrix,
    low: Vec<i64>,
    stride: Vec<f64>,
    tables: Vec<Vec<i64>>,
    known: HashMap<Vec<i64>, u32>,
    table: Vec<u32>,
}

impl Shared {
    /// Adds tables of one sum; gives the element of the first.
    fn push(&mut self, tables: &[&Table], results: usize) -> usize {
        let first = self.table.len();
        let Some(leader) = tables.first() else { return first };
        self.sums.push(leader.row.iter().map(|&(at, weight)| (at, if leader.turned { -weight } else { weight })));
        // The last once more where there are fewer than results.
        for at in 0..results {
            let own = tables[at.min(tables.len() - 1)];
            let (low, stride, entries) = own.of_sum(own.turned != leader.turned);
            self.low.push(low);
            self.stride.push(stride);
            let next = self.tables.len() as u32;
            self.table.push(*self.known.entry(entries).or_insert_with_key(|entries| {
                self.tables.push(entries.clone());
                next
            }));
        }
        first
    }
}

/// The graph with at most so many results of each of the family's rotations.
fn merge(graph: &Graph<Circuit>, family: &Family, most: u32) -> Result<Graph<Circuit>> {
    // By results, and for each old element its place: results and element.
    let mut shared: BTreeMap<u32, Shared> = BTreeMap::new();
    let mut places: BTreeMap<(ValueId, u32), (u32, u32)> = BTreeMap::new();
    for group in family.by_sum() {
        // Tables that repeat another of the sum are it.
        let (mut distinct, mut contents) = (Vec::new(), Vec::new());
        let mut numbers = Vec::with_capacity(group.len());
        for table in &group {
            let content = table.of_sum(table.turned != group[0].turned);
            numbers.push(contents.iter().position(|known| *known == content).unwrap_or(contents.len()));
            if numbers.last() == Some(&contents.len()) {
                distinct.push(*table);
                contents.push(content);
            }
        }
        let most = most as usize;
        let mut put = |chunk: &[&Table]| {
            let results = chunk.len().next_power_of_two();
            (results as u32, shared.entry(results as u32).or_default().push(chunk, results))
        };
        let chunks: Vec<(u32, usize)> = distinct.chunks(most).map(&mut put).collect();
        for (table, number) in group.iter().zip(numbers) {
            let (results, first) = chunks[number / most];
            places.insert(table.made, (results, (first + number % most) as u32));
        }
    }
    let spread = |id: &ValueId| match graph.node(*id).operands.first().map(|sums| &graph.node(*sums).op) {
        Some(CircuitOp::Affine { spread, .. }) => *spread,
        _ => f64::INFINITY,
    };
    let spread = family.bootstraps.iter().map(spread).fold(f64::INFINITY, f64::min);
    let mut made: BTreeMap<u32, ValueId> = BTreeMap::new();
    let merged = graph.rewrite(|new, id, node, operands, loc| match &node.op {
        CircuitOp::Bootstrap { unit, .. } if family.bootstraps.contains(&id) => {
            if made.is_empty() {
                let sums = operands.first().map(|sums| new.node(*sums).clone());
                let Some(Node { op: CircuitOp::Affine { exact, .. }, operands: vectors, .. }) = sums else {
                    return Err(Diagnostic::internal("a bootstrap of something else than sums"));
                };
                for (results, own) in std::mem::take(&mut shared) {
                    made.insert(results, own.emit(new, results, (vectors.clone(), exact), (spread, *unit), loc)?);
                }
            }
            // Whoever reads it takes what it needs from all of them.
            made.values().next().copied().ok_or_else(|| Diagnostic::internal("a family without tables"))
        }
        CircuitOp::Affine { .. } if node.operands.iter().any(|id| family.bootstraps.contains(id)) => {
            relocated((graph, node), new, &operands, &Moved { made: &made, places: &places }, loc)
        }
        _ => new.push(node.op.clone(), operands, None, loc.clone()).map_err(|why| ill_typed(&why)),
    })?;
    // Sums that nothing reads any more go.
    live(&merged)
}

impl Shared {
    fn emit(
        self,
        new: &mut Graph<Circuit>,
        results: u32,
        (vectors, exact): Vectors,
        (spread, unit): (f64, f64),
        loc: &Loc,
    ) -> Result<ValueId> {
        let Shared { sums, low, stride, tables, table, .. } = self;
        let sums = new.push(sums.sums(spread, exact), vectors, None, loc.clone()).map_err(|why| ill_typed(&why))?;
        let results = (results > 1).then_some(results);
        let op = CircuitOp::Bootstrap { low, stride, tables: Many(tables), table, unit, results };
        new.push(op, vec![sums], None, loc.clone()).map_err(|why| ill_typed(&why))
    }
}

/// Where elements of a family's bootstraps are now.
struct Moved<'a> {
    /// By results.
    made: &'a BTreeMap<u32, ValueId>,
    /// By old value and element: results and new element.
    places: &'a BTreeMap<(ValueId, u32), (u32, u32)>,
}

/// A sum over the elements at their new places.
fn relocated(
    (graph, node): (&Graph<Circuit>, &Node<Circuit>),
    new: &mut Graph<Circuit>,
    operands: &[ValueId],
    moved: &Moved<'_>,
    loc: &Loc,
) -> Result<ValueId> {
    let CircuitOp::Affine { start, column, weight, spread, exact } = &node.op else {
        return Err(Diagnostic::internal("not a sum"));
    };
    let length = |graph: &Graph<Circuit>, id: ValueId| match &graph.node(id).ty {
        CircuitType::Lwe { ranges, .. } => ranges.len() as u32,
        _ => 0,
    };
    // Old columns as elements of new values.
    let mut elements: Vec<(ValueId, u32)> = Vec::new();
    for (old, own) in node.operands.iter().zip(operands) {
        elements.extend((0..length(graph, *old)).map(|element| match moved.places.get(&(*old, element)) {
            Some((results, at)) => (moved.made[results], *at),
            None => (*own, element),
        }));
    }
    let vectors: BTreeSet<ValueId> = elements.iter().map(|(value, _)| *value).collect();
    let mut first = 0;
    let mut begin: BTreeMap<ValueId, u32> = BTreeMap::new();
    for vector in &vectors {
        begin.insert(*vector, first);
        first += length(new, *vector);
    }
    let mut rows = Matrix::default();
    for pair in start.windows(2) {
        // Equal tables are one element now.
        let mut row: BTreeMap<u32, i64> = BTreeMap::new();
        for at in pair[0] as usize..pair[1] as usize {
            let (value, element) = elements[column[at] as usize];
            *row.entry(begin[&value] + element).or_default() += weight[at];
        }
        rows.push(row.into_iter().filter(|(_, weight)| *weight != 0));
    }
    let op = rows.sums(*spread, *exact);
    new.push(op, vectors.into_iter().collect(), None, loc.clone()).map_err(|why| ill_typed(&why))
}
