//! Perplexity of a language model.

/// Perplexity: e to the mean cross-entropy in nats, `loss`. As many tokens, all equally probable, would be as hard to guess.
/// Of a masked language model it is that of the masked tokens alone.
///
/// Source: F. Jelinek, R. L. Mercer, L. R. Bahl, J. K. Baker, "Perplexity: a measure of the difficulty of speech
/// recognition tasks", 1977.
///
/// ```
/// // A guess among 8 tokens that are equally probable.
/// assert!((cloze_train::metrics::perplexity(8f64.ln()) - 8.0).abs() < 1e-12);
/// ```
pub fn perplexity(loss: f64) -> f64 {
    loss.exp()
}
