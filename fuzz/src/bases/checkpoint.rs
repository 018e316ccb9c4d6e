//! A checkpoint of a tiny model.

use cloze_bert::Mode;
use cloze_tensor::{Device, Tensor, module};
use cloze_train::{AdamW, DataSet, Every, Learn, LossTerm, Result, Size, Trainer, TrainingReport};

use crate::Scratch;

/// A model of two parameters, which learns to be the mean of its examples.
struct Mean {
    weight: Tensor,
    bias: Tensor,
}
module!(Mean { weight, bias });

impl Learn<Vec<f32>> for Mean {
    fn total_weights(&self, batch: &Vec<f32>) -> Vec<f64> {
        vec![batch.len() as f64]
    }

    fn loss_terms(&self, batch: &Vec<f32>, _: Mode) -> Result<Vec<LossTerm>> {
        let guess = self.weight.sum_all()?.add(&self.bias)?.broadcast_to(&[batch.len(), 1])?;
        Ok(vec![LossTerm::Mean(guess.mean_squared_error(batch)?)])
    }
}

struct Numbers;

impl DataSet for Numbers {
    type Example = f32;
    type Batch = Vec<f32>;

    fn epoch(&self, _: u32) -> Result<impl Iterator<Item = Result<f32>> + '_> {
        Ok((0..4).map(|x| Ok(x as f32)))
    }

    fn batch(&self, examples: &[f32], _: u32, _: &[u32]) -> Result<Vec<f32>> {
        Ok(examples.to_vec())
    }

    fn size(&self, _: &f32) -> Size {
        Size { sequences: 1, tokens: 1 }
    }

    fn fingerprint(&self) -> Option<u64> {
        Some(1)
    }
}

/// The folder of the checkpoint in the scratch folder.
pub const FOLDER: &str = "run/checkpoint-00000002";

/// A run directory with a checkpoint after step 2 of 3.
pub struct Checkpoint {
    /// The folder that the run directory is in.
    pub scratch: Scratch,
    /// The content of `state.json`.
    pub state: Vec<u8>,
    /// The content of `state.safetensors`.
    pub tensors: Vec<u8>,
}

/// Runs to the end, from the checkpoint, or fails after it.
pub fn train(files: &Scratch, resume: bool) -> Result<TrainingReport> {
    let tensor = |numbers: &[f32]| Tensor::from_slice(numbers, &[numbers.len()], &Device::Cpu).expect("the shape fits");
    let mut model = Mean { weight: tensor(&[0.5, 1.0, -2.0]), bias: tensor(&[1.0]) };
    let trainer = Trainer::new(&mut model).optimizer(AdamW::new(0.1)).batch_size(2).steps(3).progress(false);
    let trainer = trainer.checkpoint(Every::Steps(2), 1).directory(files.path().join("run")).resume(resume);
    trainer.run_with(&Numbers, |_, step| match (resume, step.step) {
        (false, 3) => Err(cloze_train::Error::from(cloze_tensor::Error::invalid("stop", "after the checkpoint"))),
        _ => Ok(()),
    })
}

impl Checkpoint {
    /// Trains until there is a checkpoint.
    pub fn new() -> Checkpoint {
        let scratch = Scratch::new();
        let _ = train(&scratch, false);
        let read = |name| std::fs::read(scratch.path().join(FOLDER).join(name)).expect("a checkpoint was written");
        let (state, tensors) = (read("state.json"), read("state.safetensors"));
        Checkpoint { scratch, state, tensors }
    }
}
