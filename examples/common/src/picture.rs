//! Where an example saves its pictures.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::output::check_file;

/// The argument `--out` of examples that draw.
#[derive(clap::Args)]
pub struct PictureArgument {
    /// File to draw to, .html or .svg [default: an .html page in the folder `target`, or in that for temporary
    /// files]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl PictureArgument {
    /// Returns the file to draw to. Call it before any work, so that an unusable path is an error at the start.
    ///
    /// # Errors
    /// Returns an error if the file is of another kind, or if it cannot be written.
    pub fn file(&self, example: &str) -> Result<PathBuf> {
        let Some(path) = &self.out else { return default_page(example) };
        let known = path.extension().is_some_and(|kind| kind == "html" || kind == "svg");
        if !known {
            return Err(format!("--out is {}: must end in .html or .svg", path.display()).into());
        }
        check_file(path)?;
        Ok(path.clone())
    }
}

/// Returns `target/EXAMPLE.html`, and creates the folder `target` if it is missing. In a read-only folder, the page goes to
/// the folder for temporary files.
///
/// # Errors
/// Returns an error if the page cannot be written in either place.
fn default_page(example: &str) -> Result<PathBuf> {
    let page = Path::new("target").join(format!("{example}.html"));
    if std::fs::create_dir_all("target").is_ok() && check_file(&page).is_ok() {
        return Ok(page);
    }
    let page = std::env::temp_dir().join(format!("cloze-{example}.html"));
    check_file(&page)?;
    Ok(page)
}

/// Returns a page that no other run has written or is going to write: `target/EXAMPLE.html`, `target/EXAMPLE-2.html` and so on.
///
/// # Errors
/// Returns an error if the page cannot be written.
pub fn new_page(example: &str) -> Result<PathBuf> {
    let first = default_page(example)?;
    let numbered = (2..).map(|number| {
        let stem = first.file_stem().unwrap_or_default().to_string_lossy();
        first.with_file_name(format!("{stem}-{number}.html"))
    });
    // Only rank 0 writes.
    if crate::ranks().rank() > 0 {
        return Ok(first);
    }
    for page in std::iter::once(first.clone()).chain(numbered) {
        match std::fs::File::create_new(&page) {
            Ok(_) => return Ok(page),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: cannot write: {error}", page.display()).into()),
        }
    }
    Ok(first)
}

/// Removes a [`new_page`] that was not written, because the run failed.
pub fn remove_empty(page: &Path) {
    if page.metadata().is_ok_and(|page| page.is_file() && page.len() == 0) {
        // Nothing is lost if it stays.
        let _ = std::fs::remove_file(page);
    }
}

/// Returns whether the file is to be a single picture instead of a page.
pub fn is_svg(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "svg")
}
