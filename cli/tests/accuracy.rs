//! How much accuracy the bits of a network may lose: the flag, labels of calibration rows, and what is said of both.

mod support;

use indexmap::IndexMap;
use std::path::Path;
use support::{ok, refused, tacit};
use tacit_ir::interp::tensor::{Data, TensorValue};

const FIRST: [[f64; 2]; 4] = [[1.0, 0.5], [-0.75, 1.0], [0.5, -1.0], [-1.0, -0.5]];
const SECOND: [[f64; 4]; 3] = [[1.0, -0.5, 0.25, -1.0], [-0.5, 1.0, -0.75, 0.5], [0.25, -0.75, 1.0, 0.5]];
const ROWS: usize = 200;

/// A network of two inputs, four activations and three scores; `end` follows the last layer.
fn network(end: &str) -> String {
    let first = format!("{FIRST:?}");
    let second = format!("{SECOND:?}");
    format!(
        "[[input]]\nname = \"x\"\ncolumns = 2\n[[layer]]\nop = \"linear\"\nweights = {first}\n[[layer]]\nop = \"activation\"\nkind = \"relu\"\n[[layer]]\nop = \"linear\"\nweights = {second}\n{end}"
    )
}

/// Points of a square, in an order without a pattern.
fn rows() -> Vec<[f64; 2]> {
    (0..ROWS).map(|row| [(row * 37 % ROWS) as f64, (row * 83 % ROWS) as f64].map(|x| x / 100.0 - 0.997)).collect()
}

fn scores([a, b]: [f64; 2]) -> [f64; 3] {
    let hidden = FIRST.map(|[u, v]| (u * a + v * b).max(0.0));
    SECOND.map(|weights| weights.iter().zip(hidden).map(|(w, h)| w * h).sum())
}

fn class(row: [f64; 2]) -> usize {
    let scores = scores(row);
    (0..3).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap()
}

/// A folder with the network `m.toml` and its calibration rows `x.csv`.
fn folder(end: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.toml"), network(end)).unwrap();
    column(folder.path(), "x.csv", "a,b", rows().iter().map(|[a, b]| format!("{a},{b}")));
    folder
}

fn column(at: &Path, name: &str, header: &str, lines: impl Iterator<Item = impl ToString>) {
    let lines: Vec<String> = [header.to_owned()].into_iter().chain(lines.map(|line| line.to_string())).collect();
    std::fs::write(at.join(name), lines.join("\n")).unwrap();
}

fn npy(values: &[i64]) -> Vec<u8> {
    let header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({},), }}", values.len());
    let header = format!("{header:<117}\n");
    let data = values.iter().flat_map(|x| x.to_le_bytes());
    [b"\x93NUMPY\x01\x00".to_vec(), (header.len() as u16).to_le_bytes().to_vec(), header.into_bytes(), data.collect()]
        .concat()
}

const COMPILE: [&str; 7] = ["compile", "m.toml", "-o", "m.tacit", "--calibration", "x.csv", "--calibration-labels"];

#[test]
fn labels_of_every_kind_of_file_say_what_is_lost() {
    let folder = folder("");
    let at = folder.path();
    // One in ten is what the network does not say.
    let labels: Vec<i64> =
        rows().iter().enumerate().map(|(at, row)| ((class(*row) + usize::from(at % 10 == 0)) % 3) as i64).collect();
    column(at, "y.csv", "class", labels.iter());
    std::fs::write(at.join("y.npy"), npy(&labels)).unwrap();
    let value = TensorValue { shape: vec![ROWS, 1], data: Data::F32(labels.iter().map(|x| *x as f32).collect()) };
    std::fs::write(at.join("y.npz"), tacit::data::npz_bytes(&IndexMap::from([("y".to_owned(), value)])).unwrap())
        .unwrap();
    let mut notes = Vec::new();
    for file in ["y.csv", "y.npy", "y.npz"] {
        let text = ok(at, &[&COMPILE[..], &[file, "--max-accuracy-loss", "0.02"]].concat());
        let note = text.lines().find(|line| line.contains("of labels missed")).unwrap_or_else(|| panic!("{text}"));
        assert!(note.contains("on the labels of 200 simulated calibration rows"), "{note}");
        assert!(note.contains("10.00 % by the float model"), "{note}");
        let loss = note.split(" % loss").next().unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        assert!((0.0..=2.0).contains(&loss), "{note}");
        notes.push(note.to_owned());
    }
    notes.dedup();
    assert_eq!(notes.len(), 1);
    let text = ok(at, &[&COMPILE[..6], &["--max-accuracy-loss", "0.02"]].concat());
    assert!(
        text.contains("on 200 simulated calibration rows") && text.contains("loss against the float model"),
        "{text}"
    );
}

