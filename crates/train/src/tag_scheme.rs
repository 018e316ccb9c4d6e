//! Tagging schemes, in which the tags of words mark where spans begin and end.

use std::fmt;

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
    /// for `E` and `U` for `S`, is read as BIOES.
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

/// The position of a word in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanPosition {
    Outside,
    Begin,
    Inside,
    End,
    Single,
    /// The tag belongs to no scheme, such as `NOUN`.
    Unknown,
}

/// A parsed tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag<'t> {
    pub(crate) position: SpanPosition,
    /// The kind of span, such as `PER`; `_` for a bare letter, and the whole tag if it belongs to no scheme.
    pub(crate) kind: &'t str,
}

impl<'t> Tag<'t> {
    pub(crate) const OUTSIDE: Tag<'static> = Tag { position: SpanPosition::Outside, kind: "" };

    pub(crate) fn parse(tag: &'t str) -> Tag<'t> {
        if tag == "O" {
            return Tag::OUTSIDE;
        }
        let (letter, kind) = tag.split_once('-').unwrap_or((tag, "_"));
        let position = match letter {
            "B" => SpanPosition::Begin,
            "I" => SpanPosition::Inside,
            "E" | "L" => SpanPosition::End,
            "S" | "U" => SpanPosition::Single,
            _ => return Tag { position: SpanPosition::Unknown, kind: tag },
        };
        Tag { position, kind }
    }

    /// Returns whether a span begins at this tag by the lenient rule of `conlleval` and seqeval.
    pub(crate) fn begins_after(&self, previous: &Tag) -> bool {
        let ended = matches!(previous.position, SpanPosition::Outside | SpanPosition::End | SpanPosition::Single);
        match self.position {
            SpanPosition::Outside => false,
            SpanPosition::Begin | SpanPosition::Single => true,
            _ => ended || previous.kind != self.kind,
        }
    }
}

/// The scheme detected in tagged sentences, and the tags that violate it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detected {
    /// `None` if a tag belongs to no scheme.
    pub(crate) scheme: Option<TagScheme>,
    /// Sentence and word of each tag that violates the scheme.
    pub(crate) irregular: Vec<(usize, usize)>,
}

/// Detects the scheme that the fewest tags violate, preferring IOB2 to IOB1 on a tie. Any `E` or `S` means BIOES.
pub(crate) fn detect<S: AsRef<str>>(sentences: &[impl AsRef<[S]>]) -> Detected {
    let (mut iob1, mut iob2, mut bioes) = (Vec::new(), Vec::new(), Vec::new());
    let mut ends = false;
    for (number, tags) in sentences.iter().enumerate() {
        let tags: Vec<Tag> = tags.as_ref().iter().map(|tag| Tag::parse(tag.as_ref())).collect();
        let mut previous = Tag::OUTSIDE;
        for (at, tag) in tags.iter().enumerate() {
            if tag.position == SpanPosition::Unknown {
                return Detected::default();
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
    let (scheme, irregular) = match ends {
        true => (TagScheme::Bioes, bioes),
        false if iob1.len() < iob2.len() => (TagScheme::Iob1, iob1),
        false => (TagScheme::Iob2, iob2),
    };
    Detected { scheme: Some(scheme), irregular }
}

/// Converts the tags of a sentence from any scheme to IOB2 and returns how many changed. Tags that belong to no scheme
/// are kept.
pub(crate) fn to_iob2(tags: &mut [String]) -> usize {
    let mut changed = 0;
    let mut previous = "O".to_string();
    for tag in tags {
        let parsed = Tag::parse(tag);
        let letter = if parsed.begins_after(&Tag::parse(&previous)) { 'B' } else { 'I' };
        let iob2 = match parsed.position {
            SpanPosition::Outside | SpanPosition::Unknown => tag.clone(),
            _ if tag.contains('-') => format!("{letter}-{}", parsed.kind),
            _ => letter.to_string(),
        };
        changed += usize::from(iob2 != *tag);
        previous = std::mem::replace(tag, iob2);
    }
    changed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn detected(text: &str) -> (Option<TagScheme>, usize) {
        let found = detect(&text.split('|').map(tags).collect::<Vec<_>>());
        (found.scheme, found.irregular.len())
    }

    /// The spans 0..2 X, 2..3 X and 4..5 Y in each scheme.
    const SCHEMES: [(&str, TagScheme); 4] = [
        ("I-X I-X B-X O I-Y", TagScheme::Iob1),
        ("B-X I-X B-X O B-Y", TagScheme::Iob2),
        ("B-X E-X S-X O S-Y", TagScheme::Bioes),
        ("B-X L-X U-X O U-Y", TagScheme::Bioes),
    ];

    #[test]
    fn schemes_are_told_apart_and_become_iob2() {
        for (text, scheme) in SCHEMES {
            assert_eq!(detected(text), (Some(scheme), 0), "{text}");
            let mut given = tags(text);
            let changed = to_iob2(&mut given);
            assert_eq!(given, tags(SCHEMES[1].0), "{text}");
            assert_eq!(changed, given.iter().zip(tags(text)).filter(|(a, b)| **a != *b).count());
        }
        assert_eq!(detected("O O|O"), (Some(TagScheme::Iob2), 0));
        assert_eq!(detected("NOUN VERB|O"), (None, 0));
        let mut bare = tags("O B I I E O S NOUN B-a-b E-a-b");
        to_iob2(&mut bare);
        assert_eq!(bare, tags("O B I I I O B NOUN B-a-b I-a-b"));
    }

    #[test]
    fn what_breaks_a_scheme_is_counted() {
        assert_eq!(detected("B-X I-X O|I-X O B-Y"), (Some(TagScheme::Iob2), 1));
        assert_eq!(detected("I-X I-X O|B-X O I-Y"), (Some(TagScheme::Iob1), 1));
        // `B-X` has no end; the first `I-Y` and the last `E-Y` have no beginning.
        assert_eq!(detected("B-X O S-X|I-Y E-Y|E-Y"), (Some(TagScheme::Bioes), 3));
        let found = detect(&[tags("O O"), tags("B-X O I-X")]);
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
            prop_assert_eq!(detect(&[&given]), Detected { scheme: Some(TagScheme::Iob2), irregular: vec![] });
            let before = given.clone();
            prop_assert_eq!(to_iob2(&mut given), 0);
            prop_assert_eq!(given, before);
        }
    }
}
