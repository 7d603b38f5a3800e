//! The figures of the network examples, and how networks grow: `cargo bench -p tacit-tests --bench networks [-- growth]`;
//! a part of an example's name restricts it. With `-- tables`, random networks with concatenated ReLUs, whose two tables of a sum
//! may share a rotation, beside themselves without sharing. With `-- bootstrap`, every layer is bootstrapped, so that the efficiency is that
//! of regime R2 alone, and each network is also measured with one parameter set for all bootstraps where it has several.
//!
//! Parameters are chosen, and times predicted, by what `tacit profile` finds on this machine before.
//!
//! Medians; bootstraps and keyswitches alone are measured in the same run, on the same keys. The efficiency (`effic.`) is the
//! time of the bootstraps alone over that of the run, both on two threads and in turn; `cpu` is the same of the time that all
//! threads are on a processor, which other programs disturb less.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::collections::BTreeMap;
use std::time::Instant;
use tacit_client::codec::Codec;
use tacit_client::{ClientKey, encrypt};
use tacit_compiler::options::{Options, RegimeRule};
use tacit_compiler::passes::DriverOptions;
use tacit_ir::artifact::Artifact;
use tacit_ir::cost::CostProfile;
use tacit_ir::graph::{Graph, Loc, ValueId};
use tacit_ir::interp::tensor::TensorValue;
use tacit_ir::params::BootstrapParams;
use tacit_ir::plan::Layout;
use tacit_ir::stage::tensor::{Element, Tensor, TensorOp, TensorType, UnaryKind};
use tacit_runtime::{Circuit, EvaluationKey, PartitionKey, PreparedRow, Query, prepare};
use tacit_tests::timing::{Clocks, median_ms, ms, peak_mb, pool, reset_peak};
use tacit_tests::{Example, networks};

/// Evaluations timed.
const TIMES: usize = 7;
/// Ciphertexts of a batch measured alone.
const ALONE: usize = 64;

fn main() {
    let only: Option<String> = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let cost_profile = tacit::commands::measured_costs().expect("primitives run");
    header();
    if only.as_deref() == Some("growth") {
        growth(&cost_profile);
        return;
    }
    if only.as_deref() == Some("tables") {
        tables(&cost_profile);
        return;
    }
    let bootstrap = only.as_deref() == Some("bootstrap");
    let mut options = Options { cost_profile, ..Options::default() };
    if bootstrap {
        // A first layer that is bootstrapped is less accurate than a rotated one; only time is looked at here.
        options = Options { regime: Some(RegimeRule::Bootstrap), max_accuracy_loss: 0.05, ..options };
    }
    let only = only.filter(|_| !bootstrap);
    for example in networks() {
        if only.as_ref().is_some_and(|only| !example.name.contains(only)) {
            continue;
        }
        let ready = compile(&example, &example.name, &options);
        if bootstrap && ready.layout.partitions.len() > 1 {
            let single = Options { partitions: 1, ..options.clone() };
            let single = compile(&example, &format!("{}, one set", example.name), &single);
            compare(&format!("{} sets", ready.layout.partitions.len()), &ready, &single);
        }
    }
}

/// Compiles and measures an example.
fn compile(example: &Example, name: &str, options: &Options) -> Ready {
    reset_peak();
    let start = Instant::now();
    let compiled = example.compile(options).expect("examples compile");
    let compile = start.elapsed().as_secs_f64();
    let codec = Codec::new(&compiled.artifact).expect("a fresh artifact");
    let inputs = example.inputs(&codec).expect("the test rows");
    measure(name, &compiled.artifact, &inputs, &options.cost_profile, compile)
}

/// Runs of two circuits of a network, in turn on two threads: what the first saves.
fn compare(what: &str, first: &Ready, second: &Ready) {
    let pair = |_| [first, second].map(|ready| Clocks::of(|| ready.run()));
    let pairs: Vec<[Clocks; 2]> = pool(2).install(|| (0..TIMES).map(pair).collect());
    let [first_ms, second_ms] = [0, 1].map(|at| Clocks::median(&pairs.iter().map(|pair| pair[at]).collect::<Vec<_>>()));
    println!(
        "  {what}: {:.1} % less than the next, {:.1} % of the time on processors",
        100.0 * (1.0 - first_ms.wall / second_ms.wall),
        100.0 * (1.0 - first_ms.cpu / second_ms.cpu)
    );
}

fn header() {
    println!(
        "{:<36} {:>5} {:>5} {:>5} {:>7} {:>20} {:>6} {:>8} {:>8} {:>7} {:>6} {:>5} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>8} {:>6}",
        "network",
        "prods",
        "pbs",
        "ks",
        "k,N",
        "n,l of each set",
        "pbs ms",
        "run ms",
        "run2 ms",
        "speedup",
        "effic.",
        "cpu",
        "ks/pbs",
        "pred.",
        "prep",
        "key MB",
        "query K",
        "res. K",
        "compile",
        "MB"
    );
}

/// A circuit with its keys and a row.
struct Ready {
    layout: Layout,
    circuit: Circuit,
    key: Option<EvaluationKey>,
    row: PreparedRow,
}

