//! Additive decision diagrams: what a `decide` operation evaluates.
//!
//! A diagram maps the integer codes of features to a vector of K integers (one per output *slot*). Its nodes choose
//! between *forms*, and a form is a sum: constants, thermometer terms, selector-bit terms and other nodes. Sums are what
//! makes an ensemble cheap: trees add up inside a form, and two tests of one feature that always occur together merge
//! into one.
//!
//! Three kinds of node, from high to low level:
//! * `switch`: a multiway test of one feature's code;
//! * `mux`: a choice by one selector bit, one external product;
//! * `table`: a look-up by rotation, one external product per bit.
//!
//! Text form, one line a node:
//!
//! ```text
//! n0 = switch f3 { 0: 5@0; 2: -7@0; 5: n1 + 3@0[f1>=4] }
//! n1 = mux f3.1 { 0: 5@0; 1: n0 }
//! n2 = table [f0.0, f0.1] { 0; 3@0; 4@1; 0 }
//! root = n0 + n1 + 12@0
//! ```

use std::collections::BTreeMap;
use std::fmt;

mod noise;
mod text;

pub use noise::NoiseProfile;

/// A node of a diagram; prints as `n3`. Nodes come after the nodes they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Position in [`Diagram::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// A term that is linear in what the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// 1.
    One,
    /// `[code(feature) >= cut]`, from a thermometer ciphertext.
    AtLeast {
        /// The feature.
        feature: u32,
        /// The cut, at least 1.
        cut: u32,
    },
    /// A selector bit, from the body row of its GGSW.
    Bit {
        /// The feature.
        feature: u32,
        /// The bit, 0 the least significant.
        bit: u32,
    },
}

/// A sum with integer weights, in normal form: no zero weights, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Form {
    /// `(atom, slot) -> weight`.
    pub atoms: BTreeMap<(Atom, u32), i64>,
    /// `node -> weight`.
    pub nodes: BTreeMap<NodeId, i64>,
}

impl Form {
    /// A single node.
    pub fn node(id: NodeId) -> Self {
        Form { atoms: BTreeMap::new(), nodes: BTreeMap::from([(id, 1)]) }
    }

    /// A constant vector, `(slot, value)`.
    pub fn constant(values: impl IntoIterator<Item = (u32, i64)>) -> Self {
        let mut form = Form::default();
        for (slot, value) in values {
            form.add_atom(Atom::One, slot, value);
        }
        form
    }

    /// Adds `weight` times an atom in a slot.
    pub fn add_atom(&mut self, atom: Atom, slot: u32, weight: i64) {
        let entry = self.atoms.entry((atom, slot)).or_insert(0);
        *entry = entry.wrapping_add(weight);
        if *entry == 0 {
            self.atoms.remove(&(atom, slot));
        }
    }

    /// Adds `weight` times a node.
    pub fn add_node(&mut self, id: NodeId, weight: i64) {
        let entry = self.nodes.entry(id).or_insert(0);
        *entry = entry.wrapping_add(weight);
        if *entry == 0 {
            self.nodes.remove(&id);
        }
    }

    /// Adds `weight` times a form.
    pub fn add(&mut self, other: &Form, weight: i64) {
        for (&(atom, slot), &value) in &other.atoms {
            self.add_atom(atom, slot, value.wrapping_mul(weight));
        }
        for (&id, &value) in &other.nodes {
            self.add_node(id, value.wrapping_mul(weight));
        }
    }

    /// `self - other`.
    #[must_use]
    pub fn minus(&self, other: &Form) -> Form {
        let mut out = self.clone();
        out.add(other, -1);
        out
    }

    /// Whether the form is a clear constant.
    pub fn is_constant(&self) -> bool {
        self.nodes.is_empty() && self.atoms.keys().all(|(atom, _)| *atom == Atom::One)
    }

    /// The constant part, `(slot, value)`.
    pub fn constants(&self) -> impl Iterator<Item = (u32, i64)> + '_ {
        self.atoms.iter().filter(|((atom, _), _)| *atom == Atom::One).map(|(&(_, slot), &value)| (slot, value))
    }
}

/// A node of a diagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// The branch of the last cut at or below the feature's code.
    Switch {
        /// The feature tested.
        feature: u32,
        /// Strictly increasing, each at least 1.
        cuts: Vec<u32>,
        /// One more than `cuts`: branch i holds for codes from cut i-1 (or 0) up to cut i.
        branches: Vec<Form>,
    },
    /// `high` where the selector bit is 1, else `low`.
    Mux {
        /// The feature whose code the bit belongs to.
        feature: u32,
        /// The bit, 0 the least significant.
        bit: u32,
        /// The value at 0.
        low: Form,
        /// The value at 1.
        high: Form,
    },
    /// `values[index]`, where bit i of the index is the i-th selector bit.
    Table {
        /// `(feature, bit)`, least significant first.
        bits: Vec<(u32, u32)>,
        /// 2^bits constant forms.
        values: Vec<Form>,
    },
}

