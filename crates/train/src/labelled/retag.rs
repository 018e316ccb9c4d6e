//! Tags of sentences in the scheme of a model.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use cloze_bert::tags::{SpanPosition, Tag, TagNotation, TagSpan};

use super::TaggedSentence;

/// Returns the sentences with the tags that a model with the labels `names` has for the same spans, if its scheme is
/// another: it lacks some of their tags, or only it marks the ends of spans, like BILOU for a file in IOB2. If it has no
/// tags for a span, or if either has tags without a letter for the position, the sentences are returned as they are.
pub(crate) fn in_scheme_of<'s>(names: &[String], sentences: &'s [TaggedSentence]) -> Cow<'s, [TaggedSentence]> {
    let theirs: BTreeSet<&String> = sentences.iter().flat_map(|sentence| &sentence.tags).collect();
    let notation = TagNotation::of(theirs.iter().map(|tag| tag.as_str()));
    let of_model = TagNotation::of(names.iter().map(String::as_str));
    let marks_ends = |tag: &str, notation: TagNotation| {
        matches!(notation.parse(tag).position, SpanPosition::End | SpanPosition::Single)
    };
    let only_model_marks_ends =
        names.iter().any(|name| marks_ends(name, of_model)) && !theirs.iter().any(|tag| marks_ends(tag, notation));
    let is_same = !only_model_marks_ends && theirs.iter().all(|tag| names.contains(tag));
    if is_same || [notation, of_model].contains(&TagNotation::Plain) {
        return Cow::Borrowed(sentences);
    }
    let names: HashMap<(SpanPosition, &str), &String> = names
        .iter()
        .map(|name| {
            let Tag { position, kind } = of_model.parse(name);
            ((position, kind), name)
        })
        .collect();
    match sentences.iter().map(|sentence| retagged(sentence, notation, &names)).collect() {
        Some(retagged) => Cow::Owned(retagged),
        None => Cow::Borrowed(sentences),
    }
}

/// Returns a sentence with tags of `names`, or `None` if one is missing there.
fn retagged(
    sentence: &TaggedSentence,
    notation: TagNotation,
    names: &HashMap<(SpanPosition, &str), &String>,
) -> Option<TaggedSentence> {
    use SpanPosition::{Begin, End, Inside, Outside, Single};
    let tags: Vec<Tag> = sentence.tags.iter().map(|tag| notation.parse(tag)).collect();
    let mut positions = vec![(&[Outside][..], ""); tags.len()];
    let spans = TagSpan::of_tags(&tags);
    for TagSpan { start, end, kind } in &spans {
        for (at, wanted) in (*start..*end).zip(&mut positions[*start..*end]) {
            // The positions that may stand here, the best first.
            let here: &[SpanPosition] = match (at == *start, at + 1 == *end) {
                (true, true) => &[Single, Begin, Inside],
                (true, false) => &[Begin, Inside],
                (false, true) => &[End, Inside],
                (false, false) => &[Inside],
            };
            *wanted = (here, kind);
        }
    }
    let name = |(positions, kind): (&[SpanPosition], &str)| {
        positions.iter().find_map(|&position| names.get(&(position, kind))).map(|name| name.to_string())
    };
    let tags = positions.into_iter().map(name).collect::<Option<Vec<String>>>()?;
    Some(TaggedSentence { words: sentence.words.clone(), tags })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(tags: &str) -> TaggedSentence {
        let tags: Vec<String> = tags.split(' ').map(String::from).collect();
        TaggedSentence { words: tags.iter().map(|_| "a".to_string()).collect(), tags }
    }

    #[test]
    fn spans_keep_their_words_and_kinds() {
        let names = |names: &str| names.split(' ').map(String::from).collect::<Vec<_>>();
        let bilou = names("O B-PER I-PER L-PER U-PER B-LOC I-LOC L-LOC U-LOC");
        let said = |names: &[String], tags: &str| in_scheme_of(names, &[sentence(tags)])[0].tags.join(" ");
        assert_eq!(
            said(&bilou, "B-PER O B-LOC I-LOC I-LOC B-LOC I-LOC B-PER"),
            "U-PER O B-LOC I-LOC L-LOC B-LOC L-LOC U-PER"
        );
        // IOB1, where I begins a span, and the letter behind.
        assert_eq!(said(&bilou, "I-PER I-PER B-PER I-LOC"), "B-PER L-PER U-PER U-LOC");
        assert_eq!(said(&bilou, "o PER_B PER_E LOC_S"), "O B-PER L-PER U-LOC");
        assert_eq!(said(&names("O B-PER I-PER"), "U-PER B-PER I-PER L-PER O"), "B-PER B-PER I-PER I-PER O");
        // Known tags stay, and so do tags of a kind that the model lacks, and those without a letter.
        for kept in ["B-PER I-PER U-PER", "B-ORG O", "PER LOC"] {
            assert_eq!(said(&bilou, kept), kept);
        }
    }
}
