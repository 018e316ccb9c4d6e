//! The files of a corpus: files that are given, and those that are found in folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use cloze_bert::{Tokenizer, TrainOptions};
use cloze_tensor::{entries, retry};

use super::Corpus;
use super::form::{TextFile, TextForm};
use super::part::TextPart;
use super::pieces::TextPieces;
use super::progress::ReadProgress;
use super::shards::is_in;
use crate::{Error, Result};

/// The files of a corpus. They are read in pieces on all threads of the rayon pool; the result does not depend on the number
/// of threads. A document never continues in the next file.
///
/// The name of a file tells its form:
///
/// | name | documents |
/// |---|---|
/// | `.jsonl`, `.ndjson` | one in each line: a JSON object with prose in the field `text`, or [another](Self::text_field) |
/// | `.parquet`, with the cargo feature `parquet` | one in each row: prose in the column `text`, or another |
/// | `.txt` in a folder | the whole file, as prose |
/// | any other name that is given | a sentence per line, a blank line between documents |
///
/// Each but Parquet may be compressed, and end in `.gz` or `.zst`. In a folder, files with other names are not read. Folders
/// in it are searched too, and files are read in the order of their paths; hidden files and folders, whose names begin with a
/// dot, and links to folders are left out.
///
/// Prose has blank lines between paragraphs. It is split at the sentence boundaries of UAX #29, except after English and
/// Portuguese abbreviations (`Mr.`, `Sra.`, `D.`) and initials, and before words in lower case (`"Why?" he asked.`).
#[derive(Clone, Debug)]
pub struct CorpusFiles {
    /// The paths asked for.
    pub(super) given: Vec<PathBuf>,
    pub(super) files: Vec<TextFile>,
    /// The field of JSON objects or column of Parquet files with the text.
    pub(super) field: String,
    progress: bool,
}

impl CorpusFiles {
    /// Finds the files at `paths`, each a file or a folder, in this order.
    ///
    /// # Errors
    /// Returns an error if there is no path, if a path is neither a file nor a folder or cannot be read, if it is a folder
    /// of [`Shards`](crate::Shards), or if a folder has no text.
    pub fn at<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<CorpusFiles> {
        let (given, files, field) = (Vec::new(), Vec::new(), "text".to_string());
        let mut found = CorpusFiles { given, files, field, progress: true };
        for path in paths {
            let path = path.as_ref();
            found.given.push(path.to_path_buf());
            let metadata = retry(|| fs::metadata(path)).map_err(|source| Error::io(path, "cannot read", source))?;
            if metadata.is_dir() {
                let before = found.files.len();
                found.add_folder(path)?;
                if found.files.len() == before {
                    let why = "the folder has no text: no file whose name ends in .txt, .jsonl, .ndjson or .parquet, or in \
                               one of the first three and .gz or .zst";
                    return Err(Error::data_in(path, "corpus", why));
                }
                found.files[before..].sort_by(|a, b| a.path.cmp(&b.path));
            } else if metadata.is_file() {
                found.files.push(TextFile::given(path, metadata.len()));
            } else {
                return Err(Error::data_in(path, "corpus", "is neither a file nor a folder"));
            }
        }
        #[cfg(not(feature = "parquet"))]
        if let Some(file) = found.files.iter().find(|file| file.form == TextForm::Parquet) {
            return Err(Error::data_in(&file.path, "corpus", crate::rows::NO_PARQUET));
        }
        match found.files.is_empty() {
            true => Err(Error::data("corpus", "no file was given")),
            false => Ok(found),
        }
    }

    /// Sets the field of JSON objects and the column of Parquet files with the text, `text` by default.
    pub fn text_field(self, field: &str) -> CorpusFiles {
        CorpusFiles { field: field.to_string(), ..self }
    }

    /// Shows progress on stderr (the default): a bar on a terminal, a line every 10 seconds elsewhere.
    pub fn progress(self, progress: bool) -> CorpusFiles {
        CorpusFiles { progress, ..self }
    }

