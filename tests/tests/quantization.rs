//! Quantization of networks: how ranges are found, steps for outputs or layers, grids around zero; saturation far outside of the
//! calibration rows; and what folding leaves over.

use indicatif::ProgressBar;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use std::collections::BTreeMap;
use tacit::commands::encrypted_predictions;
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::{Options, RangeRule, RegimeRule};
use tacit_compiler::passes::{DriverOptions, Ir, parse_ir};
use tacit_compiler::{Compiled, compile};
use tacit_ir::artifact::Artifact;
use tacit_ir::graph::Graph;
use tacit_ir::interp::plan;
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};
use tacit_ir::stage::tensor::Tensor;

type Matrix = Vec<Vec<f64>>;
type Inputs = BTreeMap<String, TensorValue>;

const WIDTH: usize = 4;

fn matrix(rows: usize, columns: usize, rng: &mut ChaCha20Rng) -> Matrix {
    (0..rows).map(|_| (0..columns).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
}

/// Linear maps with rectifiers between them, without biases.
fn layers(widths: &[usize], seed: u64) -> Vec<Matrix> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    widths.windows(2).map(|pair| matrix(pair[1], pair[0], &mut rng)).collect()
}

fn network(layers: &[Matrix]) -> Graph<Tensor> {
    let mut text =
        format!("tensor @network version 1 {{\n  %0 = input {{ name = \"x\" }} : f32[?, {}]\n", layers[0][0].len());
    let mut last = 0;
    for (at, weights) in layers.iter().enumerate() {
        let numbers = |all: &[f64]| all.iter().map(|x| format!("{x:?}")).collect::<Vec<_>>().join(", ");
        let (outputs, flat) = (weights.len(), numbers(&weights.concat()));
        let bias = numbers(&vec![0.0; outputs]);
        text += &format!(
            "  %{} = linear %{last} {{ outputs = {outputs}, weights = f64[{flat}], bias = f64[{bias}] }}\n",
            last + 1
        );
        last += 1;
        if at + 1 < layers.len() {
            text += &format!("  %{} = unary %{last} {{ kind = \"relu\" }}\n", last + 1);
            last += 1;
        }
    }
    match parse_ir(&format!("{text}  output \"y\" = %{last}\n}}\n")) {
        Ok(Ir::Tensor(graph)) => graph,
        other => panic!("{text}: {other:?}"),
    }
}

fn inputs(rows: &[Vec<f64>]) -> Inputs {
    let data = rows.iter().flatten().map(|x| *x as f32).collect();
    BTreeMap::from([("x".to_owned(), TensorValue { shape: vec![rows.len(), rows[0].len()], data: Data::F32(data) })])
}

fn rows(count: usize, columns: usize, seed: u64) -> Vec<Vec<f64>> {
    matrix(count, columns, &mut ChaCha20Rng::seed_from_u64(seed))
}

/// What the circuit gives in clear, without noise.
fn clear(artifact: &Artifact, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let codec = Codec::new(artifact).unwrap();
    let batch = codec.encode(&inputs(rows)).unwrap();
    let (plan, layout) = (artifact.plan.as_ref().unwrap(), &artifact.client.layout);
    let results: Vec<_> =
        batch.rows.iter().map(|row| plan::simulate(plan, layout, &row.inputs(), None).unwrap()).collect();
    let outputs = codec.decode(&results, &batch.passed).unwrap();
    split(outputs.values().next().unwrap())
}

fn split(value: &TensorValue) -> Vec<Vec<f64>> {
    value.to_f64().unwrap().chunks(value.columns()).map(<[f64]>::to_vec).collect()
}

fn float(model: &Graph<Tensor>, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    split(evaluate(model, &inputs(rows)).unwrap().values().next().unwrap())
}

/// The error's deviation over the values' own, of one column or of all.
fn error(found: &[Vec<f64>], expected: &[Vec<f64>], column: Option<usize>) -> f64 {
    let pick = |rows: &[Vec<f64>]| -> Vec<f64> {
        rows.iter().flat_map(|row| column.map_or(row.clone(), |at| vec![row[at]])).collect()
    };
    let (found, expected) = (pick(found), pick(expected));
    let mean = expected.iter().sum::<f64>() / expected.len() as f64;
    let squares: f64 = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum();
    (squares / expected.iter().map(|x| (x - mean).powi(2)).sum::<f64>()).sqrt()
}

