//! Corpora from files: a file of sentences, or a folder of prose.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Corpus;
use crate::files::read_text;
use crate::{Error, Result};

impl Corpus {
    /// Reads a corpus.
    ///
    /// - A file has a sentence a line and a blank line between documents.
    /// - A folder has a document in each file whose name ends in `.txt` (folders within it are not searched),
    ///   in the order of their names: prose, with blank lines between paragraphs. It is split at the sentence
    ///   boundaries of UAX #29, less those after abbreviations of English and Portuguese (`Mr.`, `Sra.`,
    ///   `D.`), initials, and before words in lower case (`"Why?" he asked.`).
    ///
    /// # Errors
    /// When `path` cannot be read, a file is not UTF-8, a folder has no `.txt` file, or there is no sentence.
    pub fn open(path: impl AsRef<Path>) -> Result<Corpus> {
        let path = path.as_ref();
        let metadata = fs::metadata(path).map_err(|source| Error::io(path, "cannot read", source))?;
        let corpus = if metadata.is_dir() { folder(path)? } else { sentence_a_line(&read_text(path)?) };
        corpus.not_empty().ok_or_else(|| Error::data_in(path, "corpus", "has no sentence"))
    }
}

fn sentence_a_line(text: &str) -> Corpus {
    let mut corpus = Corpus::default();
    corpus.text.reserve_exact(text.len());
    for line in text.lines() {
        match line.trim().is_empty() {
            true => corpus.end_document(),
            false => corpus.push_sentence(line),
        }
    }
    corpus.end_document();
    corpus
}

fn folder(path: &Path) -> Result<Corpus> {
    let files = prose_files(path)?;
    if files.is_empty() {
        return Err(Error::data_in(path, "corpus", "the folder has no .txt file"));
    }
    let documents: Vec<Result<Corpus>> = files.par_iter().map(|file| prose(file)).collect();
    // Joined, and a failure reported, in the order of the names: which thread was first does not matter.
    let mut corpus = Corpus::default();
    for document in documents {
        corpus.append(&document?);
    }
    Ok(corpus)
}

fn prose(file: &Path) -> Result<Corpus> {
    let text = read_text(file)?;
    let mut document = Corpus::default();
    document.text.reserve_exact(text.len());
    document.push_prose(&text);
    Ok(document)
}

fn prose_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot_read = |source| Error::io(folder, "cannot read", source);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_read)? {
        let path = entry.map_err(cannot_read)?.path();
        let is_text = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt"));
        if is_text && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
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
    fn file_has_a_sentence_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("corpus.txt");
        fs::write(&file, "\u{feff}the cat sat. it slept.\r\nMr. X left.\r\n \r\n\r\n\nsecond document\n").unwrap();
        let corpus = Corpus::open(&file).unwrap();
        assert_eq!(lists(&corpus), [vec!["the cat sat. it slept.", "Mr. X left."], vec!["second document"]]);
    }

    #[test]
    fn folder_has_a_document_a_file_in_order_of_names() {
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
        let says = |error: Error, file: &Path, what: &str| {
            let line = error.to_string();
            assert!(line.contains(&file.display().to_string()) && line.contains(what), "{line}");
        };
        says(Corpus::open(path).unwrap_err(), path, "no .txt file");
        says(Corpus::open(path.join("none")).unwrap_err(), &path.join("none"), "cannot read");

        fs::write(path.join("a.txt"), " \n\n").unwrap();
        says(Corpus::open(path).unwrap_err(), path, "has no sentence");
        says(Corpus::open(path.join("a.txt")).unwrap_err(), &path.join("a.txt"), "has no sentence");

        fs::write(path.join("b.txt"), b"ol\xc3\xa1 \xe9 mundo").unwrap();
        fs::write(path.join("c.txt"), b"\xff").unwrap();
        for opened in [path.to_path_buf(), path.join("b.txt")] {
            let error = Corpus::open(opened).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Encoding { offset: 5, .. }), "{error}");
            says(error, &path.join("b.txt"), "offset 5");
        }
    }
}