#[test]
fn labels_decide_which_bits_are_enough() {
    // The network never says class 2, with any bits: where that is the answer, no bits lose anything.
    let folder = folder("bias = [0.0, 0.0, -100.0]\n");
    let at = folder.path();
    column(at, "y.csv", "class", (0..ROWS).map(|_| 2));
    let loss = ["--max-accuracy-loss", "0"];
    let text = ok(at, &[&COMPILE[..], &["y.csv"], &loss].concat());
    assert!(text.contains("3 bits for inputs") && text.contains("100.00 % of labels missed"), "{text}");
    assert!(text.contains("one more bit for inputs would cost"), "{text}");
    // Against the float model three bits do.
    let found = tacit(at, &[&COMPILE[..6], &loss].concat());
    let said = [found.stdout, found.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(!said.contains("3 bits for inputs"), "{said}");
    assert_eq!(found.status.success(), said.contains(" 0.00 % loss against the float model"), "{said}");
}

/// What a bit more would cost: of inputs and of weights among the candidates, of activations by other parameters.
#[test]
fn more_bits_have_a_price() {
    let folder = folder("");
    let at = folder.path();
    let options = ["--max-accuracy-loss", "1", "--set", "regime=bootstrap"];
    ok(at, &[&COMPILE[..6], &options].concat());
    let card = ok(at, &["inspect", "m.tacit"]);
    let price = |what: &str| -> f64 {
        let rest = card.split_once(&format!("{what} would cost ")).unwrap_or_else(|| panic!("{card}")).1;
        rest.split_once(" ms").unwrap().0.parse().unwrap()
    };
    price("one more bit for inputs");
    price("one more bit for weights");
    assert!(price("one more bit of precision at activations (half the noise-share)") >= 0.0);
    assert!(card.contains("one bit less would save"), "{card}");
    // What the next weights cost is what they cost when they are asked for.
    let run = |bits: &str| -> f64 {
        let share = card.split_once("noise up to ").unwrap().1.split_once(' ').unwrap().0;
        let fixed = [format!("weight-bits={bits}"), "input-bits=3".to_owned(), format!("noise-share={share}")];
        let set: Vec<&str> = fixed.iter().flat_map(|own| ["--set", own]).collect();
        let json = ok(at, &[&COMPILE[..6], &options, &set, &["--json"]].concat());
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["predicted_run_ms"].as_f64().unwrap()
    };
    let asked = (run("4") - run("3")).max(0.0);
    assert!((asked - price("one more bit for weights")).abs() < 0.06, "{asked}: {card}");
}

#[test]
fn text_labels_come_from_the_tail() {
    let names = ["low", "middle", "high"];
    let folder = folder("[[output]]\nname = \"decision\"\nlabels = [\"low\", \"middle\", \"high\"]\n");
    let at = folder.path();
    column(at, "y.csv", "decision", rows().iter().map(|row| names[class(*row)]));
    let compile = [&COMPILE[..], &["y.csv"]].concat();
    for head in [&[][..], &["--encrypt-head"]] {
        let text = ok(at, &[&compile, head, &["--max-accuracy-loss", "0.05"]].concat());
        assert!(text.contains("of labels missed, 0.00 % by the float model"), "{text}");
    }
    column(
        at,
        "y.csv",
        "decision",
        rows().iter().enumerate().map(|(at, row)| if at == 7 { "cat" } else { names[class(*row)] }),
    );
    let why = refused(at, &compile, "E0801", 2);
    assert!(why.contains("label `cat` of row 7 is no class of the model"), "{why}");
    assert!(why.contains("its classes are low, middle, high"), "{why}");
    // Without a line that names the column the first label is taken for it.
    column(at, "y.csv", "low", rows().iter().skip(1).map(|row| names[class(*row)]));
    let why = refused(at, &compile, "E0801", 2);
    assert!(why.contains("[199, 1] for 200 calibration rows") && why.contains("begins with a line"), "{why}");
}

/// Scores whose columns have names, and no label: the label is the name of the greatest.
#[test]
fn named_scores_are_labels() {
    let folder = folder("[[layer]]\nop = \"zip_map\"\nstrings = [\"low\", \"middle\", \"high\"]\n");
    let at = folder.path();
    let name = |(at, row): (usize, &[f64; 2])| ["low", "middle", "high"][(class(*row) + usize::from(at % 4 == 0)) % 3];
    column(at, "y.csv", "class", rows().iter().enumerate().map(name));
    let compile = [&COMPILE[..], &["y.csv", "--max-accuracy-loss", "0.05"]].concat();
    let text = ok(at, &compile);
    assert!(text.contains("of labels missed, 25.00 % by the float model"), "{text}");
    column(at, "y.csv", "class", (0..ROWS).map(|_| 1));
    let why = refused(at, &compile, "E0801", 2);
    assert!(
        why.contains("label `1` of row 0 is no class") && why.contains("its classes are low, middle, high"),
        "{why}"
    );
}

#[test]
fn values_are_judged_by_their_deviation() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let last = network("").replace(&format!("{SECOND:?}"), &format!("[{:?}]", SECOND[0]));
    std::fs::write(at.join("m.toml"), last).unwrap();
    column(at, "x.csv", "a,b", rows().iter().map(|[a, b]| format!("{a},{b}")));
    column(at, "y.csv", "value", rows().iter().map(|row| scores(*row)[0]));
    let text = ok(at, &[&COMPILE[..], &["y.csv", "--max-accuracy-loss", "0.1"]].concat());
    let note = text.lines().find(|line| line.contains("of the labels' deviation")).unwrap_or_else(|| panic!("{text}"));
    assert!(note.contains("0.00 % by the float model"), "{note}");
    let loss = note.split(" % loss").next().unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    // Something is lost: values are not classes.
    assert!(0.0 < loss && loss <= 10.0, "{note}");
    for (label, wrong) in [("nan", "the label of row 3 is NaN"), ("inf", "the label of row 3 is inf")] {
        let lines = rows().into_iter().enumerate();
        column(
            at,
            "y.csv",
            "value",
            lines.map(|(at, row)| if at == 3 { label.to_owned() } else { scores(row)[0].to_string() }),
        );
        let why = refused(at, &[&COMPILE[..], &["y.csv"]].concat(), "E0801", 2);
        assert!(why.contains(wrong) && why.contains("leave rows without a label out"), "{why}");
    }
    column(at, "y.csv", "value", (0..ROWS).map(|_| 1.5));
    let why = refused(at, &[&COMPILE[..], &["y.csv"]].concat(), "E0801", 2);
    assert!(why.contains("all labels are 1.5"), "{why}");
    column(at, "y.csv", "value", (0..ROWS).map(|_| "low"));
    let why = refused(at, &[&COMPILE[..], &["y.csv"]].concat(), "E0801", 2);
    assert!(why.contains("labels are texts, and the model's output is a number"), "{why}");
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let folder = folder("");
    let at = folder.path();
    let compile = [&COMPILE[..], &["y.csv"]].concat();
    for (labels, message, help) in [
        (vec!["0"; 199], "labels of shape [199, 1] for 200 calibration rows", "one label for each calibration row"),
        (vec!["0,1"; 200], "labels of shape [200, 2] for 200 calibration rows", "one label for each calibration row"),
        (
            [vec!["0"; 9], vec!["3"; 191]].concat(),
            "label `3` of row 9 is no class of the model",
            "its classes are 0, 1, 2",
        ),
        ([vec!["0"; 9], vec!["0.5"; 191]].concat(), "label `0.5` of row 9 is no class", "its classes are 0, 1, 2"),
        ([vec!["0"; 9], vec!["nan"; 191]].concat(), "the label of row 9 is NaN", "leave rows without a label out"),
    ] {
        std::fs::write(at.join("y.csv"), labels.join("\n")).unwrap();
        let why = refused(at, &compile, "E0801", 2);
        assert!(why.contains(message) && why.contains(help), "{why}");
    }
    refused(at, &[&COMPILE[..], &["z.csv"]].concat(), "E0001", 1);
    let labels_alone = ["compile", "m.toml", "-o", "m.tacit", "--calibration-labels", "y.csv"];
    assert_eq!(tacit(at, &labels_alone).status.code(), Some(2));
    std::fs::write(at.join("two.toml"), network("") + "[[output]]\nname = \"a\"\n[[output]]\nname = \"b\"\n").unwrap();
    std::fs::write(at.join("y.csv"), vec!["0"; 200].join("\n")).unwrap();
    let two = compile.iter().map(|&arg| if arg == "m.toml" { "two.toml" } else { arg }).collect::<Vec<_>>();
    let why = refused(at, &two, "E0801", 2);
    assert!(why.contains("labels could be of several outputs of the model: a, b"), "{why}");
}

