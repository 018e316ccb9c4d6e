//! Which model an example asks, and where it computes.

use std::path::{Path, PathBuf};

use cloze::prelude::*;

use super::exit;

/// The folder or name that was asked for, or the small model of this repository.
pub fn model(asked: Option<&Path>) -> PathBuf {
    asked.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny"), Path::to_path_buf)
}

/// `--model`
#[derive(clap::Args, serde::Serialize)]
pub struct ModelArgument {
    /// A folder, or a name on the Hugging Face Hub [default: models/tiny of this repository]
    #[arg(long = "model", value_name = "DIR_OR_NAME")]
    asked: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    device: DeviceArgument,
}

/// `--device`
#[derive(clap::Args, serde::Serialize)]
pub struct DeviceArgument {
    /// Where to compute: cpu; cuda or cuda:N, a GPU, where cloze is built with the feature `cuda`; or auto, a GPU if there is one
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    #[serde(serialize_with = "in_words")]
    pub device: Device,
}

fn in_words<S: serde::Serializer>(device: &Device, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(device)
}

impl ModelArgument {
    /// Where the model is.
    pub fn place(&self) -> PathBuf {
        model(self.asked.as_deref())
    }

    /// Whether it is the small one of this repository.
    pub fn is_small(&self) -> bool {
        self.asked.is_none()
    }

    /// What to call it, in few characters.
    pub fn name(&self) -> String {
        let name = |asked: &PathBuf| asked.file_name().unwrap_or(asked.as_os_str()).to_string_lossy().into_owned();
        self.asked.as_ref().map_or_else(|| "models/tiny".to_string(), name)
    }

    /// Where it is to compute.
    pub fn device(&self) -> &Device {
        &self.device.device
    }

    /// What answers with it.
    pub fn pipeline<P: Pipeline>(&self) -> exit::Result<P> {
        Ok(P::open_on(self.place(), self.device())?)
    }

    /// The model without a head, and its tokenizer.
    pub fn open(&self) -> exit::Result<(BertModel, Tokenizer)> {
        let (model, _) = BertModel::open(self.place(), self.device())?;
        let tokenizer = Tokenizer::open(self.place())?;
        tokenizer.check_vocab_size(model.config())?;
        Ok((model, tokenizer))
    }
}
