use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cloze_bert::{Tokenizer, TokenizerOptions, TrainOptions};
use proptest::prelude::*;

use super::*;
use crate::corpus::form::Compression;
use crate::corpus::source::tests::compressed;
use crate::corpus::tokenized::tests::lists;
use crate::{Corpus, CorpusFiles, TokenizedCorpus};

/// Documents of sentences. Every eleventh document is the same.
fn documents(count: usize) -> Vec<Vec<String>> {
    let sentence = |d: usize, s: usize| format!("Document {d} says {} in sentence {s}, ação.", d * 7_919 % 1_013);
    let document = |d: usize| match d % 11 {
        10 => vec!["The same text.".to_string(), "It comes again.".to_string()],
        _ => (0..1 + d % 5).map(|s| sentence(d, s)).collect(),
    };
    (0..count).map(document).collect()
}

fn lines(documents: &[Vec<String>]) -> String {
    documents.iter().map(|document| document.join("\n") + "\n\n").collect()
}

fn json_lines(documents: &[Vec<String>], field: &str) -> String {
    let line = |document: &Vec<String>| serde_json::json!({"id": 1, field: document.join(" ")}).to_string() + "\n";
    documents.iter().map(line).collect()
}

fn tokenizer() -> Tokenizer {
    static TRAINED: OnceLock<Tokenizer> = OnceLock::new();
    let train = || Tokenizer::train(documents(200).concat(), 300, &TrainOptions::new()).unwrap();
    TRAINED.get_or_init(train).clone()
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Prepares the corpus at `path` in shards of 300 tokens.
    fn prepare(&self, path: &Path, name: &str, deduplicate: bool) -> Result<Shards> {
        let options = ShardOptions::new().shard_tokens(300).deduplicate(deduplicate);
        CorpusFiles::at([path])?.progress(false).prepare(&tokenizer(), self.path(name), &options)?;
        Shards::open(self.path(name))
    }

    fn names(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = fs::read_dir(self.0.path()).unwrap().map(name).collect();
        names.sort();
        names
    }
}

fn bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.strip_prefix(folder).unwrap().into(), fs::read(&path).unwrap())).collect()
}

/// Returns the bytes of the shards alone.
fn shard_bytes(folder: &Path) -> Vec<Vec<u8>> {
    let is_shard = |path: &Path| path.to_string_lossy().starts_with("shard-");
    bytes(folder).into_iter().filter(|(path, _)| is_shard(path)).map(|(_, bytes)| bytes).collect()
}

#[test]
fn shards_have_the_ids_of_the_corpus_in_memory() {
    let scratch = Scratch::new();
    let path = scratch.file("corpus.txt", lines(&documents(150)));
    let shards = scratch.prepare(&path, "shards", false).unwrap();
    assert!(shards.shard_count() > 5);
    let (corpus, expected) = (shards.corpus().unwrap(), Corpus::open(&path).unwrap());
    let expected = TokenizedCorpus::new(&expected, &tokenizer()).unwrap();
    assert!(corpus == expected && lists(&corpus) == lists(&expected));
    assert_eq!(corpus.fingerprint(), expected.fingerprint());
    assert_eq!(corpus.largest_id(), expected.largest_id());
    assert!(corpus.ids_of(0..corpus.token_count()) == expected.ids_of(0..corpus.token_count()));
    for token in 0..=corpus.token_count() + 1 {
        assert_eq!(corpus.first_sentence_from(token), expected.first_sentence_from(token), "{token}");
    }
    // The parts of a split are the same, too.
    let (split, expected) = (corpus.split(0.3, 5).unwrap(), expected.split(0.3, 5).unwrap());
    assert!(split == expected && split.0.fingerprint() == expected.0.fingerprint());
    assert_ne!(split.0.fingerprint(), split.1.fingerprint());
    assert_eq!(shards.tokenizer().unwrap().to_json().unwrap(), tokenizer().to_json().unwrap());
}

#[test]
fn the_bytes_are_the_same_for_any_number_of_threads() {
    let scratch = Scratch::new();
    // Larger than a piece, so that threads share it.
    let path = scratch.file("corpus.txt", lines(&documents(6_000)));
    let mut made = Vec::new();
    for (number, threads) in [1, 2, 5, 5].into_iter().enumerate() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let name = format!("shards-{number}");
        pool.install(|| scratch.prepare(&path, &name, true)).unwrap();
        made.push(bytes(&scratch.path(&name)));
    }
    assert!(made.iter().all(|other| *other == made[0]));
    assert_eq!(scratch.names().len(), 5, "something is left over");
}

