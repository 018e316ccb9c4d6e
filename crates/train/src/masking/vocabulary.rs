//! A table of the properties of token ids that masking and packing need.

use cloze_bert::Tokenizer;

use crate::{Error, Result};

/// The special ids of a vocabulary, and those that continue a word. It is built once per tokenizer.
#[derive(Clone, Debug)]
pub struct VocabularyTable {
    special: Vec<bool>,
    continues: Vec<bool>,
    /// The ids that are not special.
    ordinary: Vec<u32>,
    cls: u32,
    sep: u32,
    mask: u32,
}

impl VocabularyTable {
    /// Builds the table of a tokenizer.
    ///
    /// # Errors
    /// Returns an error if the vocabulary only has special tokens, or no `[MASK]`.
    pub fn new(tokenizer: &Tokenizer) -> Result<VocabularyTable> {
        if !tokenizer.has_mask() {
            let mask = tokenizer.token(tokenizer.mask_id()).unwrap_or_default();
            let reason = format!("has no {mask}: add it with Tokenizer::add_tokens, and resize the embeddings");
            return Err(Error::data("vocabulary", reason));
        }
        let ids = 0..tokenizer.vocab_size() as u32;
        // An id may have no token, or one that is blank: no text has it.
        let occurs = |id: u32| tokenizer.token(id).is_some_and(|token| !token.trim().is_empty());
        let ordinary: Vec<u32> = ids.clone().filter(|&id| !tokenizer.is_special(id) && occurs(id)).collect();
        if ordinary.is_empty() {
            return Err(Error::data("vocabulary", "only has special tokens"));
        }
        Ok(VocabularyTable {
            special: ids.clone().map(|id| tokenizer.is_special(id)).collect(),
            continues: ids.map(|id| tokenizer.continues_word(id)).collect(),
            ordinary,
            cls: tokenizer.cls_id(),
            sep: tokenizer.sep_id(),
            mask: tokenizer.mask_id(),
        })
    }

    /// Returns the number of ids.
    pub fn vocab_size(&self) -> usize {
        self.special.len()
    }

    /// Returns the id of `[CLS]`, which begins a sequence.
    pub fn cls_id(&self) -> u32 {
        self.cls
    }

    /// Returns the id of `[SEP]`, which ends a segment.
    pub fn sep_id(&self) -> u32 {
        self.sep
    }

    /// Returns the id of `[MASK]`.
    pub fn mask_id(&self) -> u32 {
        self.mask
    }

    /// Returns whether the id is special. Ids outside the vocabulary are not.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Returns whether the id is a piece that continues a word. Ids outside the vocabulary are not.
    pub fn continues_word(&self, id: u32) -> bool {
        self.continues.get(id as usize).copied().unwrap_or(false)
    }

    /// Returns the number of ids that are not special, at least one.
    pub fn ordinary_count(&self) -> usize {
        self.ordinary.len()
    }

    /// Returns the `index`th id that is not special.
    ///
    /// # Panics
    /// Panics if `index` is not below [`ordinary_count`](Self::ordinary_count).
    pub fn ordinary(&self, index: usize) -> u32 {
        self.ordinary[index]
    }

    /// Checks that all ids are in the vocabulary.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocab_size()) {
            Some(id) => {
                Err(Error::invalid("token id", id, format!("below the vocabulary size, {}", self.vocab_size())))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl VocabularyTable {
    /// Makes a table in which ids below 5 are special (`[CLS]` 2, `[SEP]` 3, `[MASK]` 4) and the last third continues words.
    pub(crate) fn small(vocab_size: usize) -> VocabularyTable {
        VocabularyTable {
            special: (0..vocab_size).map(|id| id < 5).collect(),
            continues: (0..vocab_size).map(|id| id >= 5 && id >= vocab_size - vocab_size / 3).collect(),
            ordinary: (5..vocab_size as u32).collect(),
            cls: 2,
            sep: 3,
            mask: 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_agrees_with_the_tokenizer() {
        let text = ["unhappy unhappily happy", "masked and unmasked models"];
        let tokenizer = Tokenizer::train(text, 60, &cloze_bert::TrainOptions::new()).unwrap();
        let table = VocabularyTable::new(&tokenizer).unwrap();
        let size = tokenizer.vocab_size() as u32;
        assert_eq!(table.vocab_size(), size as usize);
        let ids = (tokenizer.cls_id(), tokenizer.sep_id(), tokenizer.mask_id());
        assert_eq!((table.cls_id(), table.sep_id(), table.mask_id()), ids);
        assert!((0..size).any(|id| table.continues_word(id)));
        for id in 0..size {
            assert_eq!(table.is_special(id), tokenizer.is_special(id));
            assert_eq!(table.continues_word(id), tokenizer.continues_word(id));
        }
        let ordinary: Vec<u32> = (0..table.ordinary_count()).map(|index| table.ordinary(index)).collect();
        assert_eq!(ordinary, (0..size).filter(|&id| !tokenizer.is_special(id)).collect::<Vec<_>>());
        assert_eq!(ordinary.len(), size as usize - 5);
        assert!(table.check(&[0, size - 1]).is_ok() && table.check(&[size]).is_err());
    }

    #[test]
    fn masking_needs_a_mask_and_draws_no_blank_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        std::fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n\nb\n").unwrap();
        let tokenizer = Tokenizer::from_vocab_file(path, &cloze_bert::TokenizerOptions::uncased()).unwrap();
        let error = VocabularyTable::new(&tokenizer).unwrap_err().to_string();
        assert!(error.contains("has no [MASK]: add it with Tokenizer::add_tokens"), "{error}");
        let table = VocabularyTable::new(&tokenizer.add_tokens(["[MASK]"]).unwrap()).unwrap();
        assert_eq!((table.ordinary.as_slice(), table.mask_id()), ([4, 6].as_slice(), 7));
    }
}
