//! `tacit profile`: what this machine's primitives cost, for the compiler's choice of parameters.

use super::{say, spinner};
use crate::args::Profile;
use crate::files;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tacit_client::{ClientKey, EncodedRow, encrypt};
use tacit_ir::artifact::v1::query_row_bytes;
use tacit_ir::cost::{self, CostProfile};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::noise;
use tacit_ir::params::{BootstrapParams, GadgetParams, GlweParams, LweParams};
use tacit_ir::plan::{Form, Layer, Layout, Network, Phase, Plan, Slot, Step, Task};
use tacit_runtime::{Circuit, EvaluationKey, prepare};

/// Shapes k, log2 N and levels that the steps of products are told apart by.
const SHAPES: [(u32, u32, u32); 5] = [(1, 11, 1), (2, 10, 1), (4, 9, 1), (2, 10, 2), (1, 11, 2)];
/// Selectors of the circuits: more than fit the second cache, as in real ones.
const SELECTORS: u32 = 64;
/// Ciphertexts of a batch.
const BATCH: usize = 16;

pub(super) fn run(args: &Profile) -> Result<()> {
    let bar = spinner("measuring");
    let profile = measured()?;
    bar.finish_and_clear();
    let mut text = String::from("# Nanoseconds of the steps of primitives on one core, measured by `tacit profile`.\n");
    text.push_str("# Give this file to `tacit compile` with --spec.\n[cost-profile]\n");
    let steps = serde_json::to_value(profile).map_err(|why| Diagnostic::internal(why.to_string()))?;
    let built_in = serde_json::to_value(CostProfile::default()).unwrap_or_default();
    for (name, value) in steps.as_object().into_iter().flatten() {
        text.push_str(&format!("{name} = {:.4} # built in: {}\n", value.as_f64().unwrap_or(0.0), built_in[name]));
    }
    match &args.output {
        Some(path) => {
            files::write(path, text.as_bytes())?;
            say(format!("wrote {}", path.display()));
        }
        None => say(text.trim_end()),
    }
    Ok(())
}

/// What primitives cost on one thread of this machine.
///
/// # Errors
/// Internal ones: where a thread cannot start, or a measured circuit does not run.
pub fn measured() -> Result<CostProfile> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_err(|why| Diagnostic::internal(format!("cannot start a thread: {why}")))?.install(measure)
}

/// Least nanoseconds of `work`, over repetitions for about a fifth of a second and at least three.
fn least(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let (start, mut least, mut repetitions) = (Instant::now(), f64::INFINITY, 0);
    while repetitions < 3 || start.elapsed() < Duration::from_millis(200) {
        let one = Instant::now();
        work()?;
        least = least.min(one.elapsed().as_secs_f64() * 1e9);
        repetitions += 1;
    }
    Ok(least)
}

/// The `a` and `b` with the least relative error of `a x + b y = z` over all `(x, y, z)`, neither below a tenth of what it
/// would be alone: noise of the clock must not make a cost vanish.
fn fit(points: &[(f64, f64, f64)]) -> (f64, f64) {
    let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(x, y, z)| of(x / z, y / z)).sum::<f64>();
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    let (x, y) = (sum(&|x, _| x), sum(&|_, y| y));
    let determinant = xx * yy - xy * xy;
    let (a, b) = ((x * yy - y * xy) / determinant, (y * xx - x * xy) / determinant);
    if a < 0.1 * x / xx {
        (0.1 * x / xx, 0.9 * y / yy)
    } else if b < 0.1 * y / yy {
        (0.9 * x / xx, 0.1 * y / yy)
    } else {
        (a, b)
    }
}

fn measure() -> Result<CostProfile> {
    let mut products = Vec::new();
    let mut rotations = Vec::new();
    let mut steps: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (k, log2_size, levels) in SHAPES {
        let glwe = GlweParams::secure(k, 1 << log2_size);
        let gadget = GadgetParams { base_log: 24 / levels, levels };
        let layout = layout(glwe, gadget, vec![]);
        // A row of arbitrary bytes takes as long as an encrypted one.
        let bytes: Vec<u8> =
            (0..query_row_bytes(&layout)).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
        let terms = terms(&layout)?;
        let row = prepare(&terms, &bytes);
        let evaluate = |circuit: &Circuit| least(|| circuit.evaluate(&row, None).map(drop));
        let term = evaluate(&terms)? / f64::from(SELECTORS);
        let chain = chain(&layout)?;
        let product = evaluate(&chain)? / f64::from(SELECTORS) - 2.0 * term;
        products.push((cost::fft_steps(&glwe, &gadget), cost::pointwise_steps(&glwe, &gadget), product.max(1.0)));
        let prepared = least(|| {
            drop(prepare(&chain, &bytes));
            Ok(())
        })?;
        let client = ClientKey::generate(&layout, [0; 32])?;
        let zeros = [EncodedRow::zeros(&layout)];
        let encrypted = least(|| encrypt(&client, &zeros).map(drop))?;
        let selectors = f64::from(SELECTORS) * cost::selector_steps(&glwe, &gadget);
        let mut push = |name, value| steps.entry(name).or_default().push(value);
        push("term", term / glwe.ciphertext_len() as f64);
        push("prepare", prepared / selectors);
        push("encrypt", encrypted / selectors);
        rotations.push(bootstrap(glwe, gadget, &mut push)?);
    }
    let median = |name: &str| {
        let mut values = steps.get(name).cloned().unwrap_or_default();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(1.0)
    };
    let (product_fft_ns, product_pointwise_ns) = fit(&products);
    let (rotation_fft_ns, rotation_pointwise_ns) = fit(&rotations);
    Ok(CostProfile {
        product_fft_ns,
        product_pointwise_ns,
        rotation_fft_ns,
        rotation_pointwise_ns,
        keyswitch_ns: median("keyswitch"),
        term_ns: median("term"),
        lwe_term_ns: median("lwe term"),
        prepare_ns: median("prepare"),
        encrypt_ns: median("encrypt"),
    })
}