impl Node {
    /// The forms the node chooses between.
    pub fn forms(&self) -> Vec<&Form> {
        match self {
            Node::Switch { feature: _, cuts: _, branches } => branches.iter().collect(),
            Node::Mux { feature: _, bit: _, low, high } => vec![low, high],
            Node::Table { bits: _, values } => values.iter().collect(),
        }
    }

    /// External products that it takes.
    pub fn products(&self) -> u64 {
        match self {
            Node::Switch { .. } | Node::Mux { .. } => 1,
            Node::Table { bits, values: _ } => bits.len() as u64,
        }
    }

    /// The forms, to be changed.
    pub fn forms_mut(&mut self) -> Vec<&mut Form> {
        match self {
            Node::Switch { feature: _, cuts: _, branches } => branches.iter_mut().collect(),
            Node::Mux { feature: _, bit: _, low, high } => vec![low, high],
            Node::Table { bits: _, values } => values.iter_mut().collect(),
        }
    }
}

/// How a feature's code is sent as selector bits: intervals of the code, each with its own bit pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectorCode {
    /// Cuts that the selector bits can tell apart, strictly increasing.
    pub cuts: Vec<u32>,
    /// One more than `cuts`: the pattern of each interval, increasing.
    pub patterns: Vec<u32>,
    /// Number of bits.
    pub bits: u32,
}

impl SelectorCode {
    /// The pattern sent for a code.
    pub fn pattern(&self, code: u32) -> u32 {
        let interval = self.cuts.partition_point(|&cut| cut <= code);
        self.patterns.get(interval).copied().unwrap_or(0)
    }
}

/// Collects the nodes of a diagram under construction.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    nodes: Vec<Node>,
    known: BTreeMap<Node, NodeId>,
}

impl Builder {
    /// Adds a node and returns it as a form.
    pub fn add(&mut self, node: Node) -> Form {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        Form::node(id)
    }

    /// Adds a node unless an equal one was added by this method before; hash-consing.
    pub fn add_shared(&mut self, node: Node) -> (Form, bool) {
        if let Some(&id) = self.known.get(&node) {
            return (Form::node(id), true);
        }
        self.known.insert(node.clone(), NodeId(self.nodes.len() as u32));
        (self.add(node), false)
    }

    /// Nodes added so far.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node was added.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The diagram of the nodes so far.
    #[must_use]
    pub fn finish(self, slots: u32, root: Form) -> Diagram {
        Diagram { slots, nodes: self.nodes, root }.compact()
    }
}

/// A diagram over the codes of features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagram {
    /// Output slots, K.
    pub slots: u32,
    /// Nodes, each after the nodes it uses.
    pub nodes: Vec<Node>,
    /// The value.
    pub root: Form,
}

impl Diagram {
    /// External products that it takes.
    pub fn products(&self) -> u64 {
        self.nodes.iter().map(Node::products).sum()
    }

