//! The contestants, and what they cannot do.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

use crate::Result;
use crate::process::Process;
use crate::protocol::{Dtype, Task};

/// A library, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// cloze
    Ours,
    /// An earlier build of cloze, with --before
    Before,
    /// PyTorch and transformers
    Torch,
    /// PyTorch and transformers with `torch.compile`
    TorchCompile,
    /// PyTorch and transformers with sentences one by one or in groups of similar lengths, whichever is faster
    TorchUnpadded,
    /// ONNX Runtime, in its fastest form
    Onnx,
    /// OpenVINO, in its fastest form
    Openvino,
    /// llama.cpp, in its fastest form; f16 weights in place of bf16, and Q8_0 in place of int8
    Llama,
    /// candle
    Candle,
}

/// A SIMD level below the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Simd {
    /// AVX2 and FMA, for cloze, oneDNN (torch, OpenVINO) and MKL; ONNX Runtime, llama.cpp and candle have no such setting
    Avx2,
}

/// A library, and the data type that it computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Contestant {
    pub kind: Kind,
    pub dtype: Dtype,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Ours,
        Kind::Before,
        Kind::Torch,
        Kind::TorchCompile,
        Kind::TorchUnpadded,
        Kind::Onnx,
        Kind::Openvino,
        Kind::Llama,
        Kind::Candle,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Ours => "cloze",
            Kind::Before => "cloze before",
            Kind::Torch => "torch eager",
            Kind::TorchCompile => "torch.compile",
            Kind::TorchUnpadded => "torch unpadded",
            Kind::Onnx => "ONNX Runtime",
            Kind::Openvino => "OpenVINO",
            Kind::Llama => "llama.cpp",
            Kind::Candle => "candle",
        }
    }

    /// Returns why it cannot run this task in this data type, or `None` if it can.
    pub fn lacks(self, task: Task, dtype: Dtype) -> Option<&'static str> {
        match (self, dtype) {
            (Kind::Onnx | Kind::Openvino | Kind::Llama | Kind::Candle, _) if task.trains() => Some("cannot train BERT"),
            (Kind::Onnx | Kind::Candle, Dtype::Bf16) => Some("no bf16 products on a CPU"),
            (Kind::Openvino, Dtype::Bf16) => Some("not measured"),
            (Kind::TorchCompile, Dtype::Int8) => Some("see torch eager"),
            (Kind::Llama, _) if task != Task::Embedding => Some("has no head for it and no second token type"),
            (Kind::TorchUnpadded, _) if task != Task::Embedding => Some("has no padding to leave out"),
            (Kind::Candle, Dtype::Int8) => Some("no int8 BERT"),
            _ => None,
        }
    }
}

/// The programs of the contestants, or why they are missing.
pub struct Programs {
    pub before: Option<PathBuf>,
    pub python: Result<PathBuf, String>,
    pub candle: Result<PathBuf, String>,
    pub threads: usize,
    /// The SIMD level of all contestants, if not the best.
    pub simd: Option<Simd>,
    /// Folder for their standard error.
    pub logs: PathBuf,
}

impl Programs {
    /// Starts the process of a contestant.
    ///
    /// # Errors
    /// Returns an error if its program is missing or cannot be started.
    pub fn start(&self, contestant: Contestant) -> Result<Process> {
        let mut command = match contestant.kind {
            Kind::Ours => self.ours(&["ours"])?,
            Kind::Before => {
                let mut command = Command::new(self.before.as_ref().ok_or("--before is missing")?);
                command.arg("ours");
                command
            }
            Kind::Torch | Kind::TorchCompile | Kind::TorchUnpadded => self.script("torch_peer.py")?,
            Kind::Onnx => self.script("onnx_peer.py")?,
            Kind::Openvino => self.script("openvino_peer.py")?,
            Kind::Llama => self.script("llama_peer.py")?,
            Kind::Candle => Command::new(self.candle.clone()?),
        };
        self.limit(&mut command);
        let name = format!("{}-{}.log", contestant.kind.name().replace([' ', '.'], "-"), contestant.dtype.name());
        Process::start(command, &self.logs.join(name))
    }

    /// Returns a command that runs this program with other arguments.
    pub fn ours(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        self.limit(&mut command);
        Ok(command)
    }

    /// Returns a command that runs a Python script in this folder.
    pub fn script(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.python.clone()?);
        // `-B` keeps Python from writing a cache into the repository; HF_HUB_OFFLINE prevents downloads.
        command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).env("HF_HUB_OFFLINE", "1");
        self.limit(&mut command);
        Ok(command)
    }

    /// Gives all contestants the same number of threads and the same instructions.
    fn limit(&self, command: &mut Command) {
        if let Some(Simd::Avx2) = self.simd {
            for (variable, level) in
                [("CLOZE_SIMD", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("MKL_ENABLE_INSTRUCTIONS", "AVX2")]
            {
                command.env(variable, level);
            }
        }
        for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, self.threads.to_string());
        }
    }
}
