//! Mistakes in models written in TOML: what is wrong, where in the text, and what to do.

mod support;

use std::path::Path;
use support::{ok, refused};
use tacit_compiler::frontend::toml;
use tacit_ir::diag::{Code, Diagnostic};
use tacit_ir::interp::tensor::TensorValue;

fn no_files(file: &str, _: Option<&str>) -> Result<TensorValue, Diagnostic> {
    Err(Diagnostic::new(Code::FileUnreadable, format!("{file} is not there")).help("none is"))
}

/// Two inputs of two columns, and a layer.
fn model(layers: &str) -> String {
    format!("[[input]]\nname = \"x\"\ncolumns = 2\n\n{layers}\n")
}

/// An image of 3 x 3 pixels, and a layer.
fn image(layer: &str) -> String {
    format!("[[input]]\nname = \"x\"\nshape = [1, 3, 3]\n\n[[layer]]\n{layer}\n")
}

#[test]
fn mistakes_in_the_text_say_where_and_what_to_do() {
    let mut failures = Vec::new();
    let linear = "[[layer]]\nop = \"linear\"\nweights = [[1.0, 2.0]]\n";
    for (text, marked, message, help) in [
        // Keys and types.
        ("[[imput]]\nname = \"x\"".to_owned(), "imput", "a model has no key `imput`", "its keys are model"),
        (model("[[layer]]\nop = 3"), "3", "`op` is a text", "--toml"),
        (model("[[layer]]\nop = \"clip\"\nlow = true"), "true", "expected a number", "--toml"),
        (model("[[layer]]\nop = \"flatten\"\ninputs = 1"), "1", "`inputs` is a name or a list of names", "--toml"),
        ("layer = 3\n[[input]]\nname = \"x\"".to_owned(), "3", "write [[layer]], once for each", "--toml"),
        ("[[input]]\nname = \"x\"\ncolumns = -1\n".to_owned() + linear, "-1", "a number from 0 on", "--toml"),
        ("[[input]]\nname = \"x\"\ncolumns = \"2\"\n".to_owned() + linear, "\"2\"", "a number from 0 on", "--toml"),
        (
            model("[[layer]]\nop = \"linear\"\nweights = \"w\""),
            "\"w\"",
            "weights of shape [] for 2 columns",
            "[outputs, 2]",
        ),
        (model("[[layer]]\nop = \"linear\"\nweights = [[1.0, \"a\"]]"), "[[1.0", "all of one kind", "--toml"),
        (model("[[layer]]\nop = \"linear\"\nweights = {}"), "{}", "a weight file has no `file`", "--toml"),
        ("x = \"".to_owned(), "", "invalid basic string", "toml.io"),
        // Nothing in it.
        (String::new(), "", "needs an [[input]] and a [[layer]]", "--toml"),
        (model(""), "[", "needs an [[input]] and a [[layer]]", "--toml"),
        (model("[[layer]]"), "", "layer `layer1` has no `op`", "--toml"),
        (model("[[layer]]\nname = \"a\""), "name", "layer `a` has no `op`", "--toml"),
        (model("[[layer]]\nop = \"linear\"\nweights = []"), "[]", "weights of shape [0] for 2 columns", "[outputs, 2]"),
        (image("op = \"conv\"\nweights = [[[[]]]]"), "[[[[]]]]", "a layer without weights", "leave the layer out"),
        // Shapes of layers after each other.
        (
            model(&format!("{linear}[[layer]]\nop = \"linear\"\nweights = [[1.0, 2.0]]")),
            "[[1.0, 2.0]]",
            "weights of shape [1, 2] for 1 columns",
            "weights are [outputs, 1] here",
        ),
        (model(&format!("{linear}bias = [0.0, 1.0]")), "[0.0, 1.0]", "2 biases for 1 outputs", "each output"),
        (image("op = \"linear\"\nweights = [[1.0]]"), "op", "expected [rows, columns]", "flatten"),
        (image("op = \"conv\"\nweights = [[1.0]]"), "[[1.0]]", "weights are [outputs, channels", "--toml"),
        (image("op = \"conv\"\nweights = [[[[1.0]], [[2.0]]]]"), "op", "in 1 groups for f32[?, 1, 3, 3]", "--toml"),
        (image("op = \"max_pool\"\nkernel = [4, 4]"), "op", "a window of [4, 4]", "--toml"),
        (model("[[layer]]\nop = \"add\"\nvalue = [1.0, 2.0, 3.0]"), "op", "sizes 2 and 3 do not broadcast", "--toml"),
        // Names.
        (
            model("[[input]]\nname = \"x\"\n[[layer]]\nop = \"flatten\""),
            "\"x\"",
            "the name `x` is used twice",
            "names of their own",
        ),
        (
            model("[[layer]]\nname = \"a\"\nop = \"flatten\"\n[[layer]]\nname = \"a\"\nop = \"flatten\""),
            "\"flatten\"",
            "the name `a` is used twice",
            "names of their own",
        ),
        (
            model(&format!("{linear}[[output]]\nname = \"y\"\n[[output]]\nname = \"y\"")),
            "\"y\"",
            "the output `y` is there twice",
            "names of their own",
        ),
        (
            model(&format!("{linear}[[output]]\nname = \"y\"\nfrom = \"z\"")),
            "\"z\"",
            "no value `z`",
            "known are layer1, x",
        ),
        // Numbers.
        (
            model("[[layer]]\nop = \"linear\"\nweights = [[1.0, inf]]"),
            "[[1.0, inf]]",
            "a weight is inf",
            "finite weights",
        ),
        (model(&format!("{linear}bias = [nan]")), "[nan]", "a weight is NaN", "finite weights"),
        (image("op = \"conv\"\nweights = [[[[nan]]]]"), "[[[[nan]]]]", "a weight is NaN", "finite weights"),
        (image("op = \"conv\"\nweights = [[[[1.0]]]]\nbias = [-inf]"), "[-inf]", "a weight is -inf", "finite weights"),
        (
            model("[[layer]]\nop = \"tree_ensemble\"\ntrees = [[{ leaf = [nan] }]]"),
            "[nan]",
            "a weight is NaN",
            "finite",
        ),
        (
            model(
                "[[layer]]\nop = \"tree_ensemble\"\ntrees = [[{ feature = 0, threshold = nan, yes = 1, no = 2 }, { leaf = [0.0] }, { leaf = [1.0] }]]",
            ),
            "nan",
            "a threshold is NaN",
            "train or export it again",
        ),
        // Files.
        (
            model("[[layer]]\nop = \"linear\"\nweights = { file = \"../w.npy\" }"),
            "\"../w.npy\"",
            "`../w.npy` is not below the model's folder",
            "beside the model",
        ),
        (
            model("[[layer]]\nop = \"linear\"\nweights = { file = \"/etc/passwd\" }"),
            "\"/etc/passwd\"",
            "not below the model's folder",
            "beside the model",
        ),
        (
            model("[[layer]]\nop = \"linear\"\nweights = { file = \"w.npy\", aray = \"a\" }"),
            "aray",
            "no key `aray`",
            "its keys are file, array",
        ),
    ] {
        let why = toml::import(&text, &no_files).expect_err(&text);
        let shown = why.excerpt.as_ref().map(|excerpt| &text[excerpt.span.clone()]);
        let is_helped = why.help.as_ref().is_some_and(|own| own.contains(help));
        let is_marked = shown.is_some_and(|shown| shown.starts_with(marked));
        if why.code != Code::TomlInvalid || !why.message.contains(message) || !is_helped || !is_marked {
            failures.push(format!("{text}\n{why}\nat {shown:?}, not {marked}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// As `inspect --toml` writes them.
#[test]
fn weights_of_plain_operations_are_finite_too() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let zoo = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/zoo/models/tree_regressor.onnx");
    let trees = ok(at, &["inspect", zoo, "--toml"]);
    let first_of = |key: &str| {
        let start = trees.find(key).unwrap() + key.len();
        let end = start + trees[start..].find(',').unwrap();
        format!("{}nan{}", &trees[..start], &trees[end..])
    };
    let sum = "[[layer]]\nname = \"sum\"\nop = \"linear\"\noutputs = 1\nweights = [1.0, 2.0]\nbias = [0.0]";
    for (what, text) in [
        ("a weight", model(&sum.replace("2.0", "nan"))),
        ("a bias", model(&sum.replace("0.0", "nan"))),
        ("a threshold", first_of("threshold = [")),
        ("a leaf", first_of("leaf_weight = [")),
    ] {
        std::fs::write(at.join("m.toml"), text).unwrap();
        for command in [&["compile", "m.toml", "-o", "m.tacit"][..], &["explain", "m.toml"]] {
            let why = refused(at, command, "E0007", 1);
            assert!(why.contains("is NaN") && why.contains("train or export it again"), "{what}: {why}");
        }
    }
}

#[test]
fn weight_files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let write = |name: &str, bytes: &[u8]| std::fs::write(at.join(name), bytes).unwrap();
    let array = |values: &[f32], shape: &[usize]| TensorValue {
        shape: shape.to_vec(),
        data: tacit_ir::interp::tensor::Data::F32(values.to_vec()),
    };
    let npz = |name: &str, value: TensorValue| {
        tacit::data::npz_bytes(&[(name.to_owned(), value)].into_iter().collect()).unwrap()
    };
    write("good.npz", &npz("w", array(&[0.5, 1.0], &[1, 2])));
    write("three.npz", &npz("w", array(&[0.5, 1.0, 2.0], &[1, 3])));
    write("nan.npz", &npz("w", array(&[0.5, f32::NAN], &[1, 2])));
    write("none.npz", &npz("w", array(&[], &[0, 2])));
    write("cut.npz", &std::fs::read(at.join("good.npz")).unwrap()[..60]);
    write("cut.npy", b"\x93NUMPY\x01\x00");
    write("cut.safetensors", &[9, 0, 0, 0, 0, 0, 0, 0, b'{']);
    write("empty.npy", b"");
    write("w.txt", b"1 2");
    std::fs::create_dir(at.join("folder.npy")).unwrap();
    let text = |weights: &str| model(&format!("[[layer]]\nop = \"linear\"\nweights = {weights}"));
    let set = |weights: &str| std::fs::write(at.join("m.toml"), text(weights)).unwrap();
    set("{ file = \"good.npz\" }");
    ok(at, &["compile", "m.toml", "-o", "good.tacit"]);
    for (weights, code, shown) in [
        ("{ file = \"missing.npy\" }", "E0001", &["missing.npy", "beside the model"][..]),
        ("{ file = \"missing.npz\" }", "E0001", &["missing.npz", "beside the model"]),
        ("{ file = \"missing.safetensors\" }", "E0001", &["missing.safetensors", "beside the model"]),
        ("{ file = \"folder.npy\" }", "E0001", &["folder.npy", "beside the model"]),
        ("{ file = \"empty.npy\" }", "E0006", &["empty.npy", "beside the model"]),
        ("{ file = \"cut.npy\" }", "E0006", &["cut.npy", "beside the model"]),
        ("{ file = \"cut.npz\" }", "E0006", &["cut.npz", "beside the model"]),
        ("{ file = \"cut.safetensors\" }", "E0006", &["cut.safetensors", "beside the model"]),
        ("{ file = \"w.txt\" }", "E0007", &["no weight file", ".npy, .npz or .safetensors"]),
        ("{ file = \"good.npz\", array = \"v\" }", "E0007", &["has no array `v`", "`array` is one of w"]),
        ("{ file = \"cut.npy\", array = \"v\" }", "E0007", &["holds one array", "leave `array` out"]),
        ("{ file = \"three.npz\" }", "E0007", &["weights of shape [1, 3] for 2 columns", "[outputs, 2]"]),
        ("{ file = \"nan.npz\" }", "E0007", &["a weight is NaN", "finite weights"]),
        ("{ file = \"none.npz\" }", "E0007", &["a layer without weights", "leave the layer out"]),
    ] {
        set(weights);
        for command in [&["compile", "m.toml", "-o", "m.tacit"][..], &["explain", "m.toml"]] {
            let why = refused(at, command, code, 1);
            let missing = shown.iter().find(|part| !why.contains(**part));
            assert!(missing.is_none() && why.contains("m.toml"), "{weights}: {missing:?} in {why}");
        }
        assert!(!Path::exists(&at.join("m.tacit")));
    }
}
