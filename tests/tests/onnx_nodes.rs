//! ONNX's own backend node tests through the importer and the float interpreter. `spec/onnx-node-tests.md` is what they said of
//! each operator; `TACIT_UPDATE_SPEC=1` writes it anew.
//!
//! `TACIT_ONNX_NODES` names a folder that `python tests/onnx_nodes.py FOLDER` wrote; without it nothing is tested. What the
//! importer refuses as unsupported is counted, and every other difference from the expected outputs fails.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the counts are what a run is for")]

use onnx_protobuf::{GraphProto, Message, ModelProto, TensorProto, ValueInfoProto};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tacit_compiler::frontend::onnx;
use tacit_ir::diag::{Code, Diagnostic};
use tacit_ir::interp::tensor::{self, Data, TensorValue};
use tacit_ir::stage::tensor::Element;
use tacit_tests::{examples, networks};

/// Relative and absolute tolerance of ONNX's test runner.
const TOLERANCE: (f64, f64) = (1e-3, 1e-7);

/// A first dimension of 1 is imported as the batch, which may not meet another size.
const BATCH: &str = "a batch of 1 beside another size";

/// Tests that are refused on purpose, with other codes than those of unsupported nodes.
const KNOWN: &[(&str, &str)] = &[
    ("test_and_bcast4v4d", BATCH),
    ("test_attention_local_window_ext_cache_rank2_mask_expanded", BATCH),
    ("test_equal_string_broadcast", BATCH),
    ("test_matmul_bcast", BATCH),
    ("test_mod_broadcast", BATCH),
    ("test_or_bcast4v4d", BATCH),
    ("test_squeeze", BATCH),
    ("test_xor_bcast4v4d", BATCH),
];

fn read<M: Message>(path: &Path) -> M {
    M::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

/// The tensors `input_0.pb`, `input_1.pb` and so on.
fn tensors(folder: &Path, kind: &str) -> Vec<TensorProto> {
    let paths = (0..).map(|at| folder.join("test_data_set_0").join(format!("{kind}_{at}.pb")));
    paths.take_while(|path| path.exists()).map(|path| read(&path)).collect()
}

/// A tensor's value, read as a constant of a model.
fn value(tensor: &TensorProto) -> Result<TensorValue, Diagnostic> {
    let mut named = tensor.clone();
    named.name = "value".to_owned();
    let output = ValueInfoProto { name: "value".to_owned(), ..Default::default() };
    let graph = GraphProto { initializer: vec![named], output: vec![output], ..Default::default() };
    let model = ModelProto { ir_version: 8, graph: Some(graph).into(), ..Default::default() };
    let graph = onnx::import(&model.write_to_bytes().unwrap(), &Default::default())?;
    Ok(tensor::evaluate(&graph, &BTreeMap::new())?.swap_remove("value").unwrap())
}

/// The outputs with all inputs but the first `varying` turned into initializers.
fn run(model: &ModelProto, inputs: &[TensorProto], varying: usize) -> Result<Vec<TensorValue>, Diagnostic> {
    let mut model = model.clone();
    let graph = model.graph.as_mut().unwrap();
    let mut given = BTreeMap::new();
    let declared: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    for (at, (tensor, name)) in inputs.iter().zip(declared).enumerate() {
        if at < varying {
            given.insert(name, value(tensor)?);
        } else {
            graph.initializer.push(TensorProto { name, ..tensor.clone() });
        }
    }
    let graph = onnx::import(&model.write_to_bytes().unwrap(), &Default::default())?;
    Ok(tensor::evaluate(&graph, &given)?.into_values().collect())
}

fn compare(found: &[TensorValue], expected: &[TensorValue]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{} outputs, expected {}", found.len(), expected.len()));
    }
    for (found, expected) in found.iter().zip(expected) {
        let (types, shapes) = ((found.data.element(), expected.data.element()), (&found.shape, &expected.shape));
        if types.0 != types.1 || shapes.0 != shapes.1 {
            return Err(format!("{types:?} of shapes {shapes:?}"));
        }
        if let (Data::Str(a), Data::Str(b)) = (&found.data, &expected.data) {
            if a != b {
                return Err(format!("{a:?}, expected {b:?}"));
            }
            continue;
        }
        let exact = !matches!(types.0, Element::F32 | Element::F64);
        let (a, b) = (found.to_f64().unwrap(), expected.to_f64().unwrap());
        let same = |a: f64, b: f64| {
            a == b || (a.is_nan() && b.is_nan()) || (!exact && (a - b).abs() <= TOLERANCE.1 + TOLERANCE.0 * b.abs())
        };
        if let Some(at) = a.iter().zip(&b).position(|(&a, &b)| !same(a, b)) {
            return Err(format!("value {at} of {:?} is {}, expected {}", shapes.0, a[at], b[at]));
        }
    }
    Ok(())
}

