//! Limits of the footer of a Parquet file, which has its schema and the places of its pages.
//!
//! The `parquet` crate (60.1) takes time and memory for what a footer states: a field of a few bytes can keep it busy for
//! minutes, and a schema that nests as deep as its file is long overflows the stack.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::thrift::{Found, Structure, Thrift};

/// The most groups of a schema within each other. Tables that people make have ten.
const MAX_NESTING: usize = 100;
/// What ends a file: the number of bytes of the footer, and the name of the format.
const TAIL: u64 = 8;
const MAGIC: &[u8; 4] = b"PAR1";
/// The field of an element of a schema that has the number of those in it.
const CHILDREN: i16 = 5;

/// Checks the footer of a file of `length` bytes. Whether there is one at all, the crate says.
///
/// # Errors
/// Returns what is damaged, or what exceeds a limit.
pub(super) fn check(file: &File, length: u64) -> Result<(), String> {
    let mut source = BufReader::new(file);
    let mut tail = [0; TAIL as usize];
    let Some(before) = length.checked_sub(TAIL) else { return Ok(()) };
    source
        .seek(SeekFrom::Start(before))
        .and_then(|_| source.read_exact(&mut tail))
        .map_err(|error| error.to_string())?;
    let [a, b, c, d, magic @ ..] = tail;
    let bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    let Some(start) = before.checked_sub(bytes).filter(|_| magic == *MAGIC) else { return Ok(()) };
    source.seek(SeekFrom::Start(start)).map_err(|error| error.to_string())?;
    read(&mut source.take(bytes))
}

/// Checks a footer.
fn read(footer: &mut impl Read) -> Result<(), String> {
    // Of each element of the schema, in depth-first order, the number of elements in it.
    let mut children: Vec<i64> = Vec::new();
    let whole = Thrift::new(footer).structure(Structure::FileMetaData, &mut |found| {
        match found {
            Found::Structure(Structure::SchemaElement) => children.push(0),
            Found::Number(Structure::SchemaElement, CHILDREN, count) => *children.last_mut()? = count,
            _ => {}
        }
        Some(())
    });
    whole.ok_or("its footer is damaged")?;
    // Of the groups around an element, the numbers of elements that are still to come.
    let mut open: Vec<i64> = Vec::new();
    for (at, &count) in children.iter().enumerate() {
        if count < 0 || count as u64 > children.len() as u64 {
            return Err(format!("element {at} of its schema states {count} elements, of {} in all", children.len()));
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        open.extend((count > 0).then_some(count));
        if open.len() > MAX_NESTING {
            return Err(format!("its schema nests deeper than {MAX_NESTING} groups: write flatter columns"));
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{Columns, Result, Row, read_rows};

    /// Returns what is found in a file of two rows whose footer is changed.
    fn with_footer(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> std::result::Result<Vec<Row>, String> {
        crate::rows::write_texts(path, "text", &[vec![Some(b"one".to_vec()), None]]);
        let bytes = std::fs::read(path).unwrap();
        let (rest, tail) = bytes.split_at(bytes.len() - 8);
        let length = u32::from_le_bytes(*tail.first_chunk().unwrap()) as usize;
        let (pages, footer) = rest.split_at(rest.len() - length);
        let mut footer = footer.to_vec();
        change(&mut footer);
        let length = (footer.len() as u32).to_le_bytes();
        std::fs::write(path, [pages, &footer, &length, b"PAR1"].concat()).unwrap();
        let rows: Result<Vec<Row>> = read_rows(path, &Columns::new().label("id"));
        rows.map_err(|error| error.to_string())
    }

    /// A field that nobody knows, after those of the footer.
    fn with_field(path: &Path, kind: u8, value: &[u8]) -> std::result::Result<Vec<Row>, String> {
        with_footer(path, |footer| {
            assert_eq!(footer.pop(), Some(0));
            footer.extend([&[0xf0 | kind], value, &[0]].concat());
        })
    }

    /// 2^31 - 1, as the length of a list.
    const MANY: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x07];

    #[test]
    fn what_would_be_skipped_for_minutes_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let many = |head: u8| [&[head][..], &MANY].concat();
        // A number, a text, a list of numbers, an empty list of truth values, a structure with a truth value.
        for (kind, value) in [(5, &[9][..]), (8, &[1, 7]), (9, &[0x25, 4, 6]), (9, &[0x01]), (12, &[0x11, 0])] {
            assert_eq!(with_field(&path, kind, value).unwrap().len(), 2);
        }
        let in_structure = [&[0x19][..], &many(0xf2), &[0]].concat();
        let in_list = [&[0x19][..], &many(0xf1)].concat();
        let map = [&MANY[..], &[0x11]].concat();
        for (kind, value) in [
            (9, many(0xf1)),
            (9, many(0xf2)),
            (10, many(0xf1)),
            (9, many(0xf5)),
            (12, in_structure),
            (9, in_list),
            (11, map),
            (8, MANY.to_vec()),
        ] {
            let error = with_field(&path, kind, &value).unwrap_err();
            assert!(error.ends_with("a.parquet: rows: cannot read Parquet: its footer is damaged"), "{error}");
        }
    }

    /// The crate reads the version as a number, and a list in what would be a text.
    #[test]
    fn fields_have_the_types_of_the_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for kind in [1, 3, 7, 8, 9, 12] {
            let found = with_footer(&path, |footer| {
                assert_eq!(footer[0], 0x15);
                footer[0] = 0x10 | kind;
            });
            assert!(found.unwrap_err().ends_with("its footer is damaged"), "{kind}");
        }
    }

    #[test]
    fn rows_without_values_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        for (rows, stated) in [(6, "3"), (1, "-1")] {
            let mut found = Vec::new();
            // Wherever a number is 2: the rows of the file and of the row group, and the values of its columns.
            for at in 0.. {
                let mut is_there = false;
                let read = with_footer(&path, |footer| {
                    let places: Vec<usize> =
                        (0..footer.len() - 1).filter(|&at| footer[at..at + 2] == [0x16, 4]).collect();
                    is_there = at < places.len();
                    if is_there {
                        footer[places[at] + 1] = rows;
                    }
                });
                if !is_there {
                    break;
                }
                found.extend(read.err());
            }
            let why = format!("row group 0, column \"id\": it has 2 values for {stated} rows: the file is damaged");
            assert!(found.iter().any(|error| error.ends_with(&why)), "{found:?}");
        }
    }

    /// Footers with these numbers of elements in the elements of the schema.
    #[test]
    fn a_schema_does_not_nest_without_end() {
        let read = |children: &[u8]| {
            let element = |&count: &u8| [&[0x48, 1, b'a'][..], &[0x15, 2 * count, 0]].concat();
            let elements: Vec<u8> = children.iter().flat_map(element).collect();
            let footer =
                [&[0x15, 2, 0x19, 0xfc, children.len() as u8][..], &elements, &[0x16, 0, 0x19, 0x0c, 0]].concat();
            super::read(&mut &footer[..])
        };
        assert_eq!(read(&[2, 0, 1, 0]), Ok(()));
        assert_eq!(read(&[3, 1, 0, 1, 0, 1, 0]), Ok(()));
        assert_eq!(read(&[&[1; 100][..], &[0]].concat()), Ok(()));
        let error = read(&[&[1; 101][..], &[0]].concat()).unwrap_err();
        assert_eq!(error, "its schema nests deeper than 100 groups: write flatter columns");
        assert_eq!(read(&[2, 60, 0]).unwrap_err(), "element 1 of its schema states 60 elements, of 3 in all");
    }
}