#[test]
fn all_formats_give_the_same_shards() {
    let (scratch, documents) = (Scratch::new(), documents(300));
    let text = lines(&documents);
    let expected = scratch.prepare(&scratch.file("a/corpus.txt", &text), "expected", true).unwrap();
    let expected_bytes = shard_bytes(&scratch.path("expected"));
    let mut sources = vec![
        scratch.file("crlf", text.replace('\n', "\r\n")),
        scratch.file("b.jsonl", json_lines(&documents, "text")),
        scratch.file("b.NDJSON", "\u{feff}".to_string() + &json_lines(&documents, "text")),
    ];
    for (compression, extension) in [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")] {
        sources.push(scratch.file(&format!("c.txt.{extension}"), compressed(text.as_bytes(), compression)));
        let json = json_lines(&documents, "text");
        sources.push(scratch.file(&format!("d.jsonl.{extension}"), compressed(json.as_bytes(), compression)));
    }
    // A folder with a document in each file, in folders and of all kinds.
    for (number, document) in documents.iter().enumerate() {
        let (text, name) = (document.join("\n\n"), format!("prose/{}/{number:04}", number / 100));
        match number % 3 {
            0 => scratch.file(&format!("{name}.txt"), text),
            1 => scratch.file(&format!("{name}.txt.gz"), compressed(text.as_bytes(), Compression::Gzip)),
            _ => scratch.file(&format!("{name}.jsonl"), json_lines(std::slice::from_ref(document), "text")),
        };
    }
    sources.push(scratch.path("prose"));
    for (number, path) in sources.iter().enumerate() {
        let name = format!("shards-{number}");
        let shards = scratch.prepare(path, &name, true).unwrap();
        assert!(shard_bytes(&scratch.path(&name)) == expected_bytes, "{}", path.display());
        assert_eq!(shards.index.fingerprint, expected.index.fingerprint);
    }
    let other = scratch.file("other.jsonl", json_lines(&documents, "body"));
    let files = CorpusFiles::at([&other]).unwrap().text_field("body").progress(false);
    files.prepare(&tokenizer(), scratch.path("body"), &ShardOptions::new().shard_tokens(300)).unwrap();
    assert!(shard_bytes(&scratch.path("body")) == expected_bytes);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_gives_the_same_shards() {
    let (scratch, documents) = (Scratch::new(), documents(300));
    let lines = scratch.file("corpus.jsonl", json_lines(&documents, "body"));
    let texts: Vec<Option<Vec<u8>>> = documents.iter().map(|document| Some(document.join(" ").into_bytes())).collect();
    let odd = vec![None, Some(vec![0xff]), Some(b" \n".to_vec()), Some(b"The same text. It comes again.".to_vec())];
    let parquet = scratch.path("corpus.parquet");
    crate::rows::write_texts(&parquet, "body", &[texts, odd]);
    let prepare = |path: &Path, name: &str| {
        let files = CorpusFiles::at([path]).unwrap().text_field("body").progress(false);
        files.prepare(&tokenizer(), scratch.path(name), &ShardOptions::new().shard_tokens(300)).unwrap()
    };
    prepare(&lines, "expected");
    let statistics = prepare(&parquet, "shards");
    assert!(shard_bytes(&scratch.path("shards")) == shard_bytes(&scratch.path("expected")));
    assert_eq!(statistics.dropped, crate::DroppedTexts { blank: 1, null: 1, not_utf8: 1 });

    let files = CorpusFiles::at([&parquet]).unwrap().progress(false);
    let missing = files.prepare(&tokenizer(), scratch.path("missing"), &ShardOptions::new()).unwrap_err().to_string();
    assert!(missing.contains("corpus.parquet: columns: no column text: the file has id, body"), "{missing}");
    let whole = fs::read(&parquet).unwrap();
    fs::write(&parquet, &whole[..whole.len() / 2]).unwrap();
    let files = CorpusFiles::at([&parquet]).unwrap().progress(false);
    let cut = files.prepare(&tokenizer(), scratch.path("missing"), &ShardOptions::new()).unwrap_err().to_string();
    assert!(cut.contains("corpus.parquet: rows: cannot read Parquet"), "{cut}");
    assert!(!scratch.path("missing").exists());
}

#[test]
fn duplicates_and_statistics() {
    let scratch = Scratch::new();
    let text = "One two.\nThree.\n\n  One two. \r\nThree.\n\nOne two.\n\nOne two. Three.\n\n\n\u{1}\n\nThree.\n\u{1}\n";
    let path = scratch.file("a.txt", text);
    let json = scratch.file("b.jsonl", "{\"text\": \"One two.\\n\\nThree.\"}\n{\"text\": null}\n{\"text\": \"\"}\n");
    let prepare = |name: &str, options: &ShardOptions| {
        let files = CorpusFiles::at([&path, &json]).unwrap().progress(false);
        files.prepare(&tokenizer(), scratch.path(name), options).unwrap()
    };
    let found = prepare("unique", &ShardOptions::new());
    let corpus = TokenizedCorpus::open(scratch.path("unique")).unwrap();
    let tokens = |texts: &[&str]| texts.iter().map(|text| tokenizer().ids(text).unwrap()).collect::<Vec<_>>();
    let expected = [&["One two.", "Three."][..], &["One two."], &["One two. Three."], &["Three."]].map(tokens);
    assert_eq!(lists(&corpus), expected);
    let all: Vec<Vec<u32>> = expected.concat();
    let unknown = all.concat().iter().filter(|&&id| id == tokenizer().unk_id()).count() as u64;
    assert_eq!((found.documents, found.sentences, found.tokens), (4, 5, all.concat().len() as u64));
    assert_eq!((found.duplicates, found.documents_without_token, found.sentences_without_token), (2, 1, 2));
    assert_eq!((found.unknown_tokens, found.files), (unknown, 2));
    assert_eq!(found.dropped, crate::DroppedTexts { blank: 1, null: 1, not_utf8: 0 });
    assert_eq!(found.text_bytes, (text.len() + fs::read(&json).unwrap().len()) as u64);
    let longest = all.iter().map(Vec::len).max().unwrap() as u64;
    assert_eq!((found.sentence_lengths.longest, found.sentence_lengths.histogram.iter().sum::<u64>()), (longest, 5));
    let lengths: Vec<u64> = expected.iter().map(|document| document.concat().len() as u64).collect();
    assert_eq!(found.document_lengths.longest, *lengths.iter().max().unwrap());
    assert_eq!(*Shards::open(scratch.path("unique")).unwrap().statistics(), found);

    let found = prepare("all", &ShardOptions::new().deduplicate(false));
    assert_eq!((found.documents, found.duplicates), (6, 0));
}

/// Documents are compared across pieces, files and shards.
#[test]
fn duplicates_are_found_wherever_they_are() {
    let scratch = Scratch::new();
    let long: String = (0..20_000).map(|number| format!("Sentence {number} of a long document.\n")).collect();
    assert!(long.len() > 500_000);
    let first = scratch.file("a.txt", format!("A start.\n\n{long}\nAn end.\n"));
    let second = scratch.file("b.txt", format!("{long}\nA start.\n\nAnother end."));
    let files = CorpusFiles::at([&first, &second]).unwrap().progress(false);
    let found = files.prepare(&tokenizer(), scratch.path("shards"), &ShardOptions::new().shard_tokens(10)).unwrap();
    assert_eq!((found.documents, found.duplicates), (4, 2));
    assert_eq!(Shards::open(scratch.path("shards")).unwrap().shard_count(), 2);
    assert_eq!(found.sentences, 20_003);
}

#[test]
fn any_damage_is_found_and_named() {
    let scratch = Scratch::new();
    let path = scratch.file("corpus.txt", lines(&documents(30)));
    let shards = scratch.prepare(&path, "shards", true).unwrap();
    let folder = scratch.path("shards");
    let second = folder.join(shard_name(1));
    let whole = fs::read(&second).unwrap();
    let said = |bytes: &[u8]| {
        fs::write(&second, bytes).unwrap();
        let error = TokenizedCorpus::open(&folder).unwrap_err().to_string();
        assert!(error.contains("shard-00001.safetensors: shard: "), "{error}");
        assert!(error.ends_with("it was cut or changed; restore it, or prepare the corpus again"), "{error}");
        // Documents of other shards can be read.
        assert!(shards.range(0..1).is_ok());
        error
    };
    for byte in (0..whole.len()).step_by(7) {
        let mut torn = whole.clone();
        torn[byte] ^= 1;
        assert!(said(&torn).contains("its hash is "));
    }
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert!(said(&whole[..length]).contains(&format!("has {length} bytes, index.json says {}", whole.len())));
    }
    said(&[&whole[..], b"x"].concat());
    fs::remove_file(&second).unwrap();
    let missing = TokenizedCorpus::open(&folder).unwrap_err().to_string();
    assert!(missing.contains("shard-00001.safetensors: cannot read"), "{missing}");
    fs::write(&second, &whole).unwrap();
    assert!(TokenizedCorpus::open(&folder).is_ok());
}

