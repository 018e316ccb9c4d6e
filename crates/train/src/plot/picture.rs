//! A finished picture.

use std::path::Path;

use cloze_tensor::write_file_atomically;

use super::STYLE;
use super::svg::{escaped, number};
use crate::{Error, Result};

/// A finished picture, to embed in a page or save to a file.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Width and height in CSS pixels.
    pub(super) size: (f64, f64),
    /// The title, which screen readers read out.
    pub(super) title: String,
    pub(super) body: String,
}

impl Picture {
    /// Returns an `<svg>` element for a page whose style sheet includes [`STYLE`]. It shrinks to the width of its
    /// parent.
    pub fn inline(&self) -> String {
        self.element("", "")
    }

    /// Returns the content of a standalone SVG file, with its own style and background.
    pub fn svg(&self) -> String {
        let back = format!("<style>{STYLE}</style><rect class=\"bg\" width=\"100%\" height=\"100%\"/>");
        self.element(" xmlns=\"http://www.w3.org/2000/svg\"", &back) + "\n"
    }

    /// Writes a standalone SVG file atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let written = write_file_atomically(path, self.svg().as_bytes());
        written.map_err(|source| Error::io(path, "cannot write", source))
    }

    fn element(&self, attributes: &str, back: &str) -> String {
        let (width, height) = (number(self.size.0), number(self.size.1));
        let (title, body) = (escaped(&self.title), &self.body);
        format!(
            "<svg{attributes} class=\"cz\" role=\"img\" aria-label=\"{title}\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" style=\"max-width:100%;height:auto\">{back}{body}</svg>"
        )
    }
}
