//! The files of a corpus: a file of sentences or a folder of prose.

use std::fs;
use std::path::{Path, PathBuf};

use super::Corpus;
use super::form::TextForm;
use super::pieces::TextPieces;
use super::progress::ReadProgress;
use crate::{Error, Result};

/// The files of a corpus. They are read in pieces on all threads of the rayon pool; the result does not depend on the number
/// of threads.
///
/// - A file has a sentence per line and a blank line between documents.
/// - A folder has a document in each file whose name ends in `.txt`, in the order of their names; subfolders are not
///   searched. The text is prose with blank lines between paragraphs. It is split at the sentence boundaries of UAX #29,
///   except after English and Portuguese abbreviations (`Mr.`, `Sra.`, `D.`) and initials, and before words in lower case
///   (`"Why?" he asked.`).
///
/// A document never continues in the next file.
#[derive(Clone, Debug)]
pub struct CorpusFiles {
    /// The first path asked for, for errors.
    pub(super) path: PathBuf,
    pub(super) files: Vec<(PathBuf, TextForm)>,
    bytes: u64,
    pub(super) progress: bool,
}

impl CorpusFiles {
    /// Finds the files at `paths`, each a file or a folder, in this order.
    ///
    /// # Errors
    /// Returns an error if there is no path, if a path is neither a file nor a folder or cannot be read, or if a folder
    /// has no `.txt` file.
    pub fn at<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<CorpusFiles> {
        let mut found = CorpusFiles { path: PathBuf::new(), files: Vec::new(), bytes: 0, progress: true };
        for path in paths {
            let path = path.as_ref();
            if found.files.is_empty() {
                found.path = path.to_path_buf();
            }
            let metadata = fs::metadata(path).map_err(|source| Error::io(path, "cannot read", source))?;
            if metadata.is_dir() {
                found.add_folder(path)?;
            } else if metadata.is_file() {
                found.bytes += metadata.len();
                found.files.push((path.to_path_buf(), TextForm::Lines));
            } else {
                return Err(Error::data_in(path, "corpus", "is neither a file nor a folder"));
            }
        }
        match found.files.is_empty() {
            true => Err(Error::data("corpus", "no file was given")),
            false => Ok(found),
        }
    }

    /// Shows progress on stderr (the default): a bar on a terminal, a line every 10 seconds elsewhere.
    pub fn progress(self, progress: bool) -> CorpusFiles {
        CorpusFiles { progress, ..self }
    }

    /// Returns the number of bytes of all files.
    pub fn byte_count(&self) -> u64 {
        self.bytes
    }

    /// Reads the corpus into memory.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is not UTF-8, or if there is no sentence.
    pub fn read(&self) -> Result<Corpus> {
        let mut corpus = Corpus::default();
        corpus.text.reserve_exact(usize::try_from(self.bytes).unwrap_or(0));
        let take = |part| {
            corpus.append(&part);
            Ok(())
        };
        TextPieces::of_files(self.files.clone()).for_each(&mut self.bar("reading"), Ok, take)?;
        corpus.end_document();
        corpus.not_empty().ok_or_else(|| self.without_sentence())
    }

    pub(super) fn bar(&self, what: &'static str) -> ReadProgress {
        ReadProgress::new(what, Some(self.bytes), self.progress)
    }

    pub(super) fn without_sentence(&self) -> Error {
        Error::data_in(&self.path, "corpus", "has no sentence")
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let cannot_read = |source| Error::io(folder, "cannot read", source);
        let (mut files, mut has_folders) = (Vec::new(), false);
        for entry in fs::read_dir(folder).map_err(cannot_read)? {
            let path = entry.map_err(cannot_read)?.path();
            let is_text = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
            if path.is_dir() {
                has_folders = true;
            } else if is_text {
                let metadata = fs::metadata(&path).map_err(|source| Error::io(&path, "cannot read", source))?;
                self.bytes += metadata.len();
                files.push((path, TextForm::Prose));
            }
        }
        if files.is_empty() {
            let why = match has_folders {
                true => "the folder has no .txt file itself, and folders in it are not searched: give one of them",
                false => "the folder has no .txt file",
            };
            return Err(Error::data_in(folder, "corpus", why));
        }
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.files.extend(files);
        Ok(())
    }
}

impl Corpus {
    /// Reads the corpus of a file or folder into memory; see [`CorpusFiles`].
    ///
    /// # Errors
    /// Returns an error if `path` cannot be read, a file is not UTF-8, a folder has no `.txt` file, or there is no
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
        check(Corpus::open(path).unwrap_err(), path, "no .txt file");
        assert_eq!(CorpusFiles::at([""; 0]).unwrap_err().to_string(), "corpus: no file was given");
        fs::create_dir(path.join("year.txt")).unwrap();
        check(Corpus::open(path).unwrap_err(), path, "folders in it are not searched");
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
