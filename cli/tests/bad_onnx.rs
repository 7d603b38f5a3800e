//! Damaged, contradictory and unsupported ONNX models: code, place, message and help of each refusal.

mod support;
#[path = "support/onnx.rs"]
mod write;

use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_proto, tensor_proto,
};
use std::collections::BTreeMap;
use support::{ok, refused};
use tacit_compiler::explain::explain;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_ir::diag::{Code, Diagnostic};
use tacit_ir::interp::tensor::{Data, TensorValue};
use write::*;

fn import(model: &ModelProto) -> Result<(), Diagnostic> {
    onnx::import(&file(model), &Default::default()).map(drop)
}

/// What a refusal must say: its code, and parts of its place, of its message or notes, and of its help.
type Wanted = (Code, &'static str, &'static str, &'static str);

fn check(what: &str, found: Result<(), Diagnostic>, (code, place, message, help): Wanted) {
    let why = found.expect_err(what);
    let said = format!("{}\n{}", why.message, why.notes.join("\n"));
    // What is unsupported is listed: each node in a note.
    let own = format!("{}\n{}", why.place.clone().unwrap_or_default(), why.notes.join("\n"));
    assert_eq!(why.code, code, "{what}: {why}");
    assert!(own.contains(place), "{what} should be at {place}: {why}");
    assert!(said.contains(message), "{what} should say `{message}`: {why}");
    assert!(why.help.as_ref().is_some_and(|own| own.contains(help)), "{what} should help by `{help}`: {why}");
}

/// The network, changed.
fn edited(edit: impl FnOnce(&mut GraphProto)) -> ModelProto {
    let mut graph = network();
    edit(&mut graph);
    model(graph)
}

type Edit = fn(&mut GraphProto);

#[test]
fn inputs_that_no_circuit_can_have() {
    const OTHER: Code = Code::VariantUnsupported;
    let cases: [(&str, Edit, Wanted); 6] = [
        (
            "a size that varies",
            |g| g.input[0] = value("x", F32, &["rows", "length"]),
            (OTHER, "input \"x\"", "dimension 1 (`length`) has no fixed size", "make_dynamic_shape_fixed"),
        ),
        (
            "a size without a name",
            |g| g.input[0] = value("x", F32, &["rows", "0"]),
            (OTHER, "input \"x\"", "dimension 1 has no fixed size", "make_dynamic_shape_fixed"),
        ),
        (
            "half floats",
            |g| g.input[0] = value("x", 10, &["rows", "4"]),
            (OTHER, "input \"x\"", "the element type float16 is not supported", "32-bit or 64-bit floats"),
        ),
        (
            "no shape",
            |g| g.input[0].type_.mut_or_insert_default().mut_tensor_type().shape = None.into(),
            (OTHER, "input \"x\"", "the input has no shape", "shape of its input"),
        ),
        (
            "no type",
            |g| g.input[0].type_ = None.into(),
            (OTHER, "input \"x\"", "the input has no type", "shape of its input"),
        ),
        (
            "a sequence",
            |g| {
                g.input[0].type_.mut_or_insert_default().mut_sequence_type();
            },
            (OTHER, "input \"x\"", "the input is not a tensor", "inputs are tensors"),
        ),
    ];
    for (what, edit, wanted) in cases {
        check(what, import(&edited(edit)), wanted);
    }
}

#[test]
fn nodes_that_are_not_supported_are_all_named() {
    let control = |op: &'static str| move |g: &mut GraphProto| g.node[2] = node(op, "choice", &["h"], &["r"]);
    for op in ["If", "Loop", "Scan"] {
        let wanted = (Code::OpUnsupported, "node 2 \"choice\"", "control flow; unroll it", "replace them as noted");
        check(op, import(&edited(control(op))), wanted);
    }
    let mut custom = edited(|g| g.node[2] = node("Frobnicate", "odd", &["h"], &["r"]));
    let unknown = (Code::OpUnsupported, "node 2 \"odd\"", "`Frobnicate` (opset 17): not known to Tacit", "as noted");
    check("an unknown operator", import(&custom), unknown);
    let graph = custom.graph.as_mut().unwrap();
    graph.node[2].domain = "com.acme".to_owned();
    let domain = (Code::OpUnsupported, "node 2 \"odd\"", "`Frobnicate` of the custom domain `com.acme`", "as noted");
    check("a custom domain", import(&custom), domain);
    custom.functions =
        vec![FunctionProto { name: "Frobnicate".to_owned(), domain: "com.acme".to_owned(), ..Default::default() }];
    let function = (Code::OpUnsupported, "node 2 \"odd\"", "onnx.inliner.inline_local_functions", "as noted");
    check("a function of the model", import(&custom), function);
    // Both at once; what reads them is not reported.
    let several = edited(|g| {
        g.node[0] = node("NonZero", "first", &["x"], &["p"]);
        g.node.push(node("LSTM", "second", &["x", "w"], &["z"]));
    });
    let why = import(&several).unwrap_err();
    assert_eq!(why.message, "2 unsupported nodes", "{why}");
    assert!(why.notes[0].contains("first") && why.notes[1].contains("second"), "{why}");
}

#[test]
fn graphs_that_contradict_themselves() {
    let cases: [(&str, Edit, Wanted); 17] = [
        (
            "a value that two nodes make",
            |g| g.node[3].output[0] = "h".to_owned(),
            (Code::GraphCyclic, "node 3 \"scores\" (MatMul)", "the value `h` is defined twice", "a name of its own"),
        ),
        (
            "a node that makes an initializer",
            |g| g.node[0].output[0] = "b".to_owned(),
            (Code::GraphCyclic, "node 0 \"product\"", "the value `b` is defined twice", "a name of its own"),
        ),
        (
            "an initializer twice",
            |g| g.initializer.push(g.initializer[0].clone()),
            (Code::GraphCyclic, "initializer \"w\"", "defined twice", "a name of its own"),
        ),
        (
            "an input twice",
            |g| g.input.push(g.input[0].clone()),
            (Code::GraphCyclic, "input \"x\"", "defined twice", "a name of its own"),
        ),
        (
            "an output twice",
            |g| g.output.push(g.output[0].clone()),
            (Code::GraphCyclic, "output \"y\"", "listed twice", "a name of its own"),
        ),
        (
            "a cycle",
            |g| g.node[0].input[0] = "r".to_owned(),
            (Code::GraphCyclic, "node 0 \"product\"", "the graph has a cycle", "export the model again"),
        ),
        (
            "a missing initializer",
            |g| drop(g.initializer.remove(1)),
            (Code::ValueUndefined, "node 1 \"hidden\" (Add)", "the value `b` is neither", "lost its initializers"),
        ),
        (
            "an output that nothing makes",
            |g| g.output[0].name = "z".to_owned(),
            (Code::ValueUndefined, "", "the value `z` is neither", "lost its initializers"),
        ),
        (
            "an initializer that is too short",
            |g| g.initializer[0].float_data.truncate(11),
            (Code::ShapeMismatch, "initializer \"w\"", "11 values for shape [4, 3]", "infer_shapes"),
        ),
        (
            "a negative size",
            |g| g.initializer[0].dims[0] = -4,
            (Code::ShapeMismatch, "initializer \"w\"", "negative dimensions", "infer_shapes"),
        ),
        (
            "a huge initializer",
            |g| g.initializer[0].dims = vec![1 << 40, 1 << 40],
            (Code::ModelTooLarge, "initializer \"w\"", "elements", "smaller model"),
        ),
        (
            "weights for other columns",
            |g| g.initializer[0].dims = vec![3, 4],
            (Code::ShapeMismatch, "node 0 \"product\" (MatMul)", "4 columns times weights for 3", "infer_shapes"),
        ),
        (
            "a bias of another size",
            |g| g.initializer[1] = floats("b", &[2], &[0.0, 1.0]),
            (Code::ShapeMismatch, "node 1 \"hidden\" (Add)", "sizes 3 and 2 do not broadcast", "infer_shapes"),
        ),
        (
            "a weight that is NaN",
            |g| g.initializer[0].float_data[5] = f32::NAN,
            (Code::WeightNotFinite, "node 0 \"product\" (MatMul)", "NaN", "finite weights"),
        ),
        (
            "text added to numbers",
            |g| {
                let text = TensorProto {
                    name: "b".to_owned(),
                    data_type: STRING,
                    dims: vec![1],
                    string_data: vec![b"a".to_vec()],
                    ..Default::default()
                };
                g.initializer[1] = text;
            },
            (Code::ElementTypeMismatch, "node 1 \"hidden\" (Add)", "str", "Cast"),
        ),
        (
            "text as an input of arithmetic",
            |g| g.input[0] = value("x", STRING, &["rows", "4"]),
            (Code::ElementTypeMismatch, "node 0 \"product\" (MatMul)", "strings", "before it"),
        ),
        (
            "an attribute of another type",
            |g| {
                let mut own = AttributeProto { name: "axis".to_owned(), f: 1.0, ..Default::default() };
                own.type_ = attribute_proto::AttributeType::FLOAT.into();
                g.node[2] = node("Softmax", "soft", &["h"], &["r"]);
                g.node[2].attribute.push(own);
            },
            (Code::AttributeInvalid, "node 2 \"soft\" (Softmax)", "attribute `axis` is FLOAT", "current exporter"),
        ),
    ];
    for (what, edit, wanted) in cases {
        check(what, import(&edited(edit)), wanted);
    }
    let unsorted = edited(|g| g.node.reverse());
    let sorted = onnx::import(&file(&model(network())), &Default::default()).unwrap();
    let found = onnx::import(&file(&unsorted), &Default::default()).unwrap();
    assert_eq!(found.len(), sorted.len(), "the order of nodes in the file means nothing");
}

#[test]
fn files_that_are_no_models() {
    let good = file(&model(network()));
    let version = |version: i64| {
        let mut own = model(network());
        own.opset_import[0].version = version;
        file(&own)
    };
    let without_graph = file(&ModelProto { ir_version: 8, ..Default::default() });
    for (what, bytes, wanted) in [
        ("an empty file", Vec::new(), (Code::NotOnnx, "", "not an ONNX model", "torch.onnx")),
        ("text", b"{\"a\": 1}".to_vec(), (Code::NotOnnx, "", "not an ONNX model", "torch.onnx")),
        ("another format", b"PK\x03\x04".to_vec(), (Code::NotOnnx, "", "not an ONNX model", "torch.onnx")),
        ("no graph", without_graph, (Code::NotOnnx, "", "no ONNX graph", "torch.onnx")),
        ("half a file", good[..good.len() / 2].to_vec(), (Code::OnnxTruncated, "", "truncated", "file again")),
        (
            "an old operator set",
            version(6),
            (Code::OpsetUnsupported, "", "ai.onnx 6; versions 7 to 28", "target_opset"),
        ),
        ("a new operator set", version(99), (Code::OpsetUnsupported, "", "ai.onnx 99; versions 7", "target_opset")),
    ] {
        check(what, onnx::import(&bytes, &Default::default()).map(drop), wanted);
    }
    // Wherever it is cut, it is said to be cut, or something in it is missing.
    for end in 1..good.len() {
        let why = onnx::import(&good[..end], &Default::default()).expect_err("a part of a file");
        assert!(why.help.is_some(), "cut at {end}: {why}");
    }
}

/// `x` quantized and dequantized, times weights that are quantized by columns.
fn quantized() -> GraphProto {
    let per_column = AttributeProto {
        name: "axis".to_owned(),
        i: 1,
        type_: attribute_proto::AttributeType::INT.into(),
        ..Default::default()
    };
    let mut weights = node("DequantizeLinear", "weights", &["w", "ws", "wz"], &["wf"]);
    weights.attribute.push(per_column);
    GraphProto {
        name: "quantized".to_owned(),
        node: vec![
            node("QuantizeLinear", "quantize", &["x", "s", "z"], &["q"]),
            node("DequantizeLinear", "dequantize", &["q", "s", "z"], &["d"]),
            weights,
            node("MatMul", "product", &["d", "wf"], &["y"]),
        ],
        initializer: vec![
            floats("s", &[], &[0.1]),
            bytes("z", &[], U8, &[128]),
            bytes("w", &[4, 3], I8, &[1, -2, 3, 4, 5, -6, 7, 8, 9, 10, 11, -12]),
            floats("ws", &[3], &[0.5, 0.25, 0.125]),
            bytes("wz", &[3], I8, &[0, 0, 0]),
        ],
        input: vec![value("x", F32, &["rows", "4"])],
        output: vec![ValueInfoProto { name: "y".to_owned(), ..Default::default() }],
        ..Default::default()
    }
}

#[test]
fn quantizations_that_fit_no_type_or_no_channels() {
    import(&model(quantized())).unwrap();
    const OWN: Code = Code::AttributeInvalid;
    const FIT: Code = Code::ShapeMismatch;
    let cases: [(&str, Edit, Wanted); 15] = [
        (
            "a zero point over its type",
            |g| g.initializer[1].int32_data[0] = 256,
            (OWN, "node 0 \"quantize\" (QuantizeLinear)", "a zero point of 256, outside 0 to 255", "of the type"),
        ),
        (
            "a negative zero point of unsigned integers",
            |g| g.initializer[1].int32_data[0] = -1,
            (OWN, "node 0 \"quantize\"", "a zero point of -1, outside 0 to 255", "of the type"),
        ),
        (
            "a zero point of one channel over its type",
            |g| g.initializer[4].int32_data[2] = 128,
            (OWN, "node 2 \"weights\" (DequantizeLinear)", "a zero point of 128, outside -128 to 127", "of the type"),
        ),
        (
            "a zero point of floats",
            |g| g.initializer[1] = floats("z", &[], &[0.0]),
            (Code::OpUnsupported, "node 0 \"quantize\"", "use integers of 2, 4, 8 or 16 bits", "as noted"),
        ),
        (
            "a scale of zero",
            |g| g.initializer[0].float_data[0] = 0.0,
            (OWN, "node 0 \"quantize\"", "a scale of 0", "positive numbers"),
        ),
        (
            "a negative scale",
            |g| g.initializer[0].float_data[0] = -0.5,
            (OWN, "node 0 \"quantize\"", "a scale of -0.5", "positive numbers"),
        ),
        (
            "a scale that is NaN",
            |g| g.initializer[0].float_data[0] = f32::NAN,
            (OWN, "node 0 \"quantize\"", "a scale of NaN", "positive numbers"),
        ),
        (
            "an infinite scale of one channel",
            |g| g.initializer[3].float_data[1] = f32::INFINITY,
            (OWN, "node 2 \"weights\"", "a scale of inf", "positive numbers"),
        ),
        (
            "too few scales",
            |g| g.initializer[3] = floats("ws", &[2], &[0.5, 0.25]),
            (FIT, "node 2 \"weights\"", "2 scales for axis 1 of i64[4, 3]", "one for each channel"),
        ),
        (
            "too many zero points",
            |g| g.initializer[4] = bytes("wz", &[4], I8, &[0; 4]),
            (FIT, "node 2 \"weights\"", "4 zero points for axis 1 of i64[4, 3]", "one for each channel"),
        ),
        (
            "scales of channels along another axis",
            |g| g.node[2].attribute[0].i = 0,
            (FIT, "node 2 \"weights\"", "3 scales for axis 0 of i64[4, 3]", "one for each channel"),
        ),
        (
            "scales of channels along an axis that is none",
            |g| g.node[2].attribute[0].i = 2,
            (OWN, "node 2 \"weights\"", "axis 2 of a tensor of rank 2", "current exporter"),
        ),
        (
            "scales of one channel that would broadcast",
            |g| g.initializer[2] = bytes("w", &[4, 1], I8, &[1, 2, 3, 4]),
            (FIT, "node 2 \"weights\"", "3 scales for axis 1 of i64[4, 1]", "one for each channel"),
        ),
        (
            "scales of channels of a scalar",
            |g| g.initializer[2] = bytes("w", &[], I8, &[1]),
            (OWN, "node 2 \"weights\"", "axis 1 of a tensor of rank 0", "current exporter"),
        ),
        (
            "a computed scale",
            |g| {
                g.input.push(value("given", F32, &["1"]));
                g.node[0].input[1] = "given".to_owned();
            },
            (Code::OpUnsupported, "node 0 \"quantize\"", "a computed scale; use a constant one", "as noted"),
        ),
    ];
    for (what, edit, wanted) in cases {
        let mut graph = quantized();
        edit(&mut graph);
        check(what, import(&model(graph)), wanted);
    }
}

/// The network with its first weights in a file: where, and which bytes of it.
fn external(location: &str, offset: Option<&str>, length: Option<&str>) -> Vec<u8> {
    let entry = |(key, value): (&str, &str)| StringStringEntryProto {
        key: key.to_owned(),
        value: value.to_owned(),
        ..Default::default()
    };
    let graph = edited(|g| {
        let weights = &mut g.initializer[0];
        weights.float_data.clear();
        weights.data_location = tensor_proto::DataLocation::EXTERNAL.into();
        let all = [("location", Some(location)), ("offset", offset), ("length", length)];
        weights.external_data = all.into_iter().filter_map(|(key, value)| Some(entry((key, value?)))).collect();
    });
    file(&graph)
}

#[test]
fn external_data_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("models");
    std::fs::create_dir_all(at.join("folder")).unwrap();
    let floats: Vec<u8> = (0..12).flat_map(|at| (at as f32).to_le_bytes()).collect();
    std::fs::write(at.join("w.bin"), &floats).unwrap();
    std::fs::write(at.join("cut.bin"), &floats[..40]).unwrap();
    std::fs::write(at.join("empty.bin"), []).unwrap();
    // There, but not the model's.
    std::fs::write(folder.path().join("w.bin"), &floats).unwrap();
    std::fs::write(at.join("m.onnx"), external("w.bin", Some("0"), Some("48"))).unwrap();
    ok(&at, &["explain", "m.onnx"]);
    let outside = folder.path().join("w.bin").display().to_string();
    for (location, offset, length, code, shown) in [
        ("missing.bin", None, None, "E0001", ["missing.bin", "beside the model"]),
        ("folder", None, None, "E0001", ["folder", "beside the model"]),
        (
            "cut.bin",
            Some("0"),
            Some("48"),
            "E0001",
            ["it has 40 bytes, the model reads 48 from 0 on", "beside the model"],
        ),
        (
            "w.bin",
            Some("4"),
            Some("48"),
            "E0001",
            ["it has 48 bytes, the model reads 48 from 4 on", "beside the model"],
        ),
        ("w.bin", Some("49"), None, "E0001", ["it has 48 bytes, the model reads 0 from 49 on", "beside the model"]),
        ("w.bin", Some("18446744073709551615"), Some("48"), "E0001", ["it has 48 bytes", "beside the model"]),
        ("cut.bin", None, None, "E0201", ["10 values for shape [4, 3]", "infer_shapes"]),
        ("empty.bin", None, None, "E0201", ["0 values for shape [4, 3]", "infer_shapes"]),
        ("w.bin", Some("0"), Some("1099511627776"), "E0004", ["the limit is", "smaller model"]),
        ("w.bin", Some("-4"), None, "E0012", ["`offset` is `-4`", "current exporter"]),
        ("w.bin", None, Some("many"), "E0012", ["`length` is `many`", "current exporter"]),
        ("../w.bin", None, None, "E0012", ["not below the model's folder", "beside the model"]),
        ("folder/../../w.bin", None, None, "E0012", ["not below the model's folder", "beside the model"]),
        ("..\\w.bin", None, None, "E0012", ["not below the model's folder", "beside the model"]),
        (&outside, None, None, "E0012", ["not below the model's folder", "beside the model"]),
        ("", None, None, "E0012", ["not below the model's folder", "beside the model"]),
    ] {
        std::fs::write(at.join("m.onnx"), external(location, offset, length)).unwrap();
        for command in [&["compile", "m.onnx", "-o", "m.tacit"][..], &["explain", "m.onnx"]] {
            let why = refused(&at, command, code, 1);
            let missing = shown.iter().find(|part| !why.contains(**part));
            assert!(missing.is_none(), "{location} {offset:?} {length:?}: no {missing:?} in {why}");
            assert!(why.contains("m.onnx: initializer \"w\""), "{why}");
        }
    }
    // In an attribute, weights must be in the file.
    let inside = edited(|g| {
        let mut weights = floats_at("w", "w.bin");
        weights.name.clear();
        g.initializer.remove(0);
        let mut constant = node("Constant", "weights", &[], &["w"]);
        constant.attribute.push(AttributeProto {
            name: "value".to_owned(),
            t: Some(weights).into(),
            type_: attribute_proto::AttributeType::TENSOR.into(),
            ..Default::default()
        });
        g.node.insert(0, constant);
    });
    let wanted =
        (Code::VariantUnsupported, "node 0 \"weights\"", "data is in another file", "save_as_external_data=False");
    check("a constant in another file", import(&inside), wanted);
}

