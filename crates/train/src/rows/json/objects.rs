//! The objects of a JSON file, whichever form it has.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::Numbered;
use super::document::{keys, length, list_in, parts};
use super::object::object;
use super::table;
use crate::Result;
use crate::rows::Columns;
use crate::rows::utf8::{Utf8Reader, read_error};

/// An iterator over the objects of a file. The beginning of the file decides its form.
pub(super) struct Objects {
    path: PathBuf,
    source: BufReader<Utf8Reader>,
    line: usize,
    columns: Columns,
    begun: bool,
    /// Lines that were read to find out the form of the file.
    lines: VecDeque<(usize, String)>,
    /// The objects of a file that is not JSON Lines.
    objects: VecDeque<Numbered>,
}

impl Objects {
    pub(super) fn new(path: &Path, source: Utf8Reader, columns: &Columns) -> Objects {
        let (source, columns) = (BufReader::new(source), columns.clone());
        let (lines, objects) = (VecDeque::new(), VecDeque::new());
        Objects { path: path.into(), source, line: 0, columns, begun: false, lines, objects }
    }

    /// Returns the next object.
    pub(super) fn next(&mut self) -> Result<Option<Numbered>> {
        if !self.begun {
            self.begun = true;
            self.begin()?;
        }
        if let Some(object) = self.objects.pop_front() {
            return Ok(Some(object));
        }
        let line = match self.lines.pop_front() {
            Some(line) => Some(line),
            None => self.read_line()?,
        };
        Ok(line.map(|(number, line)| (number, object(line.trim_end_matches(['\r', '\n'])))))
    }

    /// Returns the next line that is not blank.
    fn read_line(&mut self) -> Result<Option<(usize, String)>> {
        let mut text = String::new();
        loop {
            text.clear();
            if self.source.read_line(&mut text).map_err(|error| read_error(&self.path, error))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if !text.trim().is_empty() {
                return Ok(Some((self.line, text)));
            }
        }
    }

    /// Finds out the form of the file. A first line that is complete, with others behind it, makes it JSON Lines.
    fn begin(&mut self) -> Result<()> {
        let Some((number, first)) = self.read_line()? else { return Ok(()) };
        let is_complete =
            !first.trim_start().starts_with(['{', '[']) || length(first.trim()) == Some(first.trim().len());
        if is_complete && let Some(second) = self.read_line()? {
            self.lines.extend([(number, first), second]);
            return Ok(());
        }
        let mut text = first;
        if !is_complete {
            self.source.read_to_string(&mut text).map_err(|error| read_error(&self.path, error))?;
        }
        match self.document(&text, number) {
            Some(objects) => self.objects = objects,
            None => {
                let lines = (number..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
                self.lines = lines.map(|(number, line)| (number, line.to_string())).collect();
            }
        }
        Ok(())
    }

    /// Returns the objects of a document that begins on line `line`: a list, an object that contains a list, a table by
    /// its columns (whose rows have no lines, only numbers), or objects one after the other, also with commas between
    /// them. Returns `None` if it is none of these.
    fn document(&self, text: &str, line: usize) -> Option<VecDeque<Numbered>> {
        let start = text.len() - text.trim_start().len();
        let whole = &text[start..];
        let mut lines = LineCounter { text, offset: 0, line };
        if whole.starts_with('[') {
            let mut rows = rows_of_list(whole, start, &mut lines);
            if let Some(end) = length(whole).filter(|&end| !whole[end..].trim().is_empty()) {
                rows.push_back((lines.line_of(start + end), Err("invalid JSON: text after the list".to_string())));
            }
            return Some(rows);
        }
        let first = if whole.starts_with('{') { length(whole)? } else { return None };
        let is_alone = whole[first..].trim().is_empty();
        if is_alone && self.is_row(&whole[..first]) {
            let rows = object(&whole[..first]).ok().and_then(|object| table::rows(&object));
            if let Some(rows) = rows {
                return Some((1..).zip(rows.into_iter().map(Ok)).collect());
            }
        } else if is_alone && let Some((offset, list)) = list_in(whole) {
            return Some(rows_of_list(list, start + offset, &mut lines));
        }
        let (mut objects, mut at) = (VecDeque::new(), start);
        while let Some(length) = length(&text[at..]) {
            objects.push_back((lines.line_of(at), object(&text[at..at + length])));
            at += length;
            at += text[at..].len() - text[at..].trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
            if !text[at..].starts_with('{') && at < text.len() {
                return None;
            }
        }
        if at < text.len() {
            objects.push_back((lines.line_of(at), Err("invalid JSON: the file ends inside an object".to_string())));
        }
        Some(objects)
    }

    /// Returns whether an object has the wanted columns.
    fn is_row(&self, text: &str) -> bool {
        self.columns.find(&keys(text)).is_ok()
    }
}

fn rows_of_list(list: &str, start: usize, lines: &mut LineCounter) -> VecDeque<Numbered> {
    let row = |(offset, part): (usize, &str)| (lines.line_of(start + offset), object(part));
    let mut rows: VecDeque<Numbered> = parts(list).into_iter().map(row).collect();
    if length(list).is_none() {
        rows.push_back((
            lines.line_of(start + list.len()),
            Err("invalid JSON: the file ends inside a list".to_string()),
        ));
    }
    rows
}

/// Counts lines up to increasing offsets.
struct LineCounter<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
}

impl LineCounter<'_> {
    fn line_of(&mut self, offset: usize) -> usize {
        let between = self.text.as_bytes().get(self.offset..offset).unwrap_or_default();
        self.line += between.iter().filter(|&&byte| byte == b'\n').count();
        self.offset = offset;
        self.line
    }
}
