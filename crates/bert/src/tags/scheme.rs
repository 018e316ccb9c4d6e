//! Tagging schemes, in which the tags of words mark where spans begin and end.

use std::fmt;

use super::{NO_KIND, SpanPosition, Tag, TagNotation};

/// A tagging scheme. A tag is either `O`, outside of all spans, or a letter and the kind of span, such as `B-PER`.
///
/// Source: E. F. Tjong Kim Sang, J. Veenstra, "Representing text chunks", 1999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TagScheme {
    /// `I` marks all words of a span, except that `B` marks the first if the span directly follows another of its kind.
    Iob1,
    /// `B` marks the first word of a span, `I` the others.
    Iob2,
    /// `B`, `I` and `E` mark the first, inner and last words of a span, `S` a span of one word. BILOU, which writes `L`
    /// for `E` and `U` for `S`, and BMES, which writes `M` for `I`, are read as BIOES.
    Bioes,
}

impl fmt::Display for TagScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TagScheme::Iob1 => "IOB1",
            TagScheme::Iob2 => "IOB2",
            TagScheme::Bioes => "BIOES",
        })
    }
}

/// The notation and the scheme detected in tagged sentences, and the tags that violate the scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DetectedScheme {
    /// Where the tags have the letter for the position.
    pub notation: TagNotation,
    /// `None` if a tag belongs to no scheme.
    pub scheme: Option<TagScheme>,
    /// Sentence and word of each tag that violates the scheme.
    pub irregular: Vec<(usize, usize)>,
}

impl DetectedScheme {
    /// Detects the scheme that the fewest tags violate, preferring IOB2 to IOB1 on a tie. Any `E` or `S` means BIOES.
    pub fn of<S: AsRef<str>>(sentences: &[impl AsRef<[S]>]) -> DetectedScheme {
        let notation = TagNotation::of(sentences.iter().flat_map(AsRef::as_ref).map(AsRef::as_ref));
        let parsed =
            sentences.iter().map(|tags| tags.as_ref().iter().map(|tag| notation.parse(tag.as_ref())).collect());
        let (scheme, irregular) = detect(parsed);
        DetectedScheme { notation, scheme, irregular }
    }
}

/// Returns the scheme, unless a tag belongs to none, and the places of the tags that violate it.
fn detect<'t>(sentences: impl Iterator<Item = Vec<Tag<'t>>>) -> (Option<TagScheme>, Vec<(usize, usize)>) {
    let (mut iob1, mut iob2, mut bioes) = (Vec::new(), Vec::new(), Vec::new());
    let mut ends = false;
    for (number, tags) in sentences.enumerate() {
        let mut previous = Tag::OUTSIDE;
        for (at, tag) in tags.iter().enumerate() {
            if tag.position == SpanPosition::Unknown {
                return (None, Vec::new());
            }
            ends |= matches!(tag.position, SpanPosition::End | SpanPosition::Single);
            let begins = tag.begins_after(&previous);
            let next = tags.get(at + 1).unwrap_or(&Tag::OUTSIDE);
            let continued = matches!(next.position, SpanPosition::Inside | SpanPosition::End) && next.kind == tag.kind;
            // IOB1 writes `B` only directly after a span of the same kind.
            let needless = previous.position == SpanPosition::Outside || previous.kind != tag.kind;
            let wrong = match tag.position {
                SpanPosition::Begin => [needless, false, !continued],
                SpanPosition::Inside => [false, begins, begins || !continued],
                SpanPosition::End => [true, true, begins],
                _ => [false; 3],
            };
            for (list, wrong) in [&mut iob1, &mut iob2, &mut bioes].into_iter().zip(wrong) {
                list.extend(wrong.then_some((number, at)));
            }
            previous = *tag;
        }
    }
    match ends {
        true => (Some(TagScheme::Bioes), bioes),
        false if iob1.len() < iob2.len() => (Some(TagScheme::Iob1), iob1),
        false => (Some(TagScheme::Iob2), iob2),
    }
}

