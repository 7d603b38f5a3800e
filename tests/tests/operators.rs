//! Operations inside a network, each on small random inputs: the quantized circuit against the float interpreter, and its
//! encrypted evaluation against both.

use indicatif::ProgressBar;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use std::collections::BTreeMap;
use tacit::commands::encrypted_predictions;
use tacit_client::codec::Codec;
use tacit_compiler::compile;
use tacit_compiler::options::Options;
use tacit_compiler::passes::{DriverOptions, Ir, parse_ir};
use tacit_ir::interp::plan;
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};
use tacit_ir::plan::PlanCounts;

/// Elements of the values that operations are applied to.
const WIDTH: usize = 2;

/// Functions of one value, `a`, in float IR; the last line is the result. All are continuous where noise may lead.
const UNARY: &[(&str, &str)] = &[
    ("neg", r#"unary %a { kind = "neg" }"#),
    ("abs", r#"unary %a { kind = "abs" }"#),
    ("exp", r#"unary %a { kind = "exp" }"#),
    ("sigmoid", r#"unary %a { kind = "sigmoid" }"#),
    ("tanh", r#"unary %a { kind = "tanh" }"#),
    ("relu", r#"unary %a { kind = "relu" }"#),
    ("erf", r#"unary %a { kind = "erf" }"#),
    ("softplus", r#"unary %a { kind = "softplus" }"#),
    ("sin", r#"unary %a { kind = "sin" }"#),
    ("cos", r#"unary %a { kind = "cos" }"#),
    ("atan", r#"unary %a { kind = "atan" }"#),
    ("sinh", r#"unary %a { kind = "sinh" }"#),
    ("cosh", r#"unary %a { kind = "cosh" }"#),
    ("asinh", r#"unary %a { kind = "asinh" }"#),
    ("clip", "clip %a { low = -0.5, high = 0.75 }"),
    ("square", r#"binary %a, %a { kind = "mul" }"#),
];

/// Functions of a positive value, `p`.
const POSITIVE: &[(&str, &str)] = &[
    ("log", r#"unary %p { kind = "log" }"#),
    ("sqrt", r#"unary %p { kind = "sqrt" }"#),
    ("reciprocal", r#"unary %p { kind = "reciprocal" }"#),
    ("acosh", r#"unary %p { kind = "acosh" } above one"#),
    ("tan", r#"unary %a { kind = "tan" } halved"#),
    ("asin", r#"unary %a { kind = "asin" } halved"#),
    ("acos", r#"unary %a { kind = "acos" } halved"#),
    ("atanh", r#"unary %a { kind = "atanh" } halved"#),
    ("ceil", r#"unary %a { kind = "ceil" } step"#),
];

/// Operations of two values, `a` and `b`; `p` is positive.
const PAIRS: &[(&str, &str)] = &[
    ("add", r#"binary %a, %b { kind = "add" }"#),
    ("sub", r#"binary %a, %b { kind = "sub" }"#),
    ("mul", r#"binary %a, %b { kind = "mul" }"#),
    ("div", r#"binary %a, %p { kind = "div" }"#),
    ("max", r#"binary %a, %b { kind = "max" }"#),
    ("min", r#"binary %a, %b { kind = "min" }"#),
    ("reduce_l1", r#"reduce %a { kind = "l1", axes = i64[1] }"#),
    ("reduce_l2", r#"reduce %a { kind = "l2", axes = i64[1] }"#),
    ("reduce_sum_square", r#"reduce %a { kind = "sum_square", axes = i64[1] }"#),
    ("reduce_log_sum_exp", r#"reduce %a { kind = "log_sum_exp", axes = i64[1] }"#),
    ("reduce_max", r#"reduce %a { kind = "max", axes = i64[1] }"#),
    ("reduce_mean", r#"reduce %a { kind = "mean", axes = i64[1] }"#),
];

/// Comparisons and what reads them: steps, so that a value near one may come out on its other side.
const STEPS: &[(&str, &str)] = &[
    ("floor", r#"unary %a { kind = "floor" }"#),
    ("round", r#"unary %a { kind = "round" }"#),
    ("sign", r#"unary %a { kind = "sign" }"#),
    ("less", r#"binary %a, %b { kind = "less" } cast"#),
    ("less_or_equal", r#"binary %a, %b { kind = "less_or_equal" } cast"#),
    ("greater", r#"binary %a, %b { kind = "greater" } cast"#),
    ("greater_or_equal", r#"binary %a, %b { kind = "greater_or_equal" } cast"#),
];

/// A graph in which every operation lies between linear maps, which run encrypted.
fn graph(operations: &[(String, Vec<String>)]) -> String {
    let mut text = format!("tensor @operators version 1 {{\n  %0 = input {{ name = \"x\" }} : f32[?, {WIDTH}]\n");
    let mut next = 1;
    let mut line = |text: &mut String, op: &str| {
        text.push_str(&format!("  %{next} = {op}\n"));
        next += 1;
        format!("%{}", next - 1)
    };
    let a = line(&mut text, "linear %0 { outputs = 2, weights = f64[0.75, -0.5, 0.5, 1.0], bias = f64[0.1, -0.2] }");
    let b = line(&mut text, "linear %0 { outputs = 2, weights = f64[-0.5, 0.5, 0.25, -0.75], bias = f64[0.2, 0.1] }");
    let p = line(&mut text, "linear %0 { outputs = 2, weights = f64[0.25, 0.25, -0.5, 0.25], bias = f64[1.75, 2.0] }");
    let mut outputs = Vec::new();
    for (name, steps) in operations {
        let mut value = a.clone();
        for step in steps {
            // Into the function's domain first.
            if let Some(step) = step.strip_suffix(" halved") {
                let half = line(&mut text, "clip %a { low = -0.75, high = 0.75 }".replace("%a", &value).as_str());
                value = line(&mut text, &step.replace("%a", &half));
                continue;
            }
            if let Some(step) = step.strip_suffix(" above one") {
                let above = line(&mut text, "clip %p { low = 1.25 }".replace("%p", &p).as_str());
                value = line(&mut text, &step.replace("%p", &above));
                continue;
            }
            let step = step.trim_end_matches(" step").to_owned();
            let (step, cast) = step.strip_suffix(" cast").map_or((step.as_str(), false), |step| (step, true));
            let op = step.replace("%a", &value).replace("%b", &b).replace("%p", &p);
            value = line(&mut text, &op);
            if cast {
                value = line(&mut text, &format!("cast {value} {{ to = \"f32\" }}"));
            }
        }
        let outputs_of =
            if name.starts_with("reduce") { "weights = f64[1.0]" } else { "weights = f64[1.0, 0.0, 0.0, 1.0]" };
        let width = if name.starts_with("reduce") { 1 } else { 2 };
        let bias = if width == 1 { "f64[0.0]" } else { "f64[0.0, 0.0]" };
        let y = line(&mut text, &format!("linear {value} {{ outputs = {width}, {outputs_of}, bias = {bias} }}"));
        outputs.push(format!("  output \"{name}\" = {y}\n"));
    }
    text + &outputs.concat() + "}\n"
}

/// Random rows, the same in every run.
fn rows(count: usize, seed: u64) -> BTreeMap<String, TensorValue> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let data = (0..count * WIDTH).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    BTreeMap::from([("x".to_owned(), TensorValue { shape: vec![count, WIDTH], data: Data::F32(data) })])
}

/// Checks each operation: the errors of at least `share` of the values, over the output's range, are at most 5 % in the
/// clear circuit and 20 % encrypted.
fn check(operations: &[(String, Vec<String>)], settings: &str, share: f64) {
    check_text(&graph(operations), settings, share);
}

/// The same of the outputs of a float graph; counts what the circuit does.
fn check_text(text: &str, settings: &str, share: f64) -> PlanCounts {
    let Ir::Tensor(model) = parse_ir(text).unwrap_or_else(|why| panic!("{why}\n{text}")) else {
        panic!("a float graph was written");
    };
    let options: Options = serde_json::from_str(settings).unwrap();
    let compiled = compile(model.clone(), &options, &rows(400, 1), &DriverOptions::default()).unwrap();
    let codec = Codec::new(&compiled.artifact).unwrap();
    let judge = |name: &str, found: &[f64], expected: &[f64], allowed: f64, kind: &str| {
        let (low, high) = expected.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
        let good = found.iter().zip(expected).filter(|(a, b)| (*a - *b).abs() <= allowed * (high - low)).count();
        let found_share = good as f64 / found.len() as f64;
        assert!(found_share >= share, "{name}, {kind}: {found_share} of {} values", found.len());
    };
    let inputs = rows(100, 2);
    let batch = codec.encode(&inputs).unwrap();
    let plan = compiled.artifact.plan.as_ref().unwrap();
    let layout = &compiled.artifact.client.layout;
    assert!(layout.glwe.is_secure() && layout.partitions.iter().all(|params| params.lwe.is_secure()));
    let clear = batch.rows.iter().map(|row| plan::simulate(plan, layout, &row.inputs(), None).unwrap());
    let clear = codec.decode(&clear.collect::<Vec<_>>(), &batch.passed).unwrap();
    let float = evaluate(&model, &inputs).unwrap();
    for (name, expected) in &float {
        judge(name, &clear[name].to_f64().unwrap(), &expected.to_f64().unwrap(), 0.05, "clear");
    }
    let inputs = rows(20, 3);
    let (evaluation, passed) =
        encrypted_predictions(&compiled.artifact, &codec, &inputs, &ProgressBar::hidden()).unwrap();
    let found = codec.decode(&evaluation.results, &passed).unwrap();
    for (name, expected) in &evaluate(&model, &inputs).unwrap() {
        judge(name, &found[name].to_f64().unwrap(), &expected.to_f64().unwrap(), 0.2, "encrypted");
    }
    plan.counts()
}

const ROTATED: &str = r#"{"input-bits": 6, "weight-bits": 6, "noise-share": 0.05}"#;
const BOOTSTRAPPED: &str = r#"{"input-bits": 8, "weight-bits": 6, "noise-share": 0.05, "regime": "bootstrap"}"#;

fn alone(operations: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
    operations.iter().map(|(name, op)| ((*name).to_owned(), vec![(*op).to_owned()])).collect()
}

#[test]
fn each_elementwise_operation_runs_encrypted() {
    for settings in [ROTATED, BOOTSTRAPPED] {
        check(&alone(UNARY), settings, 0.97);
        check(&alone(STEPS), settings, 0.8);
        check(&alone(POSITIVE), settings, 0.8);
    }
}

#[test]
fn operations_of_two_encrypted_values_run_encrypted() {
    check(&alone(PAIRS), BOOTSTRAPPED, 0.95);
}

/// The two tables of each sum of a concatenated ReLU are results of one bootstrap, and those of four functions of one value.
#[test]
fn tables_of_one_sum_share_a_bootstrap() {
    let text = |functions: &[&str]| {
        let mut text = r#"tensor @shared version 1 {
          %0 = input { name = "x" } : f32[?, 2]
          %1 = linear %0 { outputs = 2, weights = f64[0.75, -0.5, 0.5, 1.0], bias = f64[0.1, -0.2] }
          %2 = unary %1 { kind = "neg" }
        "#
        .to_owned();
        let mut values = Vec::new();
        for (at, function) in (3..).zip(functions) {
            text.push_str(&format!("%{at} = unary {function}\n"));
            values.push(format!("%{at}"));
        }
        let next = 3 + values.len();
        let weights: Vec<&str> = ["1.0", "0.5", "-0.5", "0.75"].into_iter().cycle().take(4 * values.len()).collect();
        let weights = weights.join(", ");
        text + &format!(
            "%{next} = concat {} {{ axis = 1 }}\n\
             %{} = linear %{next} {{ outputs = 2, weights = f64[{weights}], bias = f64[0.0, 0.5] }}\n\
             output \"y\" = %{}\n}}\n",
            values.join(", "),
            next + 1,
            next + 1
        )
    };
    let crelu = text(&[r#"%1 { kind = "relu" }"#, r#"%2 { kind = "relu" }"#]);
    let four = text(&[
        r#"%1 { kind = "relu" }"#,
        r#"%2 { kind = "softplus" }"#,
        r#"%1 { kind = "tanh" }"#,
        r#"%2 { kind = "abs" }"#,
    ]);
    let settings = r#"{"input-bits": 8, "weight-bits": 6, "noise-share": 0.1, "regime": "bootstrap""#;
    for (text, tables) in [(&crelu, 4), (&four, 8)] {
        let apart = check_text(text, &format!("{settings}, \"share-rotations\": false}}"), 0.95);
        assert_eq!(apart.bootstraps, tables);
        let shared = check_text(text, &format!("{settings}}}"), 0.95);
        assert!(shared.bootstraps <= tables / 2, "{} of {tables}", shared.bootstraps);
    }
}

/// Every pair of operations that become one table.
#[test]
fn each_pair_of_elementwise_operations_runs_encrypted() {
    for (first, op) in UNARY {
        let pairs = UNARY
            .iter()
            .map(|(second, then)| (format!("{first}_{second}"), vec![(*op).to_owned(), (*then).to_owned()]));
        check(&pairs.collect::<Vec<_>>(), ROTATED, 0.95);
    }
}
