//! The node arrays of tree ensembles, ai.onnx.ml 1 to 5, to one normal form.

use super::node::{Converted, Fail, NodeCx, finite};
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::diag::{Code, Diagnostic};
use tacit_ir::graph::ValueId;
use tacit_ir::interp::tensor::Data;
use tacit_ir::stage::tensor::{Aggregate, Element, Mode, TensorOp};

/// A node as the file gives it.
#[derive(Clone)]
struct RawNode {
    mode: Mode,
    feature: usize,
    threshold: f64,
    on_true: usize,
    on_false: usize,
    missing_true: bool,
}

/// Trees, checked: children exist, leaves have weights. Nodes with several parents are copied for each.
pub(super) struct Forest {
    /// In file order.
    nodes: Vec<RawNode>,
    /// Root of each tree.
    roots: Vec<usize>,
    /// Reachable nodes, parents before children, tree after tree.
    order: Vec<usize>,
    /// Position in `order` behind each tree's last node.
    ends: Vec<usize>,
    /// `(target, weight)` by leaf.
    leaves: BTreeMap<usize, Vec<(usize, f64)>>,
    /// Membership sets.
    sets: Vec<Vec<f64>>,
    /// Whether thresholds or weights are given as 64-bit floats.
    double: bool,
}

/// Which targets a forest scores.
pub(super) struct Coverage {
    /// By target: scored on every row.
    pub(super) always: Vec<bool>,
    /// By target: scored on some rows, perhaps.
    pub(super) ever: Vec<bool>,
}

/// A node, and whether the branch taken where its test is true.
type Branch = (usize, bool);

/// Copies of shared tree nodes that are made at most.
const MAX_COPIES: usize = 1 << 20;

impl Forest {
    fn new(
        mut nodes: Vec<RawNode>,
        mut roots: Vec<usize>,
        mut leaves: BTreeMap<usize, Vec<(usize, f64)>>,
        sets: Vec<Vec<f64>>,
        double: bool,
        max_depth: usize,
    ) -> Converted<Self> {
        let mut order = Vec::with_capacity(nodes.len());
        let mut ends = Vec::with_capacity(roots.len());
        let mut seen = vec![false; nodes.len()];
        let most_nodes = nodes.len().saturating_add(MAX_COPIES);
        for root in &mut roots {
            let mut stack: Vec<(Option<Branch>, usize, usize)> = vec![(None, *root, 1)];
            while let Some((parent, mut at, depth)) = stack.pop() {
                if depth > max_depth {
                    let message = format!("a tree is deeper than {max_depth} levels, or a node is its own descendant");
                    return Err(Fail::Error(Diagnostic::new(Code::ModelTooLarge, message)));
                }
                if std::mem::replace(&mut seen[at], true) {
                    // Exporters let branches share a subtree (LightGBM's categorical splits): each gets its own.
                    let copy = nodes.len();
                    if copy >= most_nodes {
                        let message =
                            format!("trees share nodes: more than {MAX_COPIES} copies when they are told apart");
                        return Err(Fail::Error(Diagnostic::new(Code::ModelTooLarge, message)));
                    }
                    nodes.push(nodes[at].clone());
                    seen.push(true);
                    if let Some(weights) = leaves.get(&at).cloned() {
                        leaves.insert(copy, weights);
                    }
                    match parent {
                        None => *root = copy,
                        Some((parent, true)) => nodes[parent].on_true = copy,
                        Some((parent, false)) => nodes[parent].on_false = copy,
                    }
                    at = copy;
                }
                order.push(at);
                let node = &nodes[at];
                if node.mode != Mode::Leaf {
                    stack.push((Some((at, false)), node.on_false, depth + 1));
                    stack.push((Some((at, true)), node.on_true, depth + 1));
                } else if !leaves.contains_key(&at) {
                    return Err(Fail::attribute("a leaf has no weight")
                        .help("give every leaf a weight, 0 where it adds nothing"));
                }
            }
            ends.push(order.len());
        }
        Ok(Forest { nodes, roots, order, ends, leaves, sets, double })
    }

