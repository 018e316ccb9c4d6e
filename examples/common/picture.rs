//! Where the pictures of an example go.

use std::path::{Path, PathBuf};

use super::Result;

/// `--out`
#[derive(clap::Args)]
pub struct PictureArgument {
    /// Where the picture goes: an .html page, or an .svg file [default: an .html page in the folder `target`]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl PictureArgument {
    /// The file, in a folder that exists, or else the page of the example's name. Asked before there is any work, so that it
    /// is not done for nothing.
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

/// Where the page of an example goes if nothing is said: into the folder `target`, which is made.
pub fn default_page(example: &str) -> Result<PathBuf> {
    let folder = Path::new("target");
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: cannot make it: {error}", folder.display()))?;
    let path = folder.join(format!("{example}.html"));
    check_file(&path)?;
    Ok(path)
}

/// Fails, naming the file, when it could not be written.
fn check_file(path: &Path) -> Result {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = tempfile::NamedTempFile::new_in(folder);
    writable.map_err(|error| format!("{}: cannot write: {}", path.display(), error.kind()))?;
    Ok(())
}

/// Whether the file is to be a picture alone, and no page.
pub fn is_svg(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "svg")
}
