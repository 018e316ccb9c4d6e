//! Splits prose into sentences.
//!
//! The Unicode sentence boundaries break after every abbreviation such as `Mr.`, and between a question in quotes and its
//! `he asked`. This module filters them, and adds one kind that they lack: before a dash that opens a new utterance, as in
//! Portuguese prose.
//!
//! Source: Unicode Standard Annex #29, "Unicode text segmentation", section 5.

use unicode_segmentation::UnicodeSegmentation;

/// Lower-case words after which a full stop never ends a sentence, because a name always follows.
const TITLES: &[&str] = &[
    // English, and the French of English novels.
    "mr", "mrs", "ms", "messrs", "dr", "prof", "st", "rev", "hon", "capt", "col", "gen", "lieut", "lt", "maj", "sergt",
    "sgt", "mdlle", "mlle", "mme", "mdme", "mdm", "viz", "e.g", "i.e", "cf", //
    // Portuguese, with the spellings of the 19th century.
    "sr", "sra", "srs", "sras", "snr", "snra", "snrs", "sñr", "dra", "fr", "d", "s", "v", "p", "exc", "ex", "exmo",
    "exma", "exm", "ilmo", "ilma", "illmo", "illma", "eng", "sto", "sta",
];

/// Lower-case words after which a full stop does not end a sentence if a number follows.
const BEFORE_NUMBERS: &[&str] =
    &["no", "nos", "n", "vol", "vols", "pp", "pag", "pág", "pg", "fig", "art", "cap", "chap", "sec"];

/// Calls `sentence` with the sentences of a document, in order. A blank line ends a paragraph and its last sentence; other
/// line ends count as spaces.
pub(super) fn split_document(document: &str, mut sentence: impl FnMut(&str)) {
    let mut paragraph = String::new();
    let mut boundaries = Vec::new();
    for line in document.lines().chain([""]) {
        let mut blank = true;
        for word in line.split_whitespace() {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(word);
            blank = false;
        }
        if blank {
            split_paragraph(&paragraph, &mut boundaries, &mut sentence);
            paragraph.clear();
        }
    }
}

/// Calls `sentence` with the sentences of a paragraph whose white space is single spaces.
fn split_paragraph(paragraph: &str, boundaries: &mut Vec<usize>, sentence: &mut impl FnMut(&str)) {
    boundaries.clear();
    boundaries.extend(paragraph.split_sentence_bound_indices().map(|(start, _)| start).skip(1));
    dash_boundaries(paragraph, boundaries);
    for boundary in boundaries.iter_mut() {
        *boundary += closing(&paragraph[*boundary..]);
    }
    boundaries.sort_unstable();
    boundaries.dedup();

    let mut start = 0;
    for (index, &boundary) in boundaries.iter().enumerate() {
        let end_of_next = boundaries.get(index + 1).copied().unwrap_or(paragraph.len());
        if is_boundary(&paragraph[start..boundary], &paragraph[boundary..], end_of_next - boundary) {
            sentence(&paragraph[start..boundary]);
            start = boundary;
        }
    }
    if start < paragraph.len() {
        sentence(&paragraph[start..]);
    }
}

/// Returns whether a sentence ends between `before` and `after`. The next boundary is after `next` bytes of `after`.
fn is_boundary(before: &str, after: &str, next: usize) -> bool {
    // A lone dash, a lone quotation mark or an ellipsis belongs to its neighbour.
    let is_silent = |text: &str| !text.contains(char::is_alphanumeric);
    if is_silent(before) || is_silent(&after[..next]) {
        return false;
    }
    let first = after.chars().find(|c| c.is_alphanumeric());
    if first.is_some_and(char::is_lowercase) {
        return false;
    }
    let Some(before) = before.trim_end().strip_suffix('.') else { return true };
    // Apostrophes belong to the word, so that the `s` of `James's` is not one; but an apostrophe may open a quotation.
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | '\'' | '’');
    let word = &before[before.trim_end_matches(in_word).len()..];
    !is_abbreviation(word.trim_start_matches(['\'', '’']), first)
}