    fn weights(&self, leaf: usize) -> &[(usize, f64)] {
        self.leaves.get(&leaf).map_or(&[], Vec::as_slice)
    }

    /// Every `(target, weight)` of the file.
    pub(super) fn all_weights(&self) -> impl Iterator<Item = (usize, f64)> {
        self.leaves.values().flatten().copied()
    }

    /// The most weights that any leaf has.
    pub(super) fn most_weights_of_a_leaf(&self) -> usize {
        self.leaves.values().map(Vec::len).max().unwrap_or(0)
    }

    /// Which of `targets` targets are scored. onnxruntime tells a score of zero from none.
    pub(super) fn coverage(&self, targets: usize) -> Coverage {
        let mut coverage = Coverage { always: vec![false; targets], ever: vec![false; targets] };
        let mut start = 0;
        for &end in &self.ends {
            // By target, in how many of the tree's leaves it has a weight.
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            let mut leaves = 0;
            for &at in self.order[start..end].iter().filter(|&&at| self.nodes[at].mode == Mode::Leaf) {
                leaves += 1;
                let own: BTreeSet<usize> = self.weights(at).iter().map(|&(target, _)| target).collect();
                for target in own {
                    *counts.entry(target).or_default() += 1;
                }
            }
            for (target, count) in counts {
                coverage.ever[target] = true;
                coverage.always[target] |= count == leaves;
            }
            start = end;
        }
        coverage
    }
}

/// An attribute value that must not be negative.
pub(super) fn index(what: &str, value: i64) -> Converted<usize> {
    usize::try_from(value).map_err(|_| Fail::attribute(format!("`{what}` holds {value}")))
}

fn mode_of(name: &str) -> Converted<Mode> {
    Ok(match name {
        "LEAF" => Mode::Leaf,
        "BRANCH_LEQ" => Mode::Leq,
        "BRANCH_LT" => Mode::Lt,
        "BRANCH_GTE" => Mode::Gte,
        "BRANCH_GT" => Mode::Gt,
        "BRANCH_EQ" => Mode::Eq,
        "BRANCH_NEQ" => Mode::Neq,
        other => return Err(Fail::attribute(format!("`nodes_modes` holds `{other}`"))),
    })
}

impl NodeCx<'_, '_> {
    fn list<T>(&self, name: &str, values: Option<Vec<T>>, len: usize) -> Converted<Vec<T>> {
        let values = values.ok_or_else(|| Fail::attribute(format!("`{name}` is missing")))?;
        if values.len() == len {
            Ok(values)
        } else {
            Err(Fail::attribute(format!("`{name}` has {} items, `nodes_modes` has {len}", values.len())))
        }
    }

    fn check_tree_count(&mut self, nodes: usize) -> Converted<()> {
        self.importer.tree_nodes = self.importer.tree_nodes.saturating_add(nodes);
        let limit = self.importer.limits.max_tree_nodes;
        if self.importer.tree_nodes > limit {
            let message = format!("{} tree nodes, the limit is {limit}", self.importer.tree_nodes);
            return Err(Fail::Error(Diagnostic::new(Code::ModelTooLarge, message)));
        }
        Ok(())
    }

