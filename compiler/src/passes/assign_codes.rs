//! `assign-codes`: choose the selector bit patterns of every feature's codes.
//!
//! Selector bits need to tell apart only codes between which a test has a cut (thermometer terms have their own
//! ciphertext). The patterns form a binary tree over the intervals, in order; a test costs one external product for every
//! inner node of that tree whose block it cuts. The tree of least total cost at the least number of bits is found by
//! dynamic programming over intervals (an optimal alphabetic tree of bounded height, after Knuth), so frequent cuts come
//! to stand near the root, where they cost one product.

use super::{Ir, PassCx, PassInfo, StageName, diagrams::rebuild_ops};
use std::collections::{BTreeMap, BTreeSet};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::diagram::{Node, SelectorCode};
use tacit_ir::graph::Graph;
use tacit_ir::stage::circuit::{Circuit, CircuitOp};

pub(super) static INFO: PassInfo = PassInfo {
    name: "assign-codes",
    summary: "choose selector bit patterns so that frequent tests cost few products",
    from: &[StageName::Circuit],
    to: None,
};

/// Features with more intervals than this get equally spaced patterns; the search is cubic.
const SEARCHED_INTERVALS: usize = 80;

pub(super) fn run(ir: Ir, cx: &mut PassCx<'_>) -> Result<Ir> {
    let Ir::Circuit(graph) = ir else { return Ok(ir) };
    let graph = rebuild_ops(&graph, |_, id, op| match op {
        CircuitOp::Codes { value, single, features, selectors } if selectors.is_empty() => {
            let tests = tests_of(&graph, id);
            let mut codes = Vec::with_capacity(features.len());
            for feature in 0..features.len() as u32 {
                let code = assign(tests.get(&feature).map_or(&[], Vec::as_slice));
                if code.bits > 20 {
                    return Err(Diagnostic::new(
                        Code::CircuitTooLarge,
                        format!("column {} has {} distinct tests", features[feature as usize].column, code.cuts.len()),
                    )
                    .help("a feature may have at most 2^20 tested intervals; train with fewer bins or trees"));
                }
                cx.count("selector bits", u64::from(code.bits));
                codes.push(code.into());
            }
            Ok(CircuitOp::Codes {
                value: value.clone(),
                single: *single,
                features: features.clone(),
                selectors: codes.into(),
            })
        }
        other => Ok(other.clone()),
    })?;
    Ok(Ir::Circuit(graph))
}

/// The cuts of every test, by feature, in the diagrams that read these codes.
fn tests_of(graph: &Graph<Circuit>, codes: tacit_ir::graph::ValueId) -> BTreeMap<u32, Vec<Vec<u32>>> {
    let mut tests: BTreeMap<u32, Vec<Vec<u32>>> = BTreeMap::new();
    for id in graph.values() {
        let node = graph.node(id);
        if let CircuitOp::Decide { log2_delta: _, diagram } = &node.op
            && node.operands.first() == Some(&codes)
        {
            for node in &diagram.nodes {
                if let Node::Switch { feature, cuts, branches: _ } = node {
                    tests.entry(*feature).or_default().push(cuts.clone());
                }
            }
        }
    }
    tests
}

/// The cheapest patterns for these tests, each a list of cuts.
fn assign(tests: &[Vec<u32>]) -> SelectorCode {
    let cuts: Vec<u32> = tests.iter().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let intervals = cuts.len() + 1;
    let bits = usize::BITS - (intervals - 1).leading_zeros();
    let patterns = if intervals == 1 {
        vec![0]
    } else if intervals > SEARCHED_INTERVALS {
        (0..intervals as u32).collect()
    } else {
        optimal_patterns(&cuts, tests, bits)
    };
    SelectorCode { cuts, patterns, bits }
}

/// Dynamic programming over blocks of intervals `i..j` and remaining bits.
fn optimal_patterns(cuts: &[u32], tests: &[Vec<u32>], bits: u32) -> Vec<u32> {
    let n = cuts.len() + 1;
    // crossing[i][j]: how many tests have a cut strictly inside block i..j, that is among cuts i..j-1.
    let mut crossing = vec![vec![0u64; n + 1]; n + 1];
    for test in tests {
        let inside: Vec<usize> = test.iter().filter_map(|cut| cuts.binary_search(cut).ok()).collect();
        for (i, row) in crossing.iter_mut().enumerate().take(n) {
            let first = inside.partition_point(|&cut| cut < i);
            let from = inside.get(first).map_or(n + 1, |&cut| cut + 2);
            for cell in row.iter_mut().skip(from) {
                *cell += 1;
            }
        }
    }
    // cost[d][i][j], and where block i..j splits when d bits remain.
    let depth = bits as usize;
    let mut cost = vec![vec![vec![u64::MAX; n + 1]; n]; depth + 1];
    let mut split = vec![vec![vec![0usize; n + 1]; n]; depth + 1];
    for level in &mut cost {
        for (i, row) in level.iter_mut().enumerate() {
            row[i + 1] = 0;
        }
    }
    for d in 1..=depth {
        for len in 2..=n.min(1 << d) {
            for i in 0..=n - len {
                let j = i + len;
                for m in i + 1..j {
                    let (left, right) = (cost[d - 1][i][m], cost[d - 1][m][j]);
                    if left == u64::MAX || right == u64::MAX {
                        continue;
                    }
                    let total = left + right + crossing[i][j];
                    if total < cost[d][i][j] {
                        cost[d][i][j] = total;
                        split[d][i][j] = m;
                    }
                }
            }
        }
    }
    let mut patterns = vec![0; n];
    let mut stack = vec![(0, n, depth, 0u32)];
    while let Some((i, j, d, prefix)) = stack.pop() {
        if j - i == 1 {
            patterns[i] = prefix;
        } else {
            let m = split[d][i][j];
            stack.push((i, m, d - 1, prefix));
            stack.push((m, j, d - 1, prefix | 1 << (d - 1)));
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(code: &SelectorCode, tests: &[Vec<u32>]) -> usize {
        // Blocks of the pattern tree that a test cuts, summed over tests and levels.
        let block_count = |test: &Vec<u32>| {
            (1..=code.bits)
                .map(|height| {
                    let side = |cut: &u32| code.pattern(*cut) >> height == code.pattern(cut - 1) >> height;
                    let blocks: BTreeSet<u32> =
                        test.iter().filter(|cut| side(cut)).map(|&cut| code.pattern(cut) >> height).collect();
                    blocks.len()
                })
                .sum::<usize>()
        };
        tests.iter().map(block_count).sum()
    }

    #[test]
    fn a_frequent_cut_costs_one_product() {
        // Three intervals in two bits leave one pattern free: the frequent cut gets the root.
        let mut tests = vec![vec![1]; 9];
        tests.push(vec![2]);
        let code = assign(&tests);
        assert_eq!(code.bits, 2);
        assert_eq!(total(&code, &[vec![1]]), 1, "{code:?}");
        assert_eq!(total(&code, &tests), 9 + 2, "{code:?}");
    }

    #[test]
    fn patterns_tell_every_interval_apart() {
        for cuts in 1..40u32 {
            let tests: Vec<Vec<u32>> = (1..=cuts).map(|cut| vec![cut]).collect();
            let code = assign(&tests);
            assert!(code.patterns.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(code.patterns.iter().all(|&pattern| pattern < 1 << code.bits));
            assert!(1 << code.bits < 2 * (cuts + 1), "{cuts} cuts need no more bits than their number's logarithm");
        }
    }
}
