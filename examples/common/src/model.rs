//! Which model an example uses, and the device it computes on.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cloze::prelude::*;
use cloze::train::communicator::{self, Communicator};

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
    /// one). Under mpirun or srun, cuda gives each process a GPU of its own
    #[arg(long = "device", default_value = "cpu", value_name = "DEVICE", value_parser = device_name)]
    #[serde(skip)]
    name: String,
    /// Opened when it is first used, because ranks first agree on who takes which GPU.
    #[arg(skip)]
    #[serde(rename = "device", serialize_with = "by_name")]
    opened: OnceLock<Device>,
}

/// Checks the name of a device without opening a GPU.
fn device_name(name: &str) -> std::result::Result<String, cloze::tensor::Error> {
    let is_number = |index: &str| index.parse::<usize>().is_ok();
    if name != "cuda" && name != "auto" && !name.strip_prefix("cuda:").is_some_and(is_number) {
        name.parse::<Device>()?;
    }
    Ok(name.to_string())
}

impl DeviceArgument {
    /// Returns the device, opening it on the first call.
    ///
    /// # Errors
    /// Returns an error if it cannot be opened.
    pub fn open(&self) -> Result<&Device> {
        if let Some(device) = self.opened.get() {
            return Ok(device);
        }
        let device = self.name.parse()?;
        Ok(self.opened.get_or_init(|| device))
    }

    /// Opens the device of this rank. All ranks must call this.
    ///
    /// # Errors
    /// Returns an error if it cannot be opened, or if there are more ranks than GPUs.
    pub(crate) fn open_for(&self, ranks: &dyn Communicator) -> Result<&Device> {
        let device = communicator::open_device(&self.name, ranks)?;
        Ok(self.opened.get_or_init(|| device))
    }

    /// Opens the model in a folder or of a name in a pipeline, on this device.
    ///
    /// # Errors
    /// Returns an error if the model cannot be opened or lacks the head of the pipeline.
    pub fn pipeline<P: Pipeline>(&self, place: &Path) -> Result<P> {
        let (pipeline, report) = P::open_reported(place, self.open()?)?;
        print_remarks(place, &report);
        Ok(pipeline)
    }
}

fn by_name<S: serde::Serializer>(device: &OnceLock<Device>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match device.get() {
        Some(device) => serializer.collect_str(device),
        None => serializer.serialize_none(),
    }
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

    /// Returns the argument `--device`.
    pub fn device(&self) -> &DeviceArgument {
        &self.device
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
        let (model, report) = BertModel::open_reported(self.place(), self.device.open()?, &OpenOptions::new())?;
        print_remarks(&self.place(), &report);
        let tokenizer = Tokenizer::open(self.place())?;
        tokenizer.check_vocab_size(model.config())?;
        Ok((model, tokenizer))
    }
}