/// A shard whose hash is in the index is still never read out of bounds.
#[test]
fn forged_shards_are_refused() {
    let scratch = Scratch::new();
    let path = scratch.file("corpus.txt", "one two\nthree\n\nfour\n");
    let shards = scratch.prepare(&path, "shards", true).unwrap();
    let file = scratch.path("shards").join(shard_name(0));
    let whole = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let data = header + 8;
    let forged = |bytes: Vec<u8>| {
        let mut shards = shards.clone();
        shards.index.shards[0].xxh128 = format!("{:032x}", twox_hash::XxHash3_128::oneshot(&bytes));
        shards.index.shards[0].bytes = bytes.len() as u64;
        fs::write(&file, bytes).unwrap();
        shards.corpus().map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(forged(whole.clone()).is_ok());
    for (at, value) in [(data, 9), (data, 0), (data + 8, 1), (data + 16, 0), (data + 16, 99), (data + 32, 77)] {
        let mut bytes = whole.clone();
        bytes[at] = value;
        assert!(forged(bytes).unwrap_err().contains("do not fit together"), "{at}: {value}");
    }
    let mut large = whole.clone();
    large[whole.len() - 1] = 0xff;
    assert!(forged(large).unwrap_err().contains("do not fit together"));
    let text = String::from_utf8(whole[8..data].to_vec()).unwrap();
    for (from, to) in
        [("\"U16\"", "\"U32\""), ("[0,16]", "[0,17]"), ("[0,16]", "[9,16]"), ("[2]", "[7]"), ("ids", "idx")]
    {
        assert!(text.contains(from), "{text}");
        let bytes = [&whole[..8], text.replace(from, to).as_bytes(), &whole[data..]].concat();
        assert!(forged(bytes).unwrap_err().contains("its header is damaged"), "{from} {to}");
    }
    for length in [u64::MAX, 1 << 40, 0] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(forged(bytes).unwrap_err().contains("its header is damaged"));
    }
    assert!(forged(vec![1, 2]).is_err());
}

