//! What is wrong with a network's calibration rows, weights or options is said with its place and a way out; and failure
//! probabilities are met as they are asked.

use std::collections::BTreeMap;
use tacit_compiler::frontend::{onnx, toml};
use tacit_compiler::options::{Options, RegimeRule};
use tacit_compiler::passes::DriverOptions;
use tacit_compiler::{Compiled, compile};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::graph::Graph;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::noise;
use tacit_ir::stage::circuit::{Circuit, CircuitOp, CircuitType};
use tacit_ir::stage::tensor::Tensor;
use tacit_tests::networks;

const TINY: &str = include_str!("invoke/network.toml");

fn model(text: &str) -> Result<Graph<Tensor>> {
    let no_files = |file: &str, _: Option<&str>| -> Result<TensorValue> {
        Err(Diagnostic::new(Code::FileUnreadable, format!("{file} is not there")))
    };
    toml::import(text, &no_files)
}

fn rows(count: usize, columns: usize) -> Vec<f32> {
    (0..count * columns).map(|at| ((at * 37 + at / 7) % 101) as f32 / 50.0 - 1.0).collect()
}

fn compiled(text: &str, columns: usize, data: Vec<f32>, options: &Options) -> Result<Compiled> {
    let shape = vec![data.len() / columns, columns];
    let calibration = BTreeMap::from([("x".to_owned(), TensorValue { shape, data: Data::F32(data) })]);
    compile(model(text)?, options, &calibration, &DriverOptions::default())
}

/// Bits that leave nothing to search.
fn fixed() -> Options {
    Options { input_bits: Some(4), weight_bits: Some(4), noise_share: Some(0.2), ..Options::default() }
}

fn assert_says(why: &Diagnostic, code: Code, message: &str, help: &str) {
    assert_eq!(why.code, code, "{why}");
    let place = why.place.as_deref().unwrap_or_default();
    assert!(format!("{place}: {}", why.message).contains(message), "{why}");
    assert!(why.help.as_deref().unwrap_or_default().contains(help), "{why}");
}

#[test]
fn calibration_rows_that_are_none() {
    for options in [fixed(), Options::default()] {
        let why = compile(model(TINY).unwrap(), &options, &BTreeMap::new(), &DriverOptions::default()).unwrap_err();
        assert_says(&why, Code::OptionInvalid, "at least 16 rows, found 0", "give --calibration X.npy");
        let why = compiled(TINY, 4, rows(15, 4), &options).unwrap_err();
        assert_says(&why, Code::OptionInvalid, "at least 16 rows, found 15", "give --calibration X.npy");
        let why = compiled(TINY, 3, rows(20, 3), &options).unwrap_err();
        assert_eq!(why.code, Code::ColumnCount, "{why}");
        assert!(why.message.contains('3') && why.message.contains('4') && why.help.is_some(), "{why}");
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut data = rows(20, 4);
            data[4 * 11 + 2] = value;
            let why = compiled(TINY, 4, data, &options).unwrap_err();
            assert_says(
                &why,
                Code::OptionInvalid,
                &format!("calibration row 11: column 2 is {value}"),
                "leave such rows out",
            );
        }
        compiled(TINY, 4, rows(20, 4), &Options { max_accuracy_loss: 1.0, ..options.clone() }).unwrap();
    }
}

#[test]
fn weights_that_are_no_numbers() {
    for (weight, message) in [("nan", "a weight is NaN"), ("inf", "a weight is inf"), ("-inf", "a weight is -inf")] {
        let why = model(&TINY.replace("[0.5, 1.0]]", &format!("[0.5, {weight}]]"))).unwrap_err();
        assert_eq!(why.code, Code::TomlInvalid, "{why}");
        assert!(why.message.contains(message), "{why}");
        assert!(why.excerpt.is_some_and(|excerpt| excerpt.source[excerpt.span].contains(weight)));
    }
    use onnx_protobuf::{Message, ModelProto};
    let example = networks().into_iter().find(|example| example.name == "digits_mlp").unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let mut proto = ModelProto::parse_from_bytes(&example.model()).unwrap();
        let weights = proto.graph.as_mut().unwrap().initializer.iter_mut().find(|own| own.dims.len() == 2).unwrap();
        let name = weights.name.clone();
        match weights.raw_data.get_mut(40..44) {
            Some(raw) => raw.copy_from_slice(&value.to_le_bytes()),
            None => weights.float_data[10] = value,
        }
        let import = onnx::import(&proto.write_to_bytes().unwrap(), &Default::default());
        let calibration = tacit::data::read_npy(&example.folder.join("calibration.npy"))
            .map(|rows| (onnx_input(&proto), rows))
            .unwrap();
        let why = import
            .and_then(|model| compile(model, &fixed(), &BTreeMap::from([calibration]), &DriverOptions::default()))
            .unwrap_err();
        assert_says(&why, Code::WeightNotFinite, &format!("is {value}"), "train or export it again");
        assert!(why.place.is_some(), "{name}: {why}");
    }
}

