//! Corpora of any size, tokenized once into a file that is memory-mapped.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use cloze_bert::Tokenizer;
use twox_hash::XxHash3_128;

use super::assemble::TokenPart;
use super::cache_file::{self, WriteFailure, Writer};
use super::content::ContentHash;
use super::files::CorpusFiles;
use super::part::TextPart;
use super::pieces::TextPieces;
use super::progress::ReadProgress;
use super::tokenized::TokenizedCorpus;
use crate::{Error, Result};

/// The version of the path from text to ids. It must change when the same text and tokenizer give other sentences or ids.
const PIPELINE_VERSION: u64 = 1;

impl CorpusFiles {
    /// Returns the token ids of these files from the folder `cache`, or tokenizes the files and writes the ids there. The
    /// folder is created if it is missing. Neither the text nor the ids are ever in memory as a whole.
    ///
    /// The cache key is a hash of the tokenizer and of every byte of the files, because names and times do not identify
    /// content that was moved, restored, or changed twice within a second. The files are therefore read every time, at the
    /// speed of the disk; [`TokenizedCorpus::open`] does without that. The cached file is checked as well, and written again
    /// if it is damaged.
    ///
    /// A cached file is between half as large and as large as its text. Delete files that are no longer needed.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is not UTF-8 or changes meanwhile, if no sentence has a token, or if the
    /// cache cannot be written.
    pub fn tokenize(&self, tokenizer: &Tokenizer, cache: impl AsRef<Path>) -> Result<TokenizedCorpus> {
        let cache = cache.as_ref();
        let content = self.content()?;
        let key = key(content, tokenizer)?;
        let path = cache.join(format!("{key:032x}.tokens"));
        // A file that cannot be used is replaced; only a failure to replace it is reported.
        if let Ok((store, of)) = cache_file::open(&path)
            && of == key
        {
            return Ok(TokenizedCorpus::of_store(store));
        }
        fs::create_dir_all(cache).map_err(|source| Error::io(cache, "cannot write", source))?;
        cache_file::write(&path, key, tokenizer.vocab_size(), |writer| {
            let read = tokenize(TextPieces::of_files(self.files.clone()), self.bar("tokenizing"), tokenizer, writer)?;
            if writer.is_empty() {
                return Err(self.without_sentence().into());
            }
            match read == content {
                true => Ok(()),
                false => Err(Error::data_in(&self.path, "corpus", "changed while it was read").into()),
            }
        })?;
        TokenizedCorpus::open(path)
    }

    /// Hashes all files.
    fn content(&self) -> Result<u128> {
        let (mut hash, mut progress) = (ContentHash::default(), self.bar("checking"));
        let mut bytes = vec![0; 1 << 20];
        for (path, form) in &self.files {
            let cannot_read = |source| Error::io(path, "cannot read", source);
            let mut file = File::open(path).map_err(cannot_read)?;
            loop {
                match file.read(&mut bytes).map_err(cannot_read)? {
                    0 => break,
                    read => {
                        hash.write(&bytes[..read]);
                        progress.advance(read as u64);
                    }
                }
            }
            hash.end_text(*form);
        }
        Ok(hash.finish())
    }
}

