//! Recognition of comments that begin with `#`.

use std::collections::{BTreeSet, HashSet};

use cloze_bert::tags::{SpanPosition, TagNotation};

use super::columns::Division;

/// The beginning of a comment.
const COMMENT: char = '#';

/// A line with its number, and whether it is the end of a sentence.
pub(super) type Line<'l> = (usize, &'l str, bool);

/// Returns the numbers of the lines at the beginning of sentences that begin with `#` but are no words: they have another
/// number of columns than the words, or all sentences have such a line, of a lone `#` and no tag that a word
/// has or could have.
pub(super) fn comments(lines: &[Line], tag: Option<usize>) -> BTreeSet<usize> {
    let words =
        lines.iter().filter(|(_, line, is_end)| !is_end && !line.starts_with(COMMENT)).map(|(_, line, _)| *line);
    let division = Division::of(words.clone());
    let Some(width) = words.clone().next().map(|line| division.split(line).len()) else { return BTreeSet::new() };
    let tag_of = |line| division.split(line).get(tag.unwrap_or(width) - 1).copied();
    let tags: HashSet<Option<&str>> = words.map(tag_of).collect();
    let has_position = |tag: &str| TagNotation::Prefix.parse(tag).position != SpanPosition::Unknown;
    let is_tag = |tag: Option<&str>| tags.contains(&tag) || tag.is_some_and(has_position);

    let (mut found, mut alike) = (BTreeSet::new(), BTreeSet::new());
    let (mut sentences, mut with_comment) = (0, 0);
    let (mut at_start, mut has_comment) = (true, false);
    for &(number, line, is_end) in lines {
        let columns = division.split(line);
        if is_end {
            (at_start, has_comment) = (true, false);
        } else if at_start && line.starts_with(COMMENT) && columns.len() != width {
            found.insert(number);
            has_comment = true;
        } else if at_start && columns.first() == Some(&"#") && !is_tag(tag_of(line)) {
            alike.insert(number);
            has_comment = true;
        } else if at_start {
            at_start = false;
            sentences += 1;
            with_comment += usize::from(has_comment);
        }
    }
    if sentences == with_comment {
        found.append(&mut alike);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let lines: Vec<Line> = (1..).zip(text.lines()).map(|(number, line)| (number, line, line.is_empty())).collect();
        comments(&lines, None).into_iter().collect()
    }

    #[test]
    fn comments_are_told_from_words() {
        for (text, expected) in [
            // Another number of columns.
            ("# id = 1\nAna B-PER\n# O\n\n# id = 2\nRio B-LOC\n", &[1, 5][..]),
            ("# text = Ana\nAna\tB-PER\n", &[1]),
            ("#begin document\n# part\nAna N O\n\n#end document\n", &[1, 2, 5]),
            ("Ana O\n\n# a b\nRio O\n", &[3]),
            // As many columns as the words, before every sentence (MultiCoNER).
            ("# id 5 domain=en\nAna _ _ O\n\n# id 6 domain=en\nRio _ _ O\n", &[1, 4]),
            // Words.
            ("# O\nAna B-PER\nmora O\n", &[]),
            ("# O\nAna B-PER\n", &[]),
            ("# SYM\nAna N\n\nRio N\n", &[]),
            ("#Rio B-LOC\nmora O\n", &[]),
            ("mora O\n# a b\n", &[]),
            ("# a\n# b\n", &[]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }
}
