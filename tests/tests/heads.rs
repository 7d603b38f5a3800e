//! Labels and positions found on the server (`encrypt-head`): against onnxruntime's, in clear on all test rows and encrypted
//! on ten.

use indicatif::ProgressBar;
use onnx_protobuf::{AttributeProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use tacit::commands::encrypted_predictions;
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::{HeadRule, Options};
use tacit_compiler::passes::DriverOptions;
use tacit_compiler::{Compiled, compile};
use tacit_ir::diag::{Code, Result};
use tacit_ir::interp::plan;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::plan::Layer;
use tacit_tests::{Example, examples, first_rows, networks};

fn example(name: &str) -> Example {
    examples().into_iter().chain(networks()).find(|example| example.name == name).unwrap()
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: value,
        type_: onnx_protobuf::attribute_proto::AttributeType::INT.into(),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        op_type: op.to_owned(),
        input: names(inputs),
        output: names(outputs),
        attribute: attributes,
        ..Default::default()
    }
}

/// A model whose scores go through more nodes, to these outputs instead.
fn extended(model: &[u8], nodes: impl Fn(&str) -> Vec<NodeProto>, outputs: &[&str]) -> Vec<u8> {
    let mut model = ModelProto::parse_from_bytes(model).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let scores = graph.output.last().unwrap().name.clone();
    graph.node.extend(nodes(&scores));
    let count =
        TensorProto { name: "two".to_owned(), dims: vec![1], data_type: 7, int64_data: vec![2], ..Default::default() };
    graph.initializer.push(count);
    let output = |name: &&str| ValueInfoProto { name: (*name).to_owned(), ..Default::default() };
    graph.output = outputs.iter().map(output).collect();
    if model.opset_import.iter().all(|import| !import.domain.is_empty()) {
        model.opset_import.push(OperatorSetIdProto { version: 13, ..Default::default() });
    }
    model.write_to_bytes().unwrap()
}

fn with_head(example: &Example, model: &[u8], options: &Options) -> Result<Compiled> {
    let model = onnx::import(model, &Default::default())?;
    // Linear models come without calibration rows: the test rows stand in.
    let rows = example.folder.join("calibration.npy");
    let rows = if rows.exists() { rows } else { example.folder.join("x_test.npy") };
    let calibration = tacit::data::read_inputs(&rows, &onnx::inputs(&model))?;
    let options = Options { encrypt_head: true, ..options.clone() };
    compile(model, &options, &calibration, &DriverOptions::default())
}

/// The share of rows whose output is as expected: of the clear circuit on all test rows, and encrypted on ten.
fn agreement(example: &Example, compiled: &Compiled, output: &str, expected: &TensorValue) -> (f64, f64) {
    let artifact = &compiled.artifact;
    let layout = &artifact.client.layout;
    assert!(layout.glwe.is_secure() && layout.partitions.iter().all(|params| params.lwe.is_secure()));
    let codec = Codec::new(artifact).unwrap();
    let inputs = example.inputs(&codec).unwrap();
    let share = |found: &TensorValue| {
        let rows = found.rows();
        let width = expected.columns();
        assert_eq!(found.columns(), width, "columns of {output}");
        let same = |row: usize| {
            let of = |value: &TensorValue| value.data.pick(row * width..(row + 1) * width);
            of(found) == of(expected)
        };
        (0..rows).filter(|row| same(*row)).count() as f64 / rows as f64
    };
    let batch = codec.encode(&inputs).unwrap();
    let circuit = artifact.plan.as_ref().unwrap();
    let clear = batch.rows.iter().map(|row| plan::simulate(circuit, layout, &row.inputs(), None).unwrap());
    let clear = codec.decode(&clear.collect::<Vec<_>>(), &batch.passed).unwrap();
    let inputs = first_rows(&inputs, 10);
    let (evaluation, passed) = encrypted_predictions(artifact, &codec, &inputs, &ProgressBar::hidden()).unwrap();
    let encrypted = codec.decode(&evaluation.results, &passed).unwrap();
    (share(&clear[output]), share(&encrypted[output]))
}

/// What onnxruntime's scores make of each row: the positions of the greatest, first ones first.
fn best(scores: &TensorValue, count: usize) -> TensorValue {
    let columns = scores.columns();
    let values = scores.to_f64().unwrap();
    let of_row = |row: &[f64]| {
        let mut order: Vec<i64> = (0..columns as i64).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        order.truncate(count);
        order
    };
    let data = values.chunks(columns).flat_map(of_row).collect();
    TensorValue { shape: vec![scores.rows(), count], data: Data::I64(data) }
}

fn scores(example: &Example) -> &TensorValue {
    example.expected.values().find(|value| matches!(value.data, Data::F32(_))).unwrap()
}

/// Nothing but the output's own value leaves the server.
fn results(compiled: &Compiled) -> Vec<u32> {
    compiled.artifact.client.layout.lwe_results.clone()
}

