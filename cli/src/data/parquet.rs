//! Parquet tables as model inputs: flat columns of booleans, integers, floats and text.

use super::table::side_by_side;
use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};
use std::collections::BTreeMap;
use std::fs::File;
use tacit_ir::interp::tensor::{Data, TensorValue};
use tacit_ir::stage::tensor::{Element, TensorType};

/// Cells of one table: what a hostile file may claim is bounded before anything is allocated.
const MAX_CELLS: u64 = 1 << 28;
/// Rows read at a time: memory grows with what is there, not with what the file claims.
const BATCH_ROWS: usize = 1 << 13;
/// Names of pandas' index columns begin so; they are no features.
const PANDAS_INDEX: &str = "__index_level_";

/// The values of one column; missing ones are `None`.
enum Cells {
    Bool(Vec<Option<bool>>),
    Int(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
    Str(Vec<Option<String>>),
}

/// Reads a table. With one input the columns are taken in order, with several by name; pandas' index is left out.
pub(super) fn read(file: File, inputs: &[(String, TensorType)]) -> Result<BTreeMap<String, TensorValue>, String> {
    let table = Parquet::open(file)?;
    if let [(name, ty)] = inputs {
        let parts = table.columns.iter().map(|&at| table.column(at, ty.element)).collect::<Result<Vec<_>, _>>()?;
        return Ok(BTreeMap::from([(name.clone(), side_by_side(table.rows, &parts)?)]));
    }
    let own = |(name, ty): &(String, TensorType)| {
        let at = table.columns.iter().find(|&&at| table.descriptor(at).name() == name);
        let at = at.ok_or(format!("there is no column `{name}`"))?;
        Ok((name.clone(), table.column(*at, ty.element)?))
    };
    inputs.iter().map(own).collect()
}

/// A Parquet file that was opened and whose metadata is sane.
struct Parquet {
    reader: SerializedFileReader<File>,
    rows: usize,
    /// Positions in the file of the columns that are not pandas' index.
    columns: Vec<usize>,
}

impl Parquet {
    fn open(file: File) -> Result<Self, String> {
        let reader = SerializedFileReader::new(file).map_err(|why| format!("not a Parquet file: {why}"))?;
        let metadata = reader.metadata().file_metadata();
        let schema = metadata.schema_descr();
        let columns: Vec<usize> =
            (0..schema.num_columns()).filter(|&at| !schema.column(at).name().starts_with(PANDAS_INDEX)).collect();
        let claimed = u64::try_from(metadata.num_rows()).map_err(|_| "a negative number of rows".to_owned())?;
        let cells = claimed.checked_mul(columns.len() as u64);
        match (cells, usize::try_from(claimed)) {
            (Some(cells), Ok(rows)) if cells <= MAX_CELLS => Ok(Parquet { reader, rows, columns }),
            _ => Err(format!("{claimed} rows of {} columns are more than {MAX_CELLS} cells", columns.len())),
        }
    }

    fn descriptor(&self, at: usize) -> ColumnDescPtr {
        self.reader.metadata().file_metadata().schema_descr().column(at)
    }

    fn column(&self, at: usize, element: Element) -> Result<TensorValue, String> {
        let wrong = |why| format!("column `{}`: {why}", self.descriptor(at).path().string());
        let data = self.cells(at).and_then(|cells| data(cells, element)).map_err(wrong)?;
        Ok(TensorValue { shape: vec![self.rows, 1], data })
    }

    fn cells(&self, at: usize) -> Result<Cells, String> {
        let column = self.descriptor(at);
        let wrong = |why: parquet::errors::ParquetError| why.to_string();
        if column.path().parts().len() != 1 || column.max_rep_level() != 0 {
            return Err("is nested; only flat columns can be inputs".to_owned());
        }
        let plain = plain(&column)?;
        let nullable = column.self_type().get_basic_info().repetition() == Repetition::OPTIONAL;
        let mut cells: Option<Cells> = None;
        for group in 0..self.reader.num_row_groups() {
            let group = self.reader.get_row_group(group).map_err(wrong)?;
            let reader = group.get_column_reader(at).map_err(wrong)?;
            let limit = self.rows;
            macro_rules! append {
                ($reader:expr, $variant:ident, $convert:expr) => {{
                    let mut own = match cells.take() {
                        Some(Cells::$variant(own)) => own,
                        _ => Vec::new(),
                    };
                    values($reader, nullable, limit, &mut own, $convert)?;
                    Cells::$variant(own)
                }};
            }
            cells = Some(match reader {
                ColumnReader::BoolColumnReader(reader) => append!(reader, Bool, Ok),
                ColumnReader::Int32ColumnReader(reader) if plain == Plain::Unsigned => {
                    append!(reader, Int, |value: i32| Ok(i64::from(value as u32)))
                }
                ColumnReader::Int32ColumnReader(reader) => append!(reader, Int, |value: i32| Ok(i64::from(value))),
                ColumnReader::Int64ColumnReader(reader) if plain == Plain::Unsigned => {
                    append!(reader, Int, |value: i64| match value {
                        0.. => Ok(value),
                        _ => Err(format!("{} is over 2^63", value as u64)),
                    })
                }
                ColumnReader::Int64ColumnReader(reader) => append!(reader, Int, Ok),
                ColumnReader::FloatColumnReader(reader) => {
                    append!(reader, Float, |value: f32| Ok(f64::from(value)))
                }
                ColumnReader::DoubleColumnReader(reader) => append!(reader, Float, Ok),
                ColumnReader::ByteArrayColumnReader(reader) => {
                    append!(reader, Str, |value: parquet::data_type::ByteArray| {
                        value.as_utf8().map(str::to_owned).map_err(|_| "holds bytes that are not text".to_owned())
                    })
                }
                ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
                    return Err(UNKNOWN_TYPE.to_owned());
                }
            });
        }
        let cells = cells.ok_or("the table has no rows")?;
        let found = match &cells {
            Cells::Bool(cells) => cells.len(),
            Cells::Int(cells) => cells.len(),
            Cells::Float(cells) => cells.len(),
            Cells::Str(cells) => cells.len(),
        };
        if found != self.rows {
            return Err(format!("has {found} values for {} rows", self.rows));
        }
        Ok(cells)
    }
}