    /// Returns the number of files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Returns the number of bytes of all files, as they are stored.
    pub fn byte_count(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads the corpus into memory.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is damaged or is not UTF-8, or if there is no sentence.
    pub fn read(&self) -> Result<Corpus> {
        let mut corpus = Corpus::default();
        let is_text = |file: &TextFile| matches!(file.form, TextForm::Lines | TextForm::Prose);
        if self.files.iter().all(is_text) {
            corpus.text.reserve_exact(usize::try_from(self.byte_count()).unwrap_or(0));
        }
        let take = |part: TextPart| {
            corpus.append(&part);
            Ok(())
        };
        self.pieces().for_each(&mut self.bar("reading"), Ok, take)?;
        corpus.end_document();
        corpus.not_empty().ok_or_else(|| self.without_sentence())
    }

    /// Trains the vocabulary of a tokenizer on these files. Only the words and their numbers are in memory; see
    /// [`Tokenizer::train`].
    ///
    /// # Errors
    /// Returns the errors of [`read`](Self::read) and [`Tokenizer::train`].
    pub fn train_tokenizer(&self, vocab_size: usize, options: &TrainOptions) -> Result<Tokenizer> {
        let (to, parts) = sync_channel(64);
        std::thread::scope(|scope| {
            let read = scope.spawn(move || {
                let take = |part: TextPart| to.send(part).map_err(|_| Error::data("corpus", "the vocabulary failed"));
                self.pieces().for_each(&mut self.bar("counting words"), Ok, take)
            });
            let sentences = parts.into_iter().flat_map(|part| part.sentences().map(str::to_string).collect::<Vec<_>>());
            let trained = Tokenizer::train(sentences, vocab_size, options);
            match read.join() {
                Ok(read) => read?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            Ok(trained?)
        })
    }

    pub(super) fn pieces(&self) -> TextPieces {
        TextPieces::new(self.files.clone(), &self.field)
    }

    pub(super) fn bar(&self, what: &'static str) -> ReadProgress {
        ReadProgress::new(what, Some(self.byte_count()), self.progress)
    }

    pub(super) fn without_sentence(&self) -> Error {
        let path = self.given.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
        Error::data_in(path, "corpus", "has no sentence")
    }

    /// Adds the texts in a folder and its folders.
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let cannot_read = |source| Error::io(folder, "cannot read", source);
        if is_in(folder).map_err(cannot_read)? {
            let why = "this is a folder of shards, whose text is tokenized already: open it with Shards::open";
            return Err(Error::data_in(folder, "corpus", why));
        }
        for entry in entries(folder).map_err(cannot_read)? {
            let (path, kind) = (entry.path(), retry(|| entry.file_type()).map_err(cannot_read)?);
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if kind.is_dir() {
                self.add_folder(&path)?;
            } else if let Some(file) = TextFile::found(&path, 0) {
                let metadata =
                    retry(|| fs::metadata(&path)).map_err(|source| Error::io(&path, "cannot read", source))?;
                if !metadata.is_dir() {
                    self.files.push(TextFile { bytes: metadata.len(), ..file });
                }
            }
        }
        Ok(())
    }
}

impl Corpus {
    /// Reads the corpus of a file or folder into memory; see [`CorpusFiles`].
    ///
    /// # Errors
    /// Returns an error if `path` cannot be read, a file is damaged or not UTF-8, a folder has no text, or there is no
    /// sentence.
    pub fn open(path: impl AsRef<Path>) -> Result<Corpus> {
        CorpusFiles::at([path])?.progress(false).read()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ErrorKind;

    fn lists(corpus: &Corpus) -> Vec<Vec<&str>> {
        corpus.documents().map(|document| document.sentences().collect()).collect()
    }

    #[test]
    fn a_file_has_a_sentence_per_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("corpus.txt");
        fs::write(&file, "\u{feff}the cat sat. it slept.\r\nMr. X left.\r\n \r\n\r\n\nsecond document\n").unwrap();
        let corpus = Corpus::open(&file).unwrap();
        assert_eq!(lists(&corpus), [vec!["the cat sat. it slept.", "Mr. X left."], vec!["second document"]]);
    }

    #[test]
    fn a_folder_has_a_document_per_file_in_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        for number in (0..20).rev() {
            let text = format!("\u{feff}First of {number}. Second\nof {number}.\n\nA heading\n\nThe end!");
            fs::write(folder.path().join(format!("{number:02}.txt")), text).unwrap();
        }
        fs::write(folder.path().join("notes.md"), "Not read.").unwrap();
        fs::write(folder.path().join("99.TXT"), "\n").unwrap();
        let corpus = Corpus::open(folder.path()).unwrap();
        assert_eq!(corpus.document_count(), 20);
        for (number, document) in lists(&corpus).into_iter().enumerate() {
            let expected = [&format!("First of {number}."), &format!("Second of {number}."), "A heading", "The end!"];
            assert_eq!(document, expected);
        }
    }

