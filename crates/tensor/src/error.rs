//! What can go wrong, and how it is said.

use std::fmt;
use std::path::PathBuf;

use crate::DType;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: one readable line, and a [kind](Error::kind) to match on.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    /// Module path, outermost first: `bert.encoder.layer.3.attention.self`.
    path: String,
}

/// The kinds of [`Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Operands whose shapes do not fit an operation.
    #[error("{op}: {reason} ({})", list(operands))]
    Shape {
        /// The operation that was called.
        op: &'static str,
        /// What does not fit.
        reason: String,
        /// Each operand's name and whole shape.
        operands: Vec<(&'static str, Vec<usize>)>,
    },
    /// An operand of a type that the operation does not take.
    #[error("{op}: {operand} has dtype {found}, expected {expected}")]
    DType {
        /// The operation that was called.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// Its type.
        found: DType,
        /// What would do.
        expected: String,
    },
    /// An index, id or label outside its range.
    #[error("{op}: {what} {value} at position {position} is out of range: must be below {limit}")]
    OutOfRange {
        /// The operation that was called.
        op: &'static str,
        /// What the value is: `token id`, `label`, `row index`.
        what: &'static str,
        /// The value.
        value: i64,
        /// Where in the operand it stands.
        position: usize,
        /// The first value that is too large.
        limit: usize,
    },
    /// An argument that makes no sense.
    #[error("{op}: {reason}")]
    Invalid {
        /// The operation that was called.
        op: &'static str,
        /// Why.
        reason: String,
    },
    /// A GPU that is not there, has no memory left, or failed.
    #[error("{op}: {reason}")]
    Device {
        /// The operation that was called.
        op: &'static str,
        /// What happened, and what can be done.
        reason: String,
    },
    /// Something about gradients: none asked for, a graph used twice, a parameter that got none.
    #[error("{op}: {reason}")]
    Gradient {
        /// The operation that was called.
        op: &'static str,
        /// Why.
        reason: String,
    },
    /// A result that is not finite, where [`check_finite`](crate::check_finite) looked.
    #[error("{op}: the result has {value} at element {position}")]
    NotFinite {
        /// The operation.
        op: &'static str,
        /// NaN or an infinity.
        value: f64,
        /// Where it stands among the elements of the result, the first that does.
        position: usize,
    },
    /// A file that could not be read or written.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done: `cannot read`, `cannot write`.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file whose content is not what it should be.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn list(operands: &[(&'static str, Vec<usize>)]) -> String {
    operands.iter().map(|(name, shape)| format!("{name}: {shape:?}")).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// What went wrong, to match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The module path at which it went wrong (`bert.encoder.layer.3.attention.self`), or an empty string.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The same error, said to come from inside module `name`.
    pub fn inside(mut self, name: impl fmt::Display) -> Error {
        self.0.path = match self.0.path.as_str() {
            "" => name.to_string(),
            inner => format!("{name}.{inner}"),
        };
        self
    }

    /// Shapes that do not fit.
    pub fn shape(op: &'static str, reason: impl Into<String>, operands: &[(&'static str, &[usize])]) -> Error {
        let operands = operands.iter().map(|&(name, shape)| (name, shape.to_vec())).collect();
        ErrorKind::Shape { op, reason: reason.into(), operands }.into()
    }

    /// An argument that makes no sense.
    pub fn invalid(op: &'static str, reason: impl Into<String>) -> Error {
        ErrorKind::Invalid { op, reason: reason.into() }.into()
    }

    /// A GPU that cannot do what it was asked for.
    pub(crate) fn device(op: &'static str, reason: impl Into<String>) -> Error {
        ErrorKind::Device { op, reason: reason.into() }.into()
    }

    /// Something about gradients.
    pub fn gradient(op: &'static str, reason: impl Into<String>) -> Error {
        ErrorKind::Gradient { op, reason: reason.into() }.into()
    }

    /// A file that could not be read or written.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: std::io::Error) -> Error {
        ErrorKind::Io { path: path.into(), action, source }.into()
    }

    /// A file whose content is not what it should be.
    pub fn format(path: impl Into<PathBuf>, reason: impl Into<String>) -> Error {
        ErrorKind::Format { path: path.into(), reason: reason.into() }.into()
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Error {
        Error(Box::new(Inner { kind, path: String::new() }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.0.path)?;
        }
        self.0.kind.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.0.kind)
    }
}

/// Adds the module path to an error as it passes through a module.
pub trait Inside<T> {
    /// Says that the error, if there is one, comes from inside module `name`.
    fn inside(self, name: impl fmt::Display) -> Result<T>;
}

impl<T> Inside<T> for Result<T> {
    fn inside(self, name: impl fmt::Display) -> Result<T> {
        self.and_then(|value| crate::finite::found().map_or(Ok(value), Err)).map_err(|error| error.inside(name))
    }
}