const UNKNOWN_TYPE: &str = "has a type that no model reads; convert it to a boolean, an integer, a float or text";

/// What the logical type says of a physical one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    AsStored,
    Unsigned,
}

/// Refuses dates, decimals and the like, whose stored numbers mean something else.
fn plain(column: &ColumnDescriptor) -> Result<Plain, String> {
    let signed = |signed| if signed { Plain::AsStored } else { Plain::Unsigned };
    match column.logical_type_ref() {
        Some(LogicalType::Integer(integer)) => return Ok(signed(integer.is_signed)),
        Some(LogicalType::String | LogicalType::Enum) => return Ok(Plain::AsStored),
        Some(_) => return Err(UNKNOWN_TYPE.to_owned()),
        None => {}
    }
    match column.converted_type() {
        ConvertedType::NONE
        | ConvertedType::UTF8
        | ConvertedType::ENUM
        | ConvertedType::INT_8
        | ConvertedType::INT_16
        | ConvertedType::INT_32
        | ConvertedType::INT_64 => Ok(Plain::AsStored),
        ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
            Ok(Plain::Unsigned)
        }
        _ => Err(UNKNOWN_TYPE.to_owned()),
    }
}

/// Appends a column of a row group to `out`, of at most `limit` values in all.
fn values<T: DataType, U>(
    mut reader: ColumnReaderImpl<T>,
    nullable: bool,
    limit: usize,
    out: &mut Vec<Option<U>>,
    convert: impl Fn(T::T) -> Result<U, String>,
) -> Result<(), String> {
    let (mut levels, mut found) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        found.clear();
        let (records, ..) = reader
            .read_records(BATCH_ROWS, nullable.then_some(&mut levels), None, &mut found)
            .map_err(|why| why.to_string())?;
        if records == 0 {
            return Ok(());
        }
        if records > limit - out.len().min(limit) {
            return Err(format!("has more than the {limit} rows of the table"));
        }
        let mut found = found.drain(..).map(&convert);
        let mut next = || found.next().transpose();
        if nullable {
            for &level in &levels {
                out.push(if level == 0 { None } else { next()? });
            }
        } else {
            while let Some(value) = next()? {
                out.push(Some(value));
            }
        }
    }
}

