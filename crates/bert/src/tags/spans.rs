//! The spans that the tags of a sentence form.

use super::{SpanPosition, Tag};

/// The span of words `start..end` of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagSpan {
    /// Index of the first word.
    pub start: usize,
    /// Index of the word after the last.
    pub end: usize,
    /// The kind of span, such as `PER`.
    pub kind: String,
}

impl TagSpan {
    /// Returns the spans of a sentence by the rule of `conlleval`: any tag that cannot continue the previous span
    /// begins a new one, such as an `I-PER` after `O`. Tags without a letter form spans of equal tags.
    pub fn of_tags(tags: &[Tag]) -> Vec<TagSpan> {
        let mut spans: Vec<TagSpan> = Vec::new();
        let mut previous = &Tag::OUTSIDE;
        for (at, tag) in tags.iter().enumerate() {
            if tag.begins_after(previous) {
                spans.push(TagSpan { start: at, end: at + 1, kind: tag.kind.to_string() });
            } else if tag.position != SpanPosition::Outside
                && let Some(span) = spans.last_mut()
            {
                span.end = at + 1;
            }
            previous = tag;
        }
        spans
    }
}