#[test]
fn a_network_gives_its_label_alone_by_either_rule() {
    let example = example("digits_mlp");
    let nodes = |scores: &str| {
        vec![
            node("Softmax", &[scores], &["shares"], vec![int("axis", 1)]),
            node("ArgMax", &["shares"], &["class"], vec![int("axis", 1), int("keepdims", 0)]),
        ]
    };
    let model = extended(&example.model(), nodes, &["class", "shares"]);
    let mut expected = best(scores(&example), 1);
    expected.shape = vec![expected.shape[0]];
    let mut tables = Vec::new();
    for head in [HeadRule::Pairs, HeadRule::Tournament] {
        let compiled = with_head(&example, &model, &Options { head: Some(head), ..Options::default() }).unwrap();
        assert_eq!(results(&compiled), [1], "{head:?}");
        let notes = &compiled.artifact.report.as_ref().unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("`shares` is left out")), "{notes:?}");
        let (clear, encrypted) = agreement(&example, &compiled, "class", &expected);
        assert!(clear >= 0.97 && encrypted >= 0.9, "{head:?}: clear {clear}, encrypted {encrypted}");
        let layers = &compiled.artifact.plan.as_ref().unwrap().network.layers;
        let look_ups = layers.iter().filter(|layer| matches!(layer, Layer::Rotate { .. } | Layer::Bootstrap { .. }));
        tables.push(look_ups.map(Layer::len).sum::<usize>());
    }
    // 45 + 9 and 26 beside those of the network, which are as many for both.
    assert_eq!(tables[0] - tables[1], 28, "{tables:?}");
}

#[test]
fn top_two_positions_of_a_network() {
    let example = example("digits_mlp");
    let nodes = |scores: &str| vec![node("TopK", &[scores, "two"], &["values", "best"], vec![int("axis", 1)])];
    let model = extended(&example.model(), nodes, &["best"]);
    // Seconds are often close to thirds.
    let options = Options { max_accuracy_loss: 0.1, ..Options::default() };
    let compiled = with_head(&example, &model, &options).unwrap();
    assert_eq!(results(&compiled), [2]);
    let expected = best(scores(&example), 2);
    let (clear, encrypted) = agreement(&example, &compiled, "best", &expected);
    assert!(clear >= 0.85 && encrypted >= 0.7, "clear {clear}, encrypted {encrypted}");
}

/// Labels as skl2onnx writes them: of linear classifiers of several classes and of two, and of a network.
#[test]
fn classifiers_give_their_label_alone() {
    // There are 30 rows of irises: one is 3.3 %.
    for (name, loss) in
        [("iris_logistic", 0.034), ("breast_cancer_linear_svc", 0.03), ("digits_logistic", 0.01), ("digits_mlp", 0.01)]
    {
        let example = example(name);
        let options = Options { max_accuracy_loss: loss, ..Options::default() };
        let compiled = with_head(&example, &example.model(), &options).unwrap();
        assert_eq!(results(&compiled), [1], "{name}");
        let (output, expected) =
            example.expected.iter().find(|(_, value)| matches!(value.data, Data::I64(_) | Data::Str(_))).unwrap();
        let (clear, encrypted) = agreement(&example, &compiled, output, expected);
        assert!(clear >= 0.96 && encrypted >= 0.9, "{name}: clear {clear}, encrypted {encrypted}");
    }
}

#[test]
fn a_model_without_a_head_is_refused() {
    let example = example("digits_mlp_qat");
    let why = with_head(&example, &example.model(), &Options::default()).unwrap_err();
    assert_eq!(why.code, Code::OptionInvalid);
    assert!(why.message.contains("no output is a label") && why.help.is_some(), "{why}");
}

/// Diagrams and bootstraps in one circuit: the outputs of trees are extracted from where they add up.
#[test]
fn trees_give_their_label_alone() {
    for (name, loss) in [
        ("iris_decision_tree", 0.01),
        ("wine_random_forest", 0.03),
        ("breast_cancer_xgboost", 0.01),
        ("digits_xgboost", 0.01),
    ] {
        let example = example(name);
        let options = Options { max_accuracy_loss: loss, ..Options::default() };
        let compiled = with_head(&example, &example.model(), &options).unwrap();
        assert_eq!(results(&compiled), [1], "{name}");
        let plan = compiled.artifact.plan.as_ref().unwrap();
        assert!(plan.counts().bootstraps > 0 && plan.network.reads_slots(), "{name}: {:?}", plan.counts());
        let (output, expected) =
            example.expected.iter().find(|(_, value)| matches!(value.data, Data::I64(_) | Data::Str(_))).unwrap();
        let (clear, encrypted) = agreement(&example, &compiled, output, expected);
        assert!(clear >= 0.96 && encrypted >= 0.9, "{name}: clear {clear}, encrypted {encrypted}");
    }
}