impl TokenizedCorpus {
    /// Returns the token ids of the files and folders at `paths`, cached in the folder `cache`; see
    /// [`CorpusFiles::tokenize`].
    ///
    /// ```no_run
    /// # fn f(tokenizer: cloze_bert::Tokenizer) -> cloze_train::Result<()> {
    /// let corpus = cloze_train::TokenizedCorpus::cached(["wikipedia.txt", "books"], &tokenizer, "cache")?;
    /// println!("{corpus:?}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`CorpusFiles::at`] and [`CorpusFiles::tokenize`].
    pub fn cached<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
        tokenizer: &Tokenizer,
        cache: impl AsRef<Path>,
    ) -> Result<TokenizedCorpus> {
        CorpusFiles::at(paths)?.tokenize(tokenizer, cache)
    }

    /// Opens a file of cached tokens without checking which text and tokenizer it was made with. The file is read once to
    /// verify its checksums, and mapped. It must not be modified while the corpus or a clone of it exists; replacing or
    /// deleting it is fine.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a file of cached tokens, or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<TokenizedCorpus> {
        Ok(TokenizedCorpus::of_store(cache_file::open(path.as_ref())?.0))
    }

    /// Tokenizes a text from a reader, such as a decompressor, into a file of cached tokens at `path`, and opens it. The text
    /// has a sentence per line and a blank line between documents.
    ///
    /// # Errors
    /// Returns an error if the text cannot be read or is not UTF-8, no sentence has a token, or the file cannot be written.
    pub fn from_reader(
        text: impl Read + Send,
        tokenizer: &Tokenizer,
        path: impl AsRef<Path>,
    ) -> Result<TokenizedCorpus> {
        let path = path.as_ref();
        cache_file::write(path, 0, tokenizer.vocab_size(), |writer| {
            let progress = ReadProgress::new("tokenizing", None, true);
            tokenize(TextPieces::of_reader(text, Path::new("text")), progress, tokenizer, writer)?;
            Ok(())
        })?;
        TokenizedCorpus::open(path)
    }
}

/// Tokenizes text into a file and returns the hash of the text.
fn tokenize(
    pieces: TextPieces<'_>,
    mut progress: ReadProgress,
    tokenizer: &Tokenizer,
    writer: &mut Writer<'_>,
) -> Result<u128, WriteFailure> {
    let work = |part: TextPart| TokenPart::new(part.sentences(), part.document_ends.clone(), tokenizer);
    let mut failure = None;
    let take = |part: TokenPart| {
        writer.push(&part).map_err(|error| {
            let why = Error::data("cached tokens", error.to_string());
            failure = Some(error);
            why
        })
    };
    let read = pieces.for_each(&mut progress, work, take);
    match failure {
        Some(error) => Err(WriteFailure::Write(error)),
        None => Ok(read?),
    }
}

