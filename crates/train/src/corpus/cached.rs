//! Corpora of any size, tokenized once into shards that are found again by their content.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cloze_bert::Tokenizer;
use cloze_tensor::{exists, retry};
use twox_hash::XxHash3_128;

use super::content::ContentHash;
use super::files::CorpusFiles;
use super::shards::{CacheKey, ShardOptions, Shards, VERSION, note_use, remove_all_abandoned, write_folder};
use super::tokenized::TokenizedCorpus;
use crate::{Error, Result};

impl CorpusFiles {
    /// Returns the token ids of these files from the folder `cache`, or tokenizes the files and writes [`Shards`] there. The
    /// folder is created if it is missing. Neither the text nor the ids are ever in memory as a whole. No document is left
    /// out: [`prepare`](Self::prepare) leaves out duplicates, and reports what is in the corpus.
    ///
    /// The cache key is a hash of the tokenizer and of every byte of the files, because names and times do not identify
    /// content that was moved, restored, or changed twice within a second. The files are therefore read every time, at the
    /// speed of the disk; [`TokenizedCorpus::open`] does without that. The shards are checked as well, and written again
    /// if they are damaged.
    ///
    /// Shards are between half as large and as large as their text. When the text at these paths has changed, the folder of
    /// the text before is removed, and so is what killed processes left; [`trim_cache`](crate::trim_cache) limits the rest.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is not UTF-8 or changes meanwhile, if no sentence has a token, or if the
    /// cache cannot be written.
    pub fn tokenize(&self, tokenizer: &Tokenizer, cache: impl AsRef<Path>) -> Result<TokenizedCorpus> {
        let stamps = self.stamps()?;
        let key = self.key(tokenizer)?;
        let folder = cache.as_ref().join(&key);
        remove_all_abandoned(cache.as_ref());
        // A folder that cannot be used is replaced; only a failure to replace it is reported.
        if let Some(corpus) = open(&folder, &key) {
            note_use(&folder);
            return Ok(corpus);
        }
        let options = ShardOptions::new().deduplicate(false);
        let replace = exists(&folder).map_err(|source| Error::io(&folder, "cannot read", source))?;
        let written = write_folder(&folder, replace, |unfinished| {
            let key = CacheKey { key: key.clone(), source: self.source() };
            self.write_shards(tokenizer, (unfinished, &folder), &options, Some(key))?;
            self.check_stamps(&stamps)
        });
        match (written, open(&folder, &key)) {
            // Another process has written the same meanwhile, if this one could not.
            (_, Some(corpus)) => {
                note_use(&folder);
                Ok(corpus)
            }
            (Err(error), None) => Err(error),
            (Ok(()), None) => TokenizedCorpus::open(&folder),
        }
    }

    /// Returns the cache key: a hash of everything that the ids depend on, in hexadecimal.
    fn key(&self, tokenizer: &Tokenizer) -> Result<String> {
        let mut hash = XxHash3_128::new();
        hash.write(&VERSION.to_le_bytes());
        hash.write(&self.content()?.to_le_bytes());
        hash.write(self.field.as_bytes());
        hash.write(tokenizer.to_json()?.as_bytes());
        Ok(format!("{:032x}", hash.finish_128()))
    }

    /// Returns the given paths, and the field that is read.
    fn source(&self) -> Vec<String> {
        let absolute =
            |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into()).to_string_lossy().into_owned();
        self.given.iter().map(|path| absolute(path)).chain([self.field.clone()]).collect()
    }

    /// Hashes all files.
    fn content(&self) -> Result<u128> {
        let (mut hash, mut progress, mut read_bytes) = (ContentHash::default(), self.bar("checking"), 0);
        let mut bytes = vec![0; 1 << 20];
        for file in &self.files {
            let cannot_read = |source| Error::io(&file.path, "cannot read", source);
            let mut opened = File::open(&file.path).map_err(cannot_read)?;
            loop {
                match retry(|| opened.read(&mut bytes)).map_err(cannot_read)? {
                    0 => break,
                    read => {
                        hash.write(&bytes[..read]);
                        read_bytes += read as u64;
                        progress.advance_to(read_bytes);
                    }
                }
            }
            hash.end_text(file.form);
        }
        Ok(hash.finish())
    }
}

