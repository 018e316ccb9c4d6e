//! The memory of a rank.

use cloze_bert::{Batch, BertForPreTraining, Mode, PreTrainedModel, PreTrainingTargets};
use cloze_tensor::{Device, DryRun, Precision, Sequences};

use super::{Job, MASKED};
use crate::memory::{Training, dry_run};
use crate::{AdamW, RankMemory, Result};

impl Job {
    /// Predicts the memory of a rank on CPUs, by a dry run of two steps: without the memory, and in milliseconds.
    ///
    /// # Errors
    /// Returns an error if the sequences are longer than the model allows or the addresses do not suffice.
    pub fn memory(&self) -> Result<RankMemory> {
        let (sequences, length) = (self.sequences_per_rank().div_ceil(self.accumulate.max(1)), self.length);
        let tokens = sequences * length;
        let packed = Sequences::new(&vec![length; sequences])?;
        let batch = Batch::packed(vec![0; tokens], vec![0; tokens], packed)?;
        let rows: Vec<u32> = (0..(tokens as f64 * MASKED) as u32).map(|row| (f64::from(row) / MASKED) as u32).collect();
        let targets = PreTrainingTargets { labels: vec![0; rows.len()], rows, next_sentence: vec![0; sequences] };
        let training = Training {
            adamw: AdamW::new(1e-4),
            average: None,
            keeps_best: false,
            clip_norm: Some(1.0),
            ranks: (0, self.ranks.max(1)),
            reduce: self.reduce,
            accumulates: self.accumulate > 1,
        };
        let mode = Mode::Train { seed: 0, step: 0 };
        let loss = |model: &BertForPreTraining| {
            Ok(Precision::F32.scope(|| model.loss(&batch, &targets, mode)).map(|losses| losses.loss)?)
        };
        let memory = DryRun::new().run(|| -> Result<RankMemory> {
            let mut model = BertForPreTraining::new(&self.config, &Device::Cpu, 0)?;
            dry_run(&mut model, &Device::Cpu, &training, |_| true, loss)
        })?;
        Ok(RankMemory { process: 0, ..memory })
    }
}