    #[test]
    fn files_and_folders_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, prose) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("prose"));
        fs::write(&a, "one\ntwo").unwrap();
        fs::write(&b, "three\n\nfour").unwrap();
        fs::create_dir(&prose).unwrap();
        fs::write(prose.join("c.txt"), "Five. Six.").unwrap();
        let files = CorpusFiles::at([&b, &prose, &a]).unwrap().progress(false);
        assert_eq!(files.byte_count(), 7 + 11 + 10);
        assert_eq!(
            lists(&files.read().unwrap()),
            [vec!["three"], vec!["four"], vec!["Five.", "Six."], vec!["one", "two"]]
        );
    }

    #[cfg(unix)]
    #[test]
    fn folders_are_searched_in_the_order_of_paths() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b/z.txt", "b/c/a.txt", "b/.git/a.txt", "a.txt", "b.txt", "c/notes.md"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("This is {name}.")).unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("b/loop")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("c/notes.md"), folder.path().join("b/link.txt")).unwrap();
        let corpus = Corpus::open(folder.path()).unwrap();
        let expected = ["a.txt", "b/c/a.txt", "c/notes.md", "b/z.txt", "b.txt"].map(|name| format!("This is {name}."));
        assert_eq!(corpus.sentences().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_vocabulary_is_that_of_the_corpus_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus");
        fs::write(&path, "the cat sat on the mat.\n\nthe dog ran, and the cat ran.\n".repeat(3)).unwrap();
        let (files, options) = (CorpusFiles::at([&path]).unwrap().progress(false), TrainOptions::new());
        let expected = Tokenizer::train(files.read().unwrap().sentences(), 60, &options).unwrap();
        let trained = files.train_tokenizer(60, &options).unwrap();
        assert_eq!(trained.to_json().unwrap(), expected.to_json().unwrap());
        assert!(files.train_tokenizer(4, &options).unwrap_err().to_string().contains("vocab_size is 4"));
        fs::write(&path, b"a\n\xff").unwrap();
        assert!(files.train_tokenizer(60, &options).unwrap_err().to_string().contains("not UTF-8"));
    }

    #[test]
    fn folder_equals_prose_in_memory_for_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        let documents: Vec<String> = (0..9).map(|n| format!("Document {n}. It has {n} words.\n\nMore? Yes.")).collect();
        for (number, document) in documents.iter().enumerate() {
            fs::write(folder.path().join(format!("{number}.txt")), document).unwrap();
        }
        let expected = Corpus::from_prose(&documents).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| Corpus::open(folder.path())).unwrap() == expected);
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let check = |error: Error, file: &Path, what: &str| {
            let line = error.to_string();
            assert!(line.contains(&file.display().to_string()) && line.contains(what), "{line}");
        };
        check(Corpus::open(path).unwrap_err(), path, "the folder has no text");
        assert_eq!(CorpusFiles::at([""; 0]).unwrap_err().to_string(), "corpus: no file was given");
        fs::create_dir(path.join("year.txt")).unwrap();
        fs::write(path.join(".hidden.txt"), "a").unwrap();
        check(Corpus::open(path).unwrap_err(), path, "the folder has no text");
        check(Corpus::open(path.join("none")).unwrap_err(), &path.join("none"), "cannot read");

        fs::write(path.join("a.txt"), " \n\n").unwrap();
        check(Corpus::open(path).unwrap_err(), path, "has no sentence");
        check(Corpus::open(path.join("a.txt")).unwrap_err(), &path.join("a.txt"), "has no sentence");

        fs::write(path.join("b.txt"), b"ol\xc3\xa1 \xe9 mundo").unwrap();
        fs::write(path.join("c.txt"), b"\xff").unwrap();
        for opened in [path.to_path_buf(), path.join("b.txt")] {
            let error = Corpus::open(opened).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Encoding { offset: 5, .. }), "{error}");
            check(error, &path.join("b.txt"), "offset 5");
        }
    }
}
