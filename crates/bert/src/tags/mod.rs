//! Tags of words, such as `B-PER`: how they are written, which scheme they follow, and the spans that they form.
//!
//! A tag is either outside of all spans, or has the kind of its span and usually a letter for the position in it. The
//! letter may be in front (`B-PER`, `B_PER`) or behind (`PER-B`), in upper or lower case; a set of tags without letters
//! (`PER`, `LOC`) names kinds only. Outside is `O`, `o` or `0`. [`TagNotation::of`] recognizes which it is from all
//! tags of a file or a model, because a single tag, such as `E-MAIL` or `VITAMIN-B`, does not tell.

mod scheme;
mod spans;

use std::collections::BTreeSet;

pub use scheme::{DetectedScheme, TagScheme};
pub use spans::TagSpan;

/// The kind of spans whose tags are only letters.
const NO_KIND: &str = "_";

/// The position of a word in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanPosition {
    /// The word is in no span: `O`, `o` or `0`.
    Outside,
    /// The first word of several: `B`.
    Begin,
    /// A word that is not the first: `I`, or `M` of BMES.
    Inside,
    /// The last word: `E`, or `L` of BILOU.
    End,
    /// The only word: `S`, or `U` of BILOU.
    Single,
    /// The tag has no letter for the position, like `NOUN`.
    Unknown,
}

impl SpanPosition {
    fn of_letter(letter: &str) -> Option<SpanPosition> {
        match letter {
            "B" | "b" => Some(SpanPosition::Begin),
            "I" | "i" | "M" | "m" => Some(SpanPosition::Inside),
            "E" | "e" | "L" | "l" => Some(SpanPosition::End),
            "S" | "s" | "U" | "u" => Some(SpanPosition::Single),
            _ => None,
        }
    }
}

/// A parsed tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'t> {
    /// The position of the word in its span.
    pub position: SpanPosition,
    /// The kind of span, such as `PER`; `_` for a bare letter, and the whole tag if it has no letter.
    pub kind: &'t str,
}

impl Tag<'_> {
    /// The tag of words outside of all spans.
    pub const OUTSIDE: Tag<'static> = Tag { position: SpanPosition::Outside, kind: "" };

    /// Returns whether a span begins at this tag by the rule of `conlleval`: any tag that cannot continue the previous
    /// span begins a new one.
    pub fn begins_after(&self, previous: &Tag) -> bool {
        let ended = matches!(previous.position, SpanPosition::Outside | SpanPosition::End | SpanPosition::Single);
        match self.position {
            SpanPosition::Outside => false,
            SpanPosition::Begin | SpanPosition::Single => true,
            _ => ended || previous.kind != self.kind,
        }
    }
}

/// Where the tags of a data set or a model have the letter for the position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TagNotation {
    /// In front: `B-PER`, `B_PER`, `b-per`.
    #[default]
    Prefix,
    /// Behind: `PER-B`, `PER_B`.
    Suffix,
    /// Nowhere: tags are kinds of spans, or parts of speech.
    Plain,
}

impl TagNotation {
    /// Recognizes the notation that most of the tags have. The order and the number of occurrences do not matter.
    ///
    /// ```
    /// use cloze_bert::tags::TagNotation;
    /// assert_eq!(TagNotation::of(["O", "B-PER", "I-PER"]), TagNotation::Prefix);
    /// assert_eq!(TagNotation::of(["o", "PER_B", "PER_I"]), TagNotation::Suffix);
    /// assert_eq!(TagNotation::of(["O", "E_MAIL", "VITAMIN-B"]), TagNotation::Plain);
    /// ```
    pub fn of<'t>(tags: impl IntoIterator<Item = &'t str>) -> TagNotation {
        let tags: BTreeSet<&str> = tags.into_iter().filter(|tag| !is_outside(tag)).collect();
        let positions = |split: fn(&str) -> Option<(SpanPosition, &str)>| -> Vec<SpanPosition> {
            tags.iter().filter_map(|tag| Some(split(tag)?.0)).collect()
        };
        let (prefixes, suffixes) = (positions(prefix), positions(suffix));
        let most = |positions: &[SpanPosition]| 2 * positions.len() >= tags.len();
        // A single letter may be part of a name, as in `E_MAIL` and `VITAMIN-B`, so other tags must confirm that it is a
        // position.
        let is_classic = |tag: &&str| tag.as_bytes().get(1) == Some(&b'-') && tag.as_bytes()[0].is_ascii_uppercase();
        let starts_or_goes_on = |position| matches!(position, &SpanPosition::Begin | &SpanPosition::Inside);
        let are_letters = tags.is_empty() || tags.iter().any(is_classic) || prefixes.iter().any(starts_or_goes_on);
        let is_prefix = are_letters && most(&prefixes) && prefixes.len() >= suffixes.len();
        let is_suffix = most(&suffixes) && suffixes.iter().collect::<BTreeSet<_>>().len() > 1;
        match (is_prefix, is_suffix) {
            (true, _) => TagNotation::Prefix,
            (false, true) => TagNotation::Suffix,
            (false, false) => TagNotation::Plain,
        }
    }

    /// Parses a tag.
    pub fn parse(self, tag: &str) -> Tag<'_> {
        if is_outside(tag) {
            return Tag::OUTSIDE;
        }
        let parts = match self {
            TagNotation::Prefix => prefix(tag),
            TagNotation::Suffix => suffix(tag),
            TagNotation::Plain => None,
        };
        let (position, kind) = parts.unwrap_or((SpanPosition::Unknown, tag));
        Tag { position, kind }
    }
}