fn fixed(range: RangeRule, per_channel: bool, symmetric: bool) -> Options {
    Options {
        range,
        per_channel,
        symmetric,
        input_bits: Some(6),
        weight_bits: Some(6),
        noise_share: Some(0.2),
        regime: Some(RegimeRule::Bootstrap),
        ..Options::default()
    }
}

fn compiled(model: &Graph<Tensor>, calibration: &[Vec<f64>], options: &Options) -> Compiled {
    compile(model.clone(), options, &inputs(calibration), &DriverOptions::default()).unwrap()
}

/// The first and the last point of each input's grid, and whether zero is one.
fn grids(artifact: &Artifact) -> Vec<(f64, f64, bool)> {
    let features = artifact.client.features().unwrap().concat();
    let of = |boundaries: &[f64]| {
        let step = boundaries[1] - boundaries[0];
        let (low, high) = (boundaries[0] - step / 2.0, boundaries[boundaries.len() - 1] + step / 2.0);
        let zeros = -low / step;
        (low, high, (zeros - zeros.round()).abs() < 1e-6)
    };
    features.iter().map(|feature| of(&feature.boundaries)).collect()
}

/// Every rule, with steps for outputs and layers, on both kinds of grids: at most 6 % error on rows that were not calibrated
/// on (inputs and weights of six bits, activations of eight).
#[test]
fn every_rule_agrees_with_the_float_model() {
    let model = network(&layers(&[WIDTH, 6, 3], 1));
    // Off the middle: ranges differ from ranges around zero.
    let shifted = |count, seed| -> Vec<Vec<f64>> {
        rows(count, WIDTH, seed).iter().map(|row| row.iter().map(|x| x + 0.4).collect()).collect()
    };
    let (calibration, test) = (shifted(1500, 2), shifted(300, 3));
    let expected = float(&model, &test);
    let mut circuits = Vec::new();
    for range in [RangeRule::MinMax, RangeRule::Percentile, RangeRule::Mse] {
        for per_channel in [true, false] {
            for symmetric in [false, true] {
                let artifact = compiled(&model, &calibration, &fixed(range, per_channel, symmetric)).artifact;
                let error = error(&clear(&artifact, &test), &expected, None);
                assert!(error <= 0.06, "{range:?}, per channel {per_channel}, symmetric {symmetric}: {error}");
                for (low, high, zero) in grids(&artifact) {
                    let middle = (low + high) / (high - low);
                    assert_eq!(middle.abs() < 1e-6, symmetric, "{low} to {high}");
                    assert!(zero || !symmetric, "{low} to {high}");
                    // The calibration rows are from -0.6 to 1.4.
                    let expected = if symmetric { -1.4 } else { -0.6 };
                    assert!((low - expected).abs() < 0.15 && (high - 1.4).abs() < 0.15, "{range:?}: {low} to {high}");
                }
                circuits.push(artifact.digest);
            }
        }
    }
    circuits.sort();
    circuits.dedup();
    // The rule of mean squares takes the whole range of what is spread evenly, as the least and the greatest.
    assert!(circuits.len() >= 8, "{}", circuits.len());
}

/// A grid around zero lets values through that no calibration row has: a rectifier that none of them bends still does.
#[test]
fn grids_around_zero_keep_tables_of_what_they_let_through() {
    let model = network(&[vec![vec![1.0, 0.5], vec![0.25, 1.0]], vec![vec![1.0, -0.5]]]);
    let above: Vec<Vec<f64>> = rows(400, 2, 16).iter().map(|row| row.iter().map(|x| 1.0 + x / 2.0).collect()).collect();
    let below: Vec<Vec<f64>> = above.iter().map(|row| row.iter().map(|x| -x).collect()).collect();
    let options = |symmetric| fixed(RangeRule::MinMax, true, symmetric);
    let artifact = compiled(&model, &above, &options(true)).artifact;
    assert!(operations(&artifact, "quant").contains(&"lookup".to_owned()));
    let widest = float(&model, &above).concat().into_iter().fold(0.0, f64::max);
    for value in clear(&artifact, &below).concat() {
        assert!(value.abs() <= 0.05 * widest, "{value}, at most {widest}");
    }
    // Where they saturate at what calibration rows have, the rectifier is none.
    assert!(!operations(&compiled(&model, &above, &options(false)).artifact, "quant").contains(&"lookup".to_owned()));
}

