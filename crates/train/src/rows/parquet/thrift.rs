//! The structures in a Parquet file, in Thrift's compact protocol, read without keeping them.
//!
//! They are read before the `parquet` crate (60.1) reads them, because it trusts what they state. It reads a field as the type
//! that the format gives it, whatever type is stated, so another one is refused here: otherwise the two would not read the same.
//! Of what it skips, truth values in lists and maps take no byte, so that a count of 2^31 keeps it busy for minutes. No
//! structure has such a list, or a map. The format is described at <https://parquet.apache.org/docs/file-format/>.

use std::io::{self, Read};

use Form::{Byte, Double, Flag, List, Number, One, Text};
use Structure::*;

/// The deepest value in a field that the format does not have.
const MAX_DEPTH: u8 = 8;

/// The structures that the crate reads. Names are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Structure {
    FileMetaData,
    SchemaElement,
    LogicalType,
    DecimalType,
    TimeType,
    TimeUnit,
    IntType,
    VariantType,
    GeospatialType,
    KeyValue,
    ColumnOrder,
    RowGroup,
    SortingColumn,
    ColumnChunk,
    ColumnMetaData,
    Statistics,
    PageEncodingStats,
    SizeStatistics,
    GeospatialStatistics,
    BoundingBox,
    PageHeader,
    DataPageHeader,
    DictionaryPageHeader,
    DataPageHeaderV2,
    /// One without fields.
    Empty,
}

/// What a field has.
#[derive(Clone, Copy)]
enum Form {
    /// An integer of 16 to 64 bits, or an enumeration: as many bytes as the number needs.
    Number,
    Byte,
    Flag,
    Double,
    Text,
    One(Structure),
    List(&'static Form),
}

impl Structure {
    /// Returns the numbers and forms of the fields that the crate reads.
    fn fields(self) -> &'static [(i16, Form)] {
        match self {
            FileMetaData => &[
                (1, Number),
                (2, List(&One(SchemaElement))),
                (3, Number),
                (4, List(&One(RowGroup))),
                (5, List(&One(KeyValue))),
                (6, Text),
                (7, List(&One(ColumnOrder))),
            ],
            SchemaElement => &[
                (1, Number),
                (2, Number),
                (3, Number),
                (4, Text),
                (5, Number),
                (6, Number),
                (7, Number),
                (8, Number),
                (9, Number),
                (10, One(LogicalType)),
            ],
            LogicalType => &[
                (1, One(Empty)),
                (2, One(Empty)),
                (3, One(Empty)),
                (4, One(Empty)),
                (5, One(DecimalType)),
                (6, One(Empty)),
                (7, One(TimeType)),
                (8, One(TimeType)),
                (10, One(IntType)),
                (11, One(Empty)),
                (12, One(Empty)),
                (13, One(Empty)),
                (14, One(Empty)),
                (15, One(Empty)),
                (16, One(VariantType)),
                (17, One(GeospatialType)),
                (18, One(GeospatialType)),
                (19, One(Empty)),
            ],
            DecimalType => &[(1, Number), (2, Number)],
            TimeType => &[(1, Flag), (2, One(TimeUnit))],
            TimeUnit => &[(1, One(Empty)), (2, One(Empty)), (3, One(Empty))],
            IntType => &[(1, Byte), (2, Flag)],
            VariantType => &[(1, Byte)],
            GeospatialType => &[(1, Text), (2, Number)],
            KeyValue => &[(1, Text), (2, Text)],
            ColumnOrder => &[(1, One(Empty)), (2, One(Empty))],
            RowGroup => &[
                (1, List(&One(ColumnChunk))),
                (2, Number),
                (3, Number),
                (4, List(&One(SortingColumn))),
                (5, Number),
                (7, Number),
            ],
            SortingColumn => &[(1, Number), (2, Flag), (3, Flag)],
            ColumnChunk => {
                &[(1, Text), (2, Number), (3, One(ColumnMetaData)), (4, Number), (5, Number), (6, Number), (7, Number)]
            }
            ColumnMetaData => &[
                (1, Number),
                (2, List(&Number)),
                (4, Number),
                (5, Number),
                (6, Number),
                (7, Number),
                (9, Number),
                (10, Number),
                (11, Number),
                (12, One(Statistics)),
                (13, List(&One(PageEncodingStats))),
                (14, Number),
                (15, Number),
                (16, One(SizeStatistics)),
                (17, One(GeospatialStatistics)),
            ],
            Statistics => &[
                (1, Text),
                (2, Text),
                (3, Number),
                (4, Number),
                (5, Text),
                (6, Text),
                (7, Flag),
                (8, Flag),
                (9, Number),
            ],
            PageEncodingStats => &[(1, Number), (2, Number), (3, Number)],
            SizeStatistics => &[(1, Number), (2, List(&Number)), (3, List(&Number))],
            GeospatialStatistics => &[(1, One(BoundingBox)), (2, List(&Number))],
            BoundingBox => &[
                (1, Double),
                (2, Double),
                (3, Double),
                (4, Double),
                (5, Double),
                (6, Double),
                (7, Double),
                (8, Double),
            ],
            PageHeader => &[
                (1, Number),
                (2, Number),
                (3, Number),
                (4, Number),
                (5, One(DataPageHeader)),
                (6, One(Empty)),
                (7, One(DictionaryPageHeader)),
                (8, One(DataPageHeaderV2)),
            ],
            DataPageHeader => &[(1, Number), (2, Number), (3, Number), (4, Number), (5, One(Statistics))],
            DictionaryPageHeader => &[(1, Number), (2, Number), (3, Flag)],
            DataPageHeaderV2 => &[
                (1, Number),
                (2, Number),
                (3, Number),
                (4, Number),
                (5, Number),
                (6, Number),
                (7, Flag),
                (8, One(Statistics)),
            ],
            Empty => &[],
        }
    }
}

