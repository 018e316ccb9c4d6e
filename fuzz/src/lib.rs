//! What the fuzz targets share: a limit on memory, a folder in memory for APIs that take paths, mutations of JSON, and
//! choices that bytes make.

pub mod bases;
mod choices;
mod header;
mod json;
mod memory;
mod scratch;

pub use choices::Choices;
pub use header::with_header;
pub use json::mutate_json;
pub use memory::limited;
pub use scratch::Scratch;

/// Checks that an error is one line that says something, as a user reads it.
pub fn check_error(error: &dyn std::fmt::Display) {
    let said = error.to_string();
    assert!(!said.trim().is_empty() && !said.contains('\n'), "an error must be one line: {said:?}");
}

/// Checks the error of a result, and returns the value if there is one.
pub fn checked<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| check_error(error)).ok()
}