fn onnx_input(model: &onnx_protobuf::ModelProto) -> String {
    let graph = model.graph.as_ref().unwrap();
    let initial = |name: &str| graph.initializer.iter().any(|own| own.name == name);
    graph.input.iter().find(|input| !initial(&input.name)).unwrap().name.clone()
}

/// Squares of squares: what 32-bit floats hold is left on one row, and the layer that leaves it is named.
#[test]
fn activations_that_overflow() {
    let named = |name: &str, op: &str| format!("[[layer]]\nname = \"{name}\"\n{op}\n");
    let text = TINY.split("[[layer]]").next().unwrap().to_owned()
        + &named("first", "op = \"linear\"\nweights = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]")
        + &named("growth", "op = \"unary\"\nkind = \"exp\"")
        + &named("last", "op = \"linear\"\nweights = [[1.0, 1.0]]");
    let mut data = rows(40, 4);
    data[4 * 23 + 1] = 100.0;
    for options in [fixed(), Options::default()] {
        let why = compiled(&text, 4, data.clone(), &options).unwrap_err();
        assert_says(&why, Code::OptionInvalid, "`growth`", "leave such rows out");
        assert!(why.message.contains("calibration row 23: element 1 is inf"), "{why}");
    }
    // The same of a logarithm's domain, and of a sum at the end.
    let why = compiled(&text.replace("exp", "log"), 4, data.clone(), &fixed()).unwrap_err();
    assert_says(&why, Code::OptionInvalid, "`growth`", "leave such rows out");
    assert!(why.message.contains("is NaN"), "{why}");
    data[4 * 23 + 1] = 80.0;
    let why = compiled(&text.replace("[[1.0, 1.0]]", "[[1.0, 1e30]]"), 4, data, &fixed()).unwrap_err();
    assert_says(&why, Code::OptionInvalid, "`last`", "leave such rows out");
    assert!(why.message.contains("calibration row 23: element 0 is 5.5"), "{why}");
}

#[test]
fn options_that_contradict_the_model() {
    // A first layer that takes so many turns that noise drowns its tables.
    let weights: Vec<String> = (0..1600).map(|at| format!("{:.2}", (at % 7) as f64 / 4.0 - 0.7)).collect();
    let wide = TINY.replace("shape = [4]", "shape = [1600]");
    let start = wide.find("weights").unwrap();
    let end = start + wide[start..].find("bias").unwrap();
    let row = format!("[{}]", weights.join(", "));
    let wide = format!("{}weights = [{row}, {row}, {row}]\n{}", &wide[..start], &wide[end..]);
    let options =
        Options { regime: Some(RegimeRule::Rotate), input_bits: Some(8), noise_share: Some(0.003), ..fixed() };
    let why = compiled(&wide, 1600, rows(20, 1600), &options).unwrap_err();
    assert_says(&why, Code::NoParameters, "noise is", "leave regime=rotate out");
    // All bits are given, so there is nothing that the allowed loss could choose: accepted.
    compiled(TINY, 4, rows(20, 4), &Options { max_accuracy_loss: 0.0, ..fixed() }).unwrap();
}