#[test]
fn a_damaged_index_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.file("corpus.txt", lines(&documents(30)));
    scratch.prepare(&path, "shards", true).unwrap();
    let folder = scratch.path("shards");
    let index = folder.join(INDEX);
    let whole = fs::read_to_string(&index).unwrap();
    let said = |text: &str| {
        fs::write(&index, text).unwrap();
        assert!(Shards::is_at(&folder));
        Shards::open(&folder).unwrap_err().to_string()
    };
    let changed = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        said(&whole.replacen(from, to, 1))
    };
    assert!(said(&whole[..whole.len() / 2]).contains("index.json: shards: this is not an index of shards"));
    assert!(changed("\"version\": 1", "\"version\": 2").contains("version 2, this program reads version 1"));
    assert!(changed("\"cloze shards\"", "\"x\"").contains("its format is \"x\""));
    assert!(changed("\"duplicates\": 1", "\"duplicates\": 2").contains("its checksum does not match"));
    assert!(changed("\"tokens\": ", "\"tokens\": 1").contains("is damaged"));
    assert!(changed("\"name\": \"", "\"name\": \"../").contains("is damaged"));
    assert!(changed("\"largest_id\"", "\"largest\"").contains("is damaged: missing field `largest_id`"));
    // Counts that add up to the largest number only if their sum stops there.
    fs::write(&index, &whole).unwrap();
    let mut forged = Shards::open(&folder).unwrap().index;
    forged.shards.push(forged.shards[0].clone());
    forged.shards[0].documents = u64::MAX;
    forged.statistics.documents = u64::MAX;
    forged.statistics.sentences += forged.shards[0].sentences;
    forged.statistics.tokens += forged.shards[0].tokens;
    forged.write(&folder).unwrap();
    assert!(Shards::open(&folder).unwrap_err().to_string().contains("do not add up"));
    fs::remove_file(&index).unwrap();
    assert!(Shards::open(&folder).unwrap_err().to_string().contains("shards: shards: has no index.json"));
    assert!(Shards::is_at(&folder) && !Shards::is_at(scratch.0.path()));
    // What is left of it is not read as text.
    let error = CorpusFiles::at([&folder]).unwrap_err().to_string();
    assert!(error.contains("this is a folder of shards"), "{error}");
}

