//! Every `tests/passes/<pass>/*.tir` goes through that one pass.
//!
//! The result is a snapshot; it must parse back to the same graph; a second run must change nothing (for passes that stay
//! in their stage); and on random inputs the interpreter must give the same values before and after.

use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;
use tacit_compiler::options::Options;
use tacit_compiler::passes::{DriverOptions, Ir, PASSES, PassCx, parse_ir, print_ir, run_passes};
use tacit_ir::interp::integer::{Row, evaluate_circuit, evaluate_quant};
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};
use tacit_ir::stage::circuit::CircuitOp;
use tacit_ir::stage::quant::QuantOp;
use tacit_ir::stage::tensor::{Dim, Element, TensorOp};

/// Random rows; the seed is fixed, so a failure repeats.
const ROWS: usize = 200;
const SEED: u64 = 7;

#[test]
fn passes_by_file() {
    insta::glob!("passes/*/*.tir", check);
}

/// A pass without a test file is not tested.
#[test]
fn every_pass_has_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/passes");
    for pass in PASSES {
        let folder = root.join(pass.info.name);
        let files = std::fs::read_dir(&folder).map_or(0, |entries| {
            entries
                .filter_map(Result::ok)
                .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "tir"))
                .count()
        });
        assert!(files > 0, "{} has no test file", pass.info.name);
    }
}

fn check(path: &Path) {
    let pass = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap();
    let source = std::fs::read_to_string(path).unwrap();
    // `; set key=value` lines choose options; `; calibrate` draws calibration rows as the test's rows are; `; tolerance x`
    // allows for quantization where a stage is lowered.
    let mut options = serde_json::Map::new();
    for line in source.lines().filter_map(|line| line.strip_prefix("; set ")) {
        let (key, value) = line.split_once('=').expect("`; set key=value`");
        options.insert(key.trim().to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into()));
    }
    let tolerance = source.lines().find_map(|line| line.strip_prefix("; tolerance "));
    let tolerance = tolerance.map_or(2e-3, |value| value.parse().expect("`; tolerance number`"));
    let options: Options = serde_json::from_value(options.into()).expect("known options");
    let before = parse_ir(&source).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut calibration: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    if source.lines().any(|line| line == "; calibrate") {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(SEED + 1);
        for (name, values) in (0..ROWS).flat_map(|_| random_row(&before, &mut rng)) {
            calibration.entry(name).or_default().push(values);
        }
    }
    let run = |ir: Ir| {
        let mut cx = PassCx::new(&options, &calibration);
        run_passes(ir, &[pass], &mut cx, &DriverOptions::default())
    };
    let shown = match run(before.clone()) {
        Err(why) => format!("{why}\n"),
        Ok((after, reports)) => {
            let text = print_ir(&after);
            assert_eq!(
                parse_ir(&text).unwrap_or_else(|why| panic!("{why}\n{text}")),
                after,
                "parsing what was printed"
            );
            if before.stage() == after.stage() {
                let (again, _) = run(after.clone()).unwrap();
                assert_eq!(print_ir(&again), text, "a second run of `{pass}`");
            }
            assert_same_values(&before, &after, tolerance, pass == "encrypt-head");
            let counters: Vec<String> = reports[0].counters.iter().map(|(what, n)| format!("; {n} {what}\n")).collect();
            format!("{}{text}", counters.concat())
        }
    };
    insta::with_settings!({
        snapshot_path => path.parent().unwrap(),
        snapshot_suffix => "",
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => source.lines().next().unwrap_or_default().trim_start_matches("; "),
    }, {
        insta::assert_snapshot!(path.file_stem().unwrap().to_str().unwrap(), shown);
    });
}