fn floats_at(name: &str, location: &str) -> TensorProto {
    TensorProto {
        external_data: vec![StringStringEntryProto {
            key: "location".to_owned(),
            value: location.to_owned(),
            ..Default::default()
        }],
        data_location: tensor_proto::DataLocation::EXTERNAL.into(),
        ..floats(name, &[4, 3], &[])
    }
}

/// Forty rows of four columns.
fn rows() -> BTreeMap<String, TensorValue> {
    let data = (0..160).map(|at| (at * 37 % 101) as f32 / 50.0 - 1.0).collect();
    BTreeMap::from([("x".to_owned(), TensorValue { shape: vec![40, 4], data: Data::F32(data) })])
}

fn explained(model: &ModelProto, options: &Options, rows: &BTreeMap<String, TensorValue>) -> Result<(), Diagnostic> {
    let graph = onnx::import(&file(model), &Default::default()).expect("the importer reads it");
    explain(graph, options, rows).map(drop)
}

/// The network with a second branch, whose values meet in a node.
fn branches(op: &str, domain: &str) -> ModelProto {
    edited(|g| {
        g.node.insert(2, node("Neg", "other", &["h"], &["n"]));
        g.node.insert(3, node("Softplus", "soft", &["n"], &["s"]));
        g.node[4] = node("MatMul", "again", &["s", "a"], &["r"]);
        g.node[5].input[0] = "m".to_owned();
        g.initializer.push(floats("a", &[3, 3], &[0.5; 9]));
        let mut meet = node(op, "meet", &["h", "r"], &["m"]);
        meet.domain = domain.to_owned();
        g.node.insert(5, meet);
    })
}