    /// The node arrays of ai.onnx.ml 1 to 3, with leaf weights under `prefix` (class or target).
    pub(super) fn old_forest(&mut self, prefix: &str, targets: usize) -> Converted<Forest> {
        let modes = self.strings("nodes_modes")?.ok_or_else(|| Fail::attribute("`nodes_modes` is missing"))?;
        let len = modes.len();
        self.check_tree_count(len)?;
        let tree = self.list("nodes_treeids", self.ints("nodes_treeids")?, len)?;
        let id = self.list("nodes_nodeids", self.ints("nodes_nodeids")?, len)?;
        let feature = self.list("nodes_featureids", self.ints("nodes_featureids")?, len)?;
        let on_true = self.list("nodes_truenodeids", self.ints("nodes_truenodeids")?, len)?;
        let on_false = self.list("nodes_falsenodeids", self.ints("nodes_falsenodeids")?, len)?;
        let (values, double) =
            self.reals("nodes_values")?.ok_or_else(|| Fail::attribute("`nodes_values` is missing"))?;
        let values = self.list("nodes_values", Some(values), len)?;
        let missing = match self.ints("nodes_missing_value_tracks_true")?.filter(|missing| !missing.is_empty()) {
            Some(missing) => self.list("nodes_missing_value_tracks_true", Some(missing), len)?,
            None => vec![0; len],
        };
        let mut position: BTreeMap<(i64, i64), usize> = BTreeMap::new();
        for at in 0..len {
            if position.insert((tree[at], id[at]), at).is_some() {
                return Err(Fail::attribute(format!("tree {} has two nodes {}", tree[at], id[at])));
            }
        }
        let mut nodes = Vec::with_capacity(len);
        let mut child_of = vec![false; len];
        for at in 0..len {
            let mode = mode_of(&modes[at])?;
            let mut child = |to: i64| {
                let missing = || {
                    Fail::attribute(format!(
                        "node {} of tree {} has the child {to}, which does not exist",
                        id[at], tree[at]
                    ))
                };
                let child = *position.get(&(tree[at], to)).ok_or_else(missing)?;
                child_of[child] = true;
                Converted::Ok(child)
            };
            let (on_true, on_false) =
                if mode == Mode::Leaf { (0, 0) } else { (child(on_true[at])?, child(on_false[at])?) };
            nodes.push(RawNode {
                mode,
                feature: index("nodes_featureids", feature[at])?,
                threshold: values[at],
                on_true,
                on_false,
                missing_true: missing[at] != 0,
            });
        }
        let mut leaves: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
        let name = |part: &str| format!("{prefix}_{part}");
        let (weights, double_weights) = self.reals(&name("weights"))?.unwrap_or_default();
        let count = weights.len();
        let part = |part: &str| -> Converted<Vec<i64>> {
            let values = self.ints(&name(part))?.unwrap_or_default();
            if values.len() == count {
                Ok(values)
            } else {
                Err(Fail::attribute(format!("`{}` has {} items for {count} weights", name(part), values.len())))
            }
        };
        let (trees, ids, ids_of_target) = (part("treeids")?, part("nodeids")?, part("ids")?);
        finite("leaf weight", &weights)?;
        for at in 0..count {
            let node = position.get(&(trees[at], ids[at]));
            let node = node.ok_or_else(|| {
                Fail::attribute(format!("a weight for node {} of tree {}, which does not exist", ids[at], trees[at]))
            })?;
            let target = index(&name("ids"), ids_of_target[at])?;
            if target >= targets {
                return Err(Fail::attribute(format!("a leaf weight for target {target} of {targets}")));
            }
            leaves.entry(*node).or_default().push((target, weights[at]));
        }
        // A tree's root is its first node; a root that is somebody's child is a cycle.
        let mut roots = Vec::new();
        let mut seen = BTreeSet::new();
        for at in 0..len {
            if seen.insert(tree[at]) {
                if child_of[at] {
                    return Err(Fail::attribute(format!(
                        "the first node of tree {} is a child: the tree has a cycle",
                        tree[at]
                    )));
                }
                roots.push(at);
            } else if tree[at] != tree[at - 1] {
                return Err(Fail::attribute(format!("the nodes of tree {} do not follow each other", tree[at])));
            }
        }
        let double = double || double_weights;
        Forest::new(nodes, roots, leaves, Vec::new(), double, self.importer.limits.max_tree_depth)
    }