enum Outcome {
    /// Whether any input varied, so that more than folding was tested.
    Passed(bool),
    Unsupported,
    Failed(String),
}

/// As many inputs as possible vary: the operation itself is then tested, not only its folding.
fn outcome(folder: &Path) -> Outcome {
    let model: ModelProto = read(&folder.join("model.onnx"));
    let inputs = tensors(folder, "input");
    let unsupported =
        |why: &Diagnostic| matches!(why.code, Code::OpUnsupported | Code::VariantUnsupported | Code::OpsetUnsupported);
    let expected: Result<Vec<TensorValue>, Diagnostic> = tensors(folder, "output").iter().map(value).collect();
    let Ok(expected) = expected else { return Outcome::Unsupported };
    for varying in [inputs.len(), 1, 0] {
        match run(&model, &inputs, varying) {
            Ok(found) => {
                return compare(&found, &expected).map_or_else(Outcome::Failed, |()| Outcome::Passed(varying > 0));
            }
            Err(why) if unsupported(&why) => {}
            Err(why) => return Outcome::Failed(why.to_string()),
        }
    }
    Outcome::Unsupported
}

#[test]
fn node_tests_pass_or_are_unsupported() {
    let Some(root) = std::env::var_os("TACIT_ONNX_NODES").map(PathBuf::from) else {
        eprintln!("TACIT_ONNX_NODES is not set; no node test was run");
        return;
    };
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("model.onnx").exists());
    folders.sort();
    let (mut passed, mut folded, mut unsupported, mut failed) = (0, 0, Vec::new(), Vec::new());
    let mut operators: BTreeMap<String, Tests> = BTreeMap::new();
    for folder in &folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let outcome = outcome(folder);
        let own = operators.entry(operator(folder, &name)).or_default();
        match &outcome {
            Outcome::Passed(_) => own.passed.push(name.clone()),
            Outcome::Unsupported | Outcome::Failed(_) => own.refused.push(name.clone()),
        }
        match (outcome, KNOWN.iter().find(|(known, _)| *known == name)) {
            (Outcome::Passed(varied), None) => {
                passed += 1;
                folded += usize::from(!varied);
            }
            (Outcome::Passed(_), Some(_)) => failed.push(format!("{name}: is listed, but passes")),
            (Outcome::Unsupported, _) => unsupported.push(name),
            (Outcome::Failed(_), Some((name, why))) => unsupported.push(format!("{name} ({why})")),
            (Outcome::Failed(why), None) => failed.push(format!("{name}: {why}")),
        }
    }
    println!("unsupported: {}", unsupported.join(" "));
    println!(
        "{passed} passed ({folded} only with every input constant), {} unsupported, {} failed",
        unsupported.len(),
        failed.len()
    );
    assert!(failed.is_empty(), "{} of {} tests:\n{}", failed.len(), folders.len(), failed.join("\n"));
    assert!(passed > 0, "no tests in the folder");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/onnx-node-tests.md");
    add_own(&mut operators);
    let table = table(&operators, &accepted_versions(&root), passed, unsupported.len());
    if std::env::var_os("TACIT_UPDATE_SPEC").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == table, "{} is out of date", path.display());
}

/// The tests of an operator.
#[derive(Default)]
struct Tests {
    /// Node tests.
    passed: Vec<String>,
    refused: Vec<String>,
    /// Models of `tests/operators`, which run encrypted.
    encrypted: Vec<String>,
    /// Models of the zoo and of the examples.
    models: usize,
}

