//! Tokenizes a corpus into shards before training, and reports what is in it.
//!
//! Without arguments, prepares a small built-in corpus and shows its first sentences. `pretrain --corpus FOLDER` trains on
//! the shards in a folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use cloze::prelude::*;
use cloze::train::{CorpusFiles, CorpusStatistics, LengthStatistics, ShardOptions, Shards};
use cloze_examples::{Result, Table, VocabularyArguments, built_in, thousands};
use serde::Serialize;
use tempfile::TempDir;

/// Tokenizes text files of any size into shards, for `pretrain --corpus`.
#[derive(Parser, Serialize)]
struct Arguments {
    /// Files and folders: text, JSON Lines or Parquet; also compressed, as .gz or .zst. A text file has a sentence per line
    /// and a blank line between documents; in a folder, each text file is a document of prose [default: a small built-in
    /// corpus]
    #[arg(long, num_args = 1.., value_name = "PATH", requires = "out")]
    corpus: Vec<PathBuf>,
    /// Folder to write the shards and the tokenizer to [default for the built-in corpus: a temporary one]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Replace the shards that are in --out already
    #[arg(long)]
    replace: bool,
    /// Tokenizer of an existing model, a folder or a name on the Hugging Face Hub, instead of training a vocabulary
    #[arg(long, value_name = "DIR_OR_NAME", conflicts_with_all = ["vocab", "vocab_size", "cased", "accents"])]
    model: Option<PathBuf>,
    #[command(flatten)]
    vocabulary: VocabularyArguments,
    /// Field of JSON objects and column of Parquet files with the text of a document
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_field: String,
    /// Keep documents that equal an earlier one
    #[arg(long)]
    keep_duplicates: bool,
    /// Number of tokens at which a shard ends, with the document that reaches it
    #[arg(long, value_name = "TOKENS", default_value_t = 1 << 25)]
    shard_tokens: usize,
    /// Number of threads, which does not change the result [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    /// Also write the statistics to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The contents of the file of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    arguments: &'a Arguments,
    statistics: &'a CorpusStatistics,
    vocab_size: usize,
    shards: usize,
    seconds: f64,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    cloze_examples::set_threads(arguments.threads)?;
    cloze_examples::check_json(arguments.json.as_deref())?;
    // Only the built-in corpus needs no --out.
    let scratch = arguments.corpus.is_empty().then(tempfile::tempdir).transpose()?;
    let scratch = scratch.as_ref().map_or(Path::new(""), TempDir::path);
    let paths = match arguments.corpus.is_empty() {
        true => vec![built_in::mini_corpus_file(scratch)?],
        false => arguments.corpus.clone(),
    };
    let out = arguments.out.clone().unwrap_or_else(|| scratch.join("shards"));
    let files = CorpusFiles::at(&paths)?.text_field(&arguments.text_field);
    let options = ShardOptions::new()
        .deduplicate(!arguments.keep_duplicates)
        .shard_tokens(arguments.shard_tokens)
        .replace(arguments.replace);
    files.check_output(&out, &options)?;
    let tokenizer = tokenizer(arguments, &files)?;

    let start = Instant::now();
    let statistics = files.prepare(&tokenizer, &out, &options)?;
    let elapsed = start.elapsed();
    print_statistics(&statistics, elapsed);

    let start = Instant::now();
    let shards = Shards::open(&out)?;
    let corpus = shards.corpus()?;
    println!("{} shards, compared with their hashes in {:.1?}", shards.shard_count(), start.elapsed());
    println!("\n=== The first document ===\n");
    for sentence in corpus.sentences_of(0).take(3) {
        let ids = corpus.ids_of(corpus.tokens_of(sentence));
        println!("  {}", shortened(&tokenizer.decode(&ids, false)?));
    }
    if arguments.out.is_some() {
        println!("\nsaved to {0}: pretrain --corpus {0} trains on it", out.display());
    }
    let (vocab_size, shards, seconds) = (tokenizer.vocab_size(), shards.shard_count(), elapsed.as_secs_f64());
    let report = Report { arguments, statistics: &statistics, vocab_size, shards, seconds };
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}

/// Opens the tokenizer that is asked for, or trains one on the files.
fn tokenizer(arguments: &Arguments, files: &CorpusFiles) -> Result<Tokenizer> {
    if let Some(place) = &arguments.model {
        return Ok(Tokenizer::open(place)?);
    }
    if let Some(tokenizer) = arguments.vocabulary.open()? {
        return Ok(tokenizer);
    }
    let start = Instant::now();
    let options = TrainOptions::from(arguments.vocabulary.options());
    let tokenizer = files.train_tokenizer(arguments.vocabulary.size(), &options)?;
    println!("vocabulary of {} in {:.1?}\n", tokenizer.vocab_size(), start.elapsed());
    Ok(tokenizer)
}

fn print_statistics(found: &CorpusStatistics, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let mut table = Table::new("<>")
        .row(["files".to_string(), thousands(found.files)])
        .row(["as they are stored".to_string(), size(found.stored_bytes)])
        .row(["as text".to_string(), size(found.text_bytes)])
        .row(["documents".to_string(), thousands(found.documents)])
        .row(["sentences".to_string(), thousands(found.sentences)])
        .row(["tokens".to_string(), thousands(found.tokens)])
        .row(["unknown tokens".to_string(), format!("{:.3} %", 100.0 * found.unknown_share())]);
    for (name, count) in [
        ("left out: duplicates", found.duplicates),
        ("left out: blank texts", found.dropped.blank),
        ("left out: null", found.dropped.null),
        ("left out: not UTF-8", found.dropped.not_utf8),
        ("left out: documents without a token", found.documents_without_token),
        ("left out: sentences without a token", found.sentences_without_token),
    ] {
        if count > 0 {
            table = table.row([name.to_string(), thousands(count)]);
        }
    }
    println!("{table}");
    let mut lengths = Table::new("<>").row(["tokens in", "shortest", "median", "90 %", "99 %", "longest"]);
    for (name, of) in [("a sentence", &found.sentence_lengths), ("a document", &found.document_lengths)] {
        let numbers = [of.shortest, of.median, of.p90, of.p99, of.longest].map(thousands);
        lengths = lengths.row(std::iter::once(name.to_string()).chain(numbers));
    }
    println!("{lengths}\n{}", histogram(&found.document_lengths));
    println!("prepared in {elapsed:.1?}: {:.1} MB of text a second", found.text_bytes as f64 / 1e6 / seconds);
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} bytes", thousands(bytes)),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// Returns how many documents have which length.
fn histogram(lengths: &LengthStatistics) -> Table {
    const WIDTH: u64 = 40;
    let most = lengths.histogram.iter().copied().max().unwrap_or(0).max(1);
    let mut table = Table::new("><>").row(["documents up to", "", ""]);
    for (bin, &count) in lengths.histogram.iter().enumerate().skip_while(|(_, count)| **count == 0) {
        let bar = "#".repeat((count * WIDTH).div_ceil(most) as usize);
        table = table.row([format!("{} tokens", thousands(1 << bin)), bar, thousands(count)]);
    }
    table
}

/// Returns the beginning of a text.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 90;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text.to_string(),
    }
}
