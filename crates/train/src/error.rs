//! The error type of this crate.

use std::fmt;
use std::path::PathBuf;

cloze_tensor::boxed_error!(ErrorKind, from ErrorKind, cloze_tensor::Error, cloze_bert::Error);

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder that cannot be read or written.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The action that failed: `cannot read`, `cannot write`.
        action: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A text file that is not UTF-8.
    #[error("{}: not UTF-8: invalid byte at offset {offset}: convert the file to UTF-8", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The offset, from the start of the file, of the first byte that is not part of a character.
        offset: usize,
    },
    /// Data that cannot be used.
    #[error("{}{what}: {why}", place(path, line))]
    Data {
        /// The part of the data: `corpus`, `targets`.
        what: &'static str,
        /// The problem.
        why: String,
        /// The file or folder, if known.
        path: Option<PathBuf>,
        /// The line, from 1, if known.
        line: Option<usize>,
    },
    /// An invalid setting.
    #[error("{setting} is {value}, must be {limit}")]
    Invalid {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The values that are allowed.
        limit: String,
    },
    /// An error of the tensor library.
    #[error(transparent)]
    Tensor(#[from] cloze_tensor::Error),
    /// An error of the model or the tokenizer.
    #[error(transparent)]
    Bert(#[from] cloze_bert::Error),
}

fn place(path: &Option<PathBuf>, line: &Option<usize>) -> String {
    match (path, line) {
        (Some(path), Some(line)) => format!("{}:{line}: ", path.display()),
        (Some(path), None) => format!("{}: ", path.display()),
        (None, Some(line)) => format!("line {line}: "),
        (None, None) => String::new(),
    }
}

impl Error {
    /// Returns the kind of error, to match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// Returns an error about data that cannot be used.
    pub fn data(what: &'static str, why: impl Into<String>) -> Error {
        ErrorKind::Data { what, why: why.into(), path: None, line: None }.into()
    }

    /// Returns an error about data in a file or folder that cannot be used.
    pub fn data_in(path: impl Into<PathBuf>, what: &'static str, why: impl Into<String>) -> Error {
        ErrorKind::Data { what, why: why.into(), path: Some(path.into()), line: None }.into()
    }

    /// Appends a note to an error about data.
    pub(crate) fn with_note(mut self, note: impl fmt::Display) -> Error {
        if let ErrorKind::Data { why, .. } = &mut *self.0 {
            why.push_str(&format!("; {note}"));
        }
        self
    }

    /// Returns an error about an invalid setting.
    pub fn invalid(setting: &'static str, value: impl fmt::Display, limit: impl Into<String>) -> Error {
        ErrorKind::Invalid { setting, value: value.to_string(), limit: limit.into() }.into()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn messages_have_the_place_on_one_line_and_a_source() {
        let error = Error::io("a/b.txt", "cannot read", std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "a/b.txt: cannot read: disk on fire");
        assert_eq!(error.source().map(|source| source.to_string()).as_deref(), Some("disk on fire"));

        let kind = ErrorKind::Data { what: "corpus", why: "odd".into(), path: Some("c.txt".into()), line: Some(3) };
        assert_eq!(Error::from(kind).to_string(), "c.txt:3: corpus: odd");
        assert_eq!(Error::data("corpus", "is empty").to_string(), "corpus: is empty");
        assert_eq!(Error::invalid("seq_len", 4, "at least 5").to_string(), "seq_len is 4, must be at least 5");
    }

    #[test]
    fn tensor_errors_pass_through() {
        let error: Error = cloze_tensor::Error::invalid("dropout", "why").into();
        assert_eq!(error.to_string(), "dropout: why");
        assert!(matches!(error.kind(), ErrorKind::Tensor(_)));
    }
}