impl Ready {
    fn run(&self) {
        drop(self.circuit.evaluate(&self.row, self.key.as_ref()).expect("an evaluation"));
    }

    /// Work for each bootstrap of a run, measured alone: in batches, partition by partition; with `switched` only for those of
    /// partitions that have keyswitches.
    fn alone(&self, switched: bool, mut work: impl FnMut(&PartitionKey, &BootstrapParams)) -> Clocks {
        let mut sum = Clocks::default();
        let bootstraps = self.circuit.plan().network.bootstraps(self.layout.partitions.len());
        let keys = self.key.iter().flat_map(|key| key.partitions());
        let partitions = keys.zip(&self.layout.partitions).zip(bootstraps);
        for ((key, params), bootstraps) in partitions.filter(|((_, own), _)| !switched || own.keyswitch.is_some()) {
            let share = bootstraps as f64 / ALONE as f64;
            let own = Clocks::of(|| work(key, params));
            sum = Clocks { wall: sum.wall + share * own.wall, cpu: sum.cpu + share * own.cpu };
        }
        sum
    }

    fn bootstraps_alone(&self, switched: bool) -> Clocks {
        self.alone(switched, |key, params| {
            let tables = vec![random(self.layout.glwe.polynomial_size as usize)];
            drop(key.bootstrap(&random(ALONE * (params.lwe.dimension as usize + 1)), 1, &tables, &[0; ALONE]));
        })
    }

    fn keyswitches_alone(&self) -> Clocks {
        let words = random(ALONE * (self.layout.glwe.lwe_dimension() as usize + 1));
        self.alone(true, |key, _| drop(key.keyswitch(&words)))
    }
}

fn random(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect()
}

/// Prints a line.
fn measure(
    name: &str,
    artifact: &Artifact,
    inputs: &BTreeMap<String, TensorValue>,
    costs: &CostProfile,
    compile: f64,
) -> Ready {
    let compile_mb = peak_mb();
    reset_peak();
    let layout = artifact.client.layout.clone();
    let plan = artifact.plan.clone().expect("a whole artifact");
    let counts = plan.counts();
    let predicted_ms = costs.plan_us(&layout, &plan) / 1e3;
    let circuit = Circuit::new(layout.clone(), plan, artifact.digest).expect("a checked plan");
    let client = ClientKey::generate(&layout, artifact.digest).expect("a key");
    let key_file = client.evaluation_key().expect("a key");
    let key =
        key_file.as_ref().map(|bytes| EvaluationKey::from_bytes(bytes, &layout, &artifact.digest).expect("sound"));
    let batch = Codec::new(artifact).and_then(|codec| codec.encode(inputs)).expect("test rows encode");
    let query = encrypt(&client, &batch.rows[..1]).expect("encryption");
    let parsed = Query::read(&circuit, &query).expect("a fresh query");
    let bytes = parsed.rows().next().expect("one row");
    let row = prepare(&circuit, bytes);
    let (one, two) = (pool(1), pool(2));
    let prepare_ms = one.install(|| median_ms(3, || drop(prepare(&circuit, bytes))));
    let ready = Ready { layout, circuit, key, row };
    // The first of each warms the caches.
    let times =
        |count: usize, work: &dyn Fn() -> Clocks| -> Vec<Clocks> { (0..=count).map(|_| work()).skip(1).collect() };
    let run = || Clocks::of(|| ready.run());
    let run_ms = one.install(|| Clocks::median(&times(TIMES, &run)).wall);
    let alone = one.install(|| Clocks::median(&times(TIMES, &|| ready.bootstraps_alone(false))).wall);
    let keyswitches = one.install(|| Clocks::median(&times(TIMES, &|| ready.keyswitches_alone())).wall);
    let keyswitched = one.install(|| Clocks::median(&times(TIMES, &|| ready.bootstraps_alone(true))).wall);
    let pair = |_| [run(), ready.bootstraps_alone(false)];
    let pairs: Vec<[Clocks; 2]> = two.install(|| (0..=TIMES).map(pair).skip(1).collect());
    let [run2, alone2] = [0, 1].map(|at| Clocks::median(&pairs.iter().map(|pair| pair[at]).collect::<Vec<_>>()));
    let layout = &ready.layout;
    let sets: Vec<String> =
        layout.partitions.iter().map(|params| format!("{},{}", params.lwe.dimension, params.gadget.levels)).collect();
    println!(
        "{name:<36} {:>5} {:>5} {:>5} {:>7} {:>20} {:>6.2} {run_ms:>8.1} {:>8.1} {:>7.2} {:>6.2} {:>5.2} {:>6.3} {:>6.2} {prepare_ms:>6.1} {:>7.1} {:>7.0} {:>7.0} {compile:>8.1} {:>6.0}",
        counts.external_products,
        counts.bootstraps,
        counts.keyswitches,
        format!("{},{}", layout.glwe.dimension, layout.glwe.polynomial_size),
        sets.join(" "),
        alone / counts.bootstraps as f64,
        run2.wall,
        run_ms / run2.wall,
        alone2.wall / run2.wall,
        alone2.cpu / run2.cpu,
        keyswitches / keyswitched,
        // Over what one thread takes, preparing included.
        predicted_ms / (run_ms + prepare_ms),
        key_file.map_or(0, |bytes| bytes.len()) as f64 / 1e6,
        query.len() as f64 / 1e3,
        tacit_ir::artifact::v1::result_row_bytes(layout) as f64 / 1e3,
        compile_mb.max(peak_mb()),
    );
    ready
}

