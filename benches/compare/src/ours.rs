//! cloze as a contestant: the code that a user of the library writes, on the batches that all contestants get.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::time::Instant;

use cloze::bert::PreTrainingTargets;
use cloze::prelude::*;
use cloze::train::Optimizer;

use crate::Result;
use crate::protocol::{CHECKED_STEPS, PaddedBatch, Preparation, Reply, Request, Task};

/// Answers requests until the driver closes standard input.
pub fn serve() -> Result {
    let mut subject: Option<Box<dyn Subject>> = None;
    for line in std::io::stdin().lines() {
        let reply = answer(serde_json::from_str(&line?)?, &mut subject);
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &reply.unwrap_or_else(|error| Reply::Failed(error.to_string())))?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

fn answer(request: Request, subject: &mut Option<Box<dyn Subject>>) -> Result<Reply> {
    let ready = subject.as_mut().ok_or("request before `prepare`");
    Ok(match request {
        Request::Prepare(preparation) => {
            *subject = Some(prepare(preparation)?);
            Reply::Ready(BTreeMap::from([("cloze".into(), env!("CARGO_PKG_VERSION").into())]))
        }
        Request::Check => Reply::Numbers(ready?.check()?),
        Request::Run => Reply::Seconds(ready?.run()?),
    })
}

fn prepare(preparation: Preparation) -> Result<Box<dyn Subject>> {
    let padded = serde_json::from_reader(BufReader::new(File::open(&preparation.batches)?))?;
    let Preparation { task, model: place, dtype, learning_rate, .. } = preparation;
    let batches = Batches { padded, precision: dtype.precision(), runs: 0 };
    Ok(match task {
        Task::PreTraining => Box::new(Training::new(open(place)?, batches, learning_rate, pre_training_loss)?),
        Task::Classification => Box::new(Training::new(open(place)?, batches, learning_rate, classification_loss)?),
        Task::QuestionAnswering => Box::new(Inference { model: open(place)?, batches, forward: answer_logits }),
        Task::Embedding => Box::new(Inference { model: open(place)?, batches, forward: embeddings }),
    })
}

fn open<M: PreTrainedModel>(place: PathBuf) -> Result<M> {
    Ok(M::open(place, &Device::Cpu)?)
}

/// A model that is checked and timed.
trait Subject {
    fn check(&mut self) -> Result<Vec<f64>>;
    fn run(&mut self) -> Result<f64>;
}

/// The batches to run on, and how many runs there have been.
struct Batches {
    padded: Vec<PaddedBatch>,
    precision: Precision,
    runs: usize,
}

impl Batches {
    fn get(&self, index: usize) -> &PaddedBatch {
        &self.padded[index % self.padded.len()]
    }

    /// Returns the index of the next run, from 0.
    fn next_run(&mut self) -> usize {
        self.runs += 1;
        self.runs - 1
    }
}

/// Optimizer steps.
struct Training<M> {
    model: M,
    optimizer: Optimizer,
    batches: Batches,
    learning_rate: f64,
    loss: fn(&M, &PaddedBatch, Mode) -> Result<Tensor>,
}

impl<M: PreTrainedModel> Training<M> {
    fn new(
        mut model: M,
        batches: Batches,
        learning_rate: f64,
        loss: fn(&M, &PaddedBatch, Mode) -> Result<Tensor>,
    ) -> Result<Training<M>> {
        let optimizer = Optimizer::new(AdamW::new(learning_rate).decay_everything(), &mut model, |_| true)?;
        Ok(Training { model, optimizer, batches, learning_rate, loss })
    }

    fn step(&mut self, index: usize, mode: Mode) -> Result<f64> {
        let batch = self.batches.get(index);
        let loss = self.batches.precision.scope(|| (self.loss)(&self.model, batch, mode))?;
        self.optimizer.backward(&loss)?;
        let value = loss.item()?;
        drop(loss);
        self.optimizer.step_at(&mut self.model, self.learning_rate, Some(1.0))?;
        Ok(value)
    }
}

impl<M: PreTrainedModel> Subject for Training<M> {
    fn check(&mut self) -> Result<Vec<f64>> {
        (0..CHECKED_STEPS).map(|index| self.step(index, Mode::Eval)).collect()
    }

    fn run(&mut self) -> Result<f64> {
        let (index, start) = (self.batches.next_run(), Instant::now());
        self.step(index, Mode::Train { seed: 7, step: index as u32 })?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn packed(batch: &PaddedBatch) -> Result<Batch> {
    Ok(Batch::from_padded(&batch.ids, &batch.token_types, &batch.attention_mask, batch.length)?)
}

fn pre_training_loss(model: &BertForPreTraining, batch: &PaddedBatch, mode: Mode) -> Result<Tensor> {
    let rows = Batch::rows_of_padded(&batch.attention_mask);
    let targets = rows.iter().zip(&batch.labels).filter_map(|(row, &label)| Some(((*row)?, label)));
    let (rows, labels) = targets.filter(|(_, label)| *label >= 0).unzip();
    let targets = PreTrainingTargets { rows, labels, next_sentence: batch.next_sentence.clone() };
    Ok(model.loss(&packed(batch)?, &targets, mode)?.loss)
}

fn classification_loss(model: &BertForSequenceClassification, batch: &PaddedBatch, mode: Mode) -> Result<Tensor> {
    Ok(model.loss(&packed(batch)?, &SequenceLabels::Classes(batch.labels.clone()), mode)?)
}

/// Forwards.
struct Inference<M> {
    model: M,
    batches: Batches,
    forward: fn(&M, &PaddedBatch) -> Result<Tensor>,
}

impl<M> Inference<M> {
    fn outputs(&self, index: usize) -> Result<Vec<f32>> {
        let forward = || Ok((self.forward)(&self.model, self.batches.get(index))?.to_vec()?);
        self.batches.precision.scope(|| no_grad(forward))
    }
}

impl<M> Subject for Inference<M> {
    fn check(&mut self) -> Result<Vec<f64>> {
        Ok(self.outputs(0)?.into_iter().map(f64::from).collect())
    }

    fn run(&mut self) -> Result<f64> {
        let (index, start) = (self.batches.next_run(), Instant::now());
        self.outputs(index)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn answer_logits(model: &BertForQuestionAnswering, batch: &PaddedBatch) -> Result<Tensor> {
    Ok(model.forward(&packed(batch)?, Mode::Eval)?)
}

fn embeddings(model: &SentenceEncoder, batch: &PaddedBatch) -> Result<Tensor> {
    Ok(model.forward(&packed(batch)?, Mode::Eval)?)
}
