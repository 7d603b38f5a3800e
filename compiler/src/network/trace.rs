//! From a float graph to affine maps over atoms.
//!
//! Every value is either an affine map of atoms, or *pending*: an elementwise function of one affine value. A pending value
//! grows over every elementwise operation with constants, so a chain (or diamond) of them with one encrypted source
//! becomes one table; it becomes atoms where an affine operation or a maximum reads it. The matrix of an affine operation
//! is found by evaluating it in floats on unit vectors, so each operation is defined once, in the interpreter.

use super::function::{Function, Scalar};
use super::heads::Wanted;
use super::rows::{Combiner, Row};
use super::trees;
use crate::copier::Copier;
use crate::options::HeadRule;
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::attr::OpSet;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::interp::tensor::{TensorValue, evaluate};
use tacit_ir::stage::tensor::{
    BinaryKind, Dim, Element, PoolKind, ReduceKind, Tensor, TensorOp, TensorType, UnaryKind,
};

/// One layer of look-ups: a function of one affine map per element.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Activation {
    /// The affine map of each element, over atoms of earlier layers and inputs.
    pub(crate) rows: Vec<Row>,
    /// The function.
    pub(crate) function: Function,
    /// Which of the function's elements belongs to each row.
    pub(crate) elements: Vec<u32>,
    /// Elements of the function.
    pub(crate) width: usize,
    /// The first of the layer's atoms.
    pub(crate) first_atom: u32,
    /// Whether every argument counts truth values, so that noise must not move it by half a step.
    pub(crate) exact: bool,
    /// Where the layer comes from, for messages.
    pub(crate) loc: Loc,
}

/// What a network gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: String,
    /// Affine maps over atoms.
    pub(crate) rows: Vec<Row>,
    /// As of an [`Activation`].
    pub(crate) exact: bool,
    /// Where it comes from, for messages.
    pub(crate) loc: Loc,
}

impl Activation {
    /// The values of each row's table at `points[row]`, all of one number of points.
    pub(crate) fn values(&self, points: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let Some(any) = points.first().filter(|_| self.elements.len() < self.width) else {
            return self.function.values(points);
        };
        let mut all = vec![any.clone(); self.width];
        for (element, own) in self.elements.iter().zip(points) {
            all[*element as usize].clone_from(own);
        }
        let mut values = self.function.values(&all)?;
        Ok(self.elements.iter().map(|element| std::mem::take(&mut values[*element as usize])).collect())
    }
}

/// A feed-forward network in normal form.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Network {
    /// `(head value, column)` of the first atoms; of the outputs of tree ensembles [`trees::name`] and the output.
    pub(crate) inputs: Vec<(String, usize)>,
    /// Per first atom: for outputs of trees, sound bounds.
    pub(crate) bounds: Vec<Option<(f64, f64)>>,
    /// Look-ups, in an order in which each reads earlier ones only.
    pub(crate) layers: Vec<Activation>,
    /// What is read.
    pub(crate) outputs: Vec<Output>,
}

impl Network {
    /// The inputs alone.
    pub(super) fn without_layers(&self) -> Network {
        Network { inputs: self.inputs.clone(), bounds: self.bounds.clone(), ..Network::default() }
    }

    /// Number of atoms.
    pub(crate) fn atoms(&self) -> usize {
        self.inputs.len() + self.layers.iter().map(|layer| layer.rows.len()).sum::<usize>()
    }
}

/// Elements that a matrix found by unit vectors is evaluated with at most, at a time.
const PROBE: usize = 1 << 24;
/// Where an element stands for its weight to be seen beside a constant: 32-bit floats round their sum.
const RAISED: f64 = 65536.0;
/// Terms of all affine maps together.
const MAX_TERMS: usize = 50_000_000;

/// Reads a float graph whose operations all run encrypted; positions of greatest values by this rule.
///
/// # Errors
/// [`Code::NeedsBootstrapping`] or [`Code::VariantUnsupported`] for an operation that is neither affine nor elementwise nor
/// a maximum; [`Code::CircuitTooLarge`].
pub(crate) fn trace(graph: &Graph<Tensor>, head: HeadRule) -> Result<Network> {
    let mut tracer = Tracer {
        graph,
        head,
        network: Network::default(),
        known: BTreeMap::new(),
        origins: BTreeMap::new(),
        truths: BTreeSet::new(),
        atoms: 0,
        terms: 0,
        sums: Combiner::default(),
    };
    // The first atoms are the network's inputs.
    let is_input = |id: &ValueId| matches!(graph.node(*id).op, TensorOp::Input { .. } | TensorOp::TreeEnsemble { .. });
    let (inputs, others): (Vec<ValueId>, Vec<ValueId>) = graph.values().partition(is_input);
    for id in inputs.into_iter().chain(others) {
        tracer.node(id).map_err(|why| if why.place.is_none() { why.at(graph.loc(id).to_string()) } else { why })?;
    }
    for (name, id) in graph.outputs() {
        let rows = tracer.rows(*id)?;
        let exact = tracer.is_exact(&rows);
        tracer.network.outputs.push(Output { name: name.clone(), rows, exact, loc: graph.loc(*id).clone() });
    }
    Ok(tracer.network)
}

