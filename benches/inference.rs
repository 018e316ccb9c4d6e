//! Pipelines from text to answer, with random weights that are saved to a folder and opened from it.

mod suite;

use std::time::Duration;

use cloze::prelude::*;
use cloze_benches::{EncoderForward, Result, Texts, Work, testing, timed, tokenizer, weight_bytes};

use suite::Suite;

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

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
    for precision in PRECISIONS {
        let work = work(precision, &minilm, &lengths).of(sentences.len(), "sentences");
        suite.bench(format!("embed/32 sentences/{precision}"), work, || {
            embed(opened::<SentenceEmbedder>(&minilm, &tokenizer)?.precision(precision), &sentences)
        });
    }
    let base = BertConfig { num_hidden_layers: layers(4), ..BertConfig::base() };
    for tokens in [55, 384] {
        let (question, context) = question(&tokenizer, tokens)?;
        for precision in PRECISIONS {
            let work = work(precision, &base, &[tokens]).of(1, "questions");
            suite.bench(format!("question answering/{tokens} tokens/{precision}"), work, || {
                answer(opened::<QuestionAnswering>(&base, &tokenizer)?.precision(precision), &question, &context)
            });
        }
    }
    // One query: it takes as long as it takes to read the weights.
    let large = BertConfig { num_hidden_layers: layers(4), ..BertConfig::large() };
    for tokens in [4, 8, 16] {
        let query = [words(&tokenizer, &mut Texts::new(), tokens - 2)?];
        for precision in PRECISIONS {
            let work = work(precision, &large, &[tokens]).of(1, "queries");
            suite.bench(format!("query/{tokens} tokens/{precision}"), work, || {
                embed(opened::<SentenceEmbedder>(&large, &tokenizer)?.precision(precision), &query)
            });
        }
    }
    suite.finish();
    Ok(())
}

/// Returns the work of a forward. Attention is computed in f32 when linear layers are int8.
fn work(precision: Precision, config: &BertConfig, lengths: &[usize]) -> Work {
    let forward = EncoderForward::new(config, lengths, lengths.iter().sum());
    let of_attention = if precision == Precision::Int8 { Precision::F32 } else { precision };
    let linear = Work::new(precision, forward.linear, weight_bytes(precision) as f64 * forward.weights);
    linear.then(Work::new(of_attention, forward.attention, 0.0))
}

/// Saves a new model and opens it in a pipeline, so that its weights are views of a file.
fn opened<P: Pipeline>(config: &BertConfig, tokenizer: &Tokenizer) -> Result<P> {
    let folder = tempfile::tempdir()?;
    P::Model::new(config, &Device::Cpu, 7)?.save(folder.path())?;
    tokenizer.save(folder.path())?;
    Ok(P::open(folder.path())?)
}

fn embed(embedder: SentenceEmbedder, sentences: &[String]) -> Result<impl FnMut() -> Result<Duration>> {
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
    Ok(move || timed(|| embedder.embed(&sentences)))
}

fn answer(asked: QuestionAnswering, question: &str, context: &str) -> Result<impl FnMut() -> Result<Duration>> {
    Ok(move || timed(|| asked.answer(question, context)))
}

/// Returns a question and a context with this many tokens in total, including the special tokens.
fn question(tokenizer: &Tokenizer, tokens: usize) -> Result<(String, String)> {
    let mut texts = Texts::new();
    let (question, context) = (words(tokenizer, &mut texts, 9)?, words(tokenizer, &mut texts, tokens - 12)?);
    assert_eq!(tokenizer.encode_pair(&question, &context)?.len(), tokens);
    Ok((question, context))
}

/// Returns words of a single token each, so that the number of tokens is known.
fn words(tokenizer: &Tokenizer, texts: &mut Texts, count: usize) -> Result<String> {
    let mut words = Vec::new();
    while words.len() < count {
        let word = texts.word();
        if tokenizer.ids(word)?.len() == 1 {
            words.push(word.to_string());
        }
    }
    Ok(words.join(" "))
}