/// Bits of a quantized model's inputs are its own; fewer take their place, which is said.
#[test]
fn bits_beside_those_of_a_quantized_model() {
    let example = networks().into_iter().find(|example| example.name == "digits_mlp_qat").unwrap();
    let notes = |bits: u32| {
        let options = Options { input_bits: Some(bits), weight_bits: None, ..fixed() };
        let options = Options { max_accuracy_loss: 1.0, ..options };
        let artifact = example.compile(&options).unwrap().artifact;
        (artifact.report.unwrap().notes.join("\n"), artifact.client.layout.selectors)
    };
    let (own, coarse) = (notes(8), notes(2));
    assert!(!own.0.contains("take their place"), "{}", own.0);
    assert!(coarse.0.contains("input-bits=2 are fewer than the model's own integers have"), "{}", coarse.0);
    assert!(coarse.1 < own.1, "{} selectors, {} with the model's own", coarse.1, own.1);
}

/// The probability that noise leaves a margin anywhere in a circuit is at most what was asked and is printed; less takes larger
/// parameters.
#[test]
fn failure_probabilities_are_met() {
    // The last one has more layers that may fail.
    let layer = "[[layer]]\nop = \"linear\"\nweights = [[1.0, -0.5], [0.5, 1.0]]\n[[layer]]\nop = \"activation\"\nkind = \"relu\"\n";
    let deep = TINY.to_owned() + "[[layer]]\nop = \"activation\"\nkind = \"relu\"\n" + &layer.repeat(4);
    let head = format!("{TINY}[[output]]\nname = \"y\"\nlabels = [\"a\", \"b\"]\n");
    for (text, encrypt_head) in [(TINY, false), (&head, true), (&deep, false)] {
        let mut times = Vec::new();
        let mut tails = Vec::new();
        for failure_bits in [40, 64, 128] {
            let options = Options {
                failure_bits,
                encrypt_head,
                // So much noise that margins are what limits.
                noise_share: Some(4.0),
                regime: Some(RegimeRule::Bootstrap),
                partitions: 1,
                ..fixed()
            };
            let artifact = compiled(text, 4, rows(64, 4), &options).unwrap().artifact;
            assert_eq!(artifact.client.failure_bits, failure_bits);
            let log2 = failure(&artifact.text.iter().find(|(stage, _)| stage == "circuit").unwrap().1).log2();
            assert!(log2 <= -f64::from(failure_bits), "2^{log2:.1} for {failure_bits} bits: {text}");
            tails.push(log2);
            let plan = artifact.plan.as_ref().unwrap();
            times.push(options.cost_profile.plan_us(&artifact.client.layout, plan));
        }
        assert!(times[0] <= times[1] && times[1] <= times[2] && times[0] < times[2], "{times:?}");
        // Nor are the parameters of many more bits than were asked.
        assert!(tails[0] > -100.0 && tails[2] < tails[1] && tails[1] < tails[0], "{tails:?}");
    }
}

/// The chance that some argument of a bootstrap, or some result, leaves its margin: of the circuit's text alone.
fn failure(text: &str) -> f64 {
    let graph: Graph<Circuit> = tacit_ir::text::parse(text).unwrap();
    let glwe = graph.values().find_map(|id| match &graph.node(id).ty {
        CircuitType::Params(glwe, _) => Some(*glwe),
        _ => None,
    });
    let glwe = glwe.unwrap();
    let mut total = 0.0;
    for id in graph.values() {
        let node = graph.node(id);
        let Some(argument) = node.operands.first() else { continue };
        let CircuitType::Lwe { noise: Some(noise), small, log2_unit, ranges } = &graph.node(*argument).ty else {
            continue;
        };
        let own = (2.0 * noise.0).exp2();
        let (half, variance) = match &node.op {
            CircuitOp::Bootstrap { results, .. } => {
                let params = node.operands.iter().find_map(|id| match &graph.node(*id).ty {
                    CircuitType::BootstrapParams(params) => Some(*params),
                    _ => None,
                });
                (0.25, noise::bootstrap::argument(&glwe, &params.unwrap(), own, *small, results.unwrap_or(1)))
            }
            CircuitOp::Extract { .. } => (0.5, own),
            _ => continue,
        };
        let exact = matches!(graph.node(*argument).op, CircuitOp::Affine { exact: Some(true), .. });
        let unit = log2_unit.0.exp2();
        // An interval lies in the middle of what it may fill.
        let margin =
            |(low, high): &(i64, i64)| if exact { 0.5 * unit } else { half - 0.5 * (high - low) as f64 * unit };
        total += ranges.iter().map(|range| noise::failure_probability(variance, margin(range))).sum::<f64>();
    }
    assert!(total > 0.0);
    total
}
