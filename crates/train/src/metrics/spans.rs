//! Precision, recall and F1 of spans of words, such as named entities.

use std::collections::{BTreeMap, HashSet};

use cloze_bert::tags::{SpanPosition, Tag, TagNotation, TagSpan};

use super::{PrecisionRecall, seqeval};
use crate::{Error, Result};

/// How tags are grouped into spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanMode {
    /// The rule of `conlleval`: any tag that cannot continue the previous span begins a new one, such as an `I-PER`
    /// after `O`. Tags of every [scheme](crate::TagScheme) and [notation](TagNotation) are accepted; tags without a
    /// letter for the position form spans of equal tags. For tags `O`, `B-`, `I-`, `E-` and `S-`, the results are those
    /// of [`Seqeval`](SpanMode::Seqeval).
    #[default]
    Lenient,
    /// Exactly what seqeval does by default with any tag. It takes the first character for the position, so `ORG ORG`
    /// is no span, and `BRAND BRAND` are two spans of kind `RAND`: use it only to compare with numbers of seqeval.
    Seqeval,
    /// Seqeval's `mode="strict", scheme=IOB2`: a span begins with `B`.
    StrictIob2,
    /// Seqeval's `mode="strict", scheme=IOBES`: a span is one `S`, or begins with `B` and ends with `E`.
    StrictBioes,
}

/// Scores of predicted spans. A span is correct if its first word, last word and kind all match.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SpanScores {
    /// The scores of each kind that occurs in the labels or the predictions.
    pub by_kind: BTreeMap<String, PrecisionRecall>,
    /// The scores over all spans together. Its F1 is the number that is usually reported.
    pub micro: PrecisionRecall,
    /// The unweighted mean over the kinds.
    pub macro_average: PrecisionRecall,
    /// The mean over the kinds, each weighted by the number of its true spans.
    pub weighted: PrecisionRecall,
}

/// Returns the spans of a sentence, given the tag of each word.
///
/// # Errors
/// Returns an error that names the tag if the mode is strict and a tag does not belong to its scheme.
pub fn spans<S: AsRef<str>>(given: &[S], mode: SpanMode) -> Result<Vec<TagSpan>> {
    spans_in(given, TagNotation::of(given.iter().map(AsRef::as_ref)), mode)
}

fn spans_in<S: AsRef<str>>(given: &[S], notation: TagNotation, mode: SpanMode) -> Result<Vec<TagSpan>> {
    let tags: Vec<Tag> = given.iter().map(|tag| notation.parse(tag.as_ref())).collect();
    match mode {
        SpanMode::Lenient => Ok(TagSpan::of_tags(&tags)),
        SpanMode::Seqeval => Ok(seqeval::spans(given)),
        SpanMode::StrictIob2 | SpanMode::StrictBioes => strict(given, &tags, mode),
    }
}

