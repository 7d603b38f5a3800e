//! Commands as users run them: options from a file, Parquet inputs, the report, and tampered IR text.

mod support;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use support::{ok, refused};
use tacit_ir::params::BLOCK_KEY_ESTIMATES;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/iris_decision_tree");

fn compiled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["compile", &format!("{EXAMPLE}/model.onnx"), "-o", "m.tacit"]);
    folder
}

#[test]
fn options_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = format!("{EXAMPLE}/model.onnx");
    std::fs::write(at.join("o.toml"), "failure-bits = 30\nthermometer = false\n").unwrap();
    let compile = ["compile", &model, "-o", "m.tacit", "--spec", "o.toml", "--json"];
    assert!(ok(at, &compile).contains("\"failure_bits\": 30"));
    assert!(ok(at, &[&compile[..], &["--set", "failure-bits=50"]].concat()).contains("\"failure_bits\": 50"));
    std::fs::write(at.join("o.toml"), "failure-bits = 30\n\nbits = 3\n").unwrap();
    let why = refused(at, &compile, "E0801", 2);
    assert!(why.contains("o.toml: line 3, column 1"), "{why}");
    assert!(why.contains("options are: activation-bits"), "{why}");
}

#[test]
fn the_report_is_one_page() {
    let folder = compiled();
    let at = folder.path();
    ok(at, &["inspect", "m.tacit", "--report", "m.html"]);
    let page = std::fs::read_to_string(at.join("m.html")).unwrap();
    for part in
        ["decide", "R1", "noise[2^-", "Parameter card", "use-thermometer", "IND-CPA^D", "p_error = 2^-40", "query"]
    {
        assert!(page.contains(part), "no `{part}` in the report");
    }
    for banned in ["<script", "http://", "https://", "src=", "@import"] {
        assert!(!page.contains(banned), "`{banned}` in the report");
    }
    let layout: serde_json::Value = serde_json::from_str(&ok(at, &["inspect", "m.tacit", "--json"])).unwrap();
    assert!(page.contains(&format!("<td>{}</td>", layout["parameters"]["lwe_dimension"])));
    ok(at, &["client-artifact", "m.tacit", "-o", "c.tacit"]);
    refused(at, &["inspect", "c.tacit", "--report", "c.html"], "E0605", 1);
    refused(at, &["inspect", "m.tacit", "--report", "no/folder/m.html"], "E0005", 1);
    assert!(!at.join("c.html").exists());
}

