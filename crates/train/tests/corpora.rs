//! Corpora of realistic size. The tests read novels of the European Literary Text Collection (github.com/COST-ELTeC), one
//! text file each, in `corpus/eltec-eng` and `corpus/eltec-por` of the folder `CLOZE_DATA`, and the vocabulary in
//! `vocab/bert-base-uncased-vocab.txt`. `CLOZE_SHOW=7` prints 100 sentences drawn with seed 7.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cloze_bert::{Tokenizer, TokenizerOptions};
use cloze_train::{Corpus, PreTraining};

fn folder(name: &str) -> Option<PathBuf> {
    match std::env::var_os("CLOZE_DATA") {
        Some(data) => Some(PathBuf::from(data).join(name)),
        None => {
            println!("SKIPPED: set CLOZE_DATA to a folder that has {name} (github.com/COST-ELTeC, as text files)");
            None
        }
    }
}

/// Returns the peak memory of this process in MiB, if the system reports it.
fn peak_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<usize>().ok()? / 1024)
}

/// A single test, because tests in parallel would add up their memory.
#[test]
fn novels() {
    for (name, documents, bytes) in [("corpus/eltec-eng", 95, 55_000_000), ("corpus/eltec-por", 96, 35_000_000)] {
        let Some(path) = folder(name) else { continue };
        let start = Instant::now();
        let corpus = Corpus::open(&path).unwrap();
        let read = start.elapsed();
        println!("{name}: {corpus:?} read and split in {read:.1?}, peak {:?} MiB", peak_memory());
        assert_eq!(corpus.document_count(), documents);
        assert!(corpus.byte_count() > bytes);
        let mean = corpus.byte_count() / corpus.sentence_count();
        assert!((60..160).contains(&mean), "{mean} bytes a sentence");

        // Only the first sentences of paragraphs, as in verse, may begin in lower case.
        let lower =
            corpus.sentences().filter(|s| s.chars().find(|c| c.is_alphabetic()).is_some_and(char::is_lowercase));
        let lower = lower.count();
        assert!(lower * 20 < corpus.sentence_count(), "{lower} of {} begin in lower case", corpus.sentence_count());
        let titles = ["Mr.", "Mrs.", "Dr.", " D.", " Sr.", " S."];
        let torn = corpus.sentences().filter(|s| titles.iter().any(|title| s.ends_with(title))).count();
        println!("{lower} begin in lower case, {torn} end in a title");
        assert!(torn * 1_000 < corpus.sentence_count(), "{torn} end in a title");

        let vocabulary = folder("vocab/bert-base-uncased-vocab.txt").unwrap();
        let tokenizer = Tokenizer::from_vocab_file(vocabulary, &TokenizerOptions::uncased()).unwrap();
        let data = PreTraining::new(&corpus, &tokenizer).unwrap();
        println!("{:?}, tokenized after {:.1?}, peak {:?} MiB", data.corpus(), start.elapsed(), peak_memory());
        let examples = data.epoch(0).unwrap();
        println!("{} examples after {:.1?}, peak {:?} MiB", examples.len(), start.elapsed(), peak_memory());
        assert!(examples.iter().all(|example| example.token_count() <= 128));
        if let Some(peak) = peak_memory() {
            assert!(peak < 1024, "{peak} MiB");
        }
        assert!(start.elapsed() < Duration::from_secs(120));

        if let Some(seed) = std::env::var("CLOZE_SHOW").ok().and_then(|seed| seed.parse().ok()) {
            let mut stream = cloze_tensor::random::Stream::new(seed, cloze_tensor::random::Purpose::User, 0, 0, 0);
            for _ in 0..100 {
                println!("  | {}", corpus.sentences().nth(stream.below(corpus.sentence_count())).unwrap());
            }
        }
    }
}
