//! Streams text of any size through the pre-training input pipeline, and prints the memory and time it takes:
//!
//! ```text
//! cargo run --release -p cloze-train --example stream_corpus -- GIGABYTES FOLDER [VOCABULARY]
//! ```
//!
//! The text consists of random words in sentences and documents, and is the same for the same size. The program writes it to
//! the folder, prepares shards of it twice and compares them, opens them, draws, masks and packs an epoch of BERT's pairs,
//! and repeats some batches from its middle, as a resumed run would. It empties the folder at the end.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use cloze_bert::{Tokenizer, TokenizerOptions, TrainOptions};
use cloze_tensor::random::{Purpose, Stream};
use cloze_train::{CorpusFiles, PairExample, PreTraining, ShardOptions, Shards, VocabularyTable};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: stream_corpus GIGABYTES FOLDER [VOCABULARY]";

/// The number of examples per batch.
const BATCH: usize = 256;

/// The number of examples to make after resuming in the middle.
const RESUMED: usize = 1000 * BATCH;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [gigabytes, folder, rest @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let bytes = (gigabytes.parse::<f64>()? * 1e9) as usize;
    let folder = Path::new(folder).join("stream_corpus");
    fs::create_dir_all(&folder)?;
    let streamed = run(bytes, &folder, rest.first().map(PathBuf::from));
    fs::remove_dir_all(&folder)?;
    streamed
}

fn run(bytes: usize, folder: &Path, vocabulary: Option<PathBuf>) -> Result {
    let tokenizer = tokenizer(vocabulary)?;
    println!("{bytes} bytes of text, vocabulary of {}: {}", tokenizer.vocab_size(), MemoryUse::now());
    let shards = prepare(bytes, folder, &tokenizer)?;
    let start = Instant::now();
    let corpus = shards.corpus()?;
    let (opened, size) = (start.elapsed().as_secs_f64(), size(&folder.join("shards"))?);
    println!("{corpus:?} in {} shards: {}", shards.shard_count(), MemoryUse::now());
    println!("{size} bytes compared with their hashes in {opened:.2} s: {:.0} MB/s", size as f64 / 1e6 / opened);

    let data = PreTraining::from_tokenized(corpus, VocabularyTable::new(&tokenizer)?).seq_len(128).seed(1);
    let start = Instant::now();
    let count = data.example_count(0)?;
    println!("{count} examples, counted in {:.1?}: {}", start.elapsed(), MemoryUse::now());
    make_batches(&data, 0..count)?;
    make_batches(&data, count / 2..count.min(count / 2 + RESUMED))
}

fn tokenizer(vocabulary: Option<PathBuf>) -> Result<Tokenizer> {
    match vocabulary {
        Some(path) => Ok(Tokenizer::from_vocab_file(path, &TokenizerOptions::uncased())?),
        None => {
            let (mut words, mut sample) = (RandomWords::new(), Vec::new());
            (0..3_000).for_each(|_| words.document(&mut sample));
            Ok(Tokenizer::train(String::from_utf8(sample)?.lines(), 30_000, &TrainOptions::new())?)
        }
    }
}

/// Writes the text to a file and prepares shards of it, twice.
fn prepare(bytes: usize, folder: &Path, tokenizer: &Tokenizer) -> Result<Shards> {
    let path = folder.join("text.txt");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    for text in text(bytes) {
        file.write_all(&text)?;
    }
    file.into_inner()?.sync_all()?;
    println!("written: {}", MemoryUse::now());
    let mut indices = Vec::new();
    for out in ["shards", "again"].map(|name| folder.join(name)) {
        let start = Instant::now();
        let found = CorpusFiles::at([&path])?.prepare(tokenizer, &out, &ShardOptions::new())?;
        let seconds = start.elapsed().as_secs_f64();
        let (speed, text) = (found.text_bytes as f64 / 1e6 / seconds, found.text_bytes);
        println!("{text} bytes prepared in {seconds:.1} s: {speed:.1} MB/s: {}", MemoryUse::now());
        // It has the hashes of all shards.
        indices.push(fs::read(out.join("index.json"))?);
    }
    println!("the same bytes: {}", indices[0] == indices[1]);
    fs::remove_dir_all(folder.join("again"))?;
    fs::remove_file(path)?;
    Ok(Shards::open(folder.join("shards"))?)
}