#[test]
fn an_outlier_moves_the_least_and_the_greatest_alone() {
    let model = network(&layers(&[WIDTH, 6, 3], 4));
    let (mut calibration, test) = (rows(3000, WIDTH, 5), rows(300, WIDTH, 6));
    calibration[1234] = vec![40.0; WIDTH];
    let expected = float(&model, &test);
    for symmetric in [false, true] {
        let mut highest = Vec::new();
        let mut errors = Vec::new();
        for range in [RangeRule::MinMax, RangeRule::Percentile, RangeRule::Mse] {
            let options = Options { activation_bits: 5, input_bits: Some(5), ..fixed(range, true, symmetric) };
            let artifact = compiled(&model, &calibration, &options).artifact;
            highest.push(grids(&artifact)[0].1);
            errors.push(error(&clear(&artifact, &test), &expected, None));
        }
        let [min_max, percentile, mse] = highest[..] else { panic!("three rules") };
        assert!((min_max - 40.0).abs() < 1e-3, "{highest:?}");
        assert!((percentile - 1.0).abs() < 0.02, "{highest:?}");
        // Half of it at the least: further in the outlier's own error weighs more.
        assert!((19.0..39.0).contains(&mse), "{highest:?}");
        // What the outlier costs the other rows, of inputs and of activations.
        assert!(errors[1] < 0.1 && errors[0] > 3.0 * errors[1] && errors[2] <= errors[0], "{errors:?}");
    }
}

#[test]
fn steps_of_their_own_keep_small_outputs() {
    let mut layers = layers(&[WIDTH, 6, 3], 7);
    layers[1][2].iter_mut().for_each(|weight| *weight /= 50.0);
    let model = network(&layers);
    let (calibration, test) = (rows(400, WIDTH, 8), rows(300, WIDTH, 9));
    let expected = float(&model, &test);
    let own = |per_channel| {
        let artifact = compiled(&model, &calibration, &fixed(RangeRule::MinMax, per_channel, false)).artifact;
        let found = clear(&artifact, &test);
        (error(&found, &expected, Some(0)), error(&found, &expected, Some(2)))
    };
    let ((large, small), (large_shared, small_shared)) = (own(true), own(false));
    assert!(large < 0.06 && small < 0.06 && large_shared < 0.06, "{large} {small} {large_shared}");
    assert!(small_shared > 5.0 * small, "{small_shared} with one step for the layer, {small} with its own");
}

/// The network in floats, where every input and every activation saturates at what the calibration rows reach.
fn saturating(layers: &[Matrix], calibration: &[Vec<f64>], rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let limits = |values: &[Vec<f64>]| -> Vec<(f64, f64)> {
        (0..values[0].len())
            .map(|at| values.iter().fold((f64::MAX, f64::MIN), |(a, b), row| (a.min(row[at]), b.max(row[at]))))
            .collect()
    };
    let within = |row: &[f64], limits: &[(f64, f64)]| -> Vec<f64> {
        row.iter().zip(limits).map(|(x, (low, high))| x.clamp(*low, *high)).collect()
    };
    let apply = |weights: &Matrix, row: &[f64]| -> Vec<f64> {
        weights.iter().map(|own| own.iter().zip(row).map(|(w, x)| w * x).sum()).collect()
    };
    let (mut known, mut found) = (calibration.to_vec(), rows.to_vec());
    for (at, weights) in layers.iter().enumerate() {
        let limits = limits(&known);
        found = found.iter().map(|row| apply(weights, &within(row, &limits))).collect();
        known = known.iter().map(|row| apply(weights, row)).collect();
        if at + 1 < layers.len() {
            for row in found.iter_mut().chain(&mut known) {
                row.iter_mut().for_each(|x| *x = x.max(0.0));
            }
        }
    }
    found
}

