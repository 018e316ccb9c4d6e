//! The spans that seqeval finds in its default mode.

use super::TagSpan;

/// Returns the spans of a sentence exactly as `get_entities` of seqeval 1.2.2 does, which takes the first character of
/// every tag for its position and what follows the first `-` for its kind: `ORG` is outside, and `BRAND BRAND` are two
/// spans of kind `RAND`.
pub(super) fn spans<S: AsRef<str>>(tags: &[S]) -> Vec<TagSpan> {
    let mut spans = Vec::new();
    let (mut previous, mut start) = (('O', ""), 0);
    for (at, tag) in tags.iter().map(AsRef::as_ref).chain(["O"]).enumerate() {
        let tag = parts(tag);
        if ends(previous, tag) {
            spans.push(TagSpan { start, end: at, kind: previous.1.to_string() });
        }
        if begins(previous, tag) {
            start = at;
        }
        previous = tag;
    }
    spans
}

/// Joins sentences as seqeval does before it looks for spans: with an `O` after each.
pub(super) fn joined<S: AsRef<str>>(sentences: &[Vec<S>]) -> Vec<&str> {
    sentences.iter().flat_map(|tags| tags.iter().map(AsRef::as_ref).chain(["O"])).collect()
}

fn parts(tag: &str) -> (char, &str) {
    let mut characters = tag.chars();
    let first = characters.next().unwrap_or('O');
    let rest = characters.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (first, if kind.is_empty() { "_" } else { kind })
}

fn ends((before, kind_before): (char, &str), (position, kind): (char, &str)) -> bool {
    let may_go_on = !matches!(position, 'B' | 'S' | 'O');
    match before {
        'E' | 'S' => true,
        'B' | 'I' if !may_go_on => true,
        _ => !matches!(before, 'O' | '.') && kind_before != kind,
    }
}

fn begins((before, kind_before): (char, &str), (position, kind): (char, &str)) -> bool {
    match position {
        'B' | 'S' => true,
        'E' | 'I' if matches!(before, 'E' | 'S' | 'O') => true,
        _ => !matches!(position, 'O' | '.') && kind_before != kind,
    }
}