#[test]
fn the_flag_and_the_setting_agree_or_are_refused() {
    let folder = folder("");
    let at = folder.path();
    let compile = COMPILE[..6].to_vec();
    let with = |more: &[&str]| -> String {
        let json = ok(at, &[&compile, more, &["--json"]].concat());
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["circuit"].to_string()
    };
    let flag = with(&["--max-accuracy-loss", "0.2"]);
    assert_eq!(flag, with(&["--set", "max-accuracy-loss=0.2"]));
    assert_eq!(flag, with(&["--set", "max-accuracy-loss=0.20", "--max-accuracy-loss", "0.2"]));
    std::fs::write(at.join("o.toml"), "max-accuracy-loss = 0.0001\n").unwrap();
    assert_eq!(flag, with(&["--spec", "o.toml", "--max-accuracy-loss", "0.2"]));
    let why = refused(
        at,
        &[&compile[..], &["--set", "max-accuracy-loss=0.1", "--max-accuracy-loss", "0.2"]].concat(),
        "E0801",
        2,
    );
    assert!(why.contains("--max-accuracy-loss 0.2 contradicts --set max-accuracy-loss=0.1"), "{why}");
    let why = refused(at, &[&compile[..], &["--max-accuracy-loss=-0.1"]].concat(), "E0801", 2);
    assert!(why.contains("max-accuracy-loss is a number from 0 on"), "{why}");
}

#[test]
fn a_training_job_takes_labels() {
    let folder = folder("");
    let at = folder.path();
    column(at, "y.csv", "class", rows().iter().map(|row| class(*row)));
    for (channel, file) in [("model", "m.toml"), ("calibration", "x.csv"), ("calibration-labels", "y.csv")] {
        std::fs::create_dir_all(at.join("input/data").join(channel)).unwrap();
        std::fs::copy(at.join(file), at.join("input/data").join(channel).join(file)).unwrap();
    }
    std::fs::create_dir_all(at.join("input/config")).unwrap();
    std::fs::write(at.join("input/config/hyperparameters.json"), r#"{"max_accuracy_loss": "0.05"}"#).unwrap();
    let text = ok(at, &["train", "--folder", "."]);
    assert!(text.contains("of labels missed, 0.00 % by the float model"), "{text}");
}