/// Inputs up to a million times their range give what the ends of their range give, and activations that leave their range
/// saturate, layer by layer; nothing wraps around.
#[test]
fn what_lies_far_outside_saturates() {
    let layers = layers(&[WIDTH, 6, 6, 5, 2], 10);
    let model = network(&layers);
    // Narrow calibration rows: corners of their range lead every activation far out of its own.
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    let calibration: Vec<Vec<f64>> = (0..400)
        .map(|_| {
            let common: f64 = rng.random_range(-1.0..1.0);
            (0..WIDTH).map(|_| common + rng.random_range(-0.2..0.2)).collect()
        })
        .collect();
    let limits: Vec<(f64, f64)> = (0..WIDTH)
        .map(|at| calibration.iter().fold((f64::MAX, f64::MIN), |(a, b), row| (a.min(row[at]), b.max(row[at]))))
        .collect();
    let far: Vec<Vec<f64>> = rows(600, WIDTH, 12)
        .iter()
        .enumerate()
        .map(|(number, row)| {
            let factor = [3.0, 100.0, 1e6][number % 3];
            // One input or all.
            row.iter().enumerate().map(|(at, x)| if number % 5 > 3 && at > 0 { *x } else { x * factor }).collect()
        })
        .collect();
    let clamped: Vec<Vec<f64>> =
        far.iter().map(|row| row.iter().zip(&limits).map(|(x, (low, high))| x.clamp(*low, *high)).collect()).collect();
    let expected = saturating(&layers, &calibration, &far);
    let (low, high) = expected.iter().flatten().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
    for regime in [RegimeRule::Rotate, RegimeRule::Bootstrap] {
        let options = Options { regime: Some(regime), ..fixed(RangeRule::MinMax, true, false) };
        let artifact = compiled(&model, &calibration, &options).artifact;
        let found = clear(&artifact, &far);
        assert_eq!(found, clear(&artifact, &clamped), "{regime:?}");
        // A wrapped sum would be off by the whole range.
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() <= 0.15 * (high - low), "{regime:?}: {found}, {expected} expected");
        }
        let codec = Codec::new(&artifact).unwrap();
        let (evaluation, passed) =
            encrypted_predictions(&artifact, &codec, &inputs(&far[..9]), &ProgressBar::hidden()).unwrap();
        let encrypted = split(codec.decode(&evaluation.results, &passed).unwrap().values().next().unwrap());
        for (found, expected) in encrypted.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() <= 0.4 * (high - low), "{regime:?}: {found}, {expected} encrypted");
        }
    }
}

fn floats(name: &str, values: &[f32]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        floats: values.to_vec(),
        type_: AttributeType::FLOATS.into(),
        ..Default::default()
    }
}

fn node(op: &str, domain: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        domain: domain.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..Default::default()
    }
}

