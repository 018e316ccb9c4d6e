//! Limits of the pages of a Parquet file.
//!
//! The header of a page states its size after decompression and its number of values, and the `parquet` crate (60.1) takes
//! memory for what is stated: 300 bytes can ask for 60 GB. The headers are therefore read here before, without the pages.
//! They are structures in Thrift's compact protocol; the format is described at
//! <https://parquet.apache.org/docs/file-format/>.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use cloze_tensor::retry;
use flate2::bufread::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

/// The most bytes of a page after decompression. Writers aim at one megabyte, which a single long text exceeds.
const MAX_BYTES: u64 = 1 << 28;
/// The most values of a page.
const MAX_VALUES: u64 = 1 << 24;
/// The largest factor by which gzip can compress. The crate decompresses gzip whatever size is stated.
const MAX_GZIP: u64 = 1032;
/// The deepest structure in a header: the statistics of a page are at depth 3.
const MAX_DEPTH: u8 = 8;

/// Checks the pages of the columns whose root is in `roots`.
///
/// # Errors
/// Returns which page exceeds a limit, or that a header is damaged.
pub(super) fn check(file: &File, metadata: &ParquetMetaData, roots: &[usize]) -> Result<(), String> {
    let schema = metadata.file_metadata().schema_descr();
    let length = retry(|| file.metadata()).map_err(|error| error.to_string())?.len();
    let mut source = BufReader::with_capacity(1 << 12, file);
    for (number, group) in metadata.row_groups().iter().enumerate() {
        for (leaf, chunk) in group.columns().iter().enumerate() {
            if leaf < schema.num_columns() && roots.contains(&schema.get_column_root_idx(leaf)) {
                let wrong = |why: String| format!("row group {number}, column {}: {why}", chunk.column_path());
                check_chunk(&mut source, chunk, length).map_err(wrong)?;
            }
        }
    }
    Ok(())
}

fn check_chunk(source: &mut BufReader<&File>, chunk: &ColumnChunkMetaData, length: u64) -> Result<(), String> {
    let place = |number: i64| u64::try_from(number).ok();
    let start = place(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset()));
    let end = start.zip(place(chunk.compressed_size())).and_then(|(start, size)| start.checked_add(size));
    let (Some(mut at), Some(end)) = (start, end.filter(|&end| end <= length)) else {
        return Err("its pages are not in the file".to_string());
    };
    let is_compressed = chunk.compression() != Compression::UNCOMPRESSED;
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
        at = next;
    }
    Ok(())
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
    pub(super) const DATA_PAGE: i16 = 5;
    pub(super) const DICTIONARY_PAGE: i16 = 7;
    pub(super) const DATA_PAGE_V2: i16 = 8;
    pub(super) const VALUES: i16 = 1;
}