/// Returns whether a tag says that a word is in no span.
fn is_outside(tag: &str) -> bool {
    matches!(tag, "O" | "o" | "0")
}

fn prefix(tag: &str) -> Option<(SpanPosition, &str)> {
    let (letter, kind) = tag.split_once(['-', '_']).unwrap_or((tag, ""));
    Some((SpanPosition::of_letter(letter)?, if kind.is_empty() { NO_KIND } else { kind }))
}

fn suffix(tag: &str) -> Option<(SpanPosition, &str)> {
    let (kind, letter) = tag.rsplit_once(['-', '_']).unwrap_or(("", tag));
    Some((SpanPosition::of_letter(letter)?, if kind.is_empty() { NO_KIND } else { kind }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations_are_recognized_by_the_set_of_tags() {
        for (tags, expected) in [
            ("O", TagNotation::Prefix),
            ("O B-PER I-PER", TagNotation::Prefix),
            ("O B-PER-X I-PER-X", TagNotation::Prefix),
            ("B_PER I_PER 0", TagNotation::Prefix),
            ("B-PER b-per i-per o", TagNotation::Prefix),
            ("U-PER", TagNotation::Prefix),
            ("O B I", TagNotation::Prefix),
            ("O B-PER I-PER B-LOC X", TagNotation::Prefix),
            ("O PER-B PER-I LOC-B", TagNotation::Suffix),
            ("O PER_b PER_e PER_s", TagNotation::Suffix),
            ("O PER LOC", TagNotation::Plain),
            ("O ORG BRAND", TagNotation::Plain),
            ("e_mail O", TagNotation::Plain),
            ("VITAMIN-B HEPATITIS O", TagNotation::Plain),
            ("LABEL_0 LABEL_1", TagNotation::Plain),
            ("N V S ADJ ADV X", TagNotation::Plain),
        ] {
            assert_eq!(TagNotation::of(tags.split(' ')), expected, "{tags}");
        }
    }

    #[test]
    fn tags_have_a_position_and_a_kind() {
        let shown = |notation: TagNotation, tag: &'static str| {
            let Tag { position, kind } = notation.parse(tag);
            (position, kind)
        };
        assert_eq!(shown(TagNotation::Prefix, "B-PER_X-Y"), (SpanPosition::Begin, "PER_X-Y"));
        assert_eq!(shown(TagNotation::Prefix, "m_per"), (SpanPosition::Inside, "per"));
        assert_eq!(shown(TagNotation::Prefix, "L-PER"), (SpanPosition::End, "PER"));
        assert_eq!(shown(TagNotation::Prefix, "I"), (SpanPosition::Inside, "_"));
        assert_eq!(shown(TagNotation::Prefix, "BRAND"), (SpanPosition::Unknown, "BRAND"));
        assert_eq!(shown(TagNotation::Suffix, "A-B-U"), (SpanPosition::Single, "A-B"));
        assert_eq!(shown(TagNotation::Plain, "B-PER"), (SpanPosition::Unknown, "B-PER"));
        for outside in ["O", "o", "0"] {
            assert_eq!(TagNotation::Plain.parse(outside), Tag::OUTSIDE);
        }
    }
}