/// Our own tests of operators: by name, and by what is in the models.
fn add_own(operators: &mut BTreeMap<String, Tests>) {
    for case in tacit_tests::operators::cases() {
        let operator = case.name.split('_').next().unwrap().to_owned();
        operators.entry(operator).or_default().encrypted.push(case.name);
    }
    let examples = examples().into_iter().chain(networks()).map(|example| example.folder.join("model.onnx"));
    for path in tacit_tests::zoo::cases().into_iter().map(|case| case.path).chain(examples) {
        let model: ModelProto = read(&path);
        let used: BTreeSet<&str> = model.graph.node.iter().map(|node| node.op_type.as_str()).collect();
        for operator in used {
            operators.entry(operator.to_owned()).or_default().models += 1;
        }
    }
}

/// For each operator: the versions of it that models of accepted operator sets have.
fn accepted_versions(root: &Path) -> BTreeMap<String, String> {
    let lines = std::fs::read_to_string(root.join("versions.txt")).expect("tests/onnx_nodes.py wrote versions.txt");
    let accepted = |line: &str| {
        let mut words = line.split(' ');
        let (domain, name) = (words.next()?, words.next()?);
        let known = &onnx::OPSETS[usize::from(domain == "ai.onnx.ml")];
        let since: Vec<i64> = words.map(|word| word.parse().unwrap()).collect();
        // The version that the oldest set has, and all later ones.
        let oldest = since.iter().rposition(|version| version <= known.start()).unwrap_or(0);
        let own: Vec<String> =
            since[oldest..].iter().filter(|version| *version <= known.end()).map(i64::to_string).collect();
        Some((name.to_owned(), own.join(", ")))
    };
    lines.lines().filter_map(accepted).collect()
}

/// What is said of operators in `tests/operators/limits.txt`.
fn limits() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("../operators/limits.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').expect("an operator and a sentence")).collect()
}

/// The operator that a test is about: of its only node, or of the model that it expands, by the test's name.
fn operator(folder: &Path, name: &str) -> String {
    let model: ModelProto = read(&folder.join("model.onnx"));
    match model.graph.node.as_slice() {
        [only] => only.op_type.clone(),
        _ if name.ends_with("_expanded") => "(functions, expanded)".to_owned(),
        _ => "(several)".to_owned(),
    }
}

fn table(
    operators: &BTreeMap<String, Tests>,
    versions: &BTreeMap<String, String>,
    passed: usize,
    refused: usize,
) -> String {
    let [standard, ml] = &onnx::OPSETS;
    let mut out = format!(
        "# Operators: versions, limits, tests\n\nWritten by the test `onnx_nodes` (`tests/tests/onnx_nodes.rs`), which fails where it is out of date. Of ONNX's node tests\n{passed} pass, {refused} are refused, none differs. Versions are those that models of the operator sets {} to {} (ai.onnx.ml: {} to {})\ncan have. Encrypted are the models of `tests/operators` that the test `onnx_operators` runs; models counts those of the zoo\nand the examples. Operators with no test that passes are listed at the end. What a refusal says names the node and what\ncould be done.\n\n| operator | versions | limits | encrypted | models | node tests passed | refused |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        standard.start(),
        standard.end(),
        ml.start(),
        ml.end()
    );
    let limits = limits();
    let unknown: Vec<_> = limits.keys().filter(|name| !operators.contains_key(**name)).collect();
    assert!(unknown.is_empty(), "limits of operators without a test: {unknown:?}");
    let is_tested = |tests: &Tests| !tests.passed.is_empty() || !tests.encrypted.is_empty() || tests.models > 0;
    for (operator, tests) in operators.iter().filter(|(_, tests)| is_tested(tests)) {
        let names = |all: &[String], most: usize| {
            let short: Vec<&str> = all.iter().take(most).map(|name| name.trim_start_matches("test_")).collect();
            let more = all.len().saturating_sub(most);
            short.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
        };
        let Tests { passed, refused, encrypted, models } = tests;
        let counted = if passed.is_empty() { String::new() } else { format!("{}: {}", passed.len(), names(passed, 4)) };
        out += &format!(
            "| {operator} | {} | {} | {} | {models} | {counted} | {} |\n",
            versions.get(operator).map_or("", String::as_str),
            limits.get(operator.as_str()).unwrap_or(&""),
            encrypted.join(", "),
            names(refused, 12),
        );
    }
    let none: Vec<&str> =
        operators.iter().filter(|(_, tests)| !is_tested(tests)).map(|(name, _)| name.as_str()).collect();
    out + &format!("\nRefused altogether: {}.\n", none.join(", "))
}