#[test]
fn explanations_of_refused_models_name_the_node_and_a_rewrite() {
    const OTHER: Code = Code::VariantUnsupported;
    let fast = Options { input_bits: Some(3), weight_bits: Some(3), noise_share: Some(0.3), ..Options::default() };
    explained(&branches("Add", ""), &fast, &rows()).unwrap();
    for (op, wanted) in [
        ("Pow", (OTHER, "node 5 \"meet\" (Pow)", "`pow` of 2 encrypted values", "make the exponent a constant")),
        ("Mod", (OTHER, "node 5 \"meet\" (Mod)", "`mod` of 2 encrypted values", "make the divisor a constant")),
    ] {
        check(op, explained(&branches(op, ""), &fast, &rows()), wanted);
    }
    // Where the client has it, it is no refusal; between layers it is.
    let encoded = edited(|g| {
        let list = |name: &str, values: &[f32]| AttributeProto {
            name: name.to_owned(),
            floats: values.to_vec(),
            type_: attribute_proto::AttributeType::FLOATS.into(),
            ..Default::default()
        };
        g.node[2] = node("LabelEncoder", "encode", &["h"], &["r"]);
        g.node[2].domain = "ai.onnx.ml".to_owned();
        g.node[2].attribute = vec![list("keys_floats", &[0.0, 1.0]), list("values_floats", &[1.0, 2.0])];
    });
    let between =
        (OTHER, "node 2 \"encode\" (LabelEncoder)", "`label_encoder` cannot run encrypted here", "the client computes");
    check("labels between layers", explained(&encoded, &fast, &rows()), between);
    let infinite = edited(|g| {
        g.node[2] = node("Mul", "scale", &["h", "i"], &["r"]);
        g.initializer.push(floats("i", &[], &[f32::INFINITY]));
    });
    let wanted = (Code::WeightNotFinite, "node ", "not finite", "train or export it again");
    check("an infinite factor", explained(&infinite, &fast, &rows()), wanted);
    let clear = edited(|g| {
        g.node = vec![node("Relu", "relu", &["x"], &["h"]), node("Sqrt", "root", &["h"], &["y"])];
    });
    let wanted = (
        Code::NothingToEncrypt,
        "node 1 \"root\" (Sqrt) would run on the client",
        "no linear map",
        "with its estimator",
    );
    check("nothing to encrypt", explained(&clear, &fast, &rows()), wanted);
    let constant = edited(|g| g.node = vec![node("MatMul", "product", &["w", "v"], &["y"])]);
    let wanted =
        (Code::NothingToEncrypt, "the output \"y\" is the same for all inputs", "no linear map", "with its estimator");
    check("a constant", explained(&constant, &fast, &rows()), wanted);
    // More accuracy than there is.
    let exact = Options { noise_share: Some(1e-6), ..fast.clone() };
    let wanted = (Code::NoParameters, "node ", "what is tolerated", "noise-share");
    check("too much accuracy", explained(&branches("Add", ""), &exact, &rows()), wanted);
    // Without rows, and with bad ones.
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("m.onnx"), file(&model(network()))).unwrap();
    assert!(ok(at, &["explain", "m.onnx"]).contains("give --calibration for bits and times"));
    let why = refused(at, &["compile", "m.onnx", "-o", "m.tacit"], "E0801", 2);
    assert!(why.contains("needs calibration data") && why.contains("--calibration"), "{why}");
    std::fs::write(at.join("x.csv"), "a,b,c,d\n".to_owned() + &"1,2,nan,4\n".repeat(40)).unwrap();
    for command in [&["compile", "m.onnx", "-o", "m.tacit"][..], &["explain", "m.onnx"]] {
        let why = refused(at, &[command, &["--calibration", "x.csv"]].concat(), "E0801", 2);
        assert!(why.contains("column 2 is NaN") && why.contains("leave such rows out"), "{why}");
    }
}

