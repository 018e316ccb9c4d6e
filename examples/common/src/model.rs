//! Which model an example uses, and the device it computes on.

use std::path::{Path, PathBuf};

use cloze::prelude::*;

use crate::{Result, print_remarks};

/// Returns the folder of the small model in this repository, which examples use without `--model`.
pub fn tiny_model() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
    repository.join("models/tiny")
}

/// The arguments `--model` and `--device`.
#[derive(clap::Args, serde::Serialize)]
pub struct ModelArgument {
    /// Model folder, or name on the Hugging Face Hub [default: models/tiny in this repository]
    #[arg(long, value_name = "DIR_OR_NAME")]
    #[serde(rename = "asked")]
    model: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    device: DeviceArgument,
}

/// The argument `--device`.
#[derive(clap::Args, serde::Serialize)]
pub struct DeviceArgument {
    /// Device to compute on: cpu, cuda or cuda:N (an NVIDIA GPU; needs the feature `cuda`), or auto (a GPU if there is
    /// one)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    #[serde(serialize_with = "by_name")]
    pub device: Device,
}

impl DeviceArgument {
    /// Opens the model in a folder or of a name in a pipeline, on this device.
    ///
    /// # Errors
    /// Returns an error if the model cannot be opened or lacks the head of the pipeline.
    pub fn pipeline<P: Pipeline>(&self, place: &Path) -> Result<P> {
        let (pipeline, report) = P::open_with_report(place, &self.device)?;
        print_remarks(place, &report);
        Ok(pipeline)
    }
}

fn by_name<S: serde::Serializer>(device: &Device, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(device)
}

impl ModelArgument {
    /// Returns the folder or name of the model.
    pub fn place(&self) -> PathBuf {
        self.model.clone().unwrap_or_else(tiny_model)
    }

    /// Returns whether it is the small model of this repository.
    pub fn is_tiny(&self) -> bool {
        self.model.is_none()
    }

    /// Returns a short name for tables and titles.
    pub fn name(&self) -> String {
        let last = |model: &PathBuf| model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned();
        self.model.as_ref().map_or_else(|| "models/tiny".to_string(), last)
    }

    /// Returns the device to compute on.
    pub fn device(&self) -> &Device {
        &self.device.device
    }

    /// Opens the model in a pipeline, and prints on standard error which of its files contradict each other.
    ///
    /// # Errors
    /// Returns an error if the model cannot be opened or lacks the head of the pipeline.
    pub fn pipeline<P: Pipeline>(&self) -> Result<P> {
        self.device.pipeline(&self.place())
    }

    /// Opens the model without a head, and its tokenizer.
    ///
    /// # Errors
    /// Returns an error if either cannot be opened or they do not belong together.
    pub fn open(&self) -> Result<(BertModel, Tokenizer)> {
        let (model, report) = BertModel::open(self.place(), self.device())?;
        print_remarks(&self.place(), &report);
        let tokenizer = Tokenizer::open(self.place())?;
        tokenizer.check_vocab_size(model.config())?;
        Ok((model, tokenizer))
    }
}
