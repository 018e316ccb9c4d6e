//! What masking and packing ask about ids, answered from a table.

use cloze_bert::Tokenizer;

use crate::{Error, Result};

/// Which ids of a vocabulary are special, and which continue a word. Made once for a tokenizer.
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
    /// The table of a tokenizer.
    ///
    /// # Errors
    /// When the vocabulary has nothing but special tokens.
    pub fn new(tokenizer: &Tokenizer) -> Result<VocabularyTable> {
        let ids = 0..tokenizer.vocab_size() as u32;
        let ordinary: Vec<u32> = ids.clone().filter(|&id| !tokenizer.is_special(id)).collect();
        if ordinary.is_empty() {
            return Err(Error::data("vocabulary", "has nothing but special tokens"));
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

    /// The number of ids.
    pub fn vocab_size(&self) -> usize {
        self.special.len()
    }

    /// The id that begins a sequence.
    pub fn cls_id(&self) -> u32 {
        self.cls
    }

    /// The id that ends a segment.
    pub fn sep_id(&self) -> u32 {
        self.sep
    }

    /// The id that hides a token.
    pub fn mask_id(&self) -> u32 {
        self.mask
    }

    /// Whether the id is special. Ids outside the vocabulary are not.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Whether the id is a piece that continues a word. Ids outside the vocabulary do not.
    pub fn continues_word(&self, id: u32) -> bool {
        self.continues.get(id as usize).copied().unwrap_or(false)
    }

    /// The number of ids that are not special, at least one.
    pub fn ordinary_count(&self) -> usize {
        self.ordinary.len()
    }

    /// The `index`th of the ids that are not special.
    ///
    /// # Panics
    /// When `index` is not below [`ordinary_count`](Self::ordinary_count).
    pub fn ordinary(&self, index: usize) -> u32 {
        self.ordinary[index]
    }

    /// # Errors
    /// When an id is not in the vocabulary.
    pub(crate) fn check(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocab_size()) {
            Some(id) => {
                Err(Error::invalid("token id", id, format!("below the vocabulary's size, {}", self.vocab_size())))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl VocabularyTable {
    /// Ids below 5 are special: padding, unknown, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4. The last third continues words.
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
    fn table_says_what_the_tokenizer_says() {
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
}