/// Returns the spans of a sentence in a strict mode: those that have no tag out of place.
fn strict<S: AsRef<str>>(given: &[S], tags: &[Tag], mode: SpanMode) -> Result<Vec<TagSpan>> {
    let known = |position: SpanPosition| match mode {
        SpanMode::StrictIob2 => matches!(position, SpanPosition::Outside | SpanPosition::Begin | SpanPosition::Inside),
        _ => position != SpanPosition::Unknown,
    };
    if let Some(at) = tags.iter().position(|tag| !known(tag.position)) {
        let scheme = if mode == SpanMode::StrictIob2 { "IOB2 (O, B-, I-)" } else { "BIOES (O, B-, I-, E-, S-)" };
        let why = format!("tag {:?} of word {at} does not belong to {scheme}", given[at].as_ref());
        return Err(Error::data("tags", why));
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = tags.get(at) {
        let start = at;
        at += 1;
        if !matches!(first.position, SpanPosition::Begin | SpanPosition::Single) {
            continue;
        }
        while let Some(next) = tags.get(at)
            && continues(&tags[at - 1], next)
        {
            at += 1;
        }
        let ended = matches!(tags[at - 1].position, SpanPosition::End | SpanPosition::Single);
        if mode == SpanMode::StrictIob2 || ended {
            found.push(TagSpan { start, end: at, kind: first.kind.to_string() });
        }
    }
    Ok(found)
}

/// Returns whether `tag` continues the span that `previous` is in.
fn continues(previous: &Tag, tag: &Tag) -> bool {
    let ended = matches!(previous.position, SpanPosition::End | SpanPosition::Single);
    !ended && matches!(tag.position, SpanPosition::Inside | SpanPosition::End) && tag.kind == previous.kind
}

/// Scores the spans formed by predicted tags against those formed by the true tags. Each element is a sentence.
///
/// Where the letter for the position is written is recognized from all tags together. For tags `O`, `B-`, `I-`, `E-`
/// and `S-`, the results equal seqeval's with `zero_division=0`; [`SpanMode::Seqeval`] equals it for all tags.
///
/// Source: E. F. Tjong Kim Sang, F. De Meulder, "Introduction to the CoNLL-2003 shared task", 2003, and its script
/// `conlleval`.
///
/// # Errors
/// Returns an error if there are no sentences, if the lengths differ, overall or within a sentence (names the
/// sentence), or if the mode is strict and a tag does not belong to its scheme.
pub fn span_scores<S: AsRef<str>>(predictions: &[Vec<S>], labels: &[Vec<S>], mode: SpanMode) -> Result<SpanScores> {
    super::check(predictions.len(), labels.len())?;
    for (number, (predicted, labelled)) in predictions.iter().zip(labels).enumerate() {
        if predicted.len() != labelled.len() {
            let why = format!("{} predicted tags for {} words", predicted.len(), labelled.len());
            return Err(Error::data("metric", format!("sentence {number}: {why}")));
        }
    }
    let (predictions, labels) = match mode {
        SpanMode::Seqeval => (vec![seqeval::joined(predictions)], vec![seqeval::joined(labels)]),
        _ => (borrowed(predictions), borrowed(labels)),
    };
    let notation = TagNotation::of(predictions.iter().chain(&labels).flatten().copied());
    // True positives, predictions and labels of each kind.
    let mut counts: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for (number, (predicted, labelled)) in predictions.iter().zip(&labels).enumerate() {
        let inside = |error: Error| Error::data("metric", format!("sentence {number}: {error}"));
        let set = |tags: &[&str]| -> Result<HashSet<TagSpan>> {
            Ok(spans_in(tags, notation, mode).map_err(inside)?.into_iter().collect())
        };
        let (predicted, labelled) = (set(predicted)?, set(labelled)?);
        for span in &labelled {
            counts.entry(span.kind.clone()).or_default()[2] += 1;
        }
        for span in predicted {
            let right = labelled.contains(&span);
            let count = counts.entry(span.kind).or_default();
            count[1] += 1;
            count[0] += usize::from(right);
        }
    }
    let sum = |which: usize| counts.values().map(|count| count[which]).sum();
    let by_kind: BTreeMap<String, PrecisionRecall> = counts
        .iter()
        .map(|(kind, &[right, predicted, labelled])| (kind.clone(), PrecisionRecall::of(right, predicted, labelled)))
        .collect();
    Ok(SpanScores {
        micro: PrecisionRecall::of(sum(0), sum(1), sum(2)),
        macro_average: PrecisionRecall::mean(by_kind.values(), |_| 1.0),
        weighted: PrecisionRecall::mean(by_kind.values(), |one| one.support as f64),
        by_kind,
    })
}

fn borrowed<S: AsRef<str>>(sentences: &[Vec<S>]) -> Vec<Vec<&str>> {
    sentences.iter().map(|tags| tags.iter().map(AsRef::as_ref).collect()).collect()
}

#[cfg(test)]
mod tests;
