//! Sentence encoders that learn from pairs of sentences.

use cloze_bert::{Mode, SentenceEncoder};
use cloze_tensor::Tensor;

use crate::trainer::{Learn, share};
use crate::{Error, LabelledBatch, Result};

/// What cosines are multiplied by before they are logits, as in `sentence-transformers`.
const SCALE: f64 = 20.0;

/// Vectors of norm 1, `[B, D]` each, of the first and of the second sentence of each pair.
pub(crate) fn both<L>(model: &SentenceEncoder, batch: &LabelledBatch<L>, mode: Mode) -> Result<(Tensor, Tensor)> {
    if batch.choices() != 2 {
        let each = batch.choices();
        let why =
            format!("{each} sequence(s) for each example, must be 2: encode them with LabelledData::of_sentences");
        return Err(Error::data("sentence pairs", why));
    }
    let vectors = model.forward(&batch.batch, mode)?; // [2B, D]
    // The small number keeps a vector of zeros one, and its gradient finite.
    let norms = vectors.mul(&vectors)?.sum_keep(&[1])?.add_scalar(1e-24)?.sqrt()?; // [2B, 1]
    let vectors = vectors.div(&norms)?;
    let of = |which: u32| -> Vec<u32> { (0..batch.labels.len() as u32).map(|pair| 2 * pair + which).collect() };
    Ok((vectors.gather_rows(&of(0))?, vectors.gather_rows(&of(1))?))
}

/// The cosine of each pair, `[B]`.
pub(crate) fn cosines(model: &SentenceEncoder, batch: &LabelledBatch<f32>, mode: Mode) -> Result<Tensor> {
    let (first, second) = both(model, batch, mode)?;
    Ok(first.mul(&second)?.sum(1)?)
}

/// How similar the sentences of each pair are, in [-1, 1]: the mean squared error of their cosine.
///
/// Source: N. Reimers, I. Gurevych, "Sentence-BERT", 2019, section 3; `CosineSimilarityLoss` of `sentence-transformers`.
impl Learn<LabelledBatch<f32>> for SentenceEncoder {
    fn counts(&self, batch: &LabelledBatch<f32>) -> Vec<usize> {
        vec![batch.labels.len()]
    }

    fn loss(&self, batch: &LabelledBatch<f32>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        share(cosines(self, batch, mode)?.mean_squared_error(&batch.labels)?, batch.labels.len(), counts)
    }
}

/// Pairs that belong together: for each first sentence the cross-entropy of its second one among all second ones of the
/// batch, whose cosines times 20 are the logits. So the others are what it does not belong to, and larger batches are
/// harder.
///
/// Source: M. Henderson et al., "Efficient natural language response suggestion for Smart Reply", 2017, section 4.4;
/// `MultipleNegativesRankingLoss` of `sentence-transformers`.
impl Learn<LabelledBatch<()>> for SentenceEncoder {
    fn counts(&self, batch: &LabelledBatch<()>) -> Vec<usize> {
        vec![batch.labels.len()]
    }

    fn loss(&self, batch: &LabelledBatch<()>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let (first, second) = both(self, batch, mode)?;
        let logits = first.matmul(&second.t()?)?.mul_scalar(SCALE)?; // [B, B]
        let targets: Vec<i64> = (0..).take(batch.labels.len()).collect();
        share(logits.cross_entropy(&targets)?, targets.len(), counts)
    }
}

#[cfg(test)]
mod tests {
    use cloze_bert::{BertConfig, PreTrainedModel, Tokenizer, TrainOptions};
    use cloze_tensor::{Device, no_grad};

    use super::*;
    use crate::LabelledData;

    const FIRST: [&str; 3] = ["the cat sat", "a dog", "so it ran away"];
    const SECOND: [&str; 3] = ["it lay down", "the dog ran", "away"];

    fn encoder() -> (SentenceEncoder, Tokenizer) {
        let tokenizer = Tokenizer::train(FIRST.iter().chain(&SECOND), 60, &TrainOptions::new()).unwrap();
        let config = BertConfig {
            hidden_size: 16,
            num_attention_heads: 2,
            intermediate_size: 32,
            ..BertConfig::tiny(tokenizer.vocab_size())
        };
        (SentenceEncoder::new(&config, &Device::Cpu, 3).unwrap(), tokenizer)
    }

    /// The formulas, in f64, on the vectors that the encoder gives.
    #[test]
    fn losses_are_their_formulas() {
        let (model, tokenizer) = encoder();
        let scores = vec![0.1f32, 0.5, 1.0];
        let (data, report) = LabelledData::of_sentences(&FIRST, &SECOND, scores.clone(), &tokenizer, 16).unwrap();
        assert_eq!((data.example_count(), data.sequences().len(), report.examples), (3, 6, 3));
        let batch = data.batches(3).unwrap().next().unwrap().unwrap();
        let vectors = no_grad(|| model.forward(&batch.batch, Mode::Eval)).unwrap().to_vec::<f32>().unwrap();
        let vectors: Vec<&[f32]> = vectors.chunks_exact(16).collect();
        let cosine = |a: usize, b: usize| cloze_bert::cosine_similarity(vectors[2 * a], vectors[2 * b + 1]);

        let squares = scores.iter().enumerate().map(|(pair, &score)| (cosine(pair, pair) - f64::from(score)).powi(2));
        let expected = squares.sum::<f64>() / 3.0;
        let found = Learn::loss(&model, &batch, &model.counts(&batch), Mode::Eval).unwrap().item().unwrap();
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");

        let of = |a: usize| {
            let powers: Vec<f64> = (0..3).map(|b| (20.0 * cosine(a, b)).exp()).collect();
            -(powers[a] / powers.iter().sum::<f64>()).ln()
        };
        let expected = (0..3).map(of).sum::<f64>() / 3.0;
        let (data, _) = LabelledData::of_sentences(&FIRST, &SECOND, vec![(); 3], &tokenizer, 16).unwrap();
        let batch = data.batches(3).unwrap().next().unwrap().unwrap();
        let found = Learn::loss(&model, &batch, &model.counts(&batch), Mode::Eval).unwrap().item().unwrap();
        assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
    }

    #[test]
    fn pairs_in_one_sequence_are_refused() {
        let (model, tokenizer) = encoder();
        let (data, _) = LabelledData::of_pairs(&FIRST, &SECOND, vec![0.5f32; 3], &tokenizer, 16).unwrap();
        let batch = data.batches(3).unwrap().next().unwrap().unwrap();
        let error = Learn::loss(&model, &batch, &model.counts(&batch), Mode::Eval).unwrap_err().to_string();
        let why = "1 sequence(s) for each example, must be 2: encode them with LabelledData::of_sentences";
        assert_eq!(error, format!("sentence pairs: {why}"));
    }
}