/// What runs encrypted is never said to run on the client, though parts of the same node do.
#[test]
fn explanations_tell_encrypted_parts_of_a_node_from_clear_ones() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/zoo/networks/models");
    let bytes = std::fs::read(format!("{folder}/cnn_2d_deep_qop_u8_channel.onnx")).unwrap();
    let graph = onnx::import(&bytes, &Default::default()).unwrap();
    let lines = explain(graph, &Options::default(), &BTreeMap::new()).unwrap();
    let convolutions: Vec<_> = lines.iter().filter(|line| line.op.split(", ").any(|op| op == "conv")).collect();
    assert_eq!(convolutions.len(), 2, "{lines:?}");
    assert!(convolutions.iter().all(|line| line.how.starts_with("encrypted")), "{convolutions:?}");
}

/// Constants that no trained model has, wherever they are, and functions that have no value on the calibration rows.
#[test]
fn what_is_not_finite_is_found_wherever_it_is() {
    let fast = Options { input_bits: Some(3), weight_bits: Some(3), noise_share: Some(0.3), ..Options::default() };
    let third = |op: &'static str, constants: Vec<TensorProto>| {
        edited(move |g| {
            let inputs = std::iter::once("h").chain(constants.iter().map(|own| own.name.as_str()));
            let inputs: Vec<&str> = inputs.collect();
            g.node[2] = node(op, "odd", &inputs, &["o"]);
            g.node.insert(3, node("Relu", "relu", &["o"], &["r"]));
            g.initializer.extend(constants);
        })
    };
    let one = |value: f32| vec![floats("c", &[3], &[1.0, value, 1.0])];
    let norm = |mean: f32, variance: f32| {
        let named = |name: &str, value: f32| floats(name, &[3], &[value; 3]);
        vec![named("s", 1.0), named("offset", 0.0), named("mean", mean), named("variance", variance)]
    };
    let weight = (Code::WeightNotFinite, "a weight is not finite", "train or export it again");
    let number = (Code::WeightNotFinite, "is NaN", "train or export it again");
    let function = (Code::OptionInvalid, "is NaN, which has no range to quantize", "leaves its domain");
    for (what, model, (code, message, help)) in [
        ("a NaN added", third("Add", one(f32::NAN)), weight),
        ("an infinity subtracted", third("Sub", one(f32::INFINITY)), weight),
        ("a NaN factor", third("Mul", one(f32::NAN)), weight),
        ("a divisor of zero", third("Div", one(0.0)), weight),
        ("a NaN slope", third("PRelu", one(f32::NAN)), weight),
        ("a NaN mean", third("BatchNormalization", norm(f32::NAN, 1.0)), number),
        ("a negative variance", third("BatchNormalization", norm(0.0, -1.0)), number),
        ("logarithms of negative numbers", third("Log", vec![]), function),
        ("roots of negative numbers", third("Sqrt", vec![]), function),
    ] {
        let wanted = (code, "node ", message, help);
        check(what, import(&model).and_then(|()| explained(&model, &fast, &rows())), wanted);
    }
}

