//! Parquet: the form that data sets have on the Hugging Face hub.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::{Cell, Columns, Row};
use crate::{Error, Result};

/// The rows of a file, one after the other; a row's line is its number.
pub(super) fn rows(path: &Path, columns: &Columns) -> Result<ParquetRows> {
    let file = File::open(path).map_err(|source| Error::io(path, "cannot read", source))?;
    let reader = SerializedFileReader::new(file).map_err(|error| wrong(path, &error))?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
    let found = columns.find(&names).map_err(|why| Error::data_in(path, "columns", why))?;
    // The other columns are not even unpacked. Each is read once, whatever it serves for.
    let mut wanted = vec![found.text, found.label];
    wanted.extend(found.second_text);
    wanted.sort_unstable();
    wanted.dedup();
    let place = |column: usize| wanted.iter().position(|&other| other == column).unwrap_or_default();
    let places = (place(found.text), found.second_text.map(place), place(found.label));
    let fields: Vec<Arc<Type>> = wanted.iter().map(|&column| schema.get_fields()[column].clone()).collect();
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build();
    let records = projection.and_then(|projection| RowIter::from_file_into(Box::new(reader)).project(Some(projection)));
    Ok(ParquetRows { path: path.into(), records: records.map_err(|error| wrong(path, &error))?, places, number: 0 })
}

pub(super) struct ParquetRows {
    path: PathBuf,
    records: RowIter<'static>,
    /// Of text, second text and label, among the columns that are read.
    places: (usize, Option<usize>, usize),
    number: usize,
}

impl Iterator for ParquetRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        let record = match self.records.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(wrong(&self.path, &error))),
        };
        self.number += 1;
        let cells: Vec<Cell> = record.get_column_iter().map(|(_, field)| cell(field)).collect();
        let cell = |place: usize| cells.get(place).cloned().unwrap_or(Value::Null.into());
        let (text, second_text, label) = self.places;
        Some(Ok(Row { line: self.number, text: cell(text), second_text: second_text.map(cell), label: cell(label) }))
    }
}

fn wrong(path: &Path, error: &ParquetError) -> Error {
    Error::data_in(path, "rows", format!("cannot read Parquet: {error}"))
}

fn cell(field: &Field) -> Cell {
    match *field {
        Field::Float(value) => Cell::number(shortest(value)),
        Field::Double(value) => Cell::number(value),
        _ => value(field).into(),
    }
}

/// The f64 that prints as the f32 does: 0.1, not 0.10000000149.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(value.into())
}

/// NaN and infinities inside lists and structures are `null`, which JSON has no word for.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => shortest(*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned().into(),
        Field::Group(record) => object(record),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            map.entries().iter().map(|(key, of)| (key_of(key), value(of))).collect::<Map<_, _>>().into()
        }
        // Dates, times, decimals and half precision: as the crate writes them.
        other => other.to_string().into(),
    }
}

fn object(record: &Record) -> Value {
    record.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect::<Map<_, _>>().into()
}

fn key_of(field: &Field) -> String {
    match value(field) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