/// Returns the number of bytes of the files in a folder.
fn size(folder: &Path) -> Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// Masks and packs the examples of a range into batches, and prints the speed.
fn make_batches(data: &PreTraining, range: Range<usize>) -> Result {
    let (start, mut batch) = (Instant::now(), Vec::<PairExample>::with_capacity(BATCH));
    let (mut tokens, mut targets, mut examples, mut step) = (0usize, 0usize, range.start, 0);
    let mut stream = data.stream(0, range.start)?;
    let first = stream.next();
    let skipped = start.elapsed();
    for example in first.into_iter().chain(stream).take(range.len()) {
        batch.push(example?);
        examples += 1;
        if batch.len() == BATCH || examples == range.end {
            let packed = data.batch(&batch, step, 0)?;
            tokens += packed.batch().tokens();
            targets += packed.targets().labels.len();
            step += 1;
            batch.clear();
        }
    }
    assert_eq!(examples, range.end, "an epoch has fewer examples than were counted");
    let seconds = (start.elapsed() - skipped).as_secs_f64();
    println!(
        "from example {} (reached in {skipped:.1?}): {step} batches, {tokens} tokens, {targets} targets in {seconds:.1} s, \
         {:.1} million tokens/s: {}",
        range.start,
        tokens as f64 / 1e6 / seconds,
        MemoryUse::now()
    );
    Ok(())
}

/// The memory of the process in MiB, now and at its peak.
struct MemoryUse(String);

impl MemoryUse {
    fn now() -> MemoryUse {
        MemoryUse(fs::read_to_string("/proc/self/status").unwrap_or_default())
    }
}

impl std::fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |name| {
            let line = self.0.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kib| kib / 1024)
        };
        match (mib("VmHWM"), mib("RssAnon"), mib("RssFile")) {
            (Some(peak), Some(own), Some(mapped)) => {
                write!(f, "peak {peak} MiB; now {own} private, {mapped} mapped")
            }
            _ => write!(f, "memory use unknown"),
        }
    }
}

/// Generates about `bytes` bytes of text on another thread.
fn text(bytes: usize) -> Receiver<Vec<u8>> {
    let (to, text) = sync_channel(4);
    std::thread::spawn(move || {
        let (mut words, mut made) = (RandomWords::new(), 0);
        while made < bytes {
            let mut some = Vec::with_capacity((1 << 20) + (1 << 16));
            while some.len() < 1 << 20 && made + some.len() < bytes {
                words.document(&mut some);
            }
            made += some.len();
            if to.send(some).is_err() {
                break;
            }
        }
    });
    text
}

/// A vocabulary of words made of syllables, whose frequencies follow Zipf's law.
struct RandomWords {
    words: Vec<String>,
    /// The indices of words, repeated in proportion to their frequency.
    drawn: Vec<u16>,
    stream: Stream,
}

impl RandomWords {
    fn new() -> RandomWords {
        let mut stream = Stream::new(11, Purpose::User, 0, 0, 0);
        let syllable = |stream: &mut Stream| {
            let mut letter = |letters: &[u8]| letters[stream.below(letters.len())] as char;
            [letter(b"bcdfghklmnprstvw"), letter(b"aeiou"), letter(b"lnrst ")]
        };
        let mut word = || -> String {
            let count = 1 + stream.below(3);
            (0..count).flat_map(|_| syllable(&mut stream)).filter(|c| *c != ' ').collect()
        };
        let words: Vec<String> = (0..30_000).map(|_| word()).collect();
        let total: f64 = (1..=words.len()).map(|rank| 1.0 / rank as f64).sum();
        let times = |rank: usize| ((1 << 20) as f64 / total / (rank + 1) as f64).ceil() as usize;
        let drawn = (0..words.len()).flat_map(|rank| std::iter::repeat_n(rank as u16, times(rank))).collect();
        RandomWords { words, drawn, stream: Stream::new(12, Purpose::User, 0, 0, 0) }
    }

    /// Appends a document of 4 to 67 sentences of 4 to 35 words.
    fn document(&mut self, to: &mut Vec<u8>) {
        for _ in 0..4 + self.stream.below(64) {
            let words = 4 + self.stream.below(32);
            for number in 0..words {
                let draw = (self.stream.word() as u64 * self.drawn.len() as u64) >> 32;
                to.extend_from_slice(self.words[self.drawn[draw as usize] as usize].as_bytes());
                to.extend_from_slice(if number + 1 == words { b".\n" } else { b" " });
            }
        }
        to.push(b'\n');
    }
}