/// Opens shards that were written with this key, if they are whole.
fn open(folder: &Path, key: &str) -> Option<TokenizedCorpus> {
    let shards = Shards::open(folder).ok().filter(|shards| shards.key() == Some(key))?;
    shards.corpus().ok()
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

    /// Opens a folder of shards, without checking which text they were made of; see [`Shards`].
    ///
    /// # Errors
    /// Returns an error if the folder has no index of shards, or a shard is missing, cut or changed.
    pub fn open(folder: impl AsRef<Path>) -> Result<TokenizedCorpus> {
        Shards::open(folder)?.corpus()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
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

    fn folders(folder: &Path) -> Vec<PathBuf> {
        let mut folders: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        folders
    }

    fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        folders(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
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
                assert_eq!(made.fingerprint(), expected.fingerprint());
                assert_eq!(folders(cache.path()).len(), 1, "one folder, used twice");
                written.push(files(&folders(cache.path())[0]).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
            }
            assert!(written[0] == written[1], "the files depend on the number of threads");
        }
    }

    #[test]
    fn content_and_settings_are_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let (file, moved, cache) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("cache"));
        let uncased = tokenizer(TokenizerOptions::uncased());
        let count = |path: &Path, tokenizer: &Tokenizer| {
            TokenizedCorpus::cached([path], tokenizer, &cache).unwrap();
            folders(&cache).len()
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
        assert_eq!(count(&file, &uncased), 1, "the text before is not removed");
        assert_eq!(count(&file, &tokenizer(TokenizerOptions::default().lowercase(false))), 2);
        assert_eq!(count(&file, &uncased.add_tokens(["has the words"]).unwrap()), 3);
    }

    #[test]
    fn a_cache_is_trimmed_to_what_was_used_last() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let (tokenizer, old) = (tokenizer(TokenizerOptions::uncased()), std::time::SystemTime::UNIX_EPOCH);
        let own = |name: &str| {
            fs::write(folder.path().join(name), format!("{} {name}", text())).unwrap();
            let before = if cache.exists() { folders(&cache) } else { Vec::new() };
            TokenizedCorpus::cached([folder.path().join(name)], &tokenizer, &cache).unwrap();
            let made = folders(&cache).into_iter().find(|path| !before.contains(path)).unwrap();
            File::options().append(true).open(made.join("index.json")).unwrap().set_modified(old).unwrap();
            made
        };
        let [a, b, c] = ["a", "b", "c"].map(own);
        // What is used again, what a killed process left, and what is not of the cache.
        TokenizedCorpus::cached([folder.path().join("b")], &tokenizer, &cache).unwrap();
        let left = cache.join(format!(".unfinished-{}.1.0", "0".repeat(32)));
        for other in [&left, &cache.join("notes"), &cache.join("f".repeat(32))] {
            fs::create_dir(other).unwrap();
            File::open(other).unwrap().set_modified(old).unwrap();
        }
        let bytes = files(&b).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let trim = crate::trim_cache(&cache, 2 * bytes + bytes / 2).unwrap();
        assert_eq!((trim.removed, trim.kept), (1, 2), "{trim:?}");
        assert!(b.exists() && a.exists() != c.exists() && !left.exists());
        let trim = crate::trim_cache(&cache, 0).unwrap();
        assert_eq!((trim.removed, trim.kept, trim.kept_bytes), (1, 1, bytes));
        assert!(b.exists() && cache.join("notes").exists() && cache.join("f".repeat(32)).exists());
        let said = crate::trim_cache(folder.path().join("none"), 0).unwrap_err().to_string();
        assert!(said.contains("none: cannot read"), "{said}");
    }

    #[test]
    fn damaged_files_are_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (file, cache) = (folder.path().join("text"), folder.path().join("cache"));
        fs::write(&file, text()).unwrap();
        let tokenizer = tokenizer(TokenizerOptions::uncased());
        let cached = || TokenizedCorpus::cached([&file], &tokenizer, &cache).unwrap();
        let expected = lists(&cached());
        let own = folders(&cache).remove(0);
        let whole = files(&own);
        // The files of the tokenizer are not read.
        let is_read = |path: &PathBuf| path.ends_with("shard-00000.safetensors") || path.ends_with("index.json");
        for (path, bytes) in whole.iter().filter(|(path, _)| is_read(path)) {
            let mut torn = bytes.clone();
            torn[bytes.len() / 2] ^= 8;
            for damaged in [&torn[..], &bytes[..bytes.len() / 2], &[], b"something else"] {
                fs::write(path, damaged).unwrap();
                assert!(TokenizedCorpus::open(&own).is_err());
                assert!(lists(&cached()) == expected && files(&own) == whole);
            }
        }
        // Intact shards of other content.
        fs::write(&file, "another text").unwrap();
        cached();
        let other = folders(&cache).into_iter().find(|other| *other != own).unwrap();
        assert!(!own.exists(), "the text before is not removed");
        fs::rename(other, &own).unwrap();
        fs::write(&file, text()).unwrap();
        assert!(lists(&cached()) == expected);
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
            assert!(folders(&cache).is_empty());
        }
        fs::write(&file, "fine").unwrap();
        let error = TokenizedCorpus::cached([&file], &tokenizer, file.join("cache")).unwrap_err().to_string();
        assert!(error.contains("text/cache/") && error.contains(": cannot write"), "{error}");
    }
}
