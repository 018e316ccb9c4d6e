//! Limits of the pages of a Parquet file.
//!
//! The header of a page states its size after decompression and its number of values, and the `parquet` crate (60.1) takes
//! memory for what is stated: 300 bytes can ask for 60 GB. The headers are therefore read here before, without the pages.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use cloze_tensor::retry;
use flate2::bufread::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::record::Field;

use super::thrift::{Found, Structure, Thrift};
use crate::expansion::Expansion;

/// The most bytes of a page after decompression. Writers aim at one megabyte, which a single long text exceeds.
const MAX_BYTES: u64 = 1 << 28;
/// The most values of a page.
const MAX_VALUES: u64 = 1 << 24;
/// The largest factor by which gzip can compress. The crate decompresses gzip whatever size is stated.
const MAX_GZIP: u64 = 1032;

/// Checks the pages of the columns whose root is in `roots`, and that there are as many values as rows: the crate makes empty
/// rows of those that are stated and not there.
///
/// # Errors
/// Returns which page exceeds a limit, that a header is damaged, or which column lacks values.
pub(super) fn check(file: &File, metadata: &ParquetMetaData, roots: &[usize]) -> Result<(), String> {
    let schema = metadata.file_metadata().schema_descr();
    let length = retry(|| file.metadata()).map_err(|error| error.to_string())?.len();
    let root_of = |leaf: usize| (leaf < schema.num_columns()).then(|| schema.get_column_root_idx(leaf));
    let fields = schema.root_schema().get_fields();
    let is_empty = |root: &&usize| (0..schema.num_columns()).all(|leaf| root_of(leaf) != Some(**root));
    if let Some(&root) = roots.iter().find(is_empty) {
        return Err(format!("column {:?} has no values", fields[root].name()));
    }
    let mut source = BufReader::with_capacity(1 << 12, file);
    let mut expansion = Expansion::of(length);
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let rows = group.num_rows();
        for (leaf, chunk) in group.columns().iter().enumerate() {
            if !root_of(leaf).is_some_and(|root| roots.contains(&root)) {
                continue;
            }
            let wrong = |why: String| format!("row group {number}, column {}: {why}", chunk.column_path());
            let values = check_chunk(&mut source, chunk, length).map_err(wrong)?;
            if u64::try_from(rows).map_or(true, |rows| rows > values) {
                return Err(wrong(format!("it has {values} values for {rows} rows: the file is damaged")));
            }
            // Each value becomes a field, and a list of them is read as a whole.
            let bytes = values.saturating_mul(size_of::<Field>() as u64);
            expansion.add(bytes).map_err(|why| wrong(format!("the values so far have {why}")))?;
        }
    }
    Ok(())
}

/// Returns the number of values in the pages of a column, with those that are null.
fn check_chunk(source: &mut BufReader<&File>, chunk: &ColumnChunkMetaData, length: u64) -> Result<u64, String> {
    let place = |number: i64| u64::try_from(number).ok();
    let start = place(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset()));
    let end = start.zip(place(chunk.compressed_size())).and_then(|(start, size)| start.checked_add(size));
    let (Some(mut at), Some(end)) = (start, end.filter(|&end| end <= length)) else {
        return Err("its pages are not in the file".to_string());
    };
    let is_compressed = chunk.compression() != Compression::UNCOMPRESSED;
    let mut values = 0u64;
    while at < end {
        let damaged = || format!("the header of its page at byte {at} is damaged");
        source.seek(SeekFrom::Start(at)).map_err(|error| error.to_string())?;
        let (header, taken) = PageHeader::read(source).ok_or_else(damaged)?;
        let body = at.checked_add(taken).ok_or_else(damaged)?;
        header.check(at, is_compressed)?;
        let next = body.checked_add(header.stored).filter(|&next| next <= end).ok_or_else(damaged)?;
        if matches!(chunk.compression(), Compression::GZIP(_)) && bursts(source, header.stored, MAX_BYTES) {
            return Err(too_large(at, "more"));
        }
        values = values.saturating_add(if header.is_dictionary { 0 } else { header.values });
        at = next;
    }
    Ok(values)
}

/// Returns whether `stored` bytes of gzip have more than `most` bytes after decompression.
fn bursts(source: &mut impl BufRead, stored: u64, most: u64) -> bool {
    if stored.saturating_mul(MAX_GZIP) <= most {
        return false;
    }
    let mut text = MultiGzDecoder::new(source.take(stored)).take(most.saturating_add(1));
    // Whatever else is wrong, the crate says.
    io::copy(&mut text, &mut io::sink()).is_ok_and(|bytes| bytes > most)
}