#[test]
fn another_tokenizer_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.file("corpus.txt", lines(&documents(30)));
    let shards = scratch.prepare(&path, "shards", true).unwrap();
    assert!(shards.check_tokenizer(&tokenizer()).is_ok());
    let cased = TrainOptions::from(TokenizerOptions::default().lowercase(false));
    let other = Tokenizer::train(documents(200).concat(), 250, &cased).unwrap();
    let error = shards.check_tokenizer(&other).unwrap_err().to_string();
    assert!(
        error.contains("index.json: tokenizer: the shards were made with another tokenizer (300 tokens"),
        "{error}"
    );
    assert!(error.contains("than this one (250 tokens"), "{error}");
    other.save(scratch.path("shards")).unwrap();
    assert!(shards.tokenizer().unwrap_err().to_string().contains("another tokenizer"));
}

#[test]
fn shares_are_disjoint_and_complete() {
    let scratch = Scratch::new();
    let path = scratch.file("corpus.txt", lines(&documents(150)));
    let shards = scratch.prepare(&path, "shards", true).unwrap();
    let (count, all) = (shards.document_count(), lists(&shards.corpus().unwrap()));
    for workers in [1, 2, 3, 7, count] {
        let shares: Vec<TokenizedCorpus> = (0..workers).map(|worker| shards.share(worker, workers).unwrap()).collect();
        assert_eq!(shares.iter().flat_map(lists).collect::<Vec<_>>(), all, "{workers}");
        let sizes: Vec<usize> = shares.iter().map(TokenizedCorpus::document_count).collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        let tokens: usize = shares.iter().map(TokenizedCorpus::token_count).sum();
        assert_eq!(tokens, all.concat().concat().len());
        let mut prints: Vec<u64> = shares.iter().map(TokenizedCorpus::fingerprint).collect();
        prints.sort();
        prints.dedup();
        assert_eq!(prints.len(), workers, "two shares look the same");
    }
    let said = |share: Result<TokenizedCorpus>| share.unwrap_err().to_string();
    assert!(said(shards.share(3, 3)).contains("worker is 3, must be below the number of workers, 3"));
    let many = said(shards.share(0, 10 * count));
    assert!(many.contains(&format!("must be at most {count}")), "{many}");
    assert!(said(shards.range(5..5)).contains("not empty"));
    assert!(said(shards.range(0..count + 1)).contains("within the"));
    // A worker opens only the shards of its documents.
    fs::remove_file(scratch.path("shards").join(shard_name(2))).unwrap();
    assert!(shards.share(0, 7).is_ok() && shards.share(6, 7).is_ok() && shards.share(0, 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A range has the documents that it says, whatever the sizes of the shards.
    #[test]
    fn ranges_are_parts_of_the_corpus(
        sizes in prop::collection::vec(1usize..6, 1..40),
        shard_tokens in 1usize..200,
        cuts in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        workers in 1usize..9,
    ) {
        let scratch = Scratch::new();
        let documents: Vec<Vec<String>> = sizes.iter().enumerate()
            .map(|(d, &n)| (0..n).map(|s| format!("document {d} sentence {s}")).collect()).collect();
        let path = scratch.file("corpus.txt", lines(&documents));
        let options = ShardOptions::new().shard_tokens(shard_tokens);
        let files = CorpusFiles::at([&path]).unwrap().progress(false);
        files.prepare(&tokenizer(), scratch.path("shards"), &options).unwrap();
        let shards = Shards::open(scratch.path("shards")).unwrap();
        let all = lists(&shards.corpus().unwrap());
        prop_assert_eq!(all.len(), documents.len());
        let (a, b) = (cuts.0.index(all.len()), cuts.1.index(all.len()));
        let range = a.min(b)..a.max(b) + 1;
        prop_assert_eq!(lists(&shards.range(range.clone()).unwrap()), &all[range]);
        let workers = workers.min(all.len());
        let shares: Vec<_> = (0..workers).flat_map(|worker| lists(&shards.share(worker, workers).unwrap())).collect();
        prop_assert_eq!(shares, all);
    }
}

#[test]
fn errors_name_the_place_and_leave_nothing() {
    let scratch = Scratch::new();
    let gz = compressed(lines(&documents(5_000)).as_bytes(), Compression::Gzip);
    let zst = compressed(lines(&documents(5_000)).as_bytes(), Compression::Zstd);
    for (name, content, expected) in [
        ("a.txt", &b"ol\xe1"[..], "a.txt: not UTF-8: invalid byte at offset 2"),
        ("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": 3}\n", "a.jsonl:2: corpus: field text is not a string: 3"),
        (
            "a.jsonl",
            b"{\"text\": \"a\"}\n\n{\"text\": \"b\n",
            "a.jsonl:3: corpus: invalid JSON: EOF while parsing a string",
        ),
        ("a.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}", "a.jsonl: not UTF-8: invalid byte at offset 24"),
        ("a.jsonl", b"{\"body\": \"a\"}", "a.jsonl:1: corpus: no field text: the object has body"),
        ("a.txt.gz", &gz[..gz.len() / 2], "a.txt.gz: corpus: cannot decompress after "),
        ("a.txt.zst", &zst[..zst.len() / 2], "a.txt.zst: corpus: cannot decompress after "),
        ("a.txt.gz", b"", "a.txt.gz: corpus: cannot decompress after 0 bytes"),
        ("a.txt", b"\n \n", "a.txt: corpus: has no sentence"),
        ("a.jsonl", b"{\"text\": null}\n", "a.jsonl: corpus: has no sentence"),
        ("a.txt", b"\x01\n", "a.txt: corpus: has no sentence"),
        #[cfg(not(feature = "parquet"))]
        ("a.parquet", b"PAR1", "a.parquet: corpus: this program was built without Parquet support"),
    ] {
        let path = scratch.file(name, content);
        let error = scratch.prepare(&path, "shards", true).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        fs::remove_file(path).unwrap();
        assert!(scratch.names().is_empty(), "{:?}", scratch.names());
    }
}

#[test]
fn an_output_that_would_do_harm_is_refused() {
    let scratch = Scratch::new();
    let (input, file) = (scratch.path("in"), scratch.file("in/a.txt", "Some text."));
    let said = |path: &Path, folder: &str, options: &ShardOptions| {
        let files = CorpusFiles::at([path]).unwrap().progress(false);
        files.prepare(&tokenizer(), scratch.path(folder), options).map(|_| ()).map_err(|error| error.to_string())
    };
    let (plain, replace) = (ShardOptions::new(), ShardOptions::new().replace(true));
    for folder in ["in/shards", "in/x/../shards", "in"] {
        let error = said(&input, folder, &plain).unwrap_err();
        assert!(error.contains("lies in a folder of the corpus") || error.contains("neither empty nor"), "{error}");
    }
    assert_eq!(said(&input, "shards", &plain), Ok(()));
    let error = said(&input, "shards", &plain).unwrap_err();
    assert!(error.ends_with("has shards already: choose another folder, or replace them"), "{error}");
    assert_eq!(said(&input, "shards", &replace), Ok(()));
    let inside = scratch.file("shards/more/b.txt", "More text.");
    let error = said(&inside, "shards", &replace).unwrap_err();
    assert!(error.contains("contains a file or folder of the corpus"), "{error}");
    assert!(said(&file, "in", &replace).unwrap_err().contains("neither empty nor a folder of shards"));
    assert!(said(&file, "in/a.txt", &replace).unwrap_err().contains("is not a folder"));
    assert!(said(&file, "x", &plain.clone().shard_tokens(0)).unwrap_err().contains("shard_tokens is 0"));
    fs::create_dir(scratch.path("empty")).unwrap();
    assert_eq!(said(&file, "empty", &plain), Ok(()));
    assert_eq!(scratch.names(), ["empty", "in", "shards"]);
}