pub(super) enum Traced {
    Constant,
    Affine(Vec<Row>),
    /// An elementwise function of this value.
    Pending(ValueId),
}

pub(super) struct Tracer<'a> {
    pub(super) graph: &'a Graph<Tensor>,
    /// How positions of greatest values are found.
    pub(super) head: HeadRule,
    network: Network,
    known: BTreeMap<ValueId, Traced>,
    /// Affine values that are elementwise functions of another one: of that one.
    origins: BTreeMap<ValueId, ValueId>,
    /// Atoms that are 0 or 1: comparisons and what logic makes of them.
    truths: BTreeSet<u32>,
    atoms: u32,
    terms: usize,
    sums: Combiner,
}

/// What an operation is to its encrypted operands.
enum Class {
    Affine,
    Elementwise,
    Maximum,
    /// Of pairs of elements.
    Pairwise(Pairwise),
    /// `outer(sum of inner(x))`.
    SumOf(Scalar, Option<Scalar>),
    /// Of several elements.
    ProductOf,
    /// Along an axis, or of all columns.
    Head,
    Other,
}

/// What is computed of two encrypted elements.
#[derive(Clone, Copy, Debug)]
enum Pairwise {
    Product,
    Quotient,
    /// A function of `a + sign * b`.
    OfSum(f64, Scalar),
    /// The second where the first holds, else the third.
    Choice,
}

/// Elements of one row.
pub(super) fn size(ty: &TensorType) -> usize {
    ty.shape.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).product()
}

fn class(op: &TensorOp, encrypted: usize) -> Class {
    match op {
        TensorOp::Linear { .. }
        | TensorOp::Reshape { .. }
        | TensorOp::Take { .. }
        | TensorOp::Transpose { .. }
        | TensorOp::Concat { .. }
        | TensorOp::Tile { .. }
        | TensorOp::Expand { .. }
        | TensorOp::Cast { to: Element::F32 | Element::F64 }
        | TensorOp::Unary { kind: UnaryKind::Neg }
        | TensorOp::Scaler { .. }
        | TensorOp::Conv { .. }
        | TensorOp::Pad { .. }
        | TensorOp::Pool { kind: PoolKind::Average, .. }
        | TensorOp::Binary { kind: BinaryKind::Add | BinaryKind::Sub }
        | TensorOp::Reduce { kind: ReduceKind::Sum | ReduceKind::Mean, .. } => Class::Affine,
        TensorOp::Binary { kind: BinaryKind::Mul } if encrypted == 1 => Class::Affine,
        TensorOp::Binary { kind: BinaryKind::Mul } => Class::Pairwise(Pairwise::Product),
        TensorOp::Binary { kind } if encrypted == 2 && pairwise(*kind).is_some() => {
            pairwise(*kind).map_or(Class::Other, Class::Pairwise)
        }
        TensorOp::Where {} if encrypted > 1 => Class::Pairwise(Pairwise::Choice),
        TensorOp::Reduce { kind: ReduceKind::L1, .. } => Class::SumOf(Scalar::Abs, None),
        TensorOp::Reduce { kind: ReduceKind::SumSquare, .. } => Class::SumOf(Scalar::Square, None),
        TensorOp::Reduce { kind: ReduceKind::L2, .. } => Class::SumOf(Scalar::Square, Some(Scalar::Sqrt)),
        TensorOp::Reduce { kind: ReduceKind::Prod, .. } => Class::ProductOf,
        TensorOp::Reduce { kind: ReduceKind::LogSumExp, .. } => Class::SumOf(Scalar::Exp, Some(Scalar::Log)),
        TensorOp::Binary { kind: BinaryKind::Max | BinaryKind::Min } if encrypted == 2 => Class::Maximum,
        TensorOp::Pool { kind: PoolKind::Max, .. } => Class::Maximum,
        TensorOp::Reduce { kind: ReduceKind::Max | ReduceKind::Min, .. } => Class::Maximum,
        TensorOp::ArgMax { .. }
        | TensorOp::TopK { .. }
        | TensorOp::BinaryLabel { .. }
        | TensorOp::PairVotes { .. }
        | TensorOp::Softmax { .. } => Class::Head,
        TensorOp::Unary { .. }
        | TensorOp::Clip { .. }
        | TensorOp::Where {}
        | TensorOp::Binary { .. }
        | TensorOp::Cast { to: Element::I64 | Element::Bool } => Class::Elementwise,
        _ => Class::Other,
    }
}

