//! Text corpora: lines, prose and JSON Lines, as they are or compressed by gzip and Zstandard.
#![no_main]

use std::io::Write;
use std::sync::LazyLock;

use cloze_fuzz::{Scratch, checked, limited};
use cloze_train::{Corpus, CorpusFiles};
use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    // The pieces of a corpus are read on a thread of their own; one more suffices.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("there are no threads yet");
    Scratch::new()
});

/// What a compressed file may become, beside 200 times its size.
const LEAST: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let bytes = if kind % 8 < 3 { rest.len() } else { 200 * rest.len() + LEAST };
    limited(bytes, || match kind % 8 {
        0 => read("lines", rest),
        1 => read("prose/a.txt", rest),
        2 => read("a.jsonl", rest),
        3 => read("a.gz", rest),
        4 => read("a.zst", rest),
        5 => read("prose/a.txt.gz", &gzipped(rest)),
        6 => read("a.jsonl.gz", &gzipped(rest)),
        _ => read("a.jsonl.zst", rest),
    });
});

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory can be written")
}

fn read(name: &str, bytes: &[u8]) {
    let path = SCRATCH.write(name, bytes);
    // A file in a folder is prose if it ends in `.txt`, one that is given has lines.
    let place = if name.starts_with("prose") { path.parent().expect("it is in a folder") } else { &path };
    let files = checked(CorpusFiles::at([place])).map(|files| files.progress(false));
    let corpus = files.and_then(|files| checked(files.read()));
    SCRATCH.remove(name);
    if let Some(corpus) = corpus {
        check(&corpus);
    }
}

fn check(corpus: &Corpus) {
    let documents: Vec<Vec<&str>> = corpus.documents().map(|document| document.sentences().collect()).collect();
    assert_eq!(documents.len(), corpus.document_count());
    assert!(documents.iter().all(|document| !document.is_empty()));
    assert_eq!(documents.concat(), corpus.sentences().collect::<Vec<_>>());
    assert!(corpus.sentences().all(|sentence| !sentence.trim().is_empty() && !sentence.contains('\n')));
}
