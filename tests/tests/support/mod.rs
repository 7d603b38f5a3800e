//! Small plans under secure parameters, and the way from bits to decrypted values.
#![allow(dead_code, reason = "each test binary uses its own part")]

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use tacit_client::{ClientKey, EncodedRow, decrypt, encrypt};
use tacit_ir::interp;
use tacit_ir::noise;
use tacit_ir::params::{GadgetParams, GlweParams};
use tacit_ir::plan::{Form, Layout, Phase, Plan, Slot, Step, Task};
use tacit_runtime::{Circuit, run};

pub(crate) const DIGEST: [u8; 32] = [42; 32];

pub(crate) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(20)
}

/// A layout with `results` results of all N slots, nothing rounded away that matters.
pub(crate) fn layout(k: u32, n: u32, base_log: u32, levels: u32) -> Layout {
    let glwe = GlweParams::secure(k, n);
    Layout {
        glwe,
        gadget: Some(GadgetParams { base_log, levels }),
        selectors: 6,
        packed_inputs: 2,
        body_bits: noise::body_bits(glwe.log2_std),
        result_slots: vec![n],
        result_bits: 64,
        partitions: vec![],
        small_inputs: 0,
        lwe_results: vec![],
    }
}

pub(crate) fn task(scratch: u32, steps: Vec<Step>) -> Task {
    Task { scratch, steps }
}

/// One task, one result in shared slot 0.
pub(crate) fn plan(scratch: u32, steps: Vec<Step>) -> Plan {
    Plan { shared: 1, phases: vec![Phase { tasks: vec![task(scratch, steps)] }], results: vec![0], ..Plan::default() }
}

pub(crate) fn slots(slots: &[(Slot, i64)]) -> Form {
    Form { slots: slots.to_vec(), ..Form::default() }
}

pub(crate) fn constant(constant: &[(u32, u64)]) -> Form {
    Form { constant: constant.to_vec(), ..Form::default() }
}

pub(crate) fn packed(packed: &[(u32, u32, i64)]) -> Form {
    Form { packed: packed.to_vec(), ..Form::default() }
}

/// Random bits and random messages that are multiples of 2^44.
pub(crate) fn row(layout: &Layout, rng: &mut ChaCha20Rng) -> EncodedRow {
    let n = layout.glwe.polynomial_size;
    EncodedRow {
        selectors: (0..layout.selectors).map(|_| rng.random()).collect(),
        packed: (0..layout.packed_inputs).map(|_| (0..n).map(|_| rng.random::<u64>() << 44).collect()).collect(),
        small: Vec::new(),
    }
}

/// Decrypted less expected, per result and slot, as fractions of the torus.
pub(crate) fn errors(circuit: &Circuit, key: &ClientKey, row: &EncodedRow) -> Vec<Vec<f64>> {
    let query = encrypt(key, std::slice::from_ref(row)).unwrap();
    let decrypted = decrypt(key, &run(circuit, &query, None).unwrap()).unwrap().remove(0);
    let expected = interp::plan::evaluate(circuit.plan(), circuit.layout(), &row.inputs()).unwrap();
    let difference = |(got, want): (&u64, &u64)| got.wrapping_sub(*want) as i64 as f64 * (-64f64).exp2();
    decrypted.iter().zip(&expected).map(|(got, want)| got.iter().zip(want).map(difference).collect()).collect()
}

/// One plan for each kind of step, with a name: what the tests of evaluation and of noise run.
pub(crate) fn step_plans(layout: &Layout) -> Vec<(&'static str, Plan)> {
    let n = layout.glwe.polynomial_size;
    let scratch = Slot::Scratch;
    let out = Slot::Shared(0);
    let bit_form = Form { bits: vec![(0, 0, 3), (1, 5, -7), (0, n + 2, 1)], ..Form::default() };
    let cmux = |out, selector, base: Form, difference: Form| Step::CMux { out, selector, base, difference };
    let inputs = |at: u32| Step::Sum { out: scratch(at), form: packed(&[(at, 0, 1)]) };
    let table = constant(&(0..n).map(|at| (at, u64::from(at) << 50)).collect::<Vec<_>>());
    let polynomial = |scale: i64| (0..i64::from(n)).map(|at| (at * at) % 31 * scale - 15 * scale).collect::<Vec<i64>>();
    let choice = slots(&[(scratch(1), 1), (scratch(0), -1)]);
    vec![
        (
            "sum of packed terms",
            plan(0, vec![Step::Sum { out, form: packed(&[(0, 3, 2), (1, n + 7, -5), (0, 9, 1)]) }]),
        ),
        ("sum of bits", plan(0, vec![Step::Sum { out, form: bit_form }])),
        (
            "product of zero and one",
            plan(2, vec![inputs(0), inputs(1), cmux(out, 0, slots(&[(scratch(0), 1)]), choice.clone())]),
        ),
        (
            "clear branches",
            plan(0, vec![cmux(out, 1, constant(&[(0, 1 << 60)]), constant(&[(0, 3 << 58), (4, 5 << 58)]))]),
        ),
        (
            "chain of products",
            plan(3, {
                let mut steps = vec![inputs(0), inputs(1)];
                for selector in 0..6 {
                    let (from, to) = (if selector % 2 == 0 { 0 } else { 2 }, if selector % 2 == 0 { 2 } else { 0 });
                    let difference = slots(&[(scratch(1), 1), (scratch(from), -1)]);
                    steps.push(cmux(scratch(to), selector, slots(&[(scratch(from), 1)]), difference));
                }
                steps.push(Step::Sum { out, form: slots(&[(scratch(0), 2), (scratch(1), 1)]) });
                steps
            }),
        ),
        (
            "rotation",
            plan(0, vec![Step::Rotate { out, table, rotations: (0..6).map(|s| (s, 1 + 2 * s * s)).collect() }]),
        ),
        (
            "rotation of a ciphertext",
            plan(
                1,
                vec![
                    inputs(0),
                    Step::Rotate {
                        out,
                        table: slots(&[(scratch(0), 1)]),
                        rotations: vec![(0, 5), (1, n + 1), (2, 2 * n - 1)],
                    },
                ],
            ),
        ),
        ("small polynomial", plan(0, vec![Step::PolyMul { out, packed: 0, polynomial: polynomial(1) }])),
        (
            "polynomials",
            plan(
                2,
                vec![
                    Step::PolyMul { out: scratch(0), packed: 0, polynomial: polynomial(1) },
                    Step::PolyMul { out: scratch(1), packed: 1, polynomial: polynomial(-40_000) },
                    Step::Sum { out, form: slots(&[(scratch(0), -40_000), (scratch(1), 1)]) },
                ],
            ),
        ),
        (
            "shared products",
            // Two uses of one product, which add up coherently, and a third that cancels.
            plan(
                4,
                vec![
                    inputs(0),
                    inputs(1),
                    cmux(scratch(2), 0, slots(&[(scratch(0), 1)]), choice.clone()),
                    cmux(scratch(3), 1, slots(&[(scratch(2), 1)]), slots(&[(scratch(1), 1), (scratch(2), -1)])),
                    cmux(
                        out,
                        2,
                        slots(&[(scratch(3), 2), (scratch(2), 1)]),
                        slots(&[(scratch(2), 3), (scratch(3), -2)]),
                    ),
                ],
            ),
        ),
    ]
}

/// The shapes that the tests run, at most 2048 dimensions, one with several levels.
pub(crate) fn layouts() -> Vec<Layout> {
    vec![layout(4, 512, 15, 1), layout(1, 2048, 23, 1), layout(2, 1024, 12, 3), layout(7, 256, 8, 4)]
}