    /// Evaluates the diagram; `codes[f]` is feature f's code, `selectors[f]` how its bits are sent (needed for `mux`,
    /// `table` and bit atoms only).
    pub fn evaluate(&self, codes: &[u32], selectors: &[SelectorCode]) -> Vec<i64> {
        let bit = |feature: u32, bit: u32| {
            let code = codes.get(feature as usize).copied().unwrap_or(0);
            selectors.get(feature as usize).is_some_and(|selector| selector.pattern(code) >> bit & 1 == 1)
        };
        let mut values: Vec<Vec<i64>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let chosen = match node {
                Node::Switch { feature, cuts, branches } => {
                    let code = codes.get(*feature as usize).copied().unwrap_or(0);
                    &branches[cuts.partition_point(|&cut| cut <= code)]
                }
                Node::Mux { feature, bit: at, low, high } => {
                    if bit(*feature, *at) {
                        high
                    } else {
                        low
                    }
                }
                Node::Table { bits, values } => {
                    let index = bits.iter().enumerate().map(|(i, &(f, b))| usize::from(bit(f, b)) << i).sum::<usize>();
                    &values[index]
                }
            };
            let value = self.form_value(chosen, &values, codes, &bit);
            values.push(value);
        }
        self.form_value(&self.root, &values, codes, &bit)
    }

    fn form_value(&self, form: &Form, values: &[Vec<i64>], codes: &[u32], bit: &impl Fn(u32, u32) -> bool) -> Vec<i64> {
        let mut out = vec![0i64; self.slots as usize];
        for (&(atom, slot), &weight) in &form.atoms {
            let on = match atom {
                Atom::One => true,
                Atom::AtLeast { feature, cut } => codes.get(feature as usize).is_some_and(|&code| code >= cut),
                Atom::Bit { feature, bit: at } => bit(feature, at),
            };
            if on {
                out[slot as usize] = out[slot as usize].wrapping_add(weight);
            }
        }
        for (id, &weight) in &form.nodes {
            for (out, value) in out.iter_mut().zip(&values[id.index()]) {
                *out = out.wrapping_add(value.wrapping_mul(weight));
            }
        }
        out
    }

    /// A sound interval for each slot: over all paths, not over all inputs.
    pub fn ranges(&self) -> Vec<(i64, i64)> {
        let slots = self.slots as usize;
        let form_range = |form: &Form, nodes: &[Vec<(i64, i64)>]| {
            let mut out = vec![(0i64, 0i64); slots];
            // Thermometer terms of one feature switch on in order, so their sum is bounded by its prefix sums.
            let mut run: Option<(u32, u32, i64, i64, i64)> = None;
            let close = |run: &mut Option<(u32, u32, i64, i64, i64)>, out: &mut Vec<(i64, i64)>| {
                if let Some((_, slot, _, low, high)) = run.take() {
                    out[slot as usize].0 += low;
                    out[slot as usize].1 += high;
                }
            };
            let mut atoms: Vec<_> = form.atoms.iter().collect();
            atoms.sort_by_key(|((atom, slot), _)| match atom {
                Atom::AtLeast { feature, cut } => (1, *feature, *slot, *cut),
                Atom::One => (0, 0, *slot, 0),
                Atom::Bit { feature, bit } => (2, *feature, *slot, *bit),
            });
            for (&(atom, slot), &weight) in atoms {
                match atom {
                    Atom::One => {
                        out[slot as usize].0 += weight;
                        out[slot as usize].1 += weight;
                    }
                    Atom::AtLeast { feature, .. } => {
                        if run.is_none_or(|(f, s, ..)| (f, s) != (feature, slot)) {
                            close(&mut run, &mut out);
                            run = Some((feature, slot, 0, 0, 0));
                        }
                        if let Some((_, _, sum, low, high)) = &mut run {
                            *sum += weight;
                            *low = (*low).min(*sum);
                            *high = (*high).max(*sum);
                        }
                    }
                    Atom::Bit { .. } => {
                        close(&mut run, &mut out);
                        out[slot as usize].0 += weight.min(0);
                        out[slot as usize].1 += weight.max(0);
                    }
                }
            }
            close(&mut run, &mut out);
            for (id, &weight) in &form.nodes {
                for (out, &(low, high)) in out.iter_mut().zip(&nodes[id.index()]) {
                    let (a, b) = (low * weight, high * weight);
                    out.0 += a.min(b);
                    out.1 += a.max(b);
                }
            }
            out
        };
        let mut nodes: Vec<Vec<(i64, i64)>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let hull = node
                .forms()
                .into_iter()
                .map(|form| form_range(form, &nodes))
                .reduce(|a, b| a.iter().zip(&b).map(|(x, y)| (x.0.min(y.0), x.1.max(y.1))).collect());
            nodes.push(hull.unwrap_or_else(|| vec![(0, 0); slots]));
        }
        form_range(&self.root, &nodes)
    }

    /// How often each node is used by other forms and the root.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        for form in self.nodes.iter().flat_map(Node::forms).chain([&self.root]) {
            for id in form.nodes.keys() {
                counts[id.index()] += 1;
            }
        }
        counts
    }

    /// The diagram without nodes the root does not reach, in depth-first order from the root (operands first).
    ///
    /// Nodes may be in any order before, as long as there is no cycle.
    #[must_use]
    pub fn compact(&self) -> Diagram {
        let mut map: Vec<Option<NodeId>> = vec![None; self.nodes.len()];
        let mut nodes: Vec<Node> = Vec::new();
        let renumber = |form: &Form, map: &[Option<NodeId>]| Form {
            atoms: form.atoms.clone(),
            nodes: form.nodes.iter().filter_map(|(id, &w)| map[id.index()].map(|new| (new, w))).collect(),
        };
        let children =
            |id: NodeId| self.nodes[id.index()].forms().into_iter().flat_map(|form| form.nodes.keys().copied());
        // Explicit stack: diagrams can be deeper than the call stack. `true` marks the second visit, after the children.
        let mut stack: Vec<(NodeId, bool)> = self.root.nodes.keys().rev().map(|&id| (id, false)).collect();
        while let Some((id, children_done)) = stack.pop() {
            if map[id.index()].is_some() {
                continue;
            }
            if children_done {
                let mut node = self.nodes[id.index()].clone();
                for form in node.forms_mut() {
                    *form = renumber(form, &map);
                }
                map[id.index()] = Some(NodeId(nodes.len() as u32));
                nodes.push(node);
            } else {
                stack.push((id, true));
                let pending: Vec<NodeId> = children(id).filter(|child| map[child.index()].is_none()).collect();
                stack.extend(pending.into_iter().rev().map(|child| (child, false)));
            }
        }
        let root = renumber(&self.root, &map);
        Diagram { slots: self.slots, nodes, root }
    }

    /// Rebuilds the diagram bottom-up: `visit` gets each node with its forms already rewritten and returns the form that
    /// takes its place, adding nodes to the builder as it needs.
    #[must_use]
    pub fn rebuild(&self, mut visit: impl FnMut(&mut Builder, NodeId, Node) -> Form) -> Diagram {
        let mut builder = Builder::default();
        let mut map: Vec<Form> = Vec::with_capacity(self.nodes.len());
        let substitute = |form: &Form, map: &[Form]| {
            let mut out = Form { atoms: form.atoms.clone(), nodes: BTreeMap::new() };
            for (id, &weight) in &form.nodes {
                out.add(&map[id.index()], weight);
            }
            out
        };
        for (index, node) in self.nodes.iter().enumerate() {
            let mut node = node.clone();
            for form in node.forms_mut() {
                *form = substitute(form, &map);
            }
            let form = visit(&mut builder, NodeId(index as u32), node);
            map.push(form);
        }
        let root = substitute(&self.root, &map);
        Diagram { slots: self.slots, nodes: builder.nodes, root }.compact()
    }

    /// Checks order, arity and index invariants; `cuts_of(feature)` is one more than the largest code, `bits_of` the
    /// number of selector bits.
    ///
    /// # Errors
    /// The first broken invariant, in words.
    pub fn check(&self, largest_code: &[u32], bits: &[u32]) -> Result<(), String> {
        let feature_ok = |feature: u32| {
            largest_code.get(feature as usize).copied().ok_or_else(|| format!("there is no feature f{feature}"))
        };
        let bit_ok = |feature: u32, bit: u32| {
            feature_ok(feature)?;
            let available = bits.get(feature as usize).copied().unwrap_or(0);
            if bit < available {
                Ok(())
            } else {
                Err(format!("f{feature} has {available} selector bits, not bit {bit}"))
            }
        };
        let cut_ok = |feature: u32, cut: u32| {
            let largest = feature_ok(feature)?;
            if cut >= 1 && cut <= largest {
                Ok(())
            } else {
                Err(format!("cut {cut} is outside f{feature}'s codes 0..={largest}"))
            }
        };
        let form_ok = |form: &Form, defined: usize| -> Result<(), String> {
            for &(atom, slot) in form.atoms.keys() {
                if slot >= self.slots {
                    return Err(format!("slot {slot} of {}", self.slots));
                }
                match atom {
                    Atom::One => {}
                    Atom::AtLeast { feature, cut } => cut_ok(feature, cut)?,
                    Atom::Bit { feature, bit } => bit_ok(feature, bit)?,
                }
            }
            match form.nodes.keys().find(|id| id.index() >= defined) {
                Some(id) => Err(format!("{id} is not defined before its use")),
                None => Ok(()),
            }
        };
        for (index, node) in self.nodes.iter().enumerate() {
            let checked = match node {
                Node::Switch { feature, cuts, branches } => {
                    if cuts.is_empty() || branches.len() != cuts.len() + 1 {
                        Err(format!("a switch with {} cuts has {} branches", cuts.len(), branches.len()))
                    } else if cuts.windows(2).any(|pair| pair[0] >= pair[1]) {
                        Err("cuts do not increase".to_owned())
                    } else {
                        cuts.iter().try_for_each(|&cut| cut_ok(*feature, cut))
                    }
                }
                Node::Mux { feature, bit, low: _, high: _ } => bit_ok(*feature, *bit),
                Node::Table { bits, values } => {
                    if bits.len() > 20 || values.len() != 1 << bits.len() {
                        Err(format!("a table over {} bits has {} values", bits.len(), values.len()))
                    } else if values.iter().any(|form| !form.is_constant()) {
                        Err("a table value is not a constant".to_owned())
                    } else {
                        bits.iter().try_for_each(|&(feature, bit)| bit_ok(feature, bit))
                    }
                }
            };
            checked
                .and_then(|()| node.forms().into_iter().try_for_each(|form| form_ok(form, index)))
                .map_err(|why| format!("n{index}: {why}"))?;
        }
        form_ok(&self.root, self.nodes.len()).map_err(|why| format!("root: {why}"))
    }
}
