//! The graph every stage uses: nodes in definition order, ordered operands, one value per node.
//!
//! Invariant: a node comes after every node it uses, so the arena order is a topological order.

use crate::attr::OpSet;
use crate::diag::{Code, Diagnostic};
use std::fmt;

/// A value, and the node that defines it. Prints as `%3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    /// The position of the defining node in the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// One IR stage: its operations, its types, and the rule that derives a type from operands.
pub trait Stage: Clone + fmt::Debug + PartialEq + Sized {
    /// The closed set of operations.
    type Op: OpSet;
    /// What is known of a value; printed behind the colon.
    type Type: Clone + fmt::Debug + PartialEq + fmt::Display + std::str::FromStr<Err = String>;
    /// The keyword that opens the text form.
    const NAME: &'static str;

    /// The type of an operation's value from its operands' types; the one rule used to build, to check and to re-infer.
    ///
    /// `declared` is the type written down for operations that have no operands to derive it from (inputs).
    fn infer(op: &Self::Op, operands: &[&Self::Type], declared: Option<&Self::Type>) -> Result<Self::Type, String>;

    /// Whether a declared type may stand for an inferred one (equal, up to rounding of printed facts).
    fn agrees(declared: &Self::Type, inferred: &Self::Type) -> bool {
        declared == inferred
    }
}

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loc {
    /// Not known.
    #[default]
    Unknown,
    /// A node of the ONNX graph.
    Onnx {
        /// Position among the graph's nodes.
        index: usize,
        /// The node's name, possibly empty.
        name: String,
        /// The ONNX operation.
        op: String,
    },
    /// A layer or input of a model in TOML.
    Toml(String),
    /// A line of IR text, counted from 1.
    Line(usize),
    /// Made by a pass.
    Pass(&'static str),
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loc::Unknown => f.write_str("unknown place"),
            Loc::Onnx { index, name, op } => write!(f, "node {index} \"{name}\" ({op})"),
            Loc::Toml(name) => write!(f, "layer `{name}`"),
            Loc::Line(line) => write!(f, "line {line}"),
            Loc::Pass(pass) => write!(f, "made by {pass}"),
        }
    }
}

/// An operation with its operands and its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<S: Stage> {
    /// The operation.
    pub op: S::Op,
    /// Operands, in order; each earlier than the node.
    pub operands: Vec<ValueId>,
    /// The derived type.
    pub ty: S::Type,
}

/// A graph of one stage.
#[derive(Clone, Debug)]
pub struct Graph<S: Stage> {
    name: String,
    nodes: Vec<Node<S>>,
    locs: Vec<Loc>,
    outputs: Vec<(String, ValueId)>,
}

/// Places are not part of what a graph means.
impl<S: Stage> PartialEq for Graph<S> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.nodes == other.nodes && self.outputs == other.outputs
    }
}

