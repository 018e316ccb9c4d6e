//! WordPiece: encoding and decoding on one thread, and training a vocabulary.

mod suite;

use std::time::Duration;

use cloze::prelude::*;
use cloze_benches::{Result, Texts, Work, testing, timed, tokenizer};

use suite::Suite;

fn main() -> Result {
    let mut suite = Suite::new("tokenization")?;
    let texts = Texts::new().sentences(if testing() { 1 << 14 } else { 1 << 21 });
    let few = &texts[..texts.len() / 16];
    let tokenizer = tokenizer()?;
    // Ids only, for a corpus.
    each(&mut suite, "ids", &texts, |text| Ok(tokenizer.ids(text)?.len()));
    // With offsets, tokens and words, for pipelines.
    each(&mut suite, "encode", few, |text| Ok(tokenizer.encode(text)?.len()));
    each(&mut suite, "encode a pair", few, |text| Ok(tokenizer.encode_pair(text, text)?.len()));
    let window = EncodeOptions::new().max_length(16).truncation(Truncation::OnlyFirst).stride(4);
    each(&mut suite, "encode in windows of 16", few, |text| Ok(tokenizer.encode_with(text, None, &window)?.len()));

    let ids: Vec<Vec<u32>> = few.iter().map(|text| Ok(tokenizer.ids(text)?)).collect::<Result<_>>()?;
    suite.bench("decode", text(few), || {
        let (tokenizer, ids) = (&tokenizer, &ids);
        Ok(move || timed(|| ids.iter().map(|ids| Ok(tokenizer.decode(ids, true)?.len())).sum::<Result<usize>>()))
    });
    for size in [1_000, 8_000] {
        suite.bench(format!("train a vocabulary of {size}"), text(&texts), || {
            let texts = &texts;
            Ok(move || timed(|| Tokenizer::train(texts, size, &TrainOptions::new())))
        });
    }
    suite.bench("open", Work::text(tokenizer.vocab_size(), "tokens", 0), || open(&tokenizer));
    suite.finish();
    Ok(())
}

fn text(texts: &[String]) -> Work {
    Work::text(texts.len(), "texts", texts.iter().map(String::len).sum())
}

/// Measures `f` on each text. It returns the number of tokens, so that its work is not optimised away.
fn each(suite: &mut Suite, name: &str, texts: &[String], f: impl Fn(&str) -> Result<usize>) {
    suite.bench(name, text(texts), || Ok(|| timed(|| texts.iter().map(|text| f(text)).sum::<Result<usize>>())));
}

fn open(tokenizer: &Tokenizer) -> Result<impl FnMut() -> Result<Duration>> {
    let folder = tempfile::tempdir()?;
    tokenizer.save(folder.path())?;
    Ok(move || timed(|| Tokenizer::open(folder.path())))
}
