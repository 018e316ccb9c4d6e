//! What texts say, as a number.

use twox_hash::XxHash3_128;

use super::pieces::Form;

/// A hash of the bytes of texts, of their order and of how they are divided: not of their names or times.
#[derive(Default)]
pub(super) struct ContentHash {
    texts: XxHash3_128,
    text: XxHash3_128,
    length: u64,
}

impl ContentHash {
    /// The next bytes of a text.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.text.write(bytes);
        self.length += bytes.len() as u64;
    }

    /// The text is over.
    pub(super) fn end_text(&mut self, form: Form) {
        let text = std::mem::take(&mut self.text).finish_128();
        self.texts.write(&[form as u8]);
        self.texts.write(&std::mem::take(&mut self.length).to_le_bytes());
        self.texts.write(&text.to_le_bytes());
    }

    /// Of all texts that are over.
    pub(super) fn finish(&self) -> u128 {
        self.texts.finish_128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(texts: &[(&str, Form)]) -> u128 {
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
            hash(&[("ab", Form::Lines), ("c", Form::Lines)]),
            hash(&[("a", Form::Lines), ("bc", Form::Lines)]),
            hash(&[("abc", Form::Lines)]),
            hash(&[("abc", Form::Prose)]),
            hash(&[("abd", Form::Lines)]),
            hash(&[("c", Form::Lines), ("ab", Form::Lines)]),
            hash(&[("abc", Form::Lines), ("", Form::Lines)]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(all[2], hash(&[("abc", Form::Lines)]));
    }
}