/// Returns the cache key: a hash of everything that the ids depend on.
fn key(content: u128, tokenizer: &Tokenizer) -> Result<u128> {
    let mut hash = XxHash3_128::new();
    hash.write(&PIPELINE_VERSION.to_le_bytes());
    hash.write(&content.to_le_bytes());
    hash.write(tokenizer.to_json()?.as_bytes());
    Ok(hash.finish_128())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cloze_bert::{TokenizerOptions, TrainOptions};

    use super::*;
    use crate::Corpus;
    use crate::corpus::tokenized::tests::lists;

    fn text() -> String {
        let mut text = String::new();
        for number in 0..30_000 {
            text += &format!("Sentence {number} has the words {} and {}.\n", number % 89, number * 7 % 1_013);
            if number % 41 == 40 {
                text += "\n";
            }
        }
        text
    }

    fn tokenizer(options: TokenizerOptions) -> Tokenizer {
        Tokenizer::train(text().lines().take(2_000), 200, &TrainOptions::from(options)).unwrap()
    }

    fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn equals_the_corpus_in_memory_for_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let (lines, prose) = (folder.path().join("lines"), folder.path().join("prose"));
        fs::write(&lines, text()).unwrap();
        fs::create_dir(&prose).unwrap();
        for number in 0..3 {
            fs::write(prose.join(format!("{number}.txt")), text().replace(".\nSentence 5", ".\n\nSentence 5")).unwrap();
        }
        let tokenizer = tokenizer(TokenizerOptions::uncased());
        for path in [lines, prose] {
            let expected = TokenizedCorpus::new(&Corpus::open(&path).unwrap(), &tokenizer).unwrap();
            assert!(expected.document_count() >= 3 && expected.token_count() > 300_000);
            let mut written = Vec::new();
            for threads in [1, 3] {
                let cache = tempfile::tempdir().unwrap();
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let tokenize = || TokenizedCorpus::cached([&path], &tokenizer, cache.path());
                let made = pool.install(tokenize).unwrap();
                assert!(made == expected && lists(&made) == lists(&expected));
                assert!(pool.install(tokenize).unwrap() == expected);
                assert_eq!(made.largest_id(), expected.ids().max().unwrap());
                written.push(files(cache.path()).remove(0).1);
                assert_eq!(files(cache.path()).len(), 1, "one file, used twice");
            }
            assert!(written[0] == written[1], "the file depends on the number of threads");
        }
    }

    #[test]
    fn content_and_settings_are_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (file, moved, cache) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("cache"));
        let uncased = tokenizer(TokenizerOptions::uncased());
        let count = |path: &Path, tokenizer: &Tokenizer| {
            TokenizedCorpus::cached([path], tokenizer, &cache).unwrap();
            files(&cache).len()
        };
        fs::write(&file, text()).unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(count(&file, &uncased), 1);
        fs::rename(&file, &moved).unwrap();
        assert_eq!(count(&moved, &uncased), 1, "another name is another key");
        uncased.save(folder.path().join("tokenizer")).unwrap();
        assert_eq!(count(&moved, &Tokenizer::open(folder.path().join("tokenizer")).unwrap()), 1, "the same tokenizer");

        // The changed file has the same length and time as before.
        fs::write(&file, text().replacen("words", "Words", 1)).unwrap();
        File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
        assert_eq!(count(&file, &uncased), 2);
        assert_eq!(count(&file, &tokenizer(TokenizerOptions::default().lowercase(false))), 3);
        assert_eq!(count(&file, &uncased.add_tokens(["has the words"]).unwrap()), 4);
    }

    #[test]
    fn damaged_files_are_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("text"), folder.path().join("cache"));
        fs::write(&file, text()).unwrap();
        let tokenizer = tokenizer(TokenizerOptions::uncased());
        let cached = || TokenizedCorpus::cached([&file], &tokenizer, &cache).unwrap();
        let expected = lists(&cached());
        let (path, whole) = files(&cache).remove(0);
        let mut torn = whole.clone();
        torn[40_000] ^= 8;
        for damaged in [&torn[..], &whole[..whole.len() / 2], &[], b"something else"] {
            fs::write(&path, damaged).unwrap();
            assert!(
                TokenizedCorpus::open(&path).unwrap_err().to_string().contains("delete it to tokenize the text again")
            );
            assert!(lists(&cached()) == expected && fs::read(&path).unwrap() == whole);
        }
        // An intact file of other content.
        fs::write(&file, "another text").unwrap();
        cached();
        let other = files(&cache).into_iter().find(|(other, _)| *other != path).unwrap();
        fs::write(&path, other.1).unwrap();
        fs::write(&file, text()).unwrap();
        assert!(lists(&cached()) == expected);
    }

    #[test]
    fn text_from_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = tokenizer(TokenizerOptions::uncased());
        let read = TokenizedCorpus::from_reader(text().as_bytes(), &tokenizer, folder.path().join("tokens")).unwrap();
        let lines = text();
        let documents = lines.split("\n\n").map(|document| document.lines().map(str::to_string).collect()).collect();
        let expected = TokenizedCorpus::new(&Corpus::from_documents(documents).unwrap(), &tokenizer).unwrap();
        assert!(read == expected);
        assert!(read.document_count() > 700);
    }

    #[test]
    fn errors_name_the_file_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("text"), folder.path().join("cache"));
        let tokenizer = tokenizer(TokenizerOptions::uncased());
        for (text, expected) in [
            (&b"fine\nol\xe9"[..], "text: not UTF-8: invalid byte at offset 7"),
            (b"\n\n", "text: corpus: has no sentence"),
        ] {
            fs::write(&file, text).unwrap();
            let error = TokenizedCorpus::cached([&file], &tokenizer, &cache).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(files(&cache).is_empty());
        }
        fs::write(&file, "fine").unwrap();
        let error = TokenizedCorpus::cached([&file], &tokenizer, file.join("cache")).unwrap_err().to_string();
        assert!(error.contains("text/cache: cannot write"), "{error}");
    }
}