fn layout(glwe: GlweParams, gadget: GadgetParams, partitions: Vec<BootstrapParams>) -> Layout {
    let network = !partitions.is_empty();
    Layout {
        glwe,
        gadget: (!network).then_some(gadget),
        selectors: if network { 0 } else { SELECTORS },
        packed_inputs: 1,
        body_bits: noise::body_bits(glwe.log2_std),
        result_slots: if network { vec![] } else { vec![1] },
        result_bits: 32,
        partitions,
        small_inputs: 0,
        lwe_results: if network { vec![BATCH as u32] } else { vec![] },
    }
}

fn circuit(layout: &Layout, steps: Vec<Step>) -> Result<Circuit> {
    let task = Task { scratch: 4, steps };
    let plan = Plan { shared: 1, phases: vec![Phase { tasks: vec![task] }], results: vec![0], ..Plan::default() };
    Circuit::new(layout.clone(), plan, [0; 32])
}

/// A sum of as many terms as there are selectors.
fn terms(layout: &Layout) -> Result<Circuit> {
    let shift = |at: u32| 17 * at % (2 * layout.glwe.polynomial_size);
    let form = Form { packed: (0..SELECTORS).map(|at| (0, shift(at), 3)).collect(), ..Form::default() };
    circuit(layout, vec![Step::Sum { out: Slot::Shared(0), form }])
}

/// A chain of CMuxes, each on a selector of its own, with the usual forms.
fn chain(layout: &Layout) -> Result<Circuit> {
    let input =
        |at: u32| Step::Sum { out: Slot::Scratch(at), form: Form { packed: vec![(0, at, 1)], ..Form::default() } };
    let mut steps = vec![input(0), input(1)];
    for at in 0..SELECTORS {
        let (from, to) = (if at == 0 { 0 } else { 2 + (at + 1) % 2 }, 2 + at % 2);
        steps.push(Step::CMux {
            out: if at + 1 == SELECTORS { Slot::Shared(0) } else { Slot::Scratch(to) },
            selector: at,
            base: Form { slots: vec![(Slot::Scratch(from), 1)], ..Form::default() },
            difference: Form { slots: vec![(Slot::Scratch(1), 1), (Slot::Scratch(from), -1)], ..Form::default() },
        });
    }
    circuit(layout, steps)
}

/// Steps and nanoseconds of a bootstrap in a batch; keyswitches and sums on the side.
fn bootstrap(
    glwe: GlweParams,
    gadget: GadgetParams,
    push: &mut impl FnMut(&'static str, f64),
) -> Result<(f64, f64, f64)> {
    let keyswitch = Some(GadgetParams { base_log: 4, levels: 3 });
    let params = BootstrapParams { lwe: LweParams::secure(768, 3), keyswitch, gadget, small_dimension: 0 };
    let layout = layout(glwe, gadget, vec![params]);
    let samples = Layer::Samples { small: false, first: 0, count: glwe.polynomial_size.min(512) };
    let columns = 0..glwe.polynomial_size.min(512);
    let sums = Layer::Affine {
        operands: vec![0],
        start: (0..=BATCH as u32).map(|row| row * columns.end).collect(),
        column: (0..BATCH).flat_map(|_| columns.clone()).collect(),
        weight: (0..BATCH as i32).flat_map(|row| columns.clone().map(move |column| row + column as i32 % 7)).collect(),
        constant: vec![0; BATCH],
    };
    let plan = Plan {
        network: Network { layers: vec![samples, sums], results: vec![1], ..Network::default() },
        ..Plan::default()
    };
    let circuit = Circuit::new(layout.clone(), plan, [0; 32])?;
    let bytes = vec![0x5a; query_row_bytes(&layout) as usize];
    let row = prepare(&circuit, &bytes);
    let words = f64::from(BATCH as u32 * columns.end) * f64::from(glwe.lwe_dimension() + 1);
    push("lwe term", least(|| circuit.evaluate(&row, None).map(drop))? / words);
    let client = ClientKey::generate(&layout, [0; 32])?;
    let missing = || Diagnostic::new(Code::Internal, "no evaluation key");
    let file = client.evaluation_key()?.ok_or_else(missing)?;
    let key = EvaluationKey::from_bytes(&file, &layout, &[0; 32])?;
    let key = key.partitions().first().ok_or_else(missing)?;
    let random = |count: u32| -> Vec<u32> { (0..count).map(|at| at.wrapping_mul(0x9e37_79b9)).collect() };
    let small = random(BATCH as u32 * (params.lwe.dimension + 1));
    let large = random(BATCH as u32 * (glwe.lwe_dimension() + 1));
    let tables = [random(glwe.polynomial_size)];
    let switched = least(|| {
        drop(key.keyswitch(&large));
        Ok(())
    })?;
    push("keyswitch", switched / BATCH as f64 / cost::keyswitch_steps(&glwe, &params));
    let rotated = least(|| {
        drop(key.bootstrap(&small, 1, &tables, &[0; BATCH]));
        Ok(())
    })?;
    let block = f64::from(params.lwe.block);
    let blocks = f64::from(params.lwe.dimension) / block;
    let (ffts, products) = (cost::fft_steps(&glwe, &gadget), (block + 1.0) * cost::pointwise_steps(&glwe, &gadget));
    Ok((blocks * ffts, blocks * products, rotated / BATCH as f64))
}
