//! Data files: .npy, .npz, .csv and .parquet in, .npz out.

mod npy;
mod parquet;
mod table;

use crate::files;
use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use tacit_ir::diag::{Code, Diagnostic, Result};
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{Dim, Element, TensorType};

/// Bytes one array may take.
const MAX_ARRAY_BYTES: u64 = 8 << 30;

fn unreadable(path: &Path, why: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::new(Code::DataUnreadable, why.to_string())
        .at(path.display().to_string())
        .help("inputs are .npy or .npz arrays or .csv or .parquet tables, one row a prediction")
}

/// One .npy array.
///
/// # Errors
/// [`Code::FileUnreadable`], [`Code::DataUnreadable`].
pub fn read_npy(path: &Path) -> Result<TensorValue> {
    npy::parse(&files::read(path)?).map_err(|why| unreadable(path, why))
}

/// An .npy array in memory.
///
/// # Errors
/// What is wrong with it.
pub fn parse_npy(bytes: &[u8]) -> std::result::Result<TensorValue, String> {
    npy::parse(bytes)
}

/// All tensors of a .safetensors file, by name; floats of 16 bits are widened.
///
/// # Errors
/// [`Code::FileUnreadable`], [`Code::DataUnreadable`].
pub fn read_safetensors(path: &Path) -> Result<BTreeMap<String, TensorValue>> {
    let bytes = files::read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|why| unreadable(path, why))?;
    let mut arrays = BTreeMap::new();
    for (name, view) in file.tensors() {
        let bytes = view.data();
        let data = match view.dtype() {
            Dtype::F32 => Data::F32(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect()),
            Dtype::F64 => Data::F64(bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect()),
            Dtype::F16 => {
                Data::F32(bytes.as_chunks().0.iter().map(|x| half::f16::from_le_bytes(*x).to_f32()).collect())
            }
            Dtype::BF16 => {
                Data::F32(bytes.as_chunks().0.iter().map(|x| half::bf16::from_le_bytes(*x).to_f32()).collect())
            }
            Dtype::I64 => Data::I64(bytes.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x)).collect()),
            Dtype::I32 => Data::I64(bytes.as_chunks().0.iter().map(|x| i64::from(i32::from_le_bytes(*x))).collect()),
            Dtype::I8 => Data::I64(bytes.iter().map(|x| i64::from(*x as i8)).collect()),
            Dtype::U8 => Data::I64(bytes.iter().map(|x| i64::from(*x)).collect()),
            other => return Err(unreadable(path, format!("tensor `{name}` has the type {other:?}"))),
        };
        arrays.insert(name, TensorValue { shape: view.shape().to_vec(), data });
    }
    Ok(arrays)
}

/// All arrays of an .npz file, by name.
///
/// # Errors
/// [`Code::FileUnreadable`], [`Code::DataUnreadable`].
pub fn read_npz(path: &Path) -> Result<BTreeMap<String, TensorValue>> {
    let bytes = files::read(path)?;
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|why| unreadable(path, why))?;
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|why| unreadable(path, why))?;
        let name = entry.name().trim_end_matches(".npy").to_owned();
        let mut bytes = Vec::new();
        entry.take(MAX_ARRAY_BYTES).read_to_end(&mut bytes).map_err(|why| unreadable(path, why))?;
        arrays.insert(
            name.clone(),
            npy::parse(&bytes).map_err(|why| unreadable(path, format!("array `{name}`: {why}")))?,
        );
    }
    Ok(arrays)
}

/// A model's inputs from a file: .npy for a single input, .npz by input name, .csv and .parquet by
/// column.
///
/// # Errors
/// [`Code::FileUnreadable`], [`Code::DataUnreadable`], [`Code::InputName`].
pub fn read_inputs(path: &Path, inputs: &[(String, TensorType)]) -> Result<BTreeMap<String, TensorValue>> {
    let extension = path.extension().and_then(|ext| ext.to_str()).unwrap_or("").to_ascii_lowercase();
    match (extension.as_str(), inputs) {
        ("npy", [(name, _)]) => Ok(BTreeMap::from([(name.clone(), read_npy(path)?)])),
        ("npy", inputs) => {
            let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
            Err(Diagnostic::new(Code::InputName, format!("one array for {} inputs", inputs.len()))
                .at(path.display().to_string())
                .help(format!("give an .npz file with the arrays {}", names.join(", "))))
        }
        ("npz", inputs) => {
            let mut arrays = read_npz(path)?;
            if let ([(name, _)], 1) = (inputs, arrays.len())
                && !arrays.contains_key(name)
                && let Some((_, only)) = arrays.pop_first()
            {
                arrays.insert(name.clone(), only);
            }
            Ok(arrays)
        }
        ("csv", inputs) => table::parse(&files::read(path)?, inputs).map_err(|why| unreadable(path, why)),
        ("parquet", inputs) => parquet::read(files::open(path)?, inputs).map_err(|why| unreadable(path, why)),
        _ => Err(unreadable(path, format!("`.{extension}` is not a known kind of data file"))),
    }
}

/// Labels, one a row: an .npy array, the only array of an .npz file, or the only column of a table; numbers where all are.
///
/// # Errors
/// [`Code::FileUnreadable`], [`Code::DataUnreadable`].
pub fn read_labels(path: &Path) -> Result<TensorValue> {
    let column = |element| vec![("labels".to_owned(), TensorType { element, shape: vec![Dim::Batch, Dim::Fixed(1)] })];
    let found = match read_inputs(path, &column(Element::F64)) {
        // Text, for which alone numbers are unreadable.
        Err(why) if why.code == Code::DataUnreadable => read_inputs(path, &column(Element::Str)).map_err(|_| why)?,
        found => found?,
    };
    match (found.len(), found.into_values().next()) {
        (1, Some(labels)) => Ok(labels),
        (count, _) => Err(unreadable(path, format!("{count} arrays where labels are one"))),
    }
}

/// The bytes of an .npz file; the same arrays give the same bytes.
///
/// # Errors
/// [`Code::Internal`].
pub fn npz_bytes(arrays: &IndexMap<String, TensorValue>) -> Result<Vec<u8>> {
    let internal = |why: &dyn std::fmt::Display| Diagnostic::internal(format!("writing an .npz file: {why}"));
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().last_modified_time(zip::DateTime::default());
    for (name, value) in arrays {
        archive.start_file(format!("{name}.npy"), options).map_err(|why| internal(&why))?;
        archive.write_all(&npy::bytes(value)).map_err(|why| internal(&why))?;
    }
    Ok(archive.finish().map_err(|why| internal(&why))?.into_inner())
}