#[test]
fn what_options_ask_in_vain_is_said_with_what_is_possible() {
    let zoo = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/zoo/models");
    let of_zoo = |name: &str, options: &Options| {
        let bytes = std::fs::read(format!("{zoo}/{name}.onnx")).unwrap();
        explain(onnx::import(&bytes, &Default::default()).unwrap(), options, &BTreeMap::new()).map(drop)
    };
    let head = Options { encrypt_head: true, ..Options::default() };
    let exact = Options { precision_bits: 30, ..Options::default() };
    let error = Options { max_output_error: Some(1e-7), ..Options::default() };
    let network = explained(&model(write::network()), &error, &rows());
    for (what, found, wanted) in [
        (
            "labels of a regression",
            of_zoo("linear_regression", &head),
            (Code::OptionInvalid, "", "no output is a label", "end the model in ArgMax or TopK"),
        ),
        (
            "a linear map of 30 bits",
            of_zoo("linear_regression", &exact),
            (Code::NoParameters, "", "misses 30 bits of precision by", "ask for less: --set precision-bits="),
        ),
        (
            "a forest of 30 bits",
            of_zoo("forest_regressor", &exact),
            (Code::NoParameters, "", "misses 30 bits of precision by", "ask for less: --set precision-bits="),
        ),
        ("a network without errors", network, (Code::NoParameters, "", "errs by", "allow it: --set max-output-error=")),
    ] {
        check(what, found, wanted);
    }
}
