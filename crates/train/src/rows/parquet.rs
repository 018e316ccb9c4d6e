//! Parquet files, the usual format of data sets on the Hugging Face hub.

mod footer;
mod pages;
mod thrift;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cloze_tensor::retry;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::columns::{ColumnIndices, LabelColumns, list};
use super::{Cell, Columns, Row};
use crate::expansion::Expansion;
use crate::guard::without_panic;
use crate::{Error, Result};

/// What can be said of a file on which the `parquet` crate panics.
const DAMAGED: &str = "the file is damaged";

/// Returns an iterator over the rows of a file. A row's line is its number.
pub(super) fn rows(path: &Path, columns: &Columns) -> Result<ParquetRows> {
    let (reader, file) = open(path)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
    let found = columns.find(&names).map_err(|why| Error::data_in(path, "columns", why))?;
    // Read only the wanted columns, and each only once even if it serves twice.
    let mut wanted = found.all();
    wanted.sort_unstable();
    wanted.dedup();
    let records = Records::new(path, (reader, &file), &wanted)?;
    Ok(ParquetRows { records, found, wanted })
}

/// Opens a file. Also returns a handle to read it by.
fn open(path: &Path) -> Result<(SerializedFileReader<File>, File)> {
    let cannot_read = |source| Error::io(path, "cannot read", source);
    let file = File::open(path).map_err(cannot_read)?;
    let own = file.try_clone().map_err(cannot_read)?;
    let length = retry(|| file.metadata()).map_err(cannot_read)?.len();
    footer::check(&file, length).map_err(|why| cannot_decode(path, why))?;
    Ok((guarded(path, || SerializedFileReader::new(file))?, own))
}

/// The records of a file with some of its columns.
struct Records {
    path: PathBuf,
    records: RowIter<'static>,
    expansion: Expansion,
    /// The number of records read.
    number: usize,
}

impl Records {
    /// Returns the records with these columns, in order.
    fn new(path: &Path, (reader, file): (SerializedFileReader<File>, &File), columns: &[usize]) -> Result<Records> {
        let checked = without_panic(|| pages::check(file, reader.metadata(), columns));
        checked.unwrap_or_else(|| Err(DAMAGED.to_string())).map_err(|why| cannot_decode(path, why))?;
        let schema = reader.metadata().file_metadata().schema().clone();
        let fields: Vec<Arc<Type>> = columns.iter().map(|&column| schema.get_fields()[column].clone()).collect();
        let records = guarded(path, || {
            let projection = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
            RowIter::from_file_into(Box::new(reader)).project(Some(projection))
        })?;
        let stored = retry(|| file.metadata()).map_err(|source| Error::io(path, "cannot read", source))?.len();
        Ok(Records { path: path.into(), records, expansion: Expansion::of(stored), number: 0 })
    }

    fn next(&mut self) -> Result<Option<Record>> {
        let record = guarded(&self.path, || self.records.next().transpose())?;
        self.number += usize::from(record.is_some());
        let sizes = record.iter().flat_map(Record::get_column_iter).map(|(_, field)| size(field));
        match self.expansion.add(size_of::<Row>() as u64 + sizes.sum::<u64>()) {
            Ok(()) => Ok(record),
            Err(why) => Err(Error::data_in(&self.path, "rows", format!("the first {} rows have {why}", self.number))),
        }
    }
}

/// Returns about how many bytes a field has.
fn size(field: &Field) -> u64 {
    size_of::<Field>() as u64
        + match field {
            Field::Str(text) => text.len() as u64,
            Field::Bytes(bytes) => bytes.len() as u64,
            Field::Group(record) => record.get_column_iter().map(|(_, field)| size(field)).sum(),
            Field::ListInternal(list) => list.elements().iter().map(size).sum(),
            Field::MapInternal(map) => map.entries().iter().map(|(key, value)| size(key) + size(value)).sum(),
            _ => 0,
        }
}