/// The types of values in the compact protocol.
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

/// What is found in the structures: that one begins, or a number.
pub(super) enum Found {
    Structure(Structure),
    Number(Structure, i16, i64),
}

/// What looks at it. Returns `None` to refuse it.
pub(super) type Visitor<'a> = &'a mut dyn FnMut(Found) -> Option<()>;

/// A reader of the compact protocol. All that it reads is `None` if it is damaged: cut, of another form, or of more than it
/// needs.
pub(super) struct Thrift<'a, R> {
    source: &'a mut R,
    /// The number of bytes that were read.
    pub(super) taken: u64,
}

impl<R: Read> Thrift<'_, R> {
    pub(super) fn new(source: &mut R) -> Thrift<'_, R> {
        Thrift { source, taken: 0 }
    }

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

    /// Reads the start of a field after the field `before`, and returns its number and type; `None` within at the end of the
    /// structure.
    fn field(&mut self, before: i16) -> Option<Option<(i16, u8)>> {
        let head = self.byte()?;
        let id = match (head & 0x0f, head >> 4) {
            (kind::STOP, _) => return Some(None),
            (_, 0) => i16::try_from(self.signed()?).ok()?,
            (_, step) => before.checked_add(step.into())?,
        };
        Some(Some((id, head & 0x0f)))
    }

    /// Reads the start of a list, and returns its length and the type of its elements.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.unsigned()? } else { (head >> 4).into() };
        Some((count, head & 0x0f))
    }

    /// Reads a structure.
    pub(super) fn structure(&mut self, structure: Structure, visitor: Visitor<'_>) -> Option<()> {
        visitor(Found::Structure(structure))?;
        let mut id = 0;
        while let Some((next, kind)) = self.field(id)? {
            id = next;
            match structure.fields().iter().find(|(known, _)| *known == id) {
                Some((_, Number)) if matches!(kind, kind::I16 | kind::I32 | kind::I64) => {
                    visitor(Found::Number(structure, id, self.signed()?))?;
                }
                Some((_, form)) => self.known(*form, kind, visitor)?,
                None => self.unknown(kind, 0)?,
            }
        }
        Some(())
    }

    /// Reads a value of a form that the format has.
    fn known(&mut self, form: Form, kind: u8, visitor: Visitor<'_>) -> Option<()> {
        match (form, kind) {
            (Number, kind::I16 | kind::I32 | kind::I64) => self.unsigned().map(drop),
            (Byte, kind::BYTE) => self.skip(1),
            (Flag, kind::TRUE | kind::FALSE) => Some(()),
            (Double, kind::DOUBLE) => self.skip(8),
            (Text, kind::BINARY) => self.text(),
            (One(structure), kind::STRUCT) => self.structure(structure, visitor),
            (List(form), kind::LIST) => {
                let (count, element) = self.list()?;
                (0..count).try_for_each(|_| self.known(*form, element, visitor))
            }
            _ => None,
        }
    }

    fn text(&mut self) -> Option<()> {
        let bytes = self.unsigned()?;
        self.skip(bytes)
    }

    /// Skips a value of which only the type is known.
    fn unknown(&mut self, kind: u8, depth: u8) -> Option<()> {
        match kind {
            _ if depth > MAX_DEPTH => None,
            kind::TRUE | kind::FALSE => Some(()),
            kind::BYTE => self.skip(1),
            kind::I16 | kind::I32 | kind::I64 => self.unsigned().map(drop),
            kind::DOUBLE => self.skip(8),
            kind::BINARY => self.text(),
            kind::LIST | kind::SET => match self.list()? {
                (1.., kind::TRUE | kind::FALSE) => None,
                (count, element) => (0..count).try_for_each(|_| self.unknown(element, depth + 1)),
            },
            kind::STRUCT => {
                while let Some((_, kind)) = self.field(0)? {
                    self.unknown(kind, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}
