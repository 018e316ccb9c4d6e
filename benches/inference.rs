//! Asking models, text in and answers out: random weights, saved to a folder and opened from it, as a user's are.

mod common;

use std::time::Duration;

use cloze::prelude::*;
use common::{Peak, Result, Suite, Texts, Work, encoder_forward, testing, timed, tokenizer};

fn main() -> Result {
    let mut suite = Suite::new("inference")?;
    let layers = |layers: usize| if testing() { 1 } else { layers };
    // The shape of all-MiniLM-L6-v2.
    let minilm = BertConfig {
        num_hidden_layers: layers(6),
        hidden_size: 384,
        num_attention_heads: 12,
        intermediate_size: 1536,
        ..BertConfig::base()
    };
    let tokenizer = tokenizer()?;
    let mut texts = Texts::new();
    let sentences: Vec<String> = (0..32).map(|number| texts.sentence(4 + 2 * number)).collect();
    let lengths: Vec<usize> =
        sentences.iter().map(|sentence| Ok(tokenizer.encode(sentence)?.len())).collect::<Result<_>>()?;
    let work = work(Peak::F32, &minilm, &lengths).of(sentences.len(), "sentences");
    suite.bench("embed/32 sentences/f32", work, || embed(&minilm, &tokenizer, &sentences));

    let base = BertConfig { num_hidden_layers: layers(4), ..BertConfig::base() };
    for tokens in [55, 384] {
        let (question, context) = question(&tokenizer, tokens)?;
        let work = self::work(Peak::F32, &base, &[tokens]).of(1, "questions");
        let name = format!("question answering/{tokens} tokens/f32");
        suite.bench(name, work, || answer(&base, &tokenizer, question, context));
    }
    suite.finish();
    Ok(())
}

fn work(peak: Peak, config: &BertConfig, lengths: &[usize]) -> Work {
    let [operations, bytes] = encoder_forward(config, lengths, lengths.iter().sum());
    Work::new(peak, operations, bytes)
}

/// The model, saved and opened again.
fn opened<P: Pipeline>(config: &BertConfig, tokenizer: &Tokenizer) -> Result<P> {
    let folder = tempfile::tempdir()?;
    P::Model::new(config, &Device::Cpu, 7)?.save(folder.path())?;
    tokenizer.save(folder.path())?;
    Ok(P::open(folder.path())?)
}

fn embed(config: &BertConfig, tokenizer: &Tokenizer, sentences: &[String]) -> Result<impl FnMut() -> Result<Duration>> {
    let embedder: SentenceEmbedder = opened(config, tokenizer)?;
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
    Ok(move || timed(|| embedder.embed(&sentences)))
}

fn answer(
    config: &BertConfig,
    tokenizer: &Tokenizer,
    question: String,
    context: String,
) -> Result<impl FnMut() -> Result<Duration>> {
    let asked: QuestionAnswering = opened(config, tokenizer)?;
    Ok(move || timed(|| asked.answer(&question, &context)))
}

/// A question and a context of so many tokens together, special ones included.
fn question(tokenizer: &Tokenizer, tokens: usize) -> Result<(String, String)> {
    let mut texts = Texts::new();
    // Words that are one token each.
    let mut words = |count: usize| -> Result<String> {
        let mut words = Vec::new();
        while words.len() < count {
            let word = texts.word();
            if tokenizer.ids(word)?.len() == 1 {
                words.push(word.to_string());
            }
        }
        Ok(words.join(" "))
    };
    let (question, context) = (words(9)?, words(tokens - 12)?);
    assert_eq!(tokenizer.encode_pair(&question, &context)?.len(), tokens);
    Ok((question, context))
}