/// A scaler and batch normalizations around linear maps, as pipelines and trained networks have them.
fn unfolded(layers: &[Matrix]) -> Graph<Tensor> {
    let tensor = |name: &str, dims: Vec<i64>, data: Vec<f64>| TensorProto {
        name: name.to_owned(),
        dims,
        data_type: 1,
        float_data: data.iter().map(|x| *x as f32).collect(),
        ..Default::default()
    };
    let mut initializer = Vec::new();
    for (at, weights) in layers.iter().enumerate() {
        let (outputs, columns) = (weights.len(), weights[0].len());
        let transposed = (0..columns).flat_map(|column| weights.iter().map(move |row| row[column])).collect();
        initializer.push(tensor(&format!("w{at}"), vec![columns as i64, outputs as i64], transposed));
        let parameter = |name: &str, offset: f64, step: f64| {
            let data = (0..outputs).map(|channel| offset + step * channel as f64).collect();
            tensor(&format!("{name}{at}"), vec![outputs as i64], data)
        };
        initializer.extend([
            parameter("scale", 0.75, 0.125),
            parameter("shift", -0.25, 0.1),
            parameter("mean", 0.2, -0.1),
            parameter("var", 0.5, 0.25),
        ]);
    }
    let of = |name: &str, at: usize| format!("{name}{at}");
    let mut nodes = vec![node(
        "Scaler",
        "ai.onnx.ml",
        &["x"],
        "scaled",
        vec![floats("offset", &[0.5, -0.25, 0.0, 1.0]), floats("scale", &[0.5, 2.0, 1.5, 0.75])],
    )];
    let mut last = "scaled".to_owned();
    for at in 0..layers.len() {
        let (sum, normal) = (of("sum", at), of("normal", at));
        nodes.push(node("MatMul", "", &[&last, &of("w", at)], &sum, vec![]));
        let parameters = ["scale", "shift", "mean", "var"].map(|name| of(name, at));
        let inputs = [&sum, &parameters[0], &parameters[1], &parameters[2], &parameters[3]].map(String::as_str);
        nodes.push(node("BatchNormalization", "", &inputs, &normal, vec![]));
        last = normal;
        if at + 1 < layers.len() {
            let active = of("active", at);
            nodes.push(node("Relu", "", &[&last], &active, vec![]));
            last = active;
        }
    }
    let dim = |value| tensor_shape_proto::Dimension { value: Some(value), ..Default::default() };
    use tensor_shape_proto::dimension::Value;
    let shape = onnx_protobuf::TensorShapeProto {
        dim: vec![dim(Value::DimParam("batch".to_owned())), dim(Value::DimValue(WIDTH as i64))],
        ..Default::default()
    };
    let ty = type_proto::Tensor { elem_type: 1, shape: Some(shape).into(), ..Default::default() };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(ty)), ..Default::default() };
    let input = ValueInfoProto { name: "x".to_owned(), type_: Some(ty).into(), ..Default::default() };
    let graph = GraphProto {
        name: "unfolded".to_owned(),
        node: nodes,
        initializer,
        input: vec![input],
        output: vec![ValueInfoProto { name: last, ..Default::default() }],
        ..Default::default()
    };
    let import =
        |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version, ..Default::default() };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![import("", 15), import("ai.onnx.ml", 3)],
        graph: Some(graph).into(),
        ..Default::default()
    };
    onnx::import(&model.write_to_bytes().unwrap(), &Default::default()).unwrap()
}

/// Operations of a stage by name, in the order of the text.
fn operations(artifact: &Artifact, stage: &str) -> Vec<String> {
    let (_, text) = artifact.text.iter().find(|(name, _)| name == stage).unwrap();
    let name = |line: &str| Some(line.trim().split_once(" = ")?.1.split_whitespace().next()?.to_owned());
    text.lines().filter(|line| line.trim_start().starts_with('%')).filter_map(name).collect()
}

#[test]
fn scalers_and_batch_normalizations_leave_nothing_behind() {
    let layers = layers(&[WIDTH, 6, 5, 3], 13);
    let (folded, unfolded) = (network(&layers), unfolded(&layers));
    let (calibration, test) = (rows(400, WIDTH, 14), rows(300, WIDTH, 15));
    for regime in [RegimeRule::Rotate, RegimeRule::Bootstrap] {
        let options = Options { regime: Some(regime), ..fixed(RangeRule::MinMax, true, false) };
        let artifact = compiled(&unfolded, &calibration, &options).artifact;
        let plain = compiled(&folded, &calibration, &options).artifact;
        for stage in ["quant", "circuit"] {
            assert_eq!(operations(&artifact, stage), operations(&plain, stage), "{regime:?}");
        }
        assert_eq!(
            operations(&artifact, "quant"),
            ["codes", "affine", "lookup", "affine", "lookup", "affine", "dequantize"],
            "{regime:?}"
        );
        let error = error(&clear(&artifact, &test), &float(&unfolded, &test), None);
        assert!(error <= 0.06, "{regime:?}: {error}");
    }
}

/// Columns of 0 and 1 beside real ones: weights that are fine enough for the steps of the real ones.
#[test]
fn columns_of_few_and_of_many_steps_add_up() {
    let model = network(&layers(&[WIDTH, 6, 3], 21));
    let mixed = |count, seed| -> Matrix {
        let truth = |x: f64| if x > 0.0 { 1.0 } else { 0.0 };
        rows(count, WIDTH, seed).iter().map(|row| vec![truth(row[0]), truth(row[1]), row[2], row[3]]).collect()
    };
    let (calibration, test) = (mixed(400, 22), mixed(200, 23));
    let options = Options { input_bits: Some(8), ..fixed(RangeRule::MinMax, true, false) };
    let artifact = compiled(&model, &calibration, &options).artifact;
    let error = error(&clear(&artifact, &test), &float(&model, &test), None);
    assert!(error < 0.03, "{error}");
}
