//! Which model an example asks.

use std::path::{Path, PathBuf};

use cloze::prelude::*;

use super::Result;

/// The toy model that comes with the examples.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny");

/// `--model`
#[derive(clap::Args)]
pub struct ModelArgument {
    /// Folder of a model, or its name on the Hugging Face Hub [default: the toy model in models/tiny]
    #[arg(long = "model", value_name = "DIR_OR_NAME")]
    place: Option<PathBuf>,
}

impl ModelArgument {
    /// Where the model is.
    pub fn place(&self) -> &Path {
        self.place.as_deref().unwrap_or(Path::new(TINY))
    }

    /// What to call it, in few characters.
    pub fn name(&self) -> String {
        let name = |place: &PathBuf| place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned();
        self.place.as_ref().map_or_else(|| "models/tiny".to_string(), name)
    }

    /// The model without a head, and its tokenizer.
    pub fn open(&self) -> Result<(BertModel, Tokenizer)> {
        let (model, _) = BertModel::open(self.place(), &Device::Cpu)?;
        let tokenizer = Tokenizer::open(self.place())?;
        tokenizer.check_vocab_size(model.config())?;
        Ok((model, tokenizer))
    }
}
