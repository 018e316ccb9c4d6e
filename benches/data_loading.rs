//! From files to batches: corpora, rows, sentence pairs and masking.

mod suite;

use std::path::Path;
use std::time::Duration;

use cloze::prelude::*;
use cloze::train::{CorpusFiles, PairExample, ShardOptions, TokenizedCorpus, VocabularyTable};
use cloze_benches::{Result, Texts, Work, testing, timed, tokenizer};
use tempfile::TempDir;

use suite::Suite;

/// Sentences in a document.
const DOCUMENT: usize = 64;

fn main() -> Result {
    let mut suite = Suite::new("data_loading")?;
    let sentences = Texts::new().sentences(if testing() { 1 << 16 } else { 1 << 22 });
    let tokenizer = tokenizer()?;
    let bytes = sentences.iter().map(String::len).sum();
    let text = || Work::text(sentences.len(), "sentences", bytes);

    suite.bench("corpus/a sentence a line", text(), || corpus_file(&sentences));
    suite.bench("corpus/folder of prose", text(), || corpus_folder(&sentences));
    let documents = sentences.chunks(DOCUMENT).map(<[String]>::to_vec).collect();
    let corpus = Corpus::from_documents(documents)?;
    suite.bench("corpus/tokenize", text(), || Ok(|| timed(|| TokenizedCorpus::new(&corpus, &tokenizer))));

    suite.bench("corpus/prepare shards", text(), || prepared(&sentences, &tokenizer));

    for (name, form) in [("tsv", tsv as fn(&str) -> String), ("jsonl", json)] {
        let work = Work::text(sentences.len(), "rows", bytes);
        suite.bench(format!("rows/{name}"), work, || rows(&sentences, name, form));
    }
    let few = &sentences[..sentences.len() / 16];
    let bytes = few.iter().map(String::len).sum();
    suite.bench("rows/sanitize", Work::text(few.len(), "rows", bytes), || clean(few));
    suite.bench("labelled/encode", Work::text(few.len(), "texts", bytes), || labelled(few, &tokenizer));

    let vocabulary = VocabularyTable::new(&tokenizer)?;
    let data = PreTraining::from_tokenized(TokenizedCorpus::new(&corpus, &tokenizer)?, vocabulary);
    let course = data.clone().pairs(PairSampler::course(sentences.len()));
    for (name, data) in [("course", &course), ("bert", &data)] {
        let pairs = data.epoch(0)?;
        let tokens: usize = pairs.iter().map(PairExample::token_count).sum();
        suite.bench(format!("pairs/{name}"), Work::text(pairs.len(), "pairs", 0), || Ok(|| timed(|| data.epoch(0))));
        // A token id has four bytes.
        suite.bench(format!("batches, masked/{name}"), Work::text(tokens, "tokens", 4 * tokens), || {
            let batches = || data.batches(&pairs, 32, 0)?.map(|batch| Ok(batch?.batch().len())).sum::<Result<usize>>();
            Ok(move || timed(batches))
        });
    }
    suite.finish();
    Ok(())
}

fn corpus_file(sentences: &[String]) -> Result<impl FnMut() -> Result<Duration>> {
    let (folder, documents) = (tempfile::tempdir()?, sentences.chunks(DOCUMENT).map(|document| document.join("\n")));
    let file = folder.path().join("corpus.txt");
    std::fs::write(&file, documents.collect::<Vec<_>>().join("\n\n"))?;
    opening(folder, |folder| Corpus::open(folder.join("corpus.txt")))
}

fn prepared<'a>(sentences: &[String], tokenizer: &'a Tokenizer) -> Result<impl FnMut() -> Result<Duration> + use<'a>> {
    let (folder, documents) = (tempfile::tempdir()?, sentences.chunks(DOCUMENT).map(|document| document.join("\n")));
    let file = folder.path().join("corpus.txt");
    std::fs::write(&file, documents.collect::<Vec<_>>().join("\n\n"))?;
    let (files, options) = (CorpusFiles::at([&file])?.progress(false), ShardOptions::new().replace(true));
    Ok(move || timed(|| files.prepare(tokenizer, folder.path().join("shards"), &options)))
}

fn corpus_folder(sentences: &[String]) -> Result<impl FnMut() -> Result<Duration>> {
    let folder = tempfile::tempdir()?;
    for (number, document) in sentences.chunks(DOCUMENT * 16).enumerate() {
        let paragraphs: Vec<String> = document.chunks(8).map(|paragraph| paragraph.join(" ")).collect();
        std::fs::write(folder.path().join(format!("{number}.txt")), paragraphs.join("\n\n"))?;
    }
    opening(folder, |folder| Corpus::open(folder))
}

/// Times `open`. The closure owns the folder, so that it exists as long as it is read.
fn opening<T, E: Into<Box<dyn std::error::Error>>>(
    folder: TempDir,
    open: impl Fn(&Path) -> Result<T, E>,
) -> Result<impl FnMut() -> Result<Duration>> {
    Ok(move || timed(|| open(folder.path())))
}

fn tsv(sentence: &str) -> String {
    format!("{sentence}\t{}\n", sentence.len() % 2)
}

fn json(sentence: &str) -> String {
    format!("{}\n", serde_json::json!({ "sentence": sentence, "label": sentence.len() % 2 }))
}

fn rows(sentences: &[String], extension: &str, form: fn(&str) -> String) -> Result<impl FnMut() -> Result<Duration>> {
    let (folder, file) = (tempfile::tempdir()?, format!("rows.{extension}"));
    let head = if extension == "tsv" { "sentence\tlabel\n" } else { "" };
    let lines: String = sentences.iter().map(|sentence| form(sentence)).collect();
    std::fs::write(folder.path().join(&file), format!("{head}{lines}"))?;
    opening(folder, move |folder| read_rows(folder.join(&file), &Columns::new()))
}

fn clean(sentences: &[String]) -> Result<impl FnMut() -> Result<Duration>> {
    let folder = tempfile::tempdir()?;
    let (file, lines) = (folder.path().join("rows.tsv"), sentences.iter().map(|sentence| tsv(sentence)));
    std::fs::write(&file, format!("sentence\tlabel\n{}", lines.collect::<String>()))?;
    let read = read_rows(&file, &Columns::new())?;
    let names = label_names(&read)?;
    Ok(move || {
        let rows = read.clone();
        timed(|| Ok::<_, String>(sanitize("rows", rows, Some(&names))))
    })
}

fn labelled<'a>(texts: &'a [String], tokenizer: &'a Tokenizer) -> Result<impl FnMut() -> Result<Duration> + 'a> {
    Ok(move || {
        let labels: Vec<i64> = texts.iter().map(|text| (text.len() % 2) as i64).collect();
        timed(|| LabelledData::of_texts(texts, labels, tokenizer, 128))
    })
}
