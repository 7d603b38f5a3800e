//! Small networks as torch's exporters, skl2onnx, onnxruntime's quantizer and Brevitas write them, against onnxruntime's answers
//! (without its graph optimizations): the float interpreter, the integer stage, and the circuit with its predicted noise drawn.
//! Which operators of which exporter are in the models of the zoo and the examples is a table in `spec/onnx-operators.md`.
#![allow(clippy::print_stdout, reason = "how far each network is off, with --nocapture")]

use onnx_protobuf::{Message, ModelProto, NodeProto};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_ir::graph::Graph;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::interp::{plan, tensor};
use tacit_ir::stage::tensor::Tensor;
use tacit_tests::zoo::{NetworkCase, cases, flat, network_cases, refusal};
use tacit_tests::{difference, examples, networks};

/// One unit of the last quantization.
fn limit(case: &NetworkCase, unit: f64) -> f64 {
    unit * if MIDWAY.contains(&case.case.name.as_str()) { 3.001 } else { 1.001 }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { f64::max(a, *b) })
}

fn import(case: &NetworkCase) -> Result<Graph<Tensor>, String> {
    let bytes = std::fs::read(&case.case.path).unwrap();
    onnx::import(&bytes, &Default::default()).map_err(|why| why.to_string())
}

/// Runs `check` on every network, on all cores, and reports all failures at once.
fn every(stages: &[&str], check: impl Fn(&NetworkCase) -> Result<String, String> + Sync) {
    let cases = network_cases();
    assert!(cases.len() >= 224, "{} networks", cases.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = &case.case.name;
            match (check(case), refusal(name, stages)) {
                (Ok(note), None) => println!("{name}: {note}"),
                (Err(why), Some(code)) if why.starts_with(code) => {}
                (Err(why), _) => failures.lock().unwrap().push(format!("{name}: {why}")),
                (Ok(_), Some(_)) => failures.lock().unwrap().push(format!("{name}: is no longer refused")),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} networks:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn the_float_interpreter_equals_onnxruntime() {
    every(&["import"], |case| {
        let found = tensor::evaluate(&import(case)?, &case.case.inputs).map_err(|why| why.to_string())?;
        let scale = largest(&flat(&case.case.expected)).max(1.0);
        let limit = case.unit.map_or(2e-5 * scale, |unit| limit(case, unit));
        let found = difference(&found, &case.case.expected);
        let error = if found.labels > 0 { f64::INFINITY } else { found.floats };
        if error <= limit { Ok(format!("{error:e}")) } else { Err(format!("differs by {error:e} of {limit:e}")) }
    });
}

/// Means of quantized values often lie midway between two integers, and float sums decide by their rounding errors which one they
/// are rounded to: onnxruntime's own levels of optimization differ by two units on this one. Ours is to even (`spec/quantized.md`).
const MIDWAY: &[&str] = &["cnn_average_pool_qdq_u8_channel"];

/// Rows of the same class: the same label, or the same position of the greatest score.
fn classes_agree(found: &TensorValue, expected: &TensorValue) -> usize {
    let classes = |value: &TensorValue| -> Vec<i64> {
        match &value.data {
            Data::I64(labels) => labels.clone(),
            _ => {
                let best = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
                value.to_f64().unwrap().chunks(value.columns()).map(|row| best(row) as i64).collect()
            }
        }
    };
    classes(found).iter().zip(classes(expected)).filter(|(a, b)| **a == *b).count()
}

/// The integer stage of quantized networks is within one unit of the last quantization on every output of every row; circuits
/// with drawn noise give the class of the float model on 17 rows of 20 (the models are far from sure), with outputs about as near as
/// was asked.
#[test]
fn integers_are_exact_and_simulated_circuits_agree() {
    every(&["import", "compile"], |case| {
        let (compiled, allowed) = case.compile().map_err(|why| why.to_string())?;
        let codec = Codec::new(&compiled.artifact).map_err(|why| why.to_string())?;
        let mut note = String::new();
        if let Some(unit) = case.unit {
            let found = codec.in_integers(&compiled.artifact, &case.case.inputs).map_err(|why| why.to_string())?;
            let own = case.errors(&found);
            let off = own.iter().filter(|error| **error > 0.5 * unit).count();
            note = format!("{off} of {} off, at most by {:.3} units; ", own.len(), largest(&own) / unit);
            if largest(&own) > limit(case, unit) || off * 10 > own.len() {
                return Err(format!("{note}too many, or by more than one unit"));
            }
        }
        let batch = codec.encode(&case.case.inputs).map_err(|why| why.to_string())?;
        let (circuit, layout) = (compiled.artifact.plan.as_ref().unwrap(), &compiled.artifact.client.layout);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut draw = |std: f64| std * rng.sample::<f64, _>(StandardNormal);
        let results: Result<Vec<_>, _> =
            batch.rows.iter().map(|row| plan::simulate(circuit, layout, &row.inputs(), Some(&mut draw))).collect();
        let found =
            codec.decode(&results.map_err(|why| why.to_string())?, &batch.passed).map_err(|why| why.to_string())?;
        let rows = batch.rows.len();
        let agreed = case.case.expected.iter().map(|(name, expected)| classes_agree(&found[name], expected)).min();
        let agreed = agreed.ok_or("no output")?;
        let (own, expected) = (case.errors(&found), flat(&case.case.expected));
        // Of labels nothing but their number counts.
        if expected.is_empty() {
            note += &format!("simulated {agreed} of {rows}");
            return if agreed * 20 >= rows * 17 { Ok(note) } else { Err(note) };
        }
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        let deviation =
            |values: &mut dyn Iterator<Item = f64>| (values.map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
        let error = deviation(&mut own.iter().copied()) / deviation(&mut expected.iter().map(|x| x - mean));
        note += &format!("simulated {agreed} of {rows}, error {error:.4} of the outputs' deviation");
        if agreed * 20 >= rows * 17 && error <= 2.0 * allowed { Ok(note) } else { Err(note) }
    });
}

/// The heading of the table of exported operators, which ends `spec/onnx-operators.md`.
const EXPORTED: &str = "## As exporters write them\n";

/// What models of torch and skl2onnx are made of: of each of these there is one that agrees with onnxruntime. Softsign they write as
/// Abs, Add and Div.
const USUAL: &[&str] = &[
    "Abs",
    "Add",
    "ArgMax",
    "AveragePool 1-D",
    "AveragePool 2-D",
    "BatchNormalization",
    "Celu",
    "Clip",
    "Concat",
    "Conv 1-D",
    "Conv 1-D, asymmetric pads",
    "Conv 1-D, auto_pad",
    "Conv 1-D, dilations",
    "Conv 1-D, groups",
    "Conv 1-D, strides",
    "Conv 2-D",
    "Conv 2-D, asymmetric pads",
    "Conv 2-D, auto_pad",
    "Conv 2-D, dilations",
    "Conv 2-D, groups",
    "Conv 2-D, strides",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Flatten",
    "Gelu",
    "Gelu, tanh",
    "Gemm",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MatMul",
    "MaxPool 1-D",
    "MaxPool 2-D",
    "Mul",
    "Neg",
    "PRelu",
    "Pad, constant",
    "Pad, edge",
    "Pad, reflect",
    "Pow",
    "Relu",
    "Reshape",
    "Selu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Sub",
    "Tanh",
    "Transpose",
];

/// The forms of an operator that a node has: its name, with the number of axes of windows, and with each thing that is not plain.
fn forms(node: &NodeProto) -> Vec<String> {
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let ints = |name: &str| attribute(name).map_or(&[][..], |attribute| &attribute.ints);
    let text = |name: &str| attribute(name).map_or("", |own| std::str::from_utf8(&own.s).unwrap_or_default());
    let op = match node.op_type.as_str() {
        "Pad" if text("mode").is_empty() => "Pad, constant".to_owned(),
        "Pad" => format!("Pad, {}", text("mode")),
        "Gelu" if text("approximate") == "tanh" => "Gelu, tanh".to_owned(),
        op if ints("kernel_shape").is_empty() => op.to_owned(),
        op => format!("{op} {}-D", ints("kernel_shape").len()),
    };
    let pads = ints("pads");
    let (begin, end) = pads.split_at(pads.len() / 2);
    let set = |name: &str, plain: i64| attribute(name).is_some_and(|attribute| attribute.i != plain);
    let more = [
        ("groups", set("group", 1)),
        ("strides", ints("strides").iter().any(|stride| *stride > 1)),
        ("dilations", ints("dilations").iter().any(|dilation| *dilation > 1)),
        ("pads", begin == end && pads.iter().any(|pad| *pad > 0)),
        ("asymmetric pads", begin != end),
        ("auto_pad", !matches!(text("auto_pad"), "" | "NOTSET")),
        ("ceil_mode", set("ceil_mode", 0)),
        ("pads counted", set("count_include_pad", 0)),
    ];
    let more = more.into_iter().filter(|(_, own)| *own).map(|(what, _)| format!("{op}, {what}"));
    std::iter::once(op.clone()).chain(more).collect()
}

/// Models by operator and exporter, with the code of a refusal.
type Exported = BTreeMap<String, BTreeMap<&'static str, Vec<(String, Option<&'static str>)>>>;

fn exported() -> Exported {
    let own = network_cases().into_iter().map(|network| network.case).chain(cases());
    let own = own.map(|case| (case.name, case.path));
    let examples =
        examples().into_iter().chain(networks()).map(|own| (own.name.clone(), own.folder.join("model.onnx")));
    let mut all: Vec<(String, PathBuf)> = own.chain(examples).collect();
    all.sort();
    all.dedup_by(|a, b| a.0 == b.0);
    let mut found = Exported::new();
    for (name, path) in all {
        let model = ModelProto::parse_from_bytes(&std::fs::read(&path).unwrap()).unwrap();
        let exporter = match model.producer_name.as_str() {
            "pytorch" if name.starts_with("brevitas") => "Brevitas",
            "pytorch" if name.ends_with("_dynamo") => "torch",
            "pytorch" => "torch, TorchScript",
            "onnx.quantize" => "onnxruntime's quantizer",
            "skl2onnx" => "skl2onnx",
            "OnnxMLTools" => "onnxmltools",
            "CatBoost" => "CatBoost",
            // Made by hand, node by node.
            _ => continue,
        };
        let forms: BTreeSet<String> = model.graph.node.iter().flat_map(forms).collect();
        for form in forms {
            let models = found.entry(form).or_default().entry(exporter).or_default();
            models.push((name.clone(), refusal(&name, &["import", "compile"])));
        }
    }
    found
}

/// `TACIT_UPDATE_SPEC=1` writes the table anew.
#[test]
fn the_table_of_exported_operators_is_up_to_date() {
    let found = exported();
    let agrees = |op: &&str| {
        let by = |exporter: &str| found.get(*op).and_then(|own| own.get(exporter)).into_iter().flatten();
        let models = ["torch", "torch, TorchScript", "skl2onnx"].into_iter().flat_map(by);
        models.filter(|(_, refusal)| refusal.is_none()).count() > 0
    };
    let missing: Vec<&str> = USUAL.iter().copied().filter(|op| !agrees(op)).collect();
    assert!(missing.is_empty(), "no exported model has {missing:?}");
    let names = |models: &[&str]| {
        let more = models.len().saturating_sub(3);
        let first = models.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{}: {first} and {more} more", models.len()) } else { first }
    };
    let mut table = format!(
        "{EXPORTED}\nWritten by the test `zoo_networks` from the models of the zoo and the examples. A model that agrees compiles, and its circuit\ngives onnxruntime's answers in simulation (tests `zoo`, `zoo_networks`, `networks`, `examples_clear`). Models made by hand are not\ncounted. E0801 are networks that no calibration rows are given for in test `zoo`. Neither exporter of torch writes Softsign: it is Abs, Add and Div.\n\n| operator | exporter | models that agree | refused |\n| --- | --- | --- | --- |\n"
    );
    for (form, exporters) in &found {
        for (exporter, models) in exporters {
            let agreed: Vec<&str> =
                models.iter().filter(|(_, code)| code.is_none()).map(|(name, _)| name.as_str()).collect();
            let refused = models.iter().filter_map(|(name, code)| code.map(|code| format!("{name} ({code})")));
            let refused = refused.collect::<Vec<_>>().join(", ");
            table += &format!("| {form} | {exporter} | {} | {refused} |\n", names(&agreed));
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/onnx-operators.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let before = text.split_once(EXPORTED).map_or(text.as_str(), |(before, _)| before);
    let new = format!("{before}{table}");
    if std::env::var_os("TACIT_UPDATE_SPEC").is_some() {
        std::fs::write(&path, &new).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == new, "{} is out of date", path.display());
}
