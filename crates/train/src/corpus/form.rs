//! The form of a text file, which its name tells: how it is compressed, and divided into documents and sentences.

use std::path::{Path, PathBuf};

/// How a text is divided into documents and sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextForm {
    /// A sentence per line, a blank line between documents.
    Lines,
    /// A single document, with blank lines between paragraphs.
    Prose,
    /// A JSON object per line, with a document of prose.
    JsonLines,
    /// A Parquet file, with a document of prose in each row.
    Parquet,
}

impl TextForm {
    /// Returns the length of the longest prefix of `text` that no sentence extends beyond, possibly 0.
    pub(super) fn cut(self, text: &[u8]) -> usize {
        let line_end = |text: &[u8]| text.iter().rposition(|&byte| byte == b'\n');
        match self {
            TextForm::Lines | TextForm::JsonLines | TextForm::Parquet => line_end(text).map_or(0, |end| end + 1),
            TextForm::Prose => {
                let mut rest = text;
                while let Some(end) = line_end(rest) {
                    let line = rest[..end].trim_ascii_end();
                    if line.is_empty() || line_end(&rest[line.len()..end]).is_some() {
                        return end + 1;
                    }
                    rest = &rest[..line.len()];
                }
                0
            }
        }
    }

    /// Returns the name of the unit that a cut never divides, for errors.
    pub(super) fn unit(self) -> &'static str {
        match self {
            TextForm::Lines | TextForm::JsonLines | TextForm::Parquet => "a line",
            TextForm::Prose => "a paragraph",
        }
    }
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextFile {
    pub(super) path: PathBuf,
    pub(super) form: TextForm,
    pub(super) compression: Compression,
    /// The number of its bytes, as it is stored.
    pub(super) bytes: u64,
}

impl TextFile {
    /// Returns a file that was given by name: sentences by line, unless the name says otherwise.
    pub(super) fn given(path: &Path, bytes: u64) -> TextFile {
        let (compression, extension) = endings(path);
        let form = named_form(&extension).filter(|form| *form != TextForm::Prose).unwrap_or(TextForm::Lines);
        TextFile { path: path.into(), form, compression, bytes }
    }

    /// Returns a file that was found in a folder, if its name says that it is a text.
    pub(super) fn found(path: &Path, bytes: u64) -> Option<TextFile> {
        let (compression, extension) = endings(path);
        Some(TextFile { path: path.into(), form: named_form(&extension)?, compression, bytes })
    }
}

fn named_form(extension: &str) -> Option<TextForm> {
    match extension {
        "txt" => Some(TextForm::Prose),
        "jsonl" | "ndjson" => Some(TextForm::JsonLines),
        "parquet" => Some(TextForm::Parquet),
        _ => None,
    }
}

/// Returns the compression that a name ends in, and the extension before it in lower case.
fn endings(path: &Path) -> (Compression, String) {
    let extension =
        |path: &Path| path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let compression = match extension(path).as_str() {
        "gz" => Compression::Gzip,
        "zst" => Compression::Zstd,
        other => return (Compression::None, other.to_string()),
    };
    (compression, path.file_stem().map(|stem| extension(Path::new(stem))).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_follow_the_last_line_or_blank_line() {
        for (text, lines, prose) in [
            ("", 0, 0),
            ("abc", 0, 0),
            ("a\nb", 2, 0),
            ("a\n\nb\nc", 5, 3),
            ("a\n \t\r\nb\n", 8, 6),
            ("\nabc", 1, 1),
            ("a\n\n\n", 4, 4),
            ("a \nb", 3, 0),
        ] {
            let found = (TextForm::Lines.cut(text.as_bytes()), TextForm::Prose.cut(text.as_bytes()));
            assert_eq!(found, (lines, prose), "{text:?}");
            assert_eq!(TextForm::JsonLines.cut(text.as_bytes()), lines);
        }
    }

    #[test]
    fn names_tell_the_form() {
        use Compression::{Gzip, None, Zstd};
        use TextForm::{JsonLines, Lines, Parquet, Prose};
        for (name, given, found, compression) in [
            ("a.txt", Lines, Some(Prose), None),
            ("a.TXT.gz", Lines, Some(Prose), Gzip),
            ("b.jsonl", JsonLines, Some(JsonLines), None),
            ("b.ndjson.zst", JsonLines, Some(JsonLines), Zstd),
            ("c.parquet", Parquet, Some(Parquet), None),
            ("notes.md", Lines, Option::None, None),
            ("corpus", Lines, Option::None, None),
            ("corpus.gz", Lines, Option::None, Gzip),
        ] {
            let path = Path::new("x.txt").join(name);
            let file = TextFile::given(&path, 7);
            assert_eq!((file.form, file.compression, file.bytes), (given, compression, 7), "{name}");
            assert_eq!(TextFile::found(&path, 7).map(|file| file.form), found, "{name}");
        }
    }
}
