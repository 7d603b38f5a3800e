//! TOML values as attributes and arrays, inline or from weight files.

use super::{Keys, Reader};
use crate::frontend::leaves_folder;
use tacit_ir::attr::Attr;
use tacit_ir::diag::{Diagnostic, Result};
use tacit_ir::interp::tensor::{Data, TensorValue};
use toml_edit::{Array, Item, Value};

pub(super) fn number(reader: &Reader<'_>, item: &Item) -> Result<f64> {
    match item.as_value() {
        Some(value) => of_number(value).ok_or_else(|| reader.at(item, "expected a number")),
        None => Err(reader.at(item, "expected a number")),
    }
}

fn of_number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|x| x as f64))
}

/// Numbers, of one or nested arrays, or of a file.
pub(super) fn floats(reader: &Reader<'_>, item: &Item) -> Result<Vec<f64>> {
    Ok(tensor(reader, item)?.to_f64().unwrap_or_default())
}

/// Weights, which are finite.
pub(super) fn finite(reader: &Reader<'_>, item: &Item, values: &[f64]) -> Result<()> {
    match values.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(reader
            .at(item, format!("a weight is {bad}"))
            .help("a trained model has finite weights; train or export it again")),
    }
}

pub(super) fn ints(reader: &Reader<'_>, item: &Item) -> Result<Vec<i64>> {
    let wrong = || reader.at(item, "expected an integer or a list of integers");
    if let Some(one) = item.as_integer() {
        return Ok(vec![one]);
    }
    match tensor(reader, item)?.data {
        Data::I64(values) => Ok(values),
        other => {
            // Of files, whose integers may be floats.
            let values = TensorValue { shape: vec![other.len()], data: other }.to_f64().ok_or_else(wrong)?;
            let whole = item.as_array().is_none_or(|array| array.is_empty()) && values.iter().all(|x| x.fract() == 0.0);
            if whole { Ok(values.iter().map(|x| *x as i64).collect()) } else { Err(wrong()) }
        }
    }
}

/// A flat list of integers, numbers or texts.
pub(super) fn list(reader: &Reader<'_>, item: &Item) -> Result<Data> {
    Ok(tensor(reader, item)?.data)
}

/// An array: a number, nested lists, or `{ file = "w.npz", array = "w1" }`.
pub(super) fn tensor(reader: &Reader<'_>, item: &Item) -> Result<TensorValue> {
    if let Some(table) = item.as_table_like() {
        let mut keys = Keys::new(table, "a weight file", item.span());
        let of_file = keys.need(reader, "file")?;
        let file = of_file.as_str().ok_or_else(|| reader.at(of_file, "`file` is a path"))?;
        let array = keys.text(reader, "array")?;
        keys.finish(reader)?;
        if leaves_folder(file) {
            return Err(reader
                .at(of_file, format!("the file `{file}` is not below the model's folder"))
                .help("put weight files beside the model, and name them by their paths from there"));
        }
        let place = |why: Diagnostic| why.within(reader.text, of_file.span().unwrap_or_default());
        return (reader.weights)(file, array).map_err(place);
    }
    let Some(value) = item.as_value() else { return Err(reader.at(item, "expected numbers, or { file = \"..\" }")) };
    if let Some(array) = value.as_array() {
        let mut shape = Vec::new();
        let mut flat = Vec::new();
        collect(reader, item, array, 0, &mut shape, &mut flat)?;
        return Ok(TensorValue { shape, data: data(reader, item, &flat)? });
    }
    Ok(TensorValue { shape: Vec::new(), data: data(reader, item, &[value])? })
}

/// Flattens nested lists, all of one shape.
fn collect<'v>(
    reader: &Reader<'_>,
    item: &Item,
    array: &'v Array,
    depth: usize,
    shape: &mut Vec<usize>,
    flat: &mut Vec<&'v Value>,
) -> Result<()> {
    if shape.len() == depth {
        shape.push(array.len());
    }
    let uneven = || reader.at(item, "the lists in it have different lengths");
    if shape.get(depth) != Some(&array.len()) {
        return Err(uneven());
    }
    for value in array {
        match value.as_array() {
            Some(inner) => collect(reader, item, inner, depth + 1, shape, flat)?,
            None if shape.len() == depth + 1 => flat.push(value),
            None => return Err(uneven()),
        }
    }
    Ok(())
}

fn data(reader: &Reader<'_>, item: &Item, values: &[&Value]) -> Result<Data> {
    if let Some(ints) = values.iter().map(|value| value.as_integer()).collect::<Option<Vec<_>>>() {
        return Ok(Data::I64(ints));
    }
    if let Some(numbers) = values.iter().map(|value| of_number(value)).collect::<Option<Vec<_>>>() {
        return Ok(Data::F64(numbers));
    }
    if let Some(bools) = values.iter().map(|value| value.as_bool()).collect::<Option<Vec<_>>>() {
        return Ok(Data::Bool(bools));
    }
    let texts = values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    texts.map(Data::Str).ok_or_else(|| reader.at(item, "expected numbers or texts, all of one kind"))
}

/// The attribute of a type, written as in the declaration of the operation.
pub(super) fn attribute(reader: &Reader<'_>, item: &Item, ty: &str) -> Result<Attr> {
    let ty: String = ty.chars().filter(|c| !c.is_whitespace()).collect();
    let ty = ty.strip_prefix("Option<").and_then(|ty| ty.strip_suffix('>')).unwrap_or(&ty);
    let ty = ty.rsplit("::").next().unwrap_or(ty);
    Ok(match ty {
        "bool" => Attr::Bool(item.as_bool().ok_or_else(|| reader.at(item, "expected true or false"))?),
        "i64" | "usize" | "u32" => Attr::Int(item.as_integer().ok_or_else(|| reader.at(item, "expected an integer"))?),
        "f64" => Attr::F64(number(reader, item)?),
        "f32" => Attr::F32(number(reader, item)? as f32),
        "Vec<f64>" => Attr::F64s(floats(reader, item)?),
        "Vec<f32>" => Attr::F32s(floats(reader, item)?.into_iter().map(|x| x as f32).collect()),
        "Vec<i64>" | "Vec<usize>" | "Vec<u32>" => Attr::Ints(ints(reader, item)?),
        "Vec<String>" => match list(reader, item)? {
            Data::Str(texts) => Attr::Strs(texts),
            _ => return Err(reader.at(item, "expected a list of texts")),
        },
        "Many<Vec<f64>>" => {
            let array = item.as_array().ok_or_else(|| reader.at(item, "expected a list of lists"))?;
            let row = |value: &Value| -> Result<Attr> { Ok(Attr::F64s(floats(reader, &Item::Value(value.clone()))?)) };
            Attr::List(array.iter().map(row).collect::<Result<_>>()?)
        }
        ty if ty.starts_with("Many<") => match list(reader, item)? {
            Data::Str(texts) => Attr::List(texts.into_iter().map(Attr::Str).collect()),
            _ => return Err(reader.at(item, "expected a list of texts")),
        },
        _ => match item.as_table_like() {
            Some(table) => {
                let field = |(key, item): (&str, &Item)| -> Result<(String, Attr)> {
                    let attr = match item.as_bool() {
                        Some(value) => Attr::Bool(value),
                        None => Attr::Ints(ints(reader, item)?),
                    };
                    Ok((key.to_owned(), attr))
                };
                Attr::Record(table.iter().map(field).collect::<Result<_>>()?)
            }
            None => Attr::Str(item.as_str().ok_or_else(|| reader.at(item, "expected a text"))?.to_owned()),
        },
    })
}