fn too_large(at: u64, bytes: impl std::fmt::Display) -> String {
    format!(
        "its page at byte {at} has {bytes} bytes after decompression, at most {MAX_BYTES} are read: write smaller pages"
    )
}

/// What the header of a page states.
#[derive(Debug, Default, PartialEq)]
struct PageHeader {
    /// The number of bytes in the file.
    stored: u64,
    /// The number of bytes after decompression.
    bytes: u64,
    values: u64,
    is_dictionary: bool,
}

/// The fields of a header, and of the structures in it.
mod field {
    pub(super) const BYTES: i16 = 2;
    pub(super) const STORED: i16 = 3;
    pub(super) const VALUES: i16 = 1;
}

impl PageHeader {
    /// Reads a header, and returns it with its length. Returns `None` if it is damaged.
    fn read(source: &mut impl Read) -> Option<(PageHeader, u64)> {
        let mut thrift = Thrift::new(source);
        let mut header = PageHeader::default();
        thrift.structure(Structure::PageHeader, &mut |found| {
            let Found::Number(structure, id, number) = found else { return Some(()) };
            // As the crate does, which reads 32 bits.
            let number = || u64::try_from(number as i32).ok();
            match (structure, id) {
                (Structure::PageHeader, field::BYTES) => header.bytes = number()?,
                (Structure::PageHeader, field::STORED) => header.stored = number()?,
                (Structure::DataPageHeader | Structure::DataPageHeaderV2, field::VALUES) => header.values = number()?,
                (Structure::DictionaryPageHeader, field::VALUES) => {
                    (header.values, header.is_dictionary) = (number()?, true);
                }
                _ => {}
            }
            Some(())
        })?;
        Some((header, thrift.taken))
    }

    fn check(&self, at: u64, is_compressed: bool) -> Result<(), String> {
        let PageHeader { stored, bytes, values, is_dictionary } = *self;
        if bytes > MAX_BYTES || (!is_compressed && stored > MAX_BYTES) {
            return Err(too_large(at, bytes.max(stored)));
        }
        if values > MAX_VALUES {
            return Err(format!(
                "its page at byte {at} has {values} values, at most {MAX_VALUES} are read: write smaller pages"
            ));
        }
        // Every value of a dictionary takes a byte, at least.
        if is_dictionary && values > bytes {
            return Err(format!(
                "its dictionary at byte {at} has {values} values in {bytes} bytes: the file is damaged"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use crate::{Columns, read_rows};

    /// Writes a file of one page, whose header has room for a forged one: statistics with a long text.
    fn write(path: &Path, compression: Compression) {
        let schema = Arc::new(parse_message_type("message rows { required binary text; }").unwrap());
        let properties = WriterProperties::builder().set_dictionary_enabled(false).set_compression(compression);
        let properties = Arc::new(properties.set_write_page_header_statistics(true).build());
        let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts = ["a long text. ".repeat(9), "another text".into()].map(|text| ByteArray::from(text.as_str()));
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    /// The fields of the structures of a page, and the type of a structure.
    const DATA_PAGE: i16 = 5;
    const DICTIONARY_PAGE: i16 = 7;
    const DATA_PAGE_V2: i16 = 8;
    const STRUCT: u8 = 12;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    /// Returns a header of `length` bytes.
    fn header(page: [u64; 4], structure: i16, length: usize) -> Vec<u8> {
        let [kind, bytes, stored, values] = page.map(|number| varint(number << 1));
        let structure = (structure - 3) as u8;
        let fields = [&[0x15][..], &kind, &[0x15], &bytes, &[0x15], &stored, &[structure << 4 | STRUCT, 0x15], &values];
        // Encodings: PLAIN for values, RLE for levels, which a dictionary has not. A field that nobody knows fills the rest.
        let encodings =
            if i16::from(structure) + 3 == DICTIONARY_PAGE { &[0x15, 0][..] } else { &[0x15, 0, 0x15, 6, 0x15, 6] };
        let mut bytes = [&fields.concat()[..], encodings, &[0, 0x98]].concat();
        let left = length - bytes.len() - 2;
        bytes.extend([&varint(left as u64)[..], &vec![0; left], &[0]].concat());
        assert_eq!(bytes.len(), length);
        bytes
    }

    /// Sizes that nobody has memory for are refused before it is taken.
    #[test]
    fn pages_that_state_too_much_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let columns = Columns::new().label("text");
        for compression in [Compression::SNAPPY, Compression::UNCOMPRESSED] {
            write(&path, compression);
            let whole = std::fs::read(&path).unwrap();
            let (own, length) = PageHeader::read(&mut &whole[4..]).unwrap();
            assert_eq!((own.values, own.is_dictionary), (2, false));
            assert_eq!(read_rows(&path, &columns).unwrap().len(), 2);
            let said = |page: [u64; 4], structure: i16| {
                let forged = header(page, structure, length as usize);
                std::fs::write(&path, [&whole[..4], &forged, &whole[4 + length as usize..]].concat()).unwrap();
                read_rows(&path, &columns).map(|rows| rows.len()).map_err(|error| error.to_string())
            };
            let PageHeader { stored, bytes, .. } = own;
            assert_eq!(said([0, bytes, stored, 2], DATA_PAGE), Ok(2));
            let huge = i32::MAX as u64;
            let place = "a.parquet: rows: cannot read Parquet: row group 0, column \"text\": its";
            for (page, structure, expected) in [
                ([0, huge, stored, 2], DATA_PAGE, "page at byte 4 has 2147483647 bytes after decompression, at most"),
                ([0, bytes, stored, huge], DATA_PAGE, "page at byte 4 has 2147483647 values, at most 16777216"),
                ([3, bytes, stored, huge], DATA_PAGE_V2, "page at byte 4 has 2147483647 values, at most"),
                ([2, bytes, stored, 1 << 20], DICTIONARY_PAGE, "dictionary at byte 4 has 1048576 values in"),
            ] {
                let error = said(page, structure).unwrap_err();
                assert!(error.contains(place) && error.contains(expected), "{error}");
            }
            // A negative size.
            let error = said([0, bytes, u64::from(u32::MAX), 2], DATA_PAGE).unwrap_err();
            assert!(error.contains("the header of its page at byte 4 is damaged"), "{error}");
        }
    }

    #[test]
    fn gzip_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, Compression::GZIP(Default::default()));
        assert_eq!(read_rows(&path, &Columns::new().label("text")).unwrap().len(), 2);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&[0; 100_000]).unwrap();
        let page = encoder.finish().unwrap();
        for (most, expected) in [(99_999, true), (100_000, false), (u64::MAX, false)] {
            assert_eq!(bursts(&mut &page[..], page.len() as u64, most), expected, "{most}");
        }
        assert!(!bursts(&mut &b"damaged"[..], 7, 1));
    }

    /// A text that is stored once, and repeated.
    #[test]
    fn what_becomes_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let texts = vec![Some("a".repeat(1 << 13).into_bytes()); 20_000];
        crate::rows::write_texts(&path, "text", &[texts]);
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(bytes < 400_000, "{bytes}");
        let error = read_rows(&path, &Columns::new().label("id")).unwrap_err().to_string();
        let why = format!(" rows have more than 200 times the {bytes} bytes of the file: it repeats itself");
        assert!(error.contains("a.parquet: rows: the first ") && error.contains(&why), "{error}");
    }

