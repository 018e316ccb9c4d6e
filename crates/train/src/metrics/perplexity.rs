//! Perplexity of a language model.

/// Returns the perplexity, `exp(loss)`, of a mean cross-entropy `loss` in nats. A perplexity of N means that the model
/// is as uncertain as a uniform choice among N tokens. For a masked language model it covers only the masked tokens.
///
/// Source: F. Jelinek, R. L. Mercer, L. R. Bahl, J. K. Baker, "Perplexity: a measure of the difficulty of speech
/// recognition tasks", 1977.
///
/// ```
/// // A uniform guess among 8 tokens.
/// assert!((cloze_train::metrics::perplexity(8f64.ln()) - 8.0).abs() < 1e-12);
/// ```
pub fn perplexity(loss: f64) -> f64 {
    loss.exp()
}
