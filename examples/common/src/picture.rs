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
pub fn default_page(example: &str) -> Result<PathBuf> {
    let page = Path::new("target").join(format!("{example}.html"));
    if std::fs::create_dir_all("target").is_ok() && check_file(&page).is_ok() {
        return Ok(page);
    }
    let page = std::env::temp_dir().join(format!("cloze-{example}.html"));
    check_file(&page)?;
    Ok(page)
}

/// Returns whether the file is to be a single picture instead of a page.
pub fn is_svg(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "svg")
}
