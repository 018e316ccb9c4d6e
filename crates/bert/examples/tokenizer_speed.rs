//! Measures the speed of tokenizing a folder of text and of training a vocabulary on it:
//! `cargo run --release -p cloze-bert --example tokenizer_speed -- FOLDER VOCAB.txt`

use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs, thread};

use cloze_bert::{Result, Tokenizer, TokenizerOptions, TrainOptions};

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, vocab] = arguments.as_slice() else {
        eprintln!("usage: tokenizer_speed FOLDER VOCAB.txt");
        return Ok(());
    };
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()).collect();
    let megabytes = lines.iter().map(|line| line.len()).sum::<usize>() as f64 / 1e6;
    println!("{megabytes:.1} MB in {} lines", lines.len());

    for (name, options) in [("uncased", TokenizerOptions::uncased()), ("cased", TokenizerOptions::cased())] {
        let tokenizer = Tokenizer::from_vocab_file(vocab, &options)?;
        for threads in [1, 2] {
            let start = Instant::now();
            let tokens: usize = thread::scope(|scope| {
                let parts = lines.chunks(lines.len().div_ceil(threads).max(1));
                let count =
                    |part: &[&str]| part.iter().map(|line| tokenizer.ids(line).map_or(0, |ids| ids.len())).sum();
                let handles: Vec<_> = parts.map(|part| scope.spawn(move || -> usize { count(part) })).collect();
                handles.into_iter().filter_map(|handle| handle.join().ok()).sum()
            });
            let seconds = start.elapsed().as_secs_f64();
            println!("{name}, {threads} thread(s): {tokens} tokens in {seconds:.2} s, {:.1} MB/s", megabytes / seconds);
        }
    }
    let tokenizer = Tokenizer::from_vocab_file(vocab, &TokenizerOptions::uncased())?.with_max_length(1 << 20);
    let part = &lines[..lines.len() / 20];
    let start = Instant::now();
    for line in part {
        tokenizer.encode(line)?;
    }
    let bytes = part.iter().map(|line| line.len()).sum::<usize>() as f64 / 1e6;
    println!("with offsets, 1 thread: {:.2} MB/s", bytes / start.elapsed().as_secs_f64());
    for size in [8_000, 30_000] {
        let start = Instant::now();
        let trained = Tokenizer::train(&lines, size, &TrainOptions::new())?;
        println!("vocabulary of {}: {:.2} s", trained.vocab_size(), start.elapsed().as_secs_f64());
    }
    Ok(())
}