/// Values near every boundary, and others.
fn random_row(ir: &Ir, rng: &mut impl Rng) -> Row {
    let mut row = Row::new();
    let coded = |row: &mut Row, value: &str, features: &[tacit_ir::stage::quant::CodedFeature], rng: &mut _| {
        let columns = features.iter().map(|f| f.column as usize + 1).max().unwrap_or(1);
        let mut values = vec![0.0; columns];
        for feature in features {
            values[feature.column as usize] = near(&feature.boundaries, rng);
        }
        row.insert(value.to_owned(), values);
    };
    match ir {
        Ir::Tensor(graph) => {
            let thresholds: Vec<f64> = graph
                .values()
                .flat_map(|id| match &graph.node(id).op {
                    TensorOp::TreeEnsemble { threshold, .. } => threshold.clone(),
                    _ => vec![0.0],
                })
                .collect();
            for id in graph.values() {
                if let TensorOp::Input { name } = &graph.node(id).op {
                    let columns = graph.node(id).ty.columns().unwrap_or(1);
                    let values = (0..columns).map(|_| f64::from(near(&thresholds, rng) as f32)).collect();
                    row.insert(name.clone(), values);
                }
            }
        }
        Ir::Quant(graph) => {
            for id in graph.values() {
                match &graph.node(id).op {
                    QuantOp::Codes { value, features, .. } => coded(&mut row, value, features, rng),
                    QuantOp::Reals { value, columns } => {
                        row.insert(value.clone(), (0..*columns).map(|_| rng.random_range(-2.0..2.0)).collect());
                    }
                    _ => {}
                }
            }
        }
        Ir::Circuit(graph) => {
            for id in graph.values() {
                match &graph.node(id).op {
                    CircuitOp::Codes { value, features, .. } => coded(&mut row, value, features, rng),
                    CircuitOp::Reals { value, columns } => {
                        row.insert(value.clone(), (0..*columns).map(|_| rng.random_range(-2.0..2.0)).collect());
                    }
                    _ => {}
                }
            }
        }
    }
    row
}

fn near(boundaries: &[f64], rng: &mut impl Rng) -> f64 {
    let at = rng.random_range(0..=boundaries.len());
    let base = boundaries.get(at).copied().unwrap_or(0.0);
    base + [0.0, 0.0, -0.25, 0.25, 3.0, -3.0][rng.random_range(0..6)]
}

fn values(ir: &Ir, row: &Row) -> Row {
    match ir {
        Ir::Tensor(graph) => {
            let mut inputs = BTreeMap::new();
            for id in graph.values() {
                if let TensorOp::Input { name } = &graph.node(id).op {
                    let ty = &graph.node(id).ty;
                    let fixed = ty.shape.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 });
                    let value = TensorValue { shape: fixed.collect(), data: Data::F64(row[name].clone()) };
                    let value = if ty.element == Element::F32 { value.cast(Element::F32).unwrap() } else { value };
                    inputs.insert(name.clone(), value);
                }
            }
            let out = evaluate(graph, &inputs).unwrap();
            out.into_iter().map(|(name, value)| (name, value.to_f64().unwrap())).collect()
        }
        Ir::Quant(graph) => evaluate_quant(graph, row).unwrap(),
        Ir::Circuit(graph) => evaluate_circuit(graph, row).unwrap(),
    }
}

/// `leaves_out`: the pass may leave outputs out.
fn assert_same_values(before: &Ir, after: &Ir, when_lowered: f64, leaves_out: bool) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(SEED);
    let lowered = before.stage() != after.stage();
    for _ in 0..ROWS {
        let row = random_row(before, &mut rng);
        let (mut a, b) = (values(before, &row), values(after, &row));
        if leaves_out {
            a.retain(|name, _| b.contains_key(name));
        }
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (name, a) in &a {
            for (a, b) in a.iter().zip(&b[name]) {
                // Lowering rounds weights; everything else is exact up to the order of float sums.
                let tolerance = if lowered { when_lowered } else { 1e-6 } * a.abs().max(1.0);
                assert!((a - b).abs() <= tolerance, "{name}: {a} before, {b} after, for {row:?}");
            }
        }
    }
}