impl TagNotation {
    /// Converts the tags of a sentence from any scheme to IOB2, written `O`, `B-PER` and `I-PER`, and returns how many
    /// changed. Tags without a letter are kept.
    pub fn to_iob2(self, tags: &mut [String]) -> usize {
        let mut changed = 0;
        let mut previous = "O".to_string();
        for tag in tags {
            let parsed = self.parse(tag);
            let letter = if parsed.begins_after(&self.parse(&previous)) { 'B' } else { 'I' };
            let iob2 = match (parsed.position, parsed.kind) {
                (SpanPosition::Outside, _) => "O".to_string(),
                (SpanPosition::Unknown, _) => tag.clone(),
                (_, NO_KIND) => letter.to_string(),
                (_, kind) => format!("{letter}-{kind}"),
            };
            changed += usize::from(iob2 != *tag);
            previous = std::mem::replace(tag, iob2);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn iob2(tags: &mut [String]) -> usize {
        TagNotation::of(tags.iter().map(String::as_str)).to_iob2(tags)
    }

    fn detected(text: &str) -> (Option<TagScheme>, usize) {
        let found = DetectedScheme::of(&text.split('|').map(tags).collect::<Vec<_>>());
        (found.scheme, found.irregular.len())
    }

    /// The spans 0..2 X, 2..3 X and 4..5 Y in each scheme.
    const SCHEMES: [(&str, TagScheme); 10] = [
        ("I-X I-X B-X O I-Y", TagScheme::Iob1),
        ("B-X I-X B-X O B-Y", TagScheme::Iob2),
        ("B-X E-X S-X O S-Y", TagScheme::Bioes),
        ("B-X L-X U-X O U-Y", TagScheme::Bioes),
        ("B_X E_X S_X 0 S_Y", TagScheme::Bioes),
        ("b-X i-X b-X o b-Y", TagScheme::Iob2),
        ("B_X I_X B_X O B_Y", TagScheme::Iob2),
        ("X-I X-I X-B O Y-I", TagScheme::Iob1),
        ("X-B X-I X-B o Y-B", TagScheme::Iob2),
        ("X_B X_L X_U O Y_U", TagScheme::Bioes),
    ];

    #[test]
    fn schemes_are_told_apart_and_become_iob2() {
        for (text, scheme) in SCHEMES {
            assert_eq!(detected(text), (Some(scheme), 0), "{text}");
            let mut given = tags(text);
            let changed = iob2(&mut given);
            assert_eq!(given, tags(SCHEMES[1].0), "{text}");
            assert_eq!(changed, given.iter().zip(tags(text)).filter(|(a, b)| **a != *b).count());
        }
        assert_eq!(detected("O O|O"), (Some(TagScheme::Iob2), 0));
        assert_eq!(detected("NOUN VERB|O"), (None, 0));
        let mut bare = tags("O B I I E O S NOUN B-a-b E-a-b");
        iob2(&mut bare);
        assert_eq!(bare, tags("O B I I I O B NOUN B-a-b I-a-b"));
    }

    #[test]
    fn what_breaks_a_scheme_is_counted() {
        assert_eq!(detected("B-X I-X O|I-X O B-Y"), (Some(TagScheme::Iob2), 1));
        assert_eq!(detected("I-X I-X O|B-X O I-Y"), (Some(TagScheme::Iob1), 1));
        // `B-X` has no end; the first `I-Y` and the last `E-Y` have no beginning.
        assert_eq!(detected("B-X O S-X|I-Y E-Y|E-Y"), (Some(TagScheme::Bioes), 3));
        let found = DetectedScheme::of(&[tags("O O"), tags("B-X O I-X")]);
        assert_eq!(found.irregular, [(1, 2)]);
    }

    proptest! {
        #[test]
        fn iob2_stays(spans in prop::collection::vec((0usize..3, 1usize..4, "[XY]"), 0..8)) {
            let mut given = Vec::new();
            for (gap, length, kind) in spans {
                given.extend(std::iter::repeat_n("O".to_string(), gap));
                given.push(format!("B-{kind}"));
                given.extend(std::iter::repeat_n(format!("I-{kind}"), length - 1));
            }
            let expected = DetectedScheme { scheme: Some(TagScheme::Iob2), ..DetectedScheme::default() };
            prop_assert_eq!(DetectedScheme::of(&[&given]), expected);
            let before = given.clone();
            prop_assert_eq!(iob2(&mut given), 0);
            prop_assert_eq!(given, before);
        }
    }
}
