//! Small models of every family, with rows that lie on, just below and just above thresholds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tacit_ir::interp::tensor::TensorValue;

/// Models that are refused, with the code and the stage that refuses them: nothing else may be.
const REFUSED: &str = include_str!("../zoo/refused.txt");

/// The code with which a model is refused, if it is.
pub fn refusal(name: &str, stages: &[&str]) -> Option<&'static str> {
    REFUSED.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut words = line.split_whitespace();
        let (own, code, stage) = (words.next()?, words.next()?, words.next()?);
        (own == name && stages.contains(&stage)).then_some(code)
    })
}

/// A model with rows and onnxruntime's answers.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file's name without its extension.
    pub name: String,
    /// Inputs by name.
    pub inputs: BTreeMap<String, TensorValue>,
    /// onnxruntime's outputs by name.
    pub expected: BTreeMap<String, TensorValue>,
    /// The model.
    pub path: PathBuf,
}

impl Case {
    /// The rows whose inputs have no NaN.
    pub fn without_missing(&self) -> Case {
        let missing = |value: &TensorValue, row: usize| {
            let all = value.to_f64().unwrap_or_default();
            all.chunks(value.columns().max(1)).nth(row).is_some_and(|row| row.iter().any(|x| x.is_nan()))
        };
        let rows = self.inputs.values().map(TensorValue::rows).next().unwrap_or(0);
        let kept: Vec<usize> =
            (0..rows).filter(|&row| !self.inputs.values().any(|value| missing(value, row))).collect();
        let keep = |value: &TensorValue| {
            let size = value.columns();
            let data = value.data.pick(kept.iter().flat_map(|row| row * size..(row + 1) * size));
            let shape = [kept.len()].into_iter().chain(value.shape.iter().skip(1).copied()).collect();
            TensorValue { shape, data }
        };
        let all = |values: &BTreeMap<String, TensorValue>| values.iter().map(|(n, v)| (n.clone(), keep(v))).collect();
        Case { inputs: all(&self.inputs), expected: all(&self.expected), ..self.clone() }
    }
}

/// Every model of the zoo, in order of path.
///
/// # Panics
/// Where a file is missing or unreadable.
pub fn cases() -> Vec<Case> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo");
    cases_in(&[zoo.join("models"), zoo.join("wide/models")])
}

/// Every model in folders, in order of path.
pub(crate) fn cases_in(folders: &[PathBuf]) -> Vec<Case> {
    let files = |folder: &PathBuf| {
        std::fs::read_dir(folder)
            .expect("models are part of the repository")
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
    };
    let mut paths: Vec<PathBuf> = folders.iter().flat_map(files).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "onnx"));
    paths.sort();
    let case = |path: PathBuf| {
        let arrays = tacit::data::read_npz(&path.with_extension("npz")).expect("a model has answers");
        let part = |prefix: &str| {
            let own =
                arrays.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone())));
            own.collect()
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Case { name, inputs: part("in:"), expected: part("out:"), path }
    };
    paths.into_iter().map(case).collect()
}
