//! CSV tables as model inputs.

use std::collections::BTreeMap;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{Element, TensorType};

/// Reads a table. With one input of several columns the columns are taken in order; with several inputs of one column
/// each, by the names in the first line. A first line that is all numbers is data. An empty cell is a missing value.
pub(super) fn parse(bytes: &[u8], inputs: &[(String, TensorType)]) -> Result<BTreeMap<String, TensorValue>, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(bytes);
    let mut lines: Vec<Vec<String>> = Vec::new();
    for record in reader.records() {
        lines.push(record.map_err(|why| why.to_string())?.iter().map(str::to_owned).collect());
    }
    let first = lines.first().ok_or("the table is empty")?;
    let numeric = |cell: &String| cell.is_empty() || cell.parse::<f64>().is_ok();
    let header = if first.iter().all(numeric) { None } else { Some(lines.remove(0)) };
    let rows = lines.len();
    let column = |number: usize, element: Element| -> Result<TensorValue, String> {
        let cell =
            |(row, line): (usize, &Vec<String>)| line.get(number).ok_or(format!("line {} is short", row + 1)).cloned();
        let cells: Vec<String> = lines.iter().enumerate().map(cell).collect::<Result<_, _>>()?;
        let value = |cell: &String| match cell.as_str() {
            "" => Ok(f64::NAN),
            text => text.parse::<f64>().map_err(|_| format!("column {}: `{text}` is not a number", number + 1)),
        };
        let data = match element {
            Element::Str => Data::Str(cells),
            Element::I64 | Element::Bool => {
                let whole = |cell: &String| {
                    cell.parse().map_err(|_| format!("column {}: `{cell}` is not an integer", number + 1))
                };
                Data::I64(cells.iter().map(whole).collect::<Result<_, _>>()?)
            }
            Element::F64 => Data::F64(cells.iter().map(value).collect::<Result<_, _>>()?),
            Element::F32 => {
                Data::F32(cells.iter().map(|cell| value(cell).map(|x| x as f32)).collect::<Result<_, _>>()?)
            }
        };
        Ok(TensorValue { shape: vec![rows, 1], data })
    };
    if let [(name, ty)] = inputs {
        let columns = lines.first().map_or(0, Vec::len);
        let parts = (0..columns).map(|number| column(number, ty.element)).collect::<Result<Vec<_>, _>>()?;
        return Ok(BTreeMap::from([(name.clone(), side_by_side(rows, &parts)?)]));
    }
    let header = header.ok_or("a model with several inputs needs a first line with their names")?;
    let mut out = BTreeMap::new();
    for (name, ty) in inputs {
        let number = header.iter().position(|own| own == name).ok_or(format!("there is no column `{name}`"))?;
        out.insert(name.clone(), column(number, ty.element)?);
    }
    Ok(out)
}

/// Columns of `rows` values each as one matrix.
pub(super) fn side_by_side(rows: usize, parts: &[TensorValue]) -> Result<TensorValue, String> {
    let (first, rest) = parts.split_first().ok_or("the table has no columns")?;
    let mut columns = first.data.clone();
    for part in rest {
        match (&mut columns, &part.data) {
            (Data::F32(columns), Data::F32(part)) => columns.extend(part),
            (Data::F64(columns), Data::F64(part)) => columns.extend(part),
            (Data::I64(columns), Data::I64(part)) => columns.extend(part),
            (Data::Bool(columns), Data::Bool(part)) => columns.extend(part),
            (Data::Str(columns), Data::Str(part)) => columns.extend_from_slice(part),
            _ => return Err("columns of different types".to_owned()),
        }
    }
    let row_by_row = (0..rows).flat_map(|row| (0..parts.len()).map(move |column| column * rows + row));
    Ok(TensorValue { shape: vec![rows, parts.len()], data: columns.pick(row_by_row) })
}