impl PageHeader {
    /// Reads a header, and returns it with its length. Returns `None` if it is damaged.
    fn read(source: &mut impl Read) -> Option<(PageHeader, u64)> {
        let mut thrift = Thrift { source, taken: 0 };
        let mut header = PageHeader::default();
        thrift.fields(0, 0, &mut |parent, id, number| {
            // As the crate does, which reads 32 bits.
            let number = u64::try_from(number as i32).ok()?;
            match (parent, id) {
                (0, field::BYTES) => header.bytes = number,
                (0, field::STORED) => header.stored = number,
                (field::DATA_PAGE | field::DATA_PAGE_V2, field::VALUES) => header.values = number,
                (field::DICTIONARY_PAGE, field::VALUES) => (header.values, header.is_dictionary) = (number, true),
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

/// The types of fields in the compact protocol.
mod kind {
    pub(super) const STOP: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const BYTE: u8 = 3;
    pub(super) const I16: u8 = 4;
    pub(super) const I32: u8 = 5;
    pub(super) const I64: u8 = 6;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const STRUCT: u8 = 12;
}

/// A reader of the compact protocol.
struct Thrift<'a, R> {
    source: &'a mut R,
    taken: u64,
}

impl<R: Read> Thrift<'_, R> {
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte).ok()?;
        self.taken += 1;
        Some(byte[0])
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        self.taken = self.taken.checked_add(bytes)?;
        (io::copy(&mut self.source.by_ref().take(bytes), &mut io::sink()).ok()? == bytes).then_some(())
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.unsigned()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Reads a structure, which is the field `parent` of another one or the outermost (0), and calls `number` with `parent`
    /// and each of its fields of 32 bits. Fields that have them in a header must not have another type.
    fn fields(&mut self, parent: i16, depth: u8, number: &mut dyn FnMut(i16, i16, i64) -> Option<()>) -> Option<()> {
        let mut id = 0i16;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == kind::STOP {
                return Some(());
            }
            id = match head >> 4 {
                0 => i16::try_from(self.signed()?).ok()?,
                step => id.checked_add(step.into())?,
            };
            let expected = match (depth, id) {
                (0, ..=3) | (1, field::VALUES) => kind::I32,
                (0, field::DATA_PAGE | field::DICTIONARY_PAGE | field::DATA_PAGE_V2) => kind::STRUCT,
                _ => kind,
            };
            match kind {
                _ if kind != expected => return None,
                kind::I32 if depth <= 1 => number(parent, id, self.signed()?)?,
                kind::STRUCT if depth == 0 => self.fields(id, 1, number)?,
                _ => self.value(kind, depth + 1)?,
            }
        }
    }

    /// Skips a value.
    fn value(&mut self, kind: u8, depth: u8) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            kind::TRUE | kind::FALSE => Some(()),
            kind::BYTE => self.skip(1),
            kind::I16 | kind::I32 | kind::I64 => self.unsigned().map(drop),
            kind::DOUBLE => self.skip(8),
            kind::BINARY => {
                let bytes = self.unsigned()?;
                self.skip(bytes)
            }
            kind::LIST | kind::SET => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.unsigned()? } else { (head >> 4).into() };
                // In a list, truth values take a byte each.
                let element = if matches!(head & 0x0f, kind::TRUE | kind::FALSE) { kind::BYTE } else { head & 0x0f };
                (0..count).try_for_each(|_| self.value(element, depth + 1))
            }
            kind::STRUCT => self.fields(-1, depth.max(2), &mut |_, _, _| Some(())),
            // No header has a map.
            _ => None,
        }
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
        let fields =
            [&[0x15][..], &kind, &[0x15], &bytes, &[0x15], &stored, &[structure << 4 | kind::STRUCT, 0x15], &values];
        // Encodings: PLAIN for values, RLE for levels. A field that nobody knows fills the rest.
        let mut bytes = [&fields.concat()[..], &[0x15, 0, 0x15, 6, 0x15, 6, 0, 0x98]].concat();
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
            assert_eq!(said([0, bytes, stored, 2], field::DATA_PAGE), Ok(2));
            let huge = i32::MAX as u64;
            let place = "a.parquet: rows: cannot read Parquet: row group 0, column \"text\": its";
            for (page, structure, expected) in [
                (
                    [0, huge, stored, 2],
                    field::DATA_PAGE,
                    "page at byte 4 has 2147483647 bytes after decompression, at most",
                ),
                ([0, bytes, stored, huge], field::DATA_PAGE, "page at byte 4 has 2147483647 values, at most 16777216"),
                ([3, bytes, stored, huge], field::DATA_PAGE_V2, "page at byte 4 has 2147483647 values, at most"),
                ([2, bytes, stored, 1 << 20], field::DICTIONARY_PAGE, "dictionary at byte 4 has 1048576 values in"),
            ] {
                let error = said(page, structure).unwrap_err();
                assert!(error.contains(place) && error.contains(expected), "{error}");
            }
            // A negative size.
            let error = said([0, bytes, u64::from(u32::MAX), 2], field::DATA_PAGE).unwrap_err();
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

    #[test]
    fn headers_that_nest_or_end_early_are_damaged() {
        assert_eq!(
            PageHeader::read(&mut &[0x15, 0, 0x15, 2, 0x15, 4, 0][..]),
            Some((PageHeader { bytes: 1, stored: 2, ..PageHeader::default() }, 7))
        );
        for bytes in
            [&b""[..], &[0x15], &[0x15, 0xff], &[0x16, 0, 0], &[0xf8, 0xff, 0xff, 0xff, 0xff, 0xf], &[0x9c; 99]]
        {
            assert_eq!(PageHeader::read(&mut &bytes[..]), None, "{bytes:?}");
        }
    }
}