/// The cells as a model's element type; a missing one is NaN among floats and an error elsewhere.
fn data(cells: Cells, element: Element) -> Result<Data, String> {
    fn all<T, U>(cells: Vec<Option<T>>, convert: impl Fn(T) -> U) -> Result<Vec<U>, String> {
        let cell = |(row, cell): (usize, Option<T>)| {
            cell.map(&convert).ok_or_else(|| format!("row {} is missing, and only floats can be", row + 1))
        };
        cells.into_iter().enumerate().map(cell).collect()
    }
    fn floats<T>(cells: Vec<Option<T>>, convert: impl Fn(T) -> f64) -> Vec<f64> {
        cells.into_iter().map(|cell| cell.map_or(f64::NAN, &convert)).collect()
    }
    let floats = match cells {
        Cells::Str(cells) if element == Element::Str => return all(cells, |cell| cell).map(Data::Str),
        Cells::Bool(cells) if element == Element::Bool => return all(cells, |cell| cell).map(Data::Bool),
        Cells::Bool(cells) if element == Element::I64 => return all(cells, i64::from).map(Data::I64),
        Cells::Int(cells) if element == Element::I64 => return all(cells, |cell| cell).map(Data::I64),
        Cells::Bool(cells) => floats(cells, |cell| f64::from(u8::from(cell))),
        Cells::Int(cells) => floats(cells, |cell| cell as f64),
        Cells::Float(cells) => floats(cells, |cell| cell),
        Cells::Str(_) => return Err(format!("holds text where the model wants {}", element.as_str())),
    };
    match element {
        Element::F64 => Ok(Data::F64(floats)),
        Element::F32 => Ok(Data::F32(floats.into_iter().map(|cell| cell as f32).collect())),
        other => Err(format!("holds numbers where the model wants {}", other.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int32Type, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
    use parquet::schema::parser::parse_message_type;
    use std::io::{Seek, Write};
    use std::sync::Arc;

    const SCHEMA: &str = "message table {
        REQUIRED INT64 whole; OPTIONAL DOUBLE real; REQUIRED FLOAT single; REQUIRED BOOLEAN flag;
        OPTIONAL BYTE_ARRAY word (UTF8); REQUIRED INT32 small (INTEGER(8, false)); REQUIRED INT32 day (DATE);
        OPTIONAL INT64 __index_level_0__;
    }";

    fn put<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, values: &[T::T], levels: Option<&[i16]>) {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<T>().write_batch(values, levels, None).unwrap();
        column.close().unwrap();
    }

    /// Two row groups of three rows; the second row of each has missing values.
    fn table() -> File {
        let file = tempfile::tempfile().unwrap();
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
        let mut writer = SerializedFileWriter::new(file.try_clone().unwrap(), schema, Arc::new(properties)).unwrap();
        let levels: Option<&[i16]> = Some(&[1, 0, 1]);
        for at in [0, 3] {
            let mut group = writer.next_row_group().unwrap();
            put::<Int64Type>(&mut group, &[at, at + 1, at + 2], None);
            put::<DoubleType>(&mut group, &[0.5, 2.5], levels);
            put::<FloatType>(&mut group, &[0.25, 1.25, f32::NAN], None);
            put::<BoolType>(&mut group, &[true, false, true], None);
            put::<ByteArrayType>(&mut group, &[ByteArray::from("ja"), ByteArray::from("nein")], levels);
            put::<Int32Type>(&mut group, &[1, 2, 255], None);
            put::<Int32Type>(&mut group, &[1, 2, 3], None);
            put::<Int64Type>(&mut group, &[7, 9], levels);
            group.close().unwrap();
        }
        writer.close().unwrap();
        file
    }

    fn input(name: &str, element: Element, columns: usize) -> (String, TensorType) {
        (name.to_owned(), TensorType::rows(element, columns))
    }

    fn column(element: Element, name: &str) -> Result<Data, String> {
        let inputs = [input(name, element, 1), input("single", Element::F32, 1)];
        let mut found = read(table(), &inputs)?;
        let value = found.remove(name).unwrap();
        assert_eq!(value.shape, [6, 1]);
        Ok(value.data)
    }

    #[test]
    fn columns_are_found_by_name() {
        assert_eq!(column(Element::I64, "whole").unwrap(), Data::I64(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(column(Element::I64, "small").unwrap(), Data::I64(vec![1, 2, 255, 1, 2, 255]));
        assert_eq!(column(Element::F64, "small").unwrap(), Data::F64(vec![1.0, 2.0, 255.0, 1.0, 2.0, 255.0]));
        assert_eq!(column(Element::Bool, "flag").unwrap(), Data::Bool(vec![true, false, true, true, false, true]));
        let Data::F32(real) = column(Element::F32, "real").unwrap() else { panic!("floats were asked for") };
        assert_eq!(format!("{real:?}"), "[0.5, NaN, 2.5, 0.5, NaN, 2.5]");
    }

    #[test]
    fn what_a_model_cannot_take_is_refused() {
        let why = |element, name| column(element, name).unwrap_err();
        assert_eq!(why(Element::Str, "word"), "column `word`: row 2 is missing, and only floats can be");
        assert_eq!(why(Element::F32, "word"), "column `word`: holds text where the model wants f32");
        assert_eq!(why(Element::I64, "real"), "column `real`: holds numbers where the model wants i64");
        assert_eq!(why(Element::F32, "none"), "there is no column `none`");
        assert!(why(Element::I64, "day").starts_with("column `day`: has a type that no model reads"));
        // The one matrix takes every column, the date too; pandas' index was left out.
        assert!(read(table(), &[input("x", Element::F32, 8)]).unwrap_err().contains("`word`"));
    }

    #[test]
    fn one_input_takes_the_columns_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        let schema = Arc::new(parse_message_type("message t { REQUIRED DOUBLE a; REQUIRED INT32 b; }").unwrap());
        let mut writer = SerializedFileWriter::new(file.try_clone().unwrap(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        put::<DoubleType>(&mut group, &[0.5, 1.5], None);
        put::<Int32Type>(&mut group, &[-1, 2], None);
        group.close().unwrap();
        writer.close().unwrap();
        let inputs = [input("x", Element::F32, 2)];
        let found = read(file.try_clone().unwrap(), &inputs).unwrap();
        assert_eq!(found["x"], TensorValue::f32(vec![2, 2], vec![0.5, -1.0, 1.5, 2.0]));
        // Cut files and files of something else.
        let length = file.stream_position().unwrap();
        file.set_len(length - 9).unwrap();
        assert!(read(file, &inputs).unwrap_err().starts_with("not a Parquet file"));
        let mut text = tempfile::tempfile().unwrap();
        text.write_all(b"a,b\n1,2\n").unwrap();
        assert!(read(text, &inputs).unwrap_err().starts_with("not a Parquet file"));
    }
}
