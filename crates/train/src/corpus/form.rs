//! The form of a text: how it is divided into documents and sentences.

/// How a text is divided into documents and sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextForm {
    /// A sentence per line, a blank line between documents.
    Lines,
    /// A single document, with blank lines between paragraphs.
    Prose,
}

impl TextForm {
    /// Returns the length of the longest prefix of `text` that no sentence extends beyond, possibly 0.
    pub(super) fn cut(self, text: &[u8]) -> usize {
        let line_end = |text: &[u8]| text.iter().rposition(|&byte| byte == b'\n');
        match self {
            TextForm::Lines => line_end(text).map_or(0, |end| end + 1),
            TextForm::Prose => {
                let mut rest = text;
                while let Some(end) = line_end(rest) {
                    let line = rest[..end].trim_ascii_end();
                    if line.is_empty() || line_end(&rest[line.len()..end]).is_some() {
                        return end + 1;
                    }
                    rest = &rest[..line.len()];
                }
                0
            }
        }
    }

    /// Returns the name of the unit that a cut never divides, for errors.
    pub(super) fn unit(self) -> &'static str {
        match self {
            TextForm::Lines => "a line",
            TextForm::Prose => "a paragraph",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_follow_the_last_line_or_blank_line() {
        for (text, lines, prose) in [
            ("", 0, 0),
            ("abc", 0, 0),
            ("a\nb", 2, 0),
            ("a\n\nb\nc", 5, 3),
            ("a\n \t\r\nb\n", 8, 6),
            ("\nabc", 1, 1),
            ("a\n\n\n", 4, 4),
            ("a \nb", 3, 0),
        ] {
            let found = (TextForm::Lines.cut(text.as_bytes()), TextForm::Prose.cut(text.as_bytes()));
            assert_eq!(found, (lines, prose), "{text:?}");
        }
    }
}