/// Random networks of 64 inputs, ten outputs and ReLU layers of the same width, with bits as the examples have them.
fn growth(costs: &CostProfile) {
    for depth in [1usize, 2, 4, 8] {
        for width in [32usize, 64, 128] {
            reset_peak();
            let options = Options {
                input_bits: Some(4),
                weight_bits: Some(4),
                noise_share: Some(0.2),
                cost_profile: *costs,
                ..Options::default()
            };
            let start = Instant::now();
            let compiled = tacit_compiler::compile(mlp(width, depth), &options, &rows(256), &DriverOptions::default());
            match compiled {
                Ok(compiled) => {
                    let compile = start.elapsed().as_secs_f64();
                    measure(&format!("{depth} layers of {width}"), &compiled.artifact, &rows(1), costs, compile);
                }
                Err(why) => println!("{depth} layers of {width}: {why} ({:.1} s)", ms(start) / 1e3),
            }
        }
    }
}

/// Random networks with concatenated ReLUs, every layer bootstrapped: two tables of each sum.
fn tables(costs: &CostProfile) {
    for (width, depth) in [(32, 1), (32, 2), (64, 2), (32, 4)] {
        let options = Options {
            input_bits: Some(4),
            weight_bits: Some(4),
            noise_share: Some(0.2),
            regime: Some(RegimeRule::Bootstrap),
            cost_profile: *costs,
            ..Options::default()
        };
        let graph = mlp_of(width, depth, |graph, x| {
            let relu = |graph: &mut Graph<Tensor>, x| {
                graph.push(TensorOp::Unary { kind: UnaryKind::Relu }, vec![x], None, Loc::Unknown).expect("a ReLU")
            };
            let neg = TensorOp::Unary { kind: UnaryKind::Neg };
            let minus = graph.push(neg, vec![x], None, Loc::Unknown).expect("a negative");
            let both = vec![relu(graph, x), relu(graph, minus)];
            graph.push(TensorOp::Concat { axis: 1 }, both, None, Loc::Unknown).expect("a concatenation")
        });
        let ready = |share_rotations: bool| {
            let options = Options { share_rotations, ..options.clone() };
            let start = Instant::now();
            let compiled = tacit_compiler::compile(graph.clone(), &options, &rows(256), &DriverOptions::default());
            let artifact = compiled.expect("a network compiles").artifact;
            let compile = start.elapsed().as_secs_f64();
            let name = format!("{depth} x {width}, {}", if share_rotations { "shared" } else { "apart" });
            measure(&name, &artifact, &rows(1), costs, compile)
        };
        compare("shared", &ready(true), &ready(false));
    }
}

/// Uniform in [-1, 1), the same every time.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as f64 / f64::from(1u32 << 30) - 1.0
}

fn rows(count: usize) -> BTreeMap<String, TensorValue> {
    let mut state = 7;
    let values = (0..count * 64).map(|_| uniform(&mut state) as f32).collect();
    BTreeMap::from([("x".to_owned(), TensorValue::f32(vec![count, 64], values))])
}

fn mlp(width: usize, depth: usize) -> Graph<Tensor> {
    mlp_of(width, depth, |graph, x| {
        graph.push(TensorOp::Unary { kind: UnaryKind::Relu }, vec![x], None, Loc::Unknown).expect("an activation")
    })
}

fn mlp_of(width: usize, depth: usize, activate: impl Fn(&mut Graph<Tensor>, ValueId) -> ValueId) -> Graph<Tensor> {
    let mut state = 1u64;
    let mut graph = Graph::new("mlp");
    let input = TensorOp::Input { name: "x".to_owned() };
    let ty = Some(TensorType::rows(Element::F32, 64));
    let mut x = graph.push(input, vec![], ty, Loc::Unknown).expect("an input");
    let mut columns = 64;
    for layer in 0..=depth {
        let outputs = if layer == depth { 10 } else { width };
        // He initialisation keeps activations' sizes from layer to layer.
        let scale = (6.0 / columns as f64).sqrt();
        let weights = (0..outputs * columns).map(|_| scale * uniform(&mut state)).collect();
        let op = TensorOp::Linear { outputs, weights, bias: vec![0.01; outputs] };
        x = graph.push(op, vec![x], None, Loc::Unknown).expect("a layer");
        columns = outputs;
        if layer < depth {
            x = activate(&mut graph, x);
            columns = graph.node(x).ty.columns().expect("rows");
        }
    }
    graph.output("y", x);
    graph
}