/// Returns whether `word`, before a full stop, is an abbreviation in a sentence that continues with `next`.
fn is_abbreviation(word: &str, next: Option<char>) -> bool {
    // `I` is far more often the pronoun or a numeral than an initial.
    let is_initial = |part: &str| part != "I" && part.chars().count() == 1 && part.chars().all(char::is_uppercase);
    if !word.is_empty() && word.split('.').all(is_initial) {
        return true;
    }
    let lower = word.to_lowercase();
    TITLES.contains(&lower.as_str())
        || next.is_some_and(|c| c.is_ascii_digit()) && BEFORE_NUMBERS.contains(&lower.as_str())
}

/// Returns the length of separate closing marks, and a space after them, at the start of `text`. In `Sim! » Depois`, the
/// mark follows a space.
fn closing(text: &str) -> usize {
    let marks = text.trim_start_matches(['”', '’', '»', ')', ']']);
    let length = text.len() - marks.len();
    match marks.strip_prefix(' ') {
        Some(_) if length > 0 => length + 1,
        None if marks.is_empty() => length,
        _ => 0,
    }
}

/// Adds boundaries before dashes that follow the end of a sentence and precede a capital letter: `Bem. -- Elle sahiu.` The
/// standard treats a dash as a continuation.
fn dash_boundaries(paragraph: &str, boundaries: &mut Vec<usize>) {
    const DASHES: [char; 4] = ['-', '–', '—', '―'];
    for (space, _) in paragraph.match_indices(' ') {
        let after = &paragraph[space + 1..];
        if !after.starts_with(DASHES) {
            continue;
        }
        let before = paragraph[..space].trim_end_matches(['"', '”', '’', '\'', '»', ')', ']']);
        let first = after.trim_start_matches(|c: char| !c.is_alphanumeric()).chars().next();
        if before.ends_with(['.', '!', '?', '…']) && first.is_some_and(char::is_uppercase) {
            boundaries.push(space + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut sentences = Vec::new();
        split_document(text, |sentence| sentences.push(sentence.trim().to_string()));
        sentences
    }

    /// Asserts that these sentences, joined by spaces, are split into themselves.
    #[track_caller]
    fn splits_into(sentences: &[&str]) {
        assert_eq!(split(&sentences.join(" ")), sentences);
    }

    #[test]
    fn full_stops_questions_and_exclamations() {
        splits_into(&["The cat sat.", "It slept!", "Did it?", "Yes.", "At 3.15 it woke."]);
        splits_into(&["O gato dormia.", "Acordou!", "Às 3.15?", "Não."]);
    }

    #[test]
    fn titles_and_initials() {
        splits_into(&["Mr. and Mrs. Brown met Dr. Grey in St. James's.", "They left."]);
        splits_into(&["The Rev. J. R. Smith and Mr. W.E. Hall came.", "So did M. Dupont."]);
        splits_into(&["It was I.", "He knew."]);
        splits_into(&["O Sr. Carvalho e a Sra. D. Maria sahiram.", "A D. Anna ficou."]);
        splits_into(&["Vi o sr. Antunes e o dr. Pires em S. Bento.", "V. Exc.ª tambem os viu?", "Fr. João, sim."]);
        splits_into(&["He lived at No. 5 Hall Street.", "No.", "He did not."]);
    }

    #[test]
    fn quotations() {
        splits_into(&["\"Why?\" he asked.", "\"Because.\"", "He left."]);
        splits_into(&["He said: “Go!”", "She went."]);
        splits_into(&["« Sim! »", "Depois calou-se."]);
        splits_into(&["He stopped. . . .", "Then he went on."]);
        splits_into(&["(It was late.)", "They slept."]);
    }

    #[test]
    fn dashes_open_utterances() {
        splits_into(&["Bem.", "-- Elle sahiu.", "— Sahiu?", "— Sim."]);
        splits_into(&["-- Porquê? -- perguntou elle.", "-- Não sei -- disse Anna."]);
    }

    #[test]
    fn paragraphs_and_lines() {
        assert_eq!(
            split("CHAPTER I\n\nIt was a\n  dark night.\tIt\r\nrained.\n \n\nend"),
            ["CHAPTER I", "It was a dark night.", "It rained.", "end"]
        );
        assert!(split(" \n\n\t").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(text in "([A-Za-zé]{1,4}|[.?!»”’()\" —-]|\n| ){0,40}") {
            let joined = split(&text).concat();
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            proptest::prop_assert_eq!(bare(&joined), bare(&text));
            proptest::prop_assert!(split(&text).iter().all(|sentence| !sentence.is_empty()));
        }
    }
}