/// Returns the names of the classes that `datasets` writes into a file (`ClassLabel`) for the label column.
pub(super) fn declared_label_names(path: &Path, columns: &Columns) -> Result<Option<Vec<String>>> {
    let (reader, _) = open(path)?;
    let metadata = reader.metadata().file_metadata();
    let fields: Vec<&str> = metadata.schema().get_fields().iter().map(|field| field.name()).collect();
    let found = columns.find(&fields).map_err(|why| Error::data_in(path, "columns", why))?;
    let LabelColumns::One(label) = found.label else { return Ok(None) };
    let written = metadata.key_value_metadata().into_iter().flatten().find(|entry| entry.key == "huggingface");
    let written: Option<Value> = written.and_then(|entry| serde_json::from_str(entry.value.as_deref()?).ok());
    let names =
        written.as_ref().and_then(|written| written.get("info")?.get("features")?.get(fields[label])?.get("names"));
    let name = |name: &Value| name.as_str().map(str::to_string);
    Ok(names.and_then(|names| names.as_array()?.iter().map(name).collect()))
}

pub(super) struct ParquetRows {
    records: Records,
    found: ColumnIndices,
    /// The columns that are read, in order.
    wanted: Vec<usize>,
}

impl Iterator for ParquetRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        let record = match self.records.next() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error)),
        };
        let number = self.records.number;
        if let Some(why) = undecodable(&record) {
            return Some(Ok(Row::malformed(number, why)));
        }
        let cells: Vec<Cell> = record.get_column_iter().map(|(_, field)| cell(field)).collect();
        let place = |column: usize| self.wanted.iter().position(|&other| other == column);
        let cell = |column: usize| place(column).and_then(|at| cells.get(at).cloned()).unwrap_or(Value::Null.into());
        Some(Ok(self.found.row(number, cell, cell)))
    }
}

/// A text of a row of a file.
pub(crate) enum ParquetText {
    Text(String),
    Null,
    NotUtf8,
}

/// The texts of a column, one for each row.
pub(crate) struct ParquetTexts {
    column: String,
    records: Records,
}

impl ParquetTexts {
    /// Opens a file to read a column, and nothing else of it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or lacks the column (lists those it has).
    pub(crate) fn open(path: &Path, column: &str) -> Result<ParquetTexts> {
        let (reader, file) = open(path)?;
        let schema = reader.metadata().file_metadata().schema().clone();
        let Some(at) = schema.get_fields().iter().position(|field| field.name() == column) else {
            let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
            let why = format!("no column {column}: the file has {}", list(&names));
            return Err(Error::data_in(path, "columns", why));
        };
        Ok(ParquetTexts { column: column.into(), records: Records::new(path, (reader, &file), &[at])? })
    }
}

impl Iterator for ParquetTexts {
    type Item = Result<ParquetText>;

    fn next(&mut self) -> Option<Result<ParquetText>> {
        let record = match self.records.next() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error)),
        };
        let field = record.into_columns().into_iter().next().map(|(_, field)| field);
        Some(match field {
            Some(Field::Str(text)) => Ok(ParquetText::Text(text)),
            Some(Field::Bytes(bytes)) => {
                let text = String::from_utf8(bytes.data().to_vec());
                Ok(text.map_or(ParquetText::NotUtf8, ParquetText::Text))
            }
            Some(Field::Null) | None => Ok(ParquetText::Null),
            Some(other) => {
                let why = format!("column {} of row {} is not a string: {other}", self.column, self.records.number);
                Err(Error::data_in(&self.records.path, "columns", why))
            }
        })
    }
}

/// Runs `read`, and turns panics into errors: on some damaged files the `parquet` crate (60.1) panics. The reader is not used
/// after an error.
fn guarded<T>(path: &Path, read: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    let why = match without_panic(read) {
        Some(Ok(read)) => return Ok(read),
        Some(Err(error)) => error.to_string(),
        None => DAMAGED.to_string(),
    };
    Err(cannot_decode(path, why))
}

fn cannot_decode(path: &Path, why: String) -> Error {
    Error::data_in(path, "rows", format!("cannot read Parquet: {why}"))
}

fn cell(field: &Field) -> Cell {
    match *field {
        Field::Float16(value) => Cell::number(shortest(value.to_f32())),
        Field::Float(value) => Cell::number(shortest(value)),
        Field::Double(value) => Cell::number(value),
        _ => value(field).into(),
    }
}