impl<S: Stage> Graph<S> {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph { name: name.into(), nodes: Vec::new(), locs: Vec::new(), outputs: Vec::new() }
    }

    /// The graph's name; prints as `@name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Appends a node and derives its type.
    ///
    /// # Errors
    /// The typing rule's message when the operands do not fit.
    pub fn push(
        &mut self,
        op: S::Op,
        operands: Vec<ValueId>,
        declared: Option<S::Type>,
        loc: Loc,
    ) -> Result<ValueId, String> {
        if let Some(missing) = operands.iter().find(|id| id.index() >= self.nodes.len()) {
            return Err(format!("operand {missing} is not defined before its use"));
        }
        let types: Vec<&S::Type> = operands.iter().map(|id| &self.nodes[id.index()].ty).collect();
        let ty = S::infer(&op, &types, declared.as_ref())?;
        if let Some(declared) = &declared
            && !S::agrees(declared, &ty)
        {
            return Err(format!("the declared type is `{declared}`, the derived one `{ty}`"));
        }
        let id = ValueId(u32::try_from(self.nodes.len()).map_err(|_| "more than 2^32 nodes".to_owned())?);
        self.nodes.push(Node { op, operands, ty });
        self.locs.push(loc);
        Ok(id)
    }

    /// Derives every type anew, ranges and noise included, and compares it with the stored one.
    ///
    /// # Errors
    /// [`Code::IrInvalid`], with the place of the first node that does not agree.
    pub fn verify(&self) -> crate::diag::Result<()> {
        for id in self.values() {
            let Node { op, operands, ty } = self.node(id);
            let wrong =
                |why: String| Diagnostic::new(Code::IrInvalid, format!("{id}: {why}")).at(self.loc(id).to_string());
            if let Some(late) = operands.iter().find(|operand| **operand >= id) {
                return Err(wrong(format!("operand {late} is not defined before its use")));
            }
            let types: Vec<&S::Type> = operands.iter().map(|operand| &self.node(*operand).ty).collect();
            let derived = S::infer(op, &types, Some(ty)).map_err(wrong)?;
            if !S::agrees(ty, &derived) {
                return Err(wrong(format!("the type is `{ty}`, the derived one `{derived}`")));
            }
        }
        match self.outputs.iter().find(|(_, id)| id.index() >= self.nodes.len()) {
            Some((name, _)) => Err(Diagnostic::new(Code::IrInvalid, format!("output `{name}` is not defined"))),
            None => Ok(()),
        }
    }

    /// Names a value as an output; outputs keep their order.
    pub fn output(&mut self, name: impl Into<String>, value: ValueId) {
        self.outputs.push((name.into(), value));
    }

    /// Outputs by name, in order.
    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    /// The defining node of a value.
    pub fn node(&self, id: ValueId) -> &Node<S> {
        &self.nodes[id.index()]
    }

    /// Where a value came from.
    pub fn loc(&self, id: ValueId) -> &Loc {
        &self.locs[id.index()]
    }

    /// Every value, operands before users.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = ValueId> + use<S> {
        (0..self.nodes.len() as u32).map(ValueId)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How often each value is used, by nodes and outputs.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        for id in self.nodes.iter().flat_map(|node| &node.operands).chain(self.outputs.iter().map(|(_, id)| id)) {
            counts[id.index()] += 1;
        }
        counts
    }

    /// The graph as petgraph sees it, edges from operand to user: for algorithms, never stored.
    pub fn as_petgraph(&self) -> petgraph::graph::DiGraph<ValueId, usize> {
        let mut view = petgraph::graph::DiGraph::with_capacity(self.nodes.len(), self.nodes.len());
        let ids: Vec<_> = self.values().map(|id| view.add_node(id)).collect();
        for (user, node) in self.nodes.iter().enumerate() {
            for (position, operand) in node.operands.iter().enumerate() {
                view.add_edge(ids[operand.index()], ids[user], position);
            }
        }
        view
    }

    /// Values from which an output can be reached.
    pub fn live(&self) -> Vec<bool> {
        let view = self.as_petgraph();
        let reversed = petgraph::visit::Reversed(&view);
        let mut live = vec![false; self.nodes.len()];
        for (_, output) in &self.outputs {
            if live[output.index()] {
                continue;
            }
            let mut search = petgraph::visit::Dfs::new(reversed, petgraph::graph::NodeIndex::new(output.index()));
            while let Some(found) = search.next(reversed) {
                live[found.index()] = true;
            }
        }
        live
    }

    /// Copies the graph node by node through `rewrite`, which gets the new graph, the old node, its operands in the new
    /// graph and its place, and returns the value that takes the old one's place. Nodes no output needs are not copied.
    ///
    /// # Errors
    /// The first error of `rewrite`.
    pub fn rewrite<T: Stage, E>(
        &self,
        mut rewrite: impl FnMut(&mut Graph<T>, ValueId, &Node<S>, Vec<ValueId>, &Loc) -> Result<ValueId, E>,
    ) -> Result<Graph<T>, E> {
        let live = self.live();
        let mut new = Graph::new(self.name.clone());
        let mut map: Vec<Option<ValueId>> = vec![None; self.nodes.len()];
        for id in self.values().filter(|id| live[id.index()]) {
            let node = self.node(id);
            let operands = node.operands.iter().filter_map(|operand| map[operand.index()]).collect();
            map[id.index()] = Some(rewrite(&mut new, id, node, operands, self.loc(id))?);
        }
        for (name, value) in &self.outputs {
            if let Some(value) = map[value.index()] {
                new.output(name.clone(), value);
            }
        }
        Ok(new)
    }
}