#[test]
fn parquet_tables_are_inputs() {
    use parquet::data_type::FloatType;
    let folder = compiled();
    let at = folder.path();
    let npy = format!("{EXAMPLE}/x_test.npy");
    let rows = tacit::data::read_npy(Path::new(&npy)).unwrap();
    let (columns, data) = (rows.columns(), rows.to_f32().unwrap());
    let names: Vec<String> = (0..columns).map(|column| format!("REQUIRED FLOAT c{column};")).collect();
    let schema = parquet::schema::parser::parse_message_type(&format!("message t {{ {} }}", names.concat())).unwrap();
    let file = File::create(at.join("x.parquet")).unwrap();
    let mut writer = parquet::file::writer::SerializedFileWriter::new(file, Arc::new(schema), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for number in 0..columns {
        let values: Vec<f32> = data.iter().skip(number).step_by(columns).copied().collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<FloatType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    for (input, output) in [(npy.as_str(), "a.npz"), ("x.parquet", "b.npz")] {
        ok(at, &["predict", "m.tacit", "--mode", "clear", "--input", input, "-o", output]);
    }
    assert_eq!(std::fs::read(at.join("a.npz")).unwrap(), std::fs::read(at.join("b.npz")).unwrap());
    std::fs::write(at.join("text.parquet"), "a,b\n1,2\n").unwrap();
    refused(at, &["predict", "m.tacit", "--input", "text.parquet"], "E0006", 1);
}

#[test]
fn tampered_ir_text_is_refused_with_its_line() {
    let folder = compiled();
    let at = folder.path();
    let text = ok(at, &["inspect", "m.tacit", "--ir", "circuit"]);
    std::fs::write(at.join("m.tir"), &text).unwrap();
    ok(at, &["opt", "m.tir", "--passes", "share-nodes"]);
    let (before, range) = text.split_once("range[").unwrap();
    std::fs::write(at.join("m.tir"), format!("{before}range[-1000..{range}")).unwrap();
    let why = refused(at, &["opt", "m.tir", "--passes", "share-nodes"], "E040", 1);
    assert!(why.contains("m.tir: line "), "{why}");
    let (before, noise) = text.split_once("noise[2^-").unwrap();
    std::fs::write(at.join("m.tir"), format!("{before}noise[2^-1{noise}")).unwrap();
    let why = refused(at, &["opt", "m.tir"], "E0405", 1);
    assert!(why.contains("the derived one"), "{why}");
}

#[test]
fn a_network_goes_through_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/digits_mlp_deep");
    let (model, rows) = (format!("{example}/model.onnx"), format!("{example}/calibration.npy"));
    let bits = ["--set", "input-bits=3", "--set", "weight-bits=3", "--set", "noise-share=0.35"];
    ok(at, &[&["compile", &model, "--calibration", &rows, "-o", "m.tacit"][..], &bits].concat());
    let card = ok(at, &["inspect", "m.tacit"]);
    assert!(card.contains("parameters are limited by the noise at"));
    // The estimate of the small key is that of the table, in all three forms.
    let layout: serde_json::Value = serde_json::from_str(&ok(at, &["inspect", "m.tacit", "--json"])).unwrap();
    ok(at, &["inspect", "m.tacit", "--report", "m.html"]);
    let page = std::fs::read_to_string(at.join("m.html")).unwrap();
    let keys = layout["partitions"].as_array().unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        let dimension = key["lwe_dimension"].as_u64().unwrap();
        let row = BLOCK_KEY_ESTIMATES.iter().find(|row| u64::from(row.0) == dimension).unwrap();
        assert_eq!(key["estimated_bits"].as_f64(), Some(row.1.min(row.2)));
        let bits = format!("{:.1} bits of security", row.1.min(row.2));
        assert!(card.contains(&format!("n={dimension} noise")) && card.contains(&bits), "{card}");
        assert!(page.contains(&format!("<td>{bits}</td>")));
    }
    ok(at, &["predict", "m.tacit", "--mode", "clear", "--input", &rows, "-o", "y.npz"]);
}

/// One network under two parameter sets: keys of one are none of the other.
#[test]
fn an_evaluation_key_of_other_parameters_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tests/invoke");
    let (model, rows) = (format!("{tiny}/network.toml"), format!("{tiny}/calibration.csv"));
    let bits =
        ["input-bits=4", "weight-bits=4", "noise-share=4", "regime=bootstrap"].map(|own| ["--set", own]).concat();
    for failure in ["40", "128"] {
        let (output, keys) = (format!("{failure}.tacit"), format!("keys{failure}"));
        let failure = format!("failure-bits={failure}");
        let compile = ["compile", &model, "--calibration", &rows, "-o", &output, "--set", &failure];
        ok(at, &[&compile[..], &bits].concat());
        ok(at, &["keygen", &output, "-o", &keys]);
    }
    std::fs::write(at.join("x.csv"), "0.1,-0.2,0.3,0.4\n-0.5,0.6,0.7,-0.8\n").unwrap();
    ok(at, &["encrypt", "128.tacit", "--key", "keys128/client.key", "--input", "x.csv", "-o", "q"]);
    let run = |key| ["run", "128.tacit", "--query", "q", "-o", "r", "--evaluation-key", key];
    let why = refused(at, &run("keys40/evaluation.key"), "E0606", 1);
    assert!(why.contains("keys40/evaluation.key: an evaluation key belongs to circuit"), "{why}");
    assert!(why.contains("of one and the same compilation"), "{why}");
    assert!(!at.join("r").exists());
    let why = refused(
        at,
        &["run", "40.tacit", "--query", "q", "-o", "r", "--evaluation-key", "keys40/evaluation.key"],
        "E0606",
        1,
    );
    assert!(why.contains("q: a query belongs to circuit"), "{why}");
    ok(at, &run("keys128/evaluation.key"));
}

const CREDIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/credit_scoring");

#[test]
fn models_in_toml_compile_and_any_model_is_written_so() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (model, rows) = (format!("{CREDIT}/model.toml"), format!("{CREDIT}/calibration.csv"));
    assert!(ok(at, &["explain", &model, "--calibration", &rows]).contains("R1, 16 look-ups"));
    ok(at, &["compile", &model, "--calibration", &rows, "-o", "credit.tacit"]);
    ok(at, &["predict", "credit.tacit", "--input", &format!("{CREDIT}/x_test.csv"), "--mode", "clear", "-o", "y.npz"]);
    let written = ok(at, &["inspect", &format!("{EXAMPLE}/model.onnx"), "--toml"]);
    std::fs::write(at.join("m.toml"), written).unwrap();
    let circuit = |model: &str| -> serde_json::Value {
        serde_json::from_str(&ok(at, &["compile", model, "-o", "m.tacit", "--json"])).unwrap()
    };
    assert_eq!(circuit("m.toml")["circuit"], circuit(&format!("{EXAMPLE}/model.onnx"))["circuit"]);
    assert!(ok(at, &["explain", "m.toml"]).contains("external products"));
}

#[test]
fn weights_come_from_safetensors_and_mistakes_show_the_text() {
    use safetensors::tensor::{Dtype, TensorView};
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let bytes: Vec<u8> = [0.5f32, -0.25, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![1, 3], &bytes).unwrap();
    std::fs::write(at.join("w.safetensors"), safetensors::serialize([("w", view)], None).unwrap()).unwrap();
    let text = "[options]\nprecision-bits = 10\n[[input]]\nname = \"x\"\ncolumns = 3\n[[layer]]\nop = \"linear\"\nweights = { file = \"w.safetensors\" }\n";
    std::fs::write(at.join("m.toml"), text).unwrap();
    std::fs::write(at.join("x.csv"), "a,b,c\n2,4,1\n").unwrap();
    ok(at, &["compile", "m.toml", "-o", "m.tacit"]);
    ok(at, &["predict", "m.tacit", "--input", "x.csv", "-o", "y.npz"]);
    for (from, to, shown) in [
        ("w.safetensors", "v.safetensors", "v.safetensors"),
        ("w.safetensors\"", "w.safetensors\", array = \"b\"", "has no array `b`"),
        ("columns = 3", "columns = 2", "for 2 columns"),
        ("op = \"linear\"", "op = \"linear\"\nwidth = 3", "has no key `width`"),
        ("precision-bits = 10", "precision-bits = 99", "precision-bits is 1 to 30"),
    ] {
        std::fs::write(at.join("m.toml"), text.replace(from, to)).unwrap();
        let code = if shown.starts_with("precision") { ("E0801", 2) } else { ("E000", 1) };
        let why = refused(at, &["compile", "m.toml", "-o", "n.tacit"], code.0, code.1);
        assert!(why.contains(shown) && why.contains("m.toml"), "{why}");
        assert!(!at.join("n.tacit").exists());
    }
    std::fs::write(at.join("m.toml"), "x = [").unwrap();
    for command in [&["compile", "m.toml", "-o", "n.tacit"][..], &["explain", "m.toml"]] {
        assert!(refused(at, command, "E0007", 1).contains("unclosed array"));
    }
}
