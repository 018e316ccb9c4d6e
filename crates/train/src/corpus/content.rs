//! A hash of the content of texts.

use twox_hash::XxHash3_128;

use super::form::TextForm;

/// A hash of the bytes, the order and the form of texts. It does not depend on file names or times.
#[derive(Default)]
pub(super) struct ContentHash {
    texts: XxHash3_128,
    text: XxHash3_128,
    length: u64,
}

impl ContentHash {
    /// Adds the next bytes of a text.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.text.write(bytes);
        self.length += bytes.len() as u64;
    }

    /// Ends a text.
    pub(super) fn end_text(&mut self, form: TextForm) {
        let text = std::mem::take(&mut self.text).finish_128();
        self.texts.write(&[form as u8]);
        self.texts.write(&std::mem::take(&mut self.length).to_le_bytes());
        self.texts.write(&text.to_le_bytes());
    }

    /// Returns the hash of all texts that have ended.
    pub(super) fn finish(&self) -> u128 {
        self.texts.finish_128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(texts: &[(&str, TextForm)]) -> u128 {
        let mut hash = ContentHash::default();
        for (text, form) in texts {
            text.as_bytes().chunks(2).for_each(|bytes| hash.write(bytes));
            hash.end_text(*form);
        }
        hash.finish()
    }

    #[test]
    fn every_byte_boundary_and_form_counts() {
        let all = [
            hash(&[("ab", TextForm::Lines), ("c", TextForm::Lines)]),
            hash(&[("a", TextForm::Lines), ("bc", TextForm::Lines)]),
            hash(&[("abc", TextForm::Lines)]),
            hash(&[("abc", TextForm::Prose)]),
            hash(&[("abd", TextForm::Lines)]),
            hash(&[("c", TextForm::Lines), ("ab", TextForm::Lines)]),
            hash(&[("abc", TextForm::Lines), ("", TextForm::Lines)]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(all[2], hash(&[("abc", TextForm::Lines)]));
    }
}
