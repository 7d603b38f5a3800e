//! What cross-crate tests share: the examples with onnxruntime's outputs, and comparing with them.

pub mod command;
pub mod deployment;
pub mod double;
pub mod http;
pub mod operators;
pub mod timing;
pub mod zoo;

use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tacit::data;
use tacit_client::codec::Codec;
use tacit_compiler::frontend::onnx;
use tacit_compiler::options::Options;
use tacit_compiler::passes::DriverOptions;
use tacit_compiler::{Compiled, compile};
use tacit_ir::diag::Result;
use tacit_ir::interp::tensor::{Data, TensorValue, evaluate};

/// A model with its test inputs and what onnxruntime answers.
#[derive(Debug)]
pub struct Example {
    /// Folder name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// onnxruntime's outputs, by name.
    pub expected: BTreeMap<String, TensorValue>,
}

/// Every example of trees or linear models, in order of name.
///
/// # Panics
/// Where an example is incomplete: tests must not pass by skipping.
pub fn examples() -> Vec<Example> {
    all().into_iter().filter(|example| !example.is_network()).collect()
}

/// Every example of a neural network, in order of name: those with calibration rows.
///
/// # Panics
/// Where an example is incomplete.
pub fn networks() -> Vec<Example> {
    all().into_iter().filter(Example::is_network).collect()
}

fn all() -> Vec<Example> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the examples folder is part of the repository")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()).filter(|path| path.join("model.onnx").exists()))
        .collect();
    folders.sort();
    let example = |folder: PathBuf| Example {
        name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        expected: data::read_npz(&folder.join("expected.npz")).expect("an example has onnxruntime's outputs"),
        folder,
    };
    folders.into_iter().map(example).collect()
}

impl Example {
    /// The ONNX file.
    pub fn model(&self) -> Vec<u8> {
        std::fs::read(self.folder.join("model.onnx")).expect("an example has a model")
    }

    /// Compiles the model.
    ///
    /// # Errors
    /// Those of the compiler.
    pub fn compile(&self, options: &Options) -> Result<Compiled> {
        let model = onnx::import(&self.model(), &onnx::ImportLimits::default())?;
        let calibration = if self.is_network() {
            data::read_inputs(&self.folder.join("calibration.npy"), &onnx::inputs(&model))?
        } else {
            BTreeMap::new()
        };
        compile(model, options, &calibration, &DriverOptions::default())
    }

    /// How the float interpreter's outputs on the test rows differ from onnxruntime's.
    ///
    /// # Panics
    /// Where the example does not import, compile or evaluate.
    pub fn interpreted_difference(&self) -> Difference {
        let graph = onnx::import(&self.model(), &onnx::ImportLimits::default()).expect("the model imports");
        let compiled = self.compile(&Options::default()).expect("the model compiles");
        let codec = Codec::new(&compiled.artifact).expect("a fresh artifact");
        let inputs = self.inputs(&codec).expect("an example has test rows");
        let outputs = evaluate(&graph, &inputs).expect("the test rows evaluate");
        difference(&outputs, &self.expected)
    }

    /// The largest absolute value of onnxruntime's outputs, at least 1.
    pub fn scale(&self) -> f64 {
        let values = self.expected.values().filter_map(TensorValue::to_f64).flatten();
        values.fold(1.0f64, |a, b| a.max(b.abs()))
    }

    fn is_network(&self) -> bool {
        self.folder.join("calibration.npy").exists()
    }

    /// The test rows as the model's inputs.
    ///
    /// # Errors
    /// Those of reading data.
    pub fn inputs(&self, codec: &Codec) -> Result<BTreeMap<String, TensorValue>> {
        data::read_inputs(&self.folder.join("x_test.npy"), &codec.inputs())
    }
}

/// How two sets of outputs differ: rows with other labels (integers or strings), and the largest difference of floats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Labels that differ.
    pub labels: usize,
    /// Largest absolute difference of floats.
    pub floats: f64,
}

/// Compares outputs with onnxruntime's.
///
/// # Panics
/// Where names, shapes or types differ.
pub fn difference(found: &IndexMap<String, TensorValue>, expected: &BTreeMap<String, TensorValue>) -> Difference {
    let mut out = Difference::default();
    let names: Vec<&String> = found.keys().collect();
    assert_eq!(names.len(), expected.len(), "outputs {names:?}");
    for (name, expected) in expected {
        let found = found.get(name).unwrap_or_else(|| panic!("no output `{name}` among {names:?}"));
        assert_eq!(found.data.len(), expected.data.len(), "size of `{name}`");
        match (&found.data, &expected.data) {
            (Data::I64(a), Data::I64(b)) => out.labels += a.iter().zip(b).filter(|(a, b)| a != b).count(),
            (Data::Str(a), Data::Str(b)) => out.labels += a.iter().zip(b).filter(|(a, b)| a != b).count(),
            _ => {
                let (a, b) = (found.to_f64().unwrap_or_default(), expected.to_f64().unwrap_or_default());
                assert_eq!(a.len(), b.len(), "type of `{name}`");
                let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                out.floats = out.floats.max(largest);
            }
        }
    }
    out
}

/// The first rows of a batch of inputs.
pub fn first_rows(inputs: &BTreeMap<String, TensorValue>, rows: usize) -> BTreeMap<String, TensorValue> {
    let cut = |value: &TensorValue| {
        let width = value.columns();
        let shape = [rows].into_iter().chain(value.shape.iter().skip(1).copied()).collect();
        TensorValue { shape, data: value.data.pick(0..rows * width) }
    };
    inputs.iter().map(|(name, value)| (name.clone(), cut(value))).collect()
}