    /// A row of a million nulls, in a few bytes.
    #[test]
    fn a_list_may_not_become_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let write = |nulls: usize| {
            let schema = "message rows { required binary text; optional group tags (LIST) {
                repeated group list { optional binary element; } } }";
            let schema = Arc::new(parse_message_type(schema).unwrap());
            let mut writer =
                SerializedFileWriter::new(File::create(&path).unwrap(), schema, Default::default()).unwrap();
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&[ByteArray::from("a")], None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let depths: Vec<i16> = (0..nulls).map(|at| (at > 0).into()).collect();
            column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![2; nulls]), Some(&depths)).unwrap();
            column.close().unwrap();
            group.close().unwrap();
            writer.close().unwrap();
            read_rows(&path, &Columns::new().label("tags")).map(|rows| rows.len()).map_err(|error| error.to_string())
        };
        assert_eq!(write(1_000), Ok(1));
        let error = write(1_000_000).unwrap_err();
        let why = "row group 0, column \"tags.list.element\": the values so far have more than 200 times the ";
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn headers_that_nest_or_end_early_are_damaged() {
        let two = PageHeader { bytes: 1, stored: 2, ..PageHeader::default() };
        assert_eq!(PageHeader::read(&mut &[0x15, 0, 0x15, 2, 0x15, 4, 0][..]), Some((two, 7)));
        // A checksum is any number of 32 bits.
        let two = PageHeader { bytes: 1, stored: 2, ..PageHeader::default() };
        assert_eq!(PageHeader::read(&mut &[0x15, 0, 0x15, 2, 0x15, 4, 0x15, 9, 0][..]), Some((two, 9)));
        for bytes in
            [&b""[..], &[0x15], &[0x15, 0xff], &[0x18, 0, 0], &[0xf8, 0xff, 0xff, 0xff, 0xff, 0xf], &[0x9c; 99]]
        {
            assert_eq!(PageHeader::read(&mut &bytes[..]), None, "{bytes:?}");
        }
    }
}
