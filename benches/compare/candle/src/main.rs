//! candle as a contestant: answers the requests of the driver, one JSON object per line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Linear, VarBuilder};
use candle_transformers::models::bert::{BertModel, Config};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Request {
    Prepare { task: String, model: PathBuf, batches: PathBuf },
    Check,
    Run,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Ready(BTreeMap<&'static str, &'static str>),
    Numbers(Vec<f32>),
    Seconds(f64),
    Failed(String),
}

#[derive(Deserialize)]
struct PaddedBatch {
    length: usize,
    ids: Vec<u32>,
    token_types: Vec<u32>,
    attention_mask: Vec<u32>,
}

/// `[B, L]` each.
struct Inputs {
    ids: Tensor,
    token_types: Tensor,
    attention_mask: Tensor,
    /// Indices of the rows of `[B * L]` that are tokens.
    tokens: Vec<u32>,
}

struct Subject {
    model: BertModel,
    /// The question answering head; `None` for embeddings.
    head: Option<Linear>,
    batches: Vec<Inputs>,
    runs: usize,
}

impl Subject {
    fn new(task: &str, folder: PathBuf, batches: PathBuf) -> Result<Subject> {
        let device = Device::Cpu;
        let config: Config = serde_json::from_reader(BufReader::new(File::open(folder.join("config.json"))?))?;
        let files = [folder.join("model.safetensors")];
        // SAFETY: `from_mmaped_safetensors` requires that the file does not change while it is mapped. The driver wrote
        // it before starting this process, and no one writes it during a comparison.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &device)? };
        let head = match task {
            "question_answering" => Some(candle_nn::linear(config.hidden_size, 2, weights.pp("qa_outputs"))?),
            _ => None,
        };
        let model = BertModel::load(if head.is_some() { weights.pp("bert") } else { weights }, &config)?;
        let batches: Vec<PaddedBatch> = serde_json::from_reader(BufReader::new(File::open(batches)?))?;
        let inputs = |batch: &PaddedBatch| {
            let shape = (batch.ids.len() / batch.length, batch.length);
            let tensor = |values: &[u32]| Tensor::from_slice(values, shape, &device);
            let tokens = (0..).zip(&batch.attention_mask).filter(|(_, mask)| **mask != 0);
            Ok(Inputs {
                ids: tensor(&batch.ids)?,
                token_types: tensor(&batch.token_types)?,
                attention_mask: tensor(&batch.attention_mask)?,
                tokens: tokens.map(|(row, _)| row).collect(),
            })
        };
        let batches = batches.iter().map(inputs).collect::<Result<_>>()?;
        Ok(Subject { model, head, batches, runs: 0 })
    }

    /// Returns logits `[B, L, 2]`, or normalised embeddings `[B, H]`.
    fn forward(&self, number: usize) -> Result<Tensor> {
        let Inputs { ids, token_types, attention_mask, .. } = &self.batches[number % self.batches.len()];
        let hidden = self.model.forward(ids, token_types, Some(attention_mask))?;
        if let Some(head) = &self.head {
            return Ok(head.forward(&hidden)?);
        }
        let mask = attention_mask.to_dtype(DType::F32)?.unsqueeze(2)?;
        let mean = hidden.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
        Ok(mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)?)
    }

    fn check(&self) -> Result<Vec<f32>> {
        let output = self.forward(0)?;
        let output = match self.head {
            Some(_) => {
                let tokens = &self.batches[0].tokens;
                let tokens = Tensor::from_slice(tokens, tokens.len(), &Device::Cpu)?;
                output.flatten(0, 1)?.index_select(&tokens, 0)?
            }
            None => output,
        };
        Ok(output.flatten_all()?.to_vec1()?)
    }

    fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.forward(self.runs)?;
        self.runs += 1;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn answer(request: Request, subject: &mut Option<Subject>) -> Result<Reply> {
    if let Request::Prepare { task, model, batches } = request {
        *subject = Some(Subject::new(&task, model, batches)?);
        return Ok(Reply::Ready(BTreeMap::from([("candle", candle_version())])));
    }
    let subject = subject.as_mut().context("request before `prepare`")?;
    Ok(match request {
        Request::Run => Reply::Seconds(subject.run()?),
        _ => Reply::Numbers(subject.check()?),
    })
}

/// Returns the version in the lock file.
fn candle_version() -> &'static str {
    let after = |text: &'static str, mark: &str| text.split_once(mark).map_or("", |(_, rest)| rest);
    let version = after(after(include_str!("../Cargo.lock"), "name = \"candle-core\""), "version = \"");
    version.split('"').next().unwrap_or_default()
}

fn main() -> Result<()> {
    let mut subject = None;
    for line in std::io::stdin().lines() {
        let reply = answer(serde_json::from_str(&line?)?, &mut subject);
        let reply = reply.unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &reply)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}