/// Returns why a record is malformed, if it has bytes that are no text.
fn undecodable(record: &Record) -> Option<String> {
    record.get_column_iter().find_map(|(name, field)| match field {
        Field::Bytes(bytes) => {
            let error = std::str::from_utf8(bytes.data()).err()?;
            Some(format!("column {name} is not UTF-8: invalid byte at offset {}", error.valid_up_to()))
        }
        _ => None,
    })
}

/// Converts a number to the f64 that prints the same: 0.1 rather than 0.10000000149.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(value.into())
}

/// Converts a field to JSON. NaN and infinities inside lists and structures become `null`.
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
        Field::Float16(value) => shortest(value.to_f32()).into(),
        Field::Float(value) => shortest(*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned().into(),
        Field::Group(record) => object(record),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            map.entries().iter().map(|(key, of)| (key_of(key), value(of))).collect::<Map<_, _>>().into()
        }
        // Dates, times and decimals, as the `parquet` crate formats them.
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

/// Writes a file with a column of texts, in row groups.
#[cfg(test)]
pub(crate) fn write_texts(path: &Path, column: &str, groups: &[Vec<Option<Vec<u8>>>]) {
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    let schema = format!("message rows {{ required int64 id; optional binary {column}; }}");
    let schema = Arc::new(parquet::schema::parser::parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Default::default()).unwrap();
    for texts in groups {
        let mut group = writer.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..texts.len() as i64).collect();
        ids.typed::<parquet::data_type::Int64Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().flatten().map(|text| ByteArray::from(text.clone())).collect();
        let levels: Vec<i16> = texts.iter().map(|text| text.is_some().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[cfg(test)]
mod tests {
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::{
        BoolType, ByteArray, ByteArrayType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int32Type,
        Int64Type,
    };
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use serde_json::json;

    use super::*;
    use crate::{ErrorKind, read_rows};

    const SCHEMA: &str = "message rows {
        required binary text (UTF8);
        required int64 label;
        optional double score;
        required float share;
        required boolean yes;
        optional group tags (LIST) { repeated group list { optional binary element (UTF8); } }
        required group at { required int32 x; }
        required fixed_len_byte_array(2) half (FLOAT16);
    }";

    /// As `datasets` 5.2 writes them.
    const FEATURES: &str = r#"{"info": {"features": {
        "text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["world", "sports"], "_type": "ClassLabel"}
    }}}"#;

    fn strings(texts: &[&str]) -> Vec<ByteArray> {
        texts.iter().map(|&text| ByteArray::from(text)).collect()
    }

    /// Writes a file of two row groups with three rows each.
    fn write(path: &Path, compression: Compression) {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = WriterProperties::builder().set_compression(compression);
        let features = KeyValue { key: "huggingface".into(), value: Some(FEATURES.into()) };
        let properties = Arc::new(properties.set_key_value_metadata(Some(vec![features])).build());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        for _ in 0..2 {
            let mut group = writer.next_row_group().unwrap();
            let mut number = 0;
            while let Some(mut column) = group.next_column().unwrap() {
                let written = match number {
                    0 => column.typed::<ByteArrayType>().write_batch(&strings(&["olá", "", "b \"c\""]), None, None),
                    1 => column.typed::<Int64Type>().write_batch(&[1, 0, i64::MIN], None, None),
                    2 => column.typed::<DoubleType>().write_batch(&[4.5, f64::NAN], Some(&[1, 0, 1]), None),
                    3 => column.typed::<FloatType>().write_batch(&[0.1, 2.0, f32::INFINITY], None, None),
                    4 => column.typed::<BoolType>().write_batch(&[true, false, true], None, None),
                    // ["x", null], [], null.
                    5 => {
                        let column = column.typed::<ByteArrayType>();
                        column.write_batch(&strings(&["x"]), Some(&[3, 2, 1, 0]), Some(&[0, 1, 0, 0]))
                    }
                    6 => column.typed::<Int32Type>().write_batch(&[7, 8, 9], None, None),
                    // 0.5, -2 and infinity.
                    _ => {
                        let halves =
                            [[0u8, 0x38], [0, 0xc0], [0, 0x7c]].map(|half| FixedLenByteArray::from(half.to_vec()));
                        column.typed::<FixedLenByteArrayType>().write_batch(&halves, None, None)
                    }
                };
                written.unwrap();
                column.close().unwrap();
                number += 1;
            }
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    #[test]
    fn class_labels_have_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, Compression::SNAPPY);
        let names = |columns: Columns| crate::declared_label_names(&path, &columns).unwrap();
        assert_eq!(names(Columns::new()).unwrap(), ["world", "sports"]);
        assert_eq!((names(Columns::new().label("score")), names(Columns::new().labels(["label"]))), (None, None));
    }

    #[test]
    fn columns_of_every_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            write(&path, compression);
            let found = read_rows(&path, &Columns::new()).unwrap();
            let texts = ["olá", "", "b \"c\""];
            let expected = (1..=6).zip(texts.into_iter().zip([1, 0, i64::MIN]).cycle());
            let expected: Vec<Row> = expected.map(|(line, (text, label))| Row::new(line, text, label)).collect();
            assert_eq!(found, expected, "{compression}");

            let shown = |columns: Columns| -> Vec<[String; 3]> {
                let rows = read_rows(&path, &columns).unwrap().into_iter().take(3);
                rows.map(|row| [row.text.to_string(), row.second_text.unwrap().to_string(), row.label.to_string()])
                    .collect()
            };
            let found = shown(Columns::new().text("tags").second_text("at").label("score"));
            let expected =
                [["[\"x\",null]", "{\"x\":7}", "4.5"], ["[]", "{\"x\":8}", "null"], ["null", "{\"x\":9}", "nan"]];
            assert_eq!(found, expected.map(|row| row.map(String::from)));
            let found = shown(Columns::new().text("share").second_text("yes").label("share"));
            let expected = [["0.1", "true", "0.1"], ["2.0", "false", "2.0"], ["inf", "true", "inf"]];
            assert_eq!(found, expected.map(|row| row.map(String::from)));
        }
        let rows = read_rows(&path, &Columns::new().text("text").label("half")).unwrap();
        let halves: Vec<String> = rows.iter().take(3).map(|row| row.label.to_string()).collect();
        assert_eq!(halves, ["0.5", "-2.0", "inf"]);
        assert_eq!(cell(&Field::Bytes(ByteArray::from("a"))), json!("a").into());
        let bytes = |bytes: &[u8]| Record::new(vec![("raw".into(), Field::Bytes(bytes.to_vec().into()))]);
        assert_eq!(undecodable(&bytes("olá".as_bytes())), None);
        let why = "column raw is not UTF-8: invalid byte at offset 2";
        assert_eq!(undecodable(&bytes(b"ol\xe1")).as_deref(), Some(why));
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, Compression::SNAPPY);
        let error = read_rows(&path, &Columns::new().label("stars")).unwrap_err().to_string();
        let why = "no column stars: the file has text, label, score, share, yes, tags, at, half";
        assert!(error.ends_with(&format!("a.parquet: columns: {why}")), "{error}");
        let bytes = std::fs::read(&path).unwrap();
        // Truncated files are errors.
        for at in (0..bytes.len()).step_by(5) {
            std::fs::write(&path, &bytes[..at]).unwrap();
            let error = read_rows(&path, &Columns::new()).unwrap_err();
            assert!(error.to_string().contains("a.parquet: rows: cannot read Parquet: "), "{error}");
        }
        let missing = read_rows(folder.path().join("b.parquet"), &Columns::new()).unwrap_err();
        assert!(matches!(missing.kind(), ErrorKind::Io { .. }), "{missing}");
    }

    /// Files with a wrong byte are read or refused. The `parquet` crate panics on some, which leaves no message.
    #[test]
    fn wrong_bytes_are_errors_without_a_message_of_a_panic() {
        const CHILD: &str = "CLOZE_TEST_WRONG_BYTES";
        if std::env::var_os(CHILD).is_none() {
            let test = "rows::parquet::tests::wrong_bytes_are_errors_without_a_message_of_a_panic";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let output = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
            let printed = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !printed.contains("panicked"), "{printed}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, Compression::SNAPPY);
        let bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(5) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x55;
            std::fs::write(&path, &wrong).unwrap();
            let _ = read_rows(&path, &Columns::new().text("tags").second_text("text"));
        }
    }
}
