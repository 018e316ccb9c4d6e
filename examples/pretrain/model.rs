//! The two models that can be pre-trained.

use cloze::prelude::*;
use cloze::train::{Learn, PreTrainingBatch};

/// A model to pre-train.
pub trait Pretrained: PreTrainedModel + Learn<PreTrainingBatch> {
    /// Returns the masked-language model, which shares the weights of this one.
    fn masked_lm(&self) -> BertForMaskedLM;

    /// Returns the next-sentence model, if next sentences are trained.
    fn next_sentence(&self) -> Option<BertForNextSentencePrediction>;
}

impl Pretrained for BertForPreTraining {
    fn masked_lm(&self) -> BertForMaskedLM {
        self.into()
    }

    fn next_sentence(&self) -> Option<BertForNextSentencePrediction> {
        Some(self.into())
    }
}

impl Pretrained for BertForMaskedLM {
    fn masked_lm(&self) -> BertForMaskedLM {
        self.clone()
    }

    fn next_sentence(&self) -> Option<BertForNextSentencePrediction> {
        None
    }
}