/// How two encrypted values are divided, compared (by their difference) or, as booleans, combined (by their sum).
fn pairwise(kind: BinaryKind) -> Option<Pairwise> {
    use BinaryKind as K;
    use Scalar::{Above, Between, From};
    Some(match kind {
        K::Div => Pairwise::Quotient,
        K::Greater => Pairwise::OfSum(-1.0, Above(0.0)),
        K::GreaterOrEqual => Pairwise::OfSum(-1.0, From(0.0)),
        K::Less => Pairwise::OfSum(-1.0, Scalar::Below(0.0)),
        K::LessOrEqual => Pairwise::OfSum(-1.0, Scalar::UpTo(0.0)),
        K::And => Pairwise::OfSum(1.0, Above(1.5)),
        K::Or => Pairwise::OfSum(1.0, Above(0.5)),
        K::Xor => Pairwise::OfSum(1.0, Between(0.5, 1.5)),
        _ => return None,
    })
}

impl Tracer<'_> {
    fn node(&mut self, id: ValueId) -> Result<()> {
        let node = self.graph.node(id);
        let constant = |id: &ValueId| matches!(self.known.get(id), Some(Traced::Constant));
        let traced = match &node.op {
            // What only trees read is encrypted as their codes.
            TensorOp::Input { .. } if trees::only_read(self.graph, id) => Traced::Constant,
            TensorOp::Input { name } => {
                let columns = size(&node.ty);
                self.network.inputs.extend((0..columns).map(|column| (name.clone(), column)));
                self.network.bounds.resize(self.network.inputs.len(), None);
                Traced::Affine(self.new_atoms(columns)?)
            }
            TensorOp::TreeEnsemble { .. } => {
                let (name, bounds) = (trees::name(self.graph, id), trees::bounds(&node.op));
                self.network.inputs.extend((0..bounds.len()).map(|output| (name.clone(), output)));
                let outputs = bounds.len();
                self.network.bounds.extend(bounds.into_iter().map(Some));
                Traced::Affine(self.new_atoms(outputs)?)
            }
            TensorOp::Constant { .. } => Traced::Constant,
            _ if node.operands.iter().all(constant) => Traced::Constant,
            op => {
                let encrypted: Vec<ValueId> = node.operands.iter().copied().filter(|id| !constant(id)).collect();
                self.encrypted(id, op, &encrypted)?
            }
        };
        self.known.insert(id, traced);
        Ok(())
    }

    fn encrypted(&mut self, id: ValueId, op: &TensorOp, encrypted: &[ValueId]) -> Result<Traced> {
        let same_source = self.common_source(id, encrypted);
        let pending = encrypted.iter().any(|id| matches!(self.known[id], Traced::Pending(_)));
        let affine_division = matches!(op, TensorOp::Binary { kind: BinaryKind::Div })
            && encrypted.len() == 1
            && encrypted.first() == self.graph.node(id).operands.first();
        let elementwise = matches!(
            op,
            TensorOp::Unary { .. }
                | TensorOp::Binary { .. }
                | TensorOp::Clip { .. }
                | TensorOp::Where {}
                | TensorOp::Cast { .. }
        );
        // Elements keep their order.
        if let (TensorOp::Reshape { .. }, [Traced::Pending(source)]) = (op, [&self.known[&encrypted[0]]]) {
            return Ok(Traced::Pending(*source));
        }
        match (class(op, encrypted.len()), same_source) {
            // Whatever is elementwise over one source stays one function of it.
            (Class::Affine | Class::Elementwise | Class::Maximum | Class::Pairwise(_), Some(source))
                if elementwise
                    && (pending || !matches!(class(op, encrypted.len()), Class::Affine))
                    && !affine_division =>
            {
                Ok(Traced::Pending(source))
            }
            (Class::Elementwise, Some(source)) if affine_division && pending => Ok(Traced::Pending(source)),
            (Class::Elementwise, _) if affine_division && encrypted.len() == 1 => {
                self.note_origin(id, encrypted);
                self.affine(id, encrypted)
            }
            (Class::Affine, _) => {
                if elementwise {
                    self.note_origin(id, encrypted);
                }
                self.affine(id, encrypted)
            }
            (Class::Elementwise, None) if encrypted.len() == 1 => self.spread(id, encrypted[0]),
            (Class::Maximum, _) => self.maximum(id, op, encrypted),
            (Class::Pairwise(how), _) => self.pairs(id, how),
            (Class::Elementwise, None) if self.is_equality_of_integers(op, encrypted) => {
                self.pairs(id, Pairwise::OfSum(-1.0, Scalar::Between(-0.5, 0.5)))
            }
            (Class::SumOf(inner, outer), _) => self.sum_of(id, encrypted, inner, outer),
            (Class::ProductOf, _) => self.product_of(id, encrypted),
            (Class::Head, _) => self.head(id, op, encrypted),
            _ => {
                let name = match op {
                    TensorOp::Binary { kind } => kind.as_str(),
                    op => op.name(),
                };
                let why = match encrypted.len() {
                    1 => format!("`{name}` cannot run encrypted here"),
                    several => format!("`{name}` of {several} encrypted values cannot run encrypted"),
                };
                Err(Diagnostic::new(Code::VariantUnsupported, why).help(alternative(op)))
            }
        }
    }

    /// Remembers that an affine value is elementwise of its only encrypted operand: a diamond of them is one table, too.
    fn note_origin(&mut self, id: ValueId, encrypted: &[ValueId]) {
        let width = |id: ValueId| size(&self.graph.node(id).ty);
        if let [operand] = encrypted
            && width(*operand) == width(id)
        {
            let origin = self.origins.get(operand).copied().unwrap_or(*operand);
            self.origins.insert(id, origin);
        }
    }

    /// The one affine value that all operands are elementwise functions of, element by element.
    fn common_source(&self, id: ValueId, encrypted: &[ValueId]) -> Option<ValueId> {
        let origin = |id: ValueId| self.origins.get(&id).copied().unwrap_or(id);
        let source = |id: &ValueId| match self.known.get(id) {
            Some(Traced::Pending(source)) => Some(origin(*source)),
            Some(Traced::Affine(_)) => Some(origin(*id)),
            _ => None,
        };
        let first = source(encrypted.first()?)?;
        let same = encrypted.iter().all(|id| source(id) == Some(first));
        // Broadcasting would make one element many.
        let width = size(&self.graph.node(id).ty);
        let sizes = encrypted.iter().chain([&first]).all(|id| size(&self.graph.node(*id).ty) == width);
        (same && sizes).then_some(first)
    }

    fn new_atoms(&mut self, count: usize) -> Result<Vec<Row>> {
        let first = self.atoms;
        let end = u32::try_from(count).ok().and_then(|count| first.checked_add(count)).filter(|end| *end <= 1 << 24);
        self.atoms = end.ok_or_else(|| {
            Diagnostic::new(Code::CircuitTooLarge, "the network has too many activations")
                .help("use fewer or narrower layers, or pool earlier")
        })?;
        Ok((first..self.atoms).map(Row::atom).collect())
    }

    /// Whether rows are whole multiples of truth values.
    fn is_exact(&self, rows: &[Row]) -> bool {
        let whole = |(atom, weight): &(u32, f64)| self.truths.contains(atom) && weight.fract() == 0.0;
        rows.iter().all(|row| row.terms.iter().all(whole)) && rows.iter().any(|row| !row.terms.is_empty())
    }

    pub(super) fn add_layer(&mut self, rows: Vec<Row>, function: Function, loc: Loc) -> Result<Vec<Row>> {
        // A row of constants alone belongs to no layer of its own, but one of nothing to none.
        if rows.is_empty() {
            return Ok(rows);
        }
        let first_atom = self.atoms;
        let atoms = self.new_atoms(rows.len())?;
        if matches!(function, Function::Scalar(scalar) if scalar.is_indicator()) {
            self.truths.extend(first_atom..self.atoms);
        }
        let exact = self.is_exact(&rows);
        let (width, elements) = (rows.len(), (0..rows.len() as u32).collect());
        self.network.layers.push(Activation { rows, function, elements, width, first_atom, exact, loc });
        Ok(atoms)
    }

    /// What is told of several values: which is the greatest, votes, a label.
    fn head(&mut self, id: ValueId, op: &TensorOp, encrypted: &[ValueId]) -> Result<Traced> {
        let [operand] = encrypted else { return Err(Diagnostic::internal("a head of several values")) };
        match *op {
            TensorOp::ArgMax { axis, least, last } => {
                self.positions(id, *operand, Wanted { axis, count: 1, least, last })
            }
            TensorOp::TopK { axis, count, least, positions } => {
                let wanted = Wanted { axis, count, least, last: false };
                if positions { self.positions(id, *operand, wanted) } else { self.greatest(id, *operand, wanted) }
            }
            TensorOp::BinaryLabel { threshold } => {
                let first = self.rows(*operand)?.into_iter().take(1).collect();
                let above = Function::Scalar(Scalar::Above(threshold));
                Ok(Traced::Affine(self.add_layer(first, above, self.graph.loc(id).clone())?))
            }
            TensorOp::PairVotes { classes } => self.votes(id, *operand, classes),
            TensorOp::Softmax { axis, log } => self.softmax(id, *operand, axis, log),
            _ => Err(Diagnostic::internal("not a head")),
        }
    }

    /// Whether a value holds truth values, perhaps as numbers.
    fn is_truth(&self, id: ValueId) -> bool {
        let node = self.graph.node(id);
        let cast = matches!(node.op, TensorOp::Cast { .. });
        node.ty.element == Element::Bool || cast && node.operands.iter().all(|operand| self.is_truth(*operand))
    }

    /// The affine map of a value; a pending one becomes atoms.
    pub(super) fn rows(&mut self, id: ValueId) -> Result<Vec<Row>> {
        let source = match self.known.get(&id) {
            Some(Traced::Affine(rows)) => return Ok(rows.clone()),
            Some(Traced::Pending(source)) => *source,
            _ => return Err(Diagnostic::internal("a constant where an encrypted value was expected")),
        };
        let function = Function::between(self.graph, source, id)?;
        let rows = self.rows(source)?;
        let before = self.atoms;
        let atoms = self.add_layer(rows, function, self.graph.loc(id).clone())?;
        if self.is_truth(id) {
            self.truths.extend(before..self.atoms);
        }
        self.known.insert(id, Traced::Affine(atoms.clone()));
        Ok(atoms)
    }

    /// Evaluates one node with the given values of its encrypted operands; constants are computed.
    fn evaluate_alone(&self, id: ValueId, values: &BTreeMap<ValueId, TensorValue>) -> Result<Vec<f64>> {
        let mut alone = Copier::new(self.graph, "probe");
        let mut inputs = BTreeMap::new();
        for (at, value) in values {
            let name = format!("x{}", at.index());
            alone.provide(*at, TensorOp::Input { name: name.clone() })?;
            inputs.insert(name, value.clone());
        }
        let y = alone.copy(id)?;
        let mut alone = alone.new;
        alone.output("y", y);
        let found = evaluate(&alone, &inputs)?;
        Ok(found.values().next().and_then(TensorValue::to_f64).unwrap_or_default())
    }

    /// Every element of the operands at one value, in `count` rows.
    fn at_rest(&self, encrypted: &[ValueId], count: usize, rest: f64) -> BTreeMap<ValueId, TensorValue> {
        let value = |id: &ValueId| {
            let ty = &self.graph.node(*id).ty;
            (*id, TensorValue::of_type(ty, count, vec![rest; count * size(ty)]))
        };
        encrypted.iter().map(value).collect()
    }

    /// Evaluates the operation with one element of `operand` raised to a value and all others, also those of the other
    /// operands, at rest; `see` gets each element and the outputs.
    fn each_raised(
        &self,
        id: ValueId,
        encrypted: &[ValueId],
        operand: ValueId,
        (rest, raised): (f64, f64),
        mut see: impl FnMut(usize, &[f64]) -> Result<()>,
    ) -> Result<()> {
        let outputs = size(&self.graph.node(id).ty);
        let ty = &self.graph.node(operand).ty;
        let width = size(ty);
        let chunk = (PROBE / width.max(outputs).max(1)).clamp(1, width.max(1));
        for start in (0..width).step_by(chunk) {
            let count = chunk.min(width - start);
            let mut data = vec![rest; count * width];
            for at in 0..count {
                data[at * width + start + at] = raised;
            }
            let mut values = self.at_rest(encrypted, count, rest);
            values.insert(operand, TensorValue::of_type(ty, count, data));
            for (at, row) in self.evaluate_alone(id, &values)?.chunks(outputs.max(1)).enumerate() {
                see(start + at, row)?;
            }
        }
        Ok(())
    }

    fn affine(&mut self, id: ValueId, encrypted: &[ValueId]) -> Result<Traced> {
        let outputs = size(&self.graph.node(id).ty);
        let constant = self.evaluate_alone(id, &self.at_rest(encrypted, 1, 0.0))?;
        // For each output: which elements of which operand, with which weight.
        let mut uses: Vec<Vec<(usize, usize, f64)>> = vec![Vec::new(); outputs];
        let mut distinct = encrypted.to_vec();
        distinct.dedup();
        for (number, operand) in distinct.iter().enumerate() {
            // A truth value is 0 or 1.
            let raised = if self.graph.node(*operand).ty.element == Element::Bool { 1.0 } else { RAISED };
            self.each_raised(id, encrypted, *operand, (0.0, raised), |element, row| {
                for (output, value) in row.iter().enumerate() {
                    let weight = (value - constant[output]) / raised;
                    if !weight.is_finite() {
                        return Err(Diagnostic::new(Code::WeightNotFinite, "a weight is not finite")
                            .help("a trained model has finite weights; train or export it again"));
                    }
                    if weight != 0.0 {
                        uses[output].push((number, element, weight));
                    }
                }
                Ok(())
            })?;
        }
        let operands = distinct.iter().map(|id| self.rows(*id)).collect::<Result<Vec<_>>>()?;
        let mut rows = Vec::with_capacity(outputs);
        for (own, constant) in uses.iter().zip(&constant) {
            let terms = own.iter().map(|&(operand, element, weight)| (&operands[operand][element], weight));
            let row = self.sums.combine(terms, *constant);
            self.terms += row.terms.len();
            if self.terms > MAX_TERMS {
                return Err(Diagnostic::new(Code::CircuitTooLarge, "the network's affine maps have too many weights")
                    .help("use fewer or narrower layers, or pool earlier"));
            }
            rows.push(row);
        }
        Ok(Traced::Affine(rows))
    }

    /// The elements that each output is the maximum of: those that raise it when they alone are raised.
    fn windows(&self, id: ValueId, encrypted: &[ValueId], least: bool) -> Result<Vec<Vec<(usize, usize)>>> {
        let mut windows = vec![Vec::new(); size(&self.graph.node(id).ty)];
        let rest = if least { 1.0 } else { -1.0 };
        for (number, operand) in encrypted.iter().enumerate() {
            self.each_raised(id, encrypted, *operand, (rest, 0.0), |element, row| {
                for (output, _) in row.iter().enumerate().filter(|(_, value)| **value == 0.0) {
                    windows[output].push((number, element));
                }
                Ok(())
            })?;
        }
        Ok(windows)
    }

    /// `max(a, b) = max(a - b, 0) + b`, pair by pair; `min(a, b) = a - max(a - b, 0)`.
    fn maximum(&mut self, id: ValueId, op: &TensorOp, encrypted: &[ValueId]) -> Result<Traced> {
        let least =
            matches!(op, TensorOp::Binary { kind: BinaryKind::Min } | TensorOp::Reduce { kind: ReduceKind::Min, .. });
        let windows = self.windows(id, encrypted, least)?;
        let operands = encrypted.iter().map(|id| self.rows(*id)).collect::<Result<Vec<_>>>()?;
        let mut sets: Vec<Vec<Row>> =
            windows.iter().map(|own| own.iter().map(|&(o, e)| operands[o][e].clone()).collect()).collect();
        if sets.iter().any(Vec::is_empty) {
            return Err(Diagnostic::new(Code::VariantUnsupported, "a maximum over padding alone")
                .help("use pads smaller than the kernel"));
        }
        while sets.iter().any(|set| set.len() > 1) {
            let mut differences = Vec::new();
            for set in &sets {
                differences.extend(set.chunks_exact(2).map(|pair| pair[0].minus(&pair[1])));
            }
            let loc = self.graph.loc(id).clone();
            let mut gains = self.add_layer(differences, Function::Scalar(Scalar::Relu), loc)?.into_iter();
            for set in &mut sets {
                let mut next = Vec::with_capacity(set.len().div_ceil(2));
                for pair in set.chunks(2) {
                    next.push(match pair {
                        [a, b] => {
                            let gain = gains.next().ok_or_else(|| Diagnostic::internal("too few maxima"))?;
                            let (base, factor) = if least { (a, -1.0) } else { (b, 1.0) };
                            self.sums.combine([(base, 1.0), (&gain, factor)], 0.0)
                        }
                        rest => rest[0].clone(),
                    });
                }
                *set = next;
            }
        }
        Ok(Traced::Affine(sets.into_iter().flatten().collect()))
    }

    /// The rows of an operand that may be constant, one for each element of the result.
    fn broadcast_rows(&mut self, id: ValueId, operand: ValueId) -> Result<Vec<Row>> {
        let rows = if matches!(self.known.get(&operand), Some(Traced::Constant)) {
            let values = self.evaluate_alone(operand, &BTreeMap::new())?;
            values.into_iter().map(|constant| Row { terms: Vec::new(), constant }).collect()
        } else {
            self.rows(operand)?
        };
        let (own, out) = (&self.graph.node(operand).ty, &self.graph.node(id).ty);
        Ok(broadcast_elements(own, out).into_iter().map(|at| rows[at].clone()).collect())
    }

    /// Of floats nothing but a difference of zero counts, which noise never leaves.
    fn is_equality_of_integers(&self, op: &TensorOp, encrypted: &[ValueId]) -> bool {
        let whole = |id: &ValueId| matches!(self.graph.node(*id).ty.element, Element::I64 | Element::Bool);
        matches!(op, TensorOp::Binary { kind: BinaryKind::Equal })
            && encrypted.len() == 2
            && encrypted.iter().all(whole)
    }

    /// The product of elements, pair by pair.
    fn product_of(&mut self, id: ValueId, encrypted: &[ValueId]) -> Result<Traced> {
        let [operand] = encrypted else { return Err(Diagnostic::internal("a reduction of several values")) };
        let mut members = vec![Vec::new(); size(&self.graph.node(id).ty)];
        self.each_raised(id, encrypted, *operand, (1.0, 2.0), |element, row| {
            for (output, _) in row.iter().enumerate().filter(|(_, value)| **value == 2.0) {
                members[output].push(element);
            }
            Ok(())
        })?;
        let (loc, rows) = (self.graph.loc(id).clone(), self.rows(*operand)?);
        let mut sets: Vec<Vec<Row>> =
            members.iter().map(|own| own.iter().map(|at| rows[*at].clone()).collect()).collect();
        while sets.iter().any(|set| set.len() > 1) {
            let pairs = || sets.iter().flat_map(|set| set.chunks_exact(2));
            let (a, b): (Vec<Row>, Vec<Row>) = pairs().map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
            let mut products = self.product(&a, &b, &loc)?.into_iter();
            for set in &mut sets {
                let alone = set.chunks_exact(2).remainder().to_vec();
                *set = products.by_ref().take(set.len() / 2).chain(alone).collect();
            }
        }
        Ok(Traced::Affine(sets.into_iter().flatten().collect()))
    }

    /// An elementwise function of one value and larger constants.
    fn spread(&mut self, id: ValueId, operand: ValueId) -> Result<Traced> {
        let rows = self.broadcast_rows(id, operand)?;
        let ty = TensorType { element: self.graph.node(operand).ty.element, ..self.graph.node(id).ty.clone() };
        let function = Function::between_as(self.graph, operand, ty, id)?;
        let before = self.atoms;
        let atoms = self.add_layer(rows, function, self.graph.loc(id).clone())?;
        if self.is_truth(id) {
            self.truths.extend(before..self.atoms);
        }
        Ok(Traced::Affine(atoms))
    }

    fn pairs(&mut self, id: ValueId, how: Pairwise) -> Result<Traced> {
        let loc = self.graph.loc(id).clone();
        let operands = self.graph.node(id).operands.clone();
        let rows = operands.iter().map(|operand| self.broadcast_rows(id, *operand)).collect::<Result<Vec<_>>>()?;
        let sums = |a: &[Row], b: &[Row], sign: f64| -> Vec<Row> {
            let one = |(a, b): (&Row, &Row)| Combiner::default().combine([(a, 1.0), (b, sign)], 0.0);
            a.iter().zip(b).map(one).collect()
        };
        let found = match (how, rows.as_slice()) {
            (Pairwise::Product, [a, b]) => self.product(a, b, &loc)?,
            (Pairwise::Quotient, [a, b]) => {
                let inverse = self.add_layer(b.clone(), Function::Scalar(Scalar::Reciprocal), loc.clone())?;
                self.product(a, &inverse, &loc)?
            }
            (Pairwise::OfSum(sign, scalar), [a, b]) => {
                self.add_layer(sums(a, b, sign), Function::Scalar(scalar), loc)?
            }
            (Pairwise::Choice, [condition, a, b]) => {
                let gain = self.product(condition, &sums(a, b, -1.0), &loc)?;
                sums(&gain, b, 1.0)
            }
            _ => return Err(Diagnostic::internal("an operation of another number of operands")),
        };
        Ok(Traced::Affine(found))
    }

    /// `ab = ((a+b)^2 - (a-b)^2) / 4`; a product with a constant needs no table.
    fn product(&mut self, a: &[Row], b: &[Row], loc: &Loc) -> Result<Vec<Row>> {
        let constant = |rows: &[Row]| rows.iter().all(|row| row.terms.is_empty());
        let pairs: Vec<(&Row, &Row)> = a.iter().zip(b).collect();
        if constant(a) || constant(b) {
            let scaled = |(a, b): (&Row, &Row)| {
                let (row, factor) = if a.terms.is_empty() { (b, a.constant) } else { (a, b.constant) };
                Combiner::default().combine([(row, factor)], 0.0)
            };
            return Ok(pairs.into_iter().map(scaled).collect());
        }
        let signed =
            |sign: f64| pairs.iter().map(|(a, b)| Combiner::default().combine([(*a, 1.0), (*b, sign)], 0.0)).collect();
        let sums = self.add_layer(signed(1.0), Function::Scalar(Scalar::Square), loc.clone())?;
        let differences = self.add_layer(signed(-1.0), Function::Scalar(Scalar::Square), loc.clone())?;
        let rows = sums.iter().zip(&differences).map(|(s, d)| self.sums.combine([(s, 0.25), (d, -0.25)], 0.0));
        Ok(rows.collect())
    }

    /// A reduction that is a function of a sum of functions.
    fn sum_of(&mut self, id: ValueId, encrypted: &[ValueId], inner: Scalar, outer: Option<Scalar>) -> Result<Traced> {
        let [operand] = encrypted else { return Err(Diagnostic::internal("a reduction of several values")) };
        // Every reduction of one element alone is 1 where that is 1 and the others vanish, but for the exponential's.
        let (rest, raised, seen) = if inner == Scalar::Exp { (-1e30, 0.0, 0.0) } else { (0.0, 1.0, 1.0) };
        let mut members = vec![Vec::new(); size(&self.graph.node(id).ty)];
        self.each_raised(id, encrypted, *operand, (rest, raised), |element, row| {
            for (output, _) in row.iter().enumerate().filter(|(_, value)| **value == seen) {
                members[output].push(element);
            }
            Ok(())
        })?;
        let loc = self.graph.loc(id).clone();
        let rows = self.rows(*operand)?;
        let values = self.add_layer(rows, Function::Scalar(inner), loc.clone())?;
        let sum = |own: &Vec<usize>| Combiner::default().combine(own.iter().map(|at| (&values[*at], 1.0)), 0.0);
        let sums: Vec<Row> = members.iter().map(sum).collect();
        Ok(Traced::Affine(match outer {
            Some(outer) => self.add_layer(sums, Function::Scalar(outer), loc)?,
            None => sums,
        }))
    }
}