    /// Emits the forest as one operation on operand 0, for the leaf weights of these targets, in their order.
    pub(super) fn emit(
        &mut self,
        forest: &Forest,
        targets: &[usize],
        aggregate: Aggregate,
        base: Vec<f64>,
    ) -> Converted<ValueId> {
        let x = self.features()?;
        let columns = self.columns(x)?;
        let single = self.ty(x).element != Element::F64;
        if forest.double && single {
            return Err(Fail::type_mismatch("64-bit thresholds or weights on 32-bit features"));
        }
        finite("base value", &base)?;
        let mut number = vec![usize::MAX; forest.nodes.len()];
        for (new, &at) in forest.order.iter().enumerate() {
            number[at] = new;
        }
        let positions: BTreeMap<usize, usize> = targets.iter().enumerate().map(|(at, &target)| (target, at)).collect();
        let mut op = Emitted::default();
        for &at in &forest.order {
            let node = &forest.nodes[at];
            op.mode.push(node.mode);
            if node.mode == Mode::Leaf {
                op.feature.push(0);
                op.threshold.push(0.0);
                op.on_true.push(op.leaf_target.len());
                for &(target, weight) in forest.weights(at) {
                    if let Some(&position) = positions.get(&target) {
                        op.leaf_target.push(position);
                        op.leaf_weight.push(weight);
                    }
                }
                op.on_false.push(op.leaf_target.len());
            } else {
                if node.feature >= columns {
                    return Err(Fail::shape(format!("a tree tests column {}, the input has {columns}", node.feature)));
                }
                if node.threshold.is_nan() {
                    return Err(Fail::Error(Diagnostic::new(Code::WeightNotFinite, "a tree threshold is NaN")));
                }
                op.feature.push(node.feature);
                op.threshold.push(node.threshold);
                op.on_true.push(number[node.on_true]);
                op.on_false.push(number[node.on_false]);
                if node.missing_true {
                    op.missing_true.push(number[at]);
                }
            }
        }
        let op = TensorOp::TreeEnsemble {
            targets: targets.len(),
            aggregate,
            single,
            base,
            roots: forest.roots.iter().map(|&root| number[root]).collect(),
            feature: op.feature,
            mode: op.mode.into(),
            threshold: op.threshold,
            on_true: op.on_true,
            on_false: op.on_false,
            missing_true: op.missing_true,
            sets: forest.sets.clone().into(),
            leaf_target: op.leaf_target,
            leaf_weight: op.leaf_weight,
        };
        self.push(op, vec![x])
    }
}

#[derive(Default)]
struct Emitted {
    feature: Vec<usize>,
    mode: Vec<Mode>,
    threshold: Vec<f64>,
    on_true: Vec<usize>,
    on_false: Vec<usize>,
    missing_true: Vec<usize>,
    leaf_target: Vec<usize>,
    leaf_weight: Vec<f64>,
}

