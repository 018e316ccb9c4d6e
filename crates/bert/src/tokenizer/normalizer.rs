//! Text normalization that remembers where each character came from.

use serde::{Deserialize, Serialize};
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;
use unicode_normalization_alignments::char::is_combining_mark;

/// A character of a normalized text with the range of the original text it came from, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Aligned {
    pub(super) c: char,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Returns the characters of a text, each aligned with itself.
pub(super) fn aligned(text: &str) -> Vec<Aligned> {
    text.chars().enumerate().map(|(at, c)| Aligned { c, start: at, end: at + 1 }).collect()
}

/// The `normalizer` of a `tokenizer.json`: the types that BERT models use.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(clippy::upper_case_acronyms, reason = "the names of tokenizer.json")]
pub(super) enum Normalizer {
    BertNormalizer(BertNormalizer),
    Sequence { normalizers: Vec<Normalizer> },
    Lowercase,
    StripAccents,
    Strip { strip_left: bool, strip_right: bool },
    NFC,
    NFD,
    NFKC,
    NFKD,
}

impl Normalizer {
    pub(super) fn normalize(&self, text: &mut Vec<Aligned>) {
        match self {
            Normalizer::BertNormalizer(bert) => bert.normalize(text),
            Normalizer::Sequence { normalizers } => normalizers.iter().for_each(|next| next.normalize(text)),
            Normalizer::Lowercase => lowercase(text),
            Normalizer::StripAccents => text.retain(|letter| !is_combining_mark(letter.c)),
            Normalizer::Strip { strip_left, strip_right } => strip(text, *strip_left, *strip_right),
            Normalizer::NFC => recode(text, |text| text.nfc().collect()),
            Normalizer::NFD => recode(text, |text| text.nfd().collect()),
            Normalizer::NFKC => recode(text, |text| text.nfkc().collect()),
            Normalizer::NFKD => recode(text, |text| text.nfkd().collect()),
        }
    }

    /// Returns the normalized text without alignment.
    pub(super) fn apply(&self, text: &str) -> String {
        let mut text = aligned(text);
        self.normalize(&mut text);
        text.iter().map(|letter| letter.c).collect()
    }
}

/// BERT's own normalization: cleans up control characters and blanks, isolates Chinese characters, strips accents and
/// lowers the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BertNormalizer {
    pub(super) clean_text: bool,
    pub(super) handle_chinese_chars: bool,
    /// Follows `lowercase` if not set.
    pub(super) strip_accents: Option<bool>,
    pub(super) lowercase: bool,
}

impl BertNormalizer {
    pub(super) fn normalize(&self, text: &mut Vec<Aligned>) {
        if self.clean_text {
            text.retain(|letter| letter.c != '\u{fffd}' && !is_control(letter.c));
            text.iter_mut().filter(|letter| letter.c.is_whitespace()).for_each(|letter| letter.c = ' ');
        }
        if self.handle_chinese_chars && text.iter().any(|letter| is_chinese(letter.c)) {
            *text = text.iter().flat_map(isolate).collect();
        }
        if self.strip_accents.unwrap_or(self.lowercase) && !is_ascii(text) {
            recode(text, |text| text.nfd().collect());
            text.retain(|letter| !letter.c.is_mark_nonspacing());
        }
        if self.lowercase {
            lowercase(text);
        }
    }
}

fn is_ascii(text: &[Aligned]) -> bool {
    text.iter().all(|letter| letter.c.is_ascii())
}

/// Returns whether a character is in one of Unicode's categories "other": control, format, surrogate, private use.
/// Tab and line ends count as blanks.
fn is_control(c: char) -> bool {
    !matches!(c, '\t' | '\n' | '\r') && c.is_other()
}

/// Returns whether a character combines with the one before it.
pub(super) fn is_mark(c: char) -> bool {
    is_combining_mark(c)
}

/// Returns whether a character is in one of the blocks of Chinese characters. Kana and Hangul are not: their languages
/// put blanks between words, or are left to the vocabulary.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}' | '\u{2b740}'..='\u{2b81f}' | '\u{2b920}'..='\u{2ceaf}' | '\u{2f800}'..='\u{2fa1f}')
}

/// Puts blanks around a Chinese character.
fn isolate(letter: &Aligned) -> impl Iterator<Item = Aligned> {
    let blank = is_chinese(letter.c).then_some(Aligned { c: ' ', ..*letter });
    blank.into_iter().chain([*letter]).chain(blank)
}

fn lowercase(text: &mut Vec<Aligned>) {
    // Only U+0130 has two characters in lower case.
    if text.iter().all(|letter| letter.c.to_lowercase().len() == 1) {
        text.iter_mut().for_each(|letter| letter.c = letter.c.to_lowercase().next().unwrap_or(letter.c));
    } else {
        *text = text.iter().flat_map(|letter| letter.c.to_lowercase().map(|c| Aligned { c, ..*letter })).collect();
    }
}

fn strip(text: &mut Vec<Aligned>, left: bool, right: bool) {
    let blanks = |letter: &&Aligned| letter.c.is_whitespace();
    if right {
        text.truncate(text.len() - text.iter().rev().take_while(blanks).count());
    }
    if left {
        text.drain(..text.iter().take_while(blanks).count());
    }
}

/// Applies one of Unicode's normalization forms.
///
/// The form gives each character with a change: 1 if it is added after the character before it, or else minus the
/// number of characters that are merged into it besides its own. Characters are matched in order, also where combining
/// marks change places, as the tokenizers of Hugging Face do.
fn recode(text: &mut Vec<Aligned>, form: fn(&str) -> Vec<(char, isize)>) {
    let plain: String = text.iter().map(|letter| letter.c).collect();
    let mut next = 0;
    let recoded = form(&plain).into_iter().filter_map(|(c, change)| {
        if change <= 0 {
            next += 1 + change.unsigned_abs();
        }
        let own = if change <= 0 { next - 1 - change.unsigned_abs() } else { next.saturating_sub(1) };
        text.get(own).map(|from| Aligned { c, ..*from })
    });
    *text = recoded.collect();
}
