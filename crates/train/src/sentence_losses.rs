//! Losses of sentence encoders over pairs of sentences.

use cloze_bert::{Mode, SentenceEncoder};
use cloze_tensor::Tensor;

use crate::{Error, LabelledBatch, Result};

/// The factor between cosines and logits, as in `sentence-transformers`.
const SCALE: f64 = 20.0;

/// Returns the vectors of the first and of the second sentence of each pair, `[B, D]` each, with norm 1.
fn pair_vectors<L>(model: &SentenceEncoder, batch: &LabelledBatch<L>, mode: Mode) -> Result<(Tensor, Tensor)> {
    if batch.choices() != 2 {
        let each = batch.choices();
        let why = format!("an example has {each} sequence(s), must be 2: encode pairs with LabelledData::of_sentences");
        return Err(Error::data("sentence pairs", why));
    }
    let vectors = model.forward(&batch.batch, mode)?; // [2B, D]
    // The small number keeps the gradient of a zero vector finite.
    let norms = vectors.mul(&vectors)?.sum_keep(&[1])?.add_scalar(1e-24)?.sqrt()?; // [2B, 1]
    let vectors = vectors.div(&norms)?;
    let rows = |which: u32| -> Vec<u32> { (0..batch.labels.len() as u32).map(|pair| 2 * pair + which).collect() };
    Ok((vectors.gather_rows(&rows(0))?, vectors.gather_rows(&rows(1))?))
}

/// Returns the cosine of each pair, `[B]`.
pub(crate) fn cosines(model: &SentenceEncoder, batch: &LabelledBatch<f32>, mode: Mode) -> Result<Tensor> {
    let (first, second) = pair_vectors(model, batch, mode)?;
    Ok(first.mul(&second)?.sum(1)?)
}

/// Returns the mean cross-entropy of each first sentence's own second sentence among all second sentences of the batch,
/// with 20 times the cosines as logits. The other pairs are the negative examples, so larger batches are harder.
///
/// Source: M. Henderson et al., "Efficient natural language response suggestion for Smart Reply", 2017, section 4.4;
/// `MultipleNegativesRankingLoss` of `sentence-transformers`.
pub(crate) fn ranking_loss(model: &SentenceEncoder, batch: &LabelledBatch<()>, mode: Mode) -> Result<Tensor> {
    let (first, second) = pair_vectors(model, batch, mode)?;
    let logits = first.matmul(&second.t()?)?.mul_scalar(SCALE)?; // [B, B]
    let targets: Vec<i64> = (0..).take(batch.labels.len()).collect();
    Ok(logits.cross_entropy(&targets)?)
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

    /// Computes the formulas in f64 from the vectors of the encoder.
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
        let cosines = cosines(&model, &batch, Mode::Eval).unwrap();
        let found = cosines.mean_squared_error(&batch.labels).unwrap().item().unwrap();
        assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");

        let loss_of = |a: usize| {
            let powers: Vec<f64> = (0..3).map(|b| (20.0 * cosine(a, b)).exp()).collect();
            -(powers[a] / powers.iter().sum::<f64>()).ln()
        };
        let expected = (0..3).map(loss_of).sum::<f64>() / 3.0;
        let (data, _) = LabelledData::of_sentences(&FIRST, &SECOND, vec![(); 3], &tokenizer, 16).unwrap();
        let batch = data.batches(3).unwrap().next().unwrap().unwrap();
        let found = ranking_loss(&model, &batch, Mode::Eval).unwrap().item().unwrap();
        assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
    }

    #[test]
    fn pairs_in_one_sequence_are_refused() {
        let (model, tokenizer) = encoder();
        let (data, _) = LabelledData::of_pairs(&FIRST, &SECOND, vec![0.5f32; 3], &tokenizer, 16).unwrap();
        let batch = data.batches(3).unwrap().next().unwrap().unwrap();
        let error = cosines(&model, &batch, Mode::Eval).unwrap_err().to_string();
        let why = "an example has 1 sequence(s), must be 2: encode pairs with LabelledData::of_sentences";
        assert_eq!(error, format!("sentence pairs: {why}"));
    }
}
