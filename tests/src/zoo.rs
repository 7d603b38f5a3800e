//! Small models of every family, with rows that lie on, just below and just above thresholds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_compiler::{Compiled, compile};
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::tensor::{Data, TensorValue};

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
        read(path, &arrays)
    };
    paths.into_iter().map(case).collect()
}

type Arrays = BTreeMap<String, TensorValue>;

/// The arrays whose names have a prefix, without it.
fn part(arrays: &Arrays, prefix: &str) -> Arrays {
    let own = arrays.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone())));
    own.collect()
}

fn read(path: PathBuf, arrays: &Arrays) -> Case {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Case { name, inputs: part(arrays, "in:"), expected: part(arrays, "out:"), path }
}

/// A small network with calibration rows, and onnxruntime's answers without graph optimizations.
#[derive(Clone, Debug)]
pub struct NetworkCase {
    /// Model, test rows and answers.
    pub case: Case,
    /// Calibration rows by input.
    pub calibration: BTreeMap<String, TensorValue>,
    /// Of quantized models: what one unit of the last quantization is in the results.
    pub unit: Option<f64>,
}

/// Accuracy that is asked of networks first, and where no parameters give it: the share of calibration rows whose class may differ,
/// and the error of outputs as a share of their deviation. Of a hundred calibration rows one is a percent.
const ACCURACY: [(f64, f64); 2] = [(0.02, 0.15), (0.08, 0.3)];

impl NetworkCase {
    /// Compiles the network; also the error that outputs were allowed.
    ///
    /// # Errors
    /// Those of the front end and the compiler.
    ///
    /// # Panics
    /// Where the file is unreadable.
    pub fn compile(&self) -> Result<(Compiled, f64)> {
        let bytes = std::fs::read(&self.case.path).expect("a model");
        let mut found = Err(Diagnostic::internal("no accuracy is asked"));
        for (loss, error) in ACCURACY {
            let options = Options { max_accuracy_loss: loss, max_output_error: Some(error), ..Options::default() };
            let graph = onnx::import(&bytes, &Default::default())?;
            found = compile(graph, &options, &self.calibration, &DriverOptions::default()).map(|own| (own, error));
            if !matches!(&found, Err(why) if why.code == Code::NoParameters) {
                break;
            }
        }
        found
    }

    /// The absolute errors of outputs, but for labels, in order of name.
    ///
    /// # Panics
    /// Where sizes differ.
    pub fn errors<'a>(&self, found: impl IntoIterator<Item = (&'a String, &'a TensorValue)>) -> Vec<f64> {
        let (found, expected) = (flat(found), flat(&self.case.expected));
        assert_eq!(found.len(), expected.len(), "{}", self.case.name);
        found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect()
    }
}

/// The floats of all outputs, in order of name.
pub fn flat<'a>(values: impl IntoIterator<Item = (&'a String, &'a TensorValue)>) -> Vec<f64> {
    let mut all: Vec<_> = values.into_iter().collect();
    all.sort_by_key(|(name, _)| *name);
    let floats = all.into_iter().filter(|(_, value)| matches!(value.data, Data::F32(_) | Data::F64(_)));
    floats.filter_map(|(_, value)| value.to_f64()).flatten().collect()
}

/// Every network of the zoo, in order of name.
///
/// # Panics
/// Where a file is missing or unreadable.
pub fn network_cases() -> Vec<NetworkCase> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/networks/models");
    let files = std::fs::read_dir(folder).expect("the zoo is part of the repository");
    let mut paths: Vec<PathBuf> = files.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "onnx"));
    paths.sort();
    let case = |path: PathBuf| {
        let arrays = tacit::data::read_npz(&path.with_extension("npz")).expect("a model has answers");
        let calibration = part(&arrays, "cal:");
        let unit = arrays.get("unit").and_then(TensorValue::to_f64).and_then(|unit| unit.first().copied());
        NetworkCase { case: read(path, &arrays), calibration, unit }
    };
    paths.into_iter().map(case).collect()
}