/// What does instead of an operation that cannot run encrypted.
fn alternative(op: &TensorOp) -> &'static str {
    match op {
        TensorOp::Binary { kind: BinaryKind::Pow } => "make the exponent a constant, or multiply the value by itself",
        TensorOp::Binary { kind: BinaryKind::Mod } => "make the divisor a constant",
        TensorOp::Binary { kind: BinaryKind::Equal } => {
            "compare integers (Round, then Cast to int64), or |a - b| with a constant"
        }
        _ => {
            "move it before the first layer with weights or behind the last one, where the client computes it in clear"
        }
    }
}

/// Which element of an operand each element of the result reads, as numpy broadcasts; of one row.
fn broadcast_elements(own: &TensorType, out: &TensorType) -> Vec<usize> {
    let sizes = |ty: &TensorType| -> Vec<usize> {
        ty.shape.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).collect()
    };
    let (own, out) = (sizes(own), sizes(out));
    let missing = out.len().saturating_sub(own.len());
    let element = |flat: usize| {
        let (mut rest, mut at, mut stride) = (flat, 0, 1);
        for axis in (0..out.len()).rev() {
            let place = rest % out[axis].max(1);
            rest /= out[axis].max(1);
            if let Some(size) = axis.checked_sub(missing).and_then(|axis| own.get(axis)) {
                at += if *size == 1 { 0 } else { place * stride };
                stride *= size;
            }
        }
        at
    };
    (0..out.iter().product()).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_broadcast_as_numpy_does() {
        let ty = |sizes: &[usize]| TensorType {
            element: Element::F32,
            shape: std::iter::once(Dim::Batch).chain(sizes.iter().map(|size| Dim::Fixed(*size))).collect(),
        };
        assert_eq!(broadcast_elements(&ty(&[2, 1]), &ty(&[2, 3])), [0, 0, 0, 1, 1, 1]);
        assert_eq!(broadcast_elements(&ty(&[1, 3]), &ty(&[2, 3])), [0, 1, 2, 0, 1, 2]);
        let vector = TensorType { element: Element::F32, shape: vec![Dim::Fixed(3)] };
        assert_eq!(broadcast_elements(&vector, &ty(&[2, 3])), [0, 1, 2, 0, 1, 2]);
    }
}