/// The node arrays of ai.onnx.ml 5's TreeEnsemble.
pub(super) fn new_forest(cx: &mut NodeCx<'_, '_>, targets: usize) -> Converted<Forest> {
    let tensor = |cx: &NodeCx<'_, '_>, name: &str| -> Converted<Option<(Data, Vec<f64>)>> {
        cx.tensor_attribute(name)?
            .map(|value| {
                let reals = value.to_f64().ok_or_else(|| Fail::attribute(format!("`{name}` holds strings")))?;
                Ok((value.data, reals))
            })
            .transpose()
    };
    let required =
        |name: &str, value: Option<Vec<i64>>| value.ok_or_else(|| Fail::attribute(format!("`{name}` is missing")));
    let codes = match tensor(cx, "nodes_modes")? {
        Some((Data::I64(codes), _)) => codes,
        Some(_) => return Err(Fail::attribute("`nodes_modes` is not a tensor of integers")),
        None => return Err(Fail::attribute("`nodes_modes` is missing")),
    };
    let (split_data, splits) =
        tensor(cx, "nodes_splits")?.ok_or_else(|| Fail::attribute("`nodes_splits` is missing"))?;
    let len = codes.len();
    cx.check_tree_count(len)?;
    let feature = required("nodes_featureids", cx.ints("nodes_featureids")?)?;
    let true_ids = required("nodes_truenodeids", cx.ints("nodes_truenodeids")?)?;
    let false_ids = required("nodes_falsenodeids", cx.ints("nodes_falsenodeids")?)?;
    let true_leafs = required("nodes_trueleafs", cx.ints("nodes_trueleafs")?)?;
    let false_leafs = required("nodes_falseleafs", cx.ints("nodes_falseleafs")?)?;
    let roots = required("tree_roots", cx.ints("tree_roots")?)?;
    let leaf_targets = required("leaf_targetids", cx.ints("leaf_targetids")?)?;
    let (_, leaf_weights) = tensor(cx, "leaf_weights")?.ok_or_else(|| Fail::attribute("`leaf_weights` is missing"))?;
    finite("leaf weight", &leaf_weights)?;
    let missing = cx.ints("nodes_missing_value_tracks_true")?.filter(|m| !m.is_empty()).unwrap_or_else(|| vec![0; len]);
    if [
        splits.len(),
        feature.len(),
        true_ids.len(),
        false_ids.len(),
        true_leafs.len(),
        false_leafs.len(),
        missing.len(),
    ] != [len; 7]
        || leaf_targets.len() != leaf_weights.len()
    {
        return Err(Fail::attribute("node or leaf lists of different lengths"));
    }
    let (_, members) = tensor(cx, "membership_values")?.unwrap_or((Data::F32(Vec::new()), Vec::new()));
    let mut member_sets = members.split(|value| value.is_nan());
    let leaf_count = leaf_weights.len();
    let mut sets: Vec<Vec<f64>> = Vec::new();
    let mut nodes = Vec::with_capacity(len + leaf_count);
    let mut leaves = BTreeMap::new();
    for at in 0..len {
        let mut child = |id: i64, leaf: bool| {
            let id = index("child", id)?;
            match (leaf, id < leaf_count, id < len) {
                // A leaf may be shared in the file; each use becomes a node of its own behind the inner ones.
                (true, true, _) => {
                    let node = len + leaves.len();
                    let target = index("leaf_targetids", leaf_targets[id])?;
                    if target >= targets {
                        return Err(Fail::attribute(format!("a leaf weight for target {target} of {targets}")));
                    }
                    leaves.insert(node, vec![(target, leaf_weights[id])]);
                    Ok(node)
                }
                (false, _, true) => Ok(id),
                _ => Err(Fail::attribute(format!("node {at} has the child {id}, which does not exist"))),
            }
        };
        let (on_true, on_false) =
            (child(true_ids[at], true_leafs[at] != 0)?, child(false_ids[at], false_leafs[at] != 0)?);
        let mode = match codes[at] {
            0 => Mode::Leq,
            1 => Mode::Lt,
            2 => Mode::Gte,
            3 => Mode::Gt,
            4 => Mode::Eq,
            5 => Mode::Neq,
            6 => Mode::Member,
            other => return Err(Fail::attribute(format!("`nodes_modes` holds {other}"))),
        };
        let threshold = if mode == Mode::Member {
            let set =
                member_sets.next().ok_or_else(|| Fail::attribute("fewer membership sets than nodes that use one"))?;
            if set.iter().any(|value| value.is_infinite()) {
                return Err(Fail::Error(Diagnostic::new(Code::WeightNotFinite, "a membership set holds infinity")));
            }
            sets.push(set.to_vec());
            (sets.len() - 1) as f64
        } else {
            splits[at]
        };
        let feature = index("nodes_featureids", feature[at])?;
        nodes.push(RawNode { mode, feature, threshold, on_true, on_false, missing_true: missing[at] != 0 });
    }
    for _ in 0..leaves.len() {
        nodes.push(RawNode {
            mode: Mode::Leaf,
            feature: 0,
            threshold: 0.0,
            on_true: 0,
            on_false: 0,
            missing_true: false,
        });
    }
    let roots: Vec<usize> = roots
        .into_iter()
        .map(|root| {
            index("tree_roots", root).and_then(|root| {
                if root < len { Ok(root) } else { Err(Fail::attribute(format!("tree root {root} of {len} nodes"))) }
            })
        })
        .collect::<Converted<_>>()?;
    // A tree of one leaf is written as a node whose two children are that leaf; it stays a test with equal branches.
    let double = matches!(split_data, Data::F64(_));
    Forest::new(nodes, roots, leaves, sets, double, cx.importer.limits.max_tree_depth)
}
