//! The unigram model, which predicts every token from its frequency only.
//!
//! It is the baseline of pre-training: a model that has learned anything from context predicts masked tokens better.

use crate::{Error, Result};

/// Token probabilities estimated from counts, with additive smoothing (Laplace or Lidstone).
///
/// ```
/// let model = cloze_train::Unigram::fit([0, 0, 1], 3)?; // counts 2, 1 and 0, plus 1 each
/// assert!((model.cross_entropy([0])? - -(3.0f64 / 6.0).ln()).abs() < 1e-12);
/// # Ok::<(), cloze_train::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Unigram {
    log_probabilities: Vec<f64>,
}

impl Unigram {
    /// Counts `ids` and adds 1 to the count of each of the `vocab_size` tokens.
    ///
    /// # Errors
    /// Returns an error if `vocab_size` is 0 or an id is not less than it.
    pub fn fit(ids: impl IntoIterator<Item = u32>, vocab_size: usize) -> Result<Unigram> {
        Unigram::fit_smoothed(ids, vocab_size, 1.0)
    }

    /// Counts `ids` and adds `alpha` to the count of each of the `vocab_size` tokens.
    ///
    /// # Errors
    /// Returns an error if `vocab_size` is 0, an id is not less than it, or `alpha` is not positive and finite.
    pub fn fit_smoothed(ids: impl IntoIterator<Item = u32>, vocab_size: usize, alpha: f64) -> Result<Unigram> {
        if vocab_size == 0 {
            return Err(Error::invalid("vocab_size", vocab_size, "at least 1"));
        }
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(Error::invalid("alpha", alpha, "greater than 0 and finite"));
        }
        let mut counts = vec![0u64; vocab_size];
        let mut total = 0u64;
        for id in ids {
            *counts.get_mut(id as usize).ok_or_else(|| out_of_vocabulary(id, vocab_size))? += 1;
            total += 1;
        }
        let log_total = (total as f64 + alpha * vocab_size as f64).ln();
        Ok(Unigram { log_probabilities: counts.iter().map(|&n| (n as f64 + alpha).ln() - log_total).collect() })
    }

    /// Returns the mean of -ln p(target) over `targets`, in nats.
    ///
    /// # Errors
    /// Returns an error if there are no targets, or if one is not in the vocabulary.
    pub fn cross_entropy(&self, targets: impl IntoIterator<Item = u32>) -> Result<f64> {
        let (mut sum, mut count) = (0.0, 0u64);
        for target in targets {
            let vocab_size = self.log_probabilities.len();
            sum -= self.log_probabilities.get(target as usize).ok_or_else(|| out_of_vocabulary(target, vocab_size))?;
            count += 1;
        }
        match count {
            0 => Err(Error::data("targets", "no targets to average over")),
            _ => Ok(sum / count as f64),
        }
    }
}

fn out_of_vocabulary(id: u32, vocab_size: usize) -> Error {
    Error::invalid("token id", id, format!("less than the vocabulary size, {vocab_size}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_the_mean_over_targets() {
        // Counts 3, 1 and 0, plus 0.5 each: probabilities 3.5/5.5, 1.5/5.5 and 0.5/5.5.
        let model = Unigram::fit_smoothed([0, 1, 0, 0], 3, 0.5).unwrap();
        let expected = -((3.5f64 / 5.5).ln() + 2.0 * (0.5f64 / 5.5).ln()) / 3.0;
        assert!((model.cross_entropy([0, 2, 2]).unwrap() - expected).abs() < 1e-12);
        let total: f64 = (0..3).map(|id| (-model.cross_entropy([id]).unwrap()).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
    }

    #[test]
    fn no_counts_is_uniform() {
        let model = Unigram::fit([], 8).unwrap();
        assert!((model.cross_entropy([3, 7]).unwrap() - 8f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn errors() {
        assert!(Unigram::fit([0, 8], 8).unwrap_err().to_string().contains("token id is 8"));
        assert!(Unigram::fit([], 0).is_err());
        assert!(Unigram::fit_smoothed([], 3, 0.0).is_err());
        let model = Unigram::fit([], 8).unwrap();
        assert!(model.cross_entropy([]).is_err() && model.cross_entropy([8]).is_err());
    }
}
