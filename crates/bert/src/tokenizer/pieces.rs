//! Splitting a normalized word into pieces: repeatedly takes the longest piece that matches.

use std::collections::HashMap;

/// A WordPiece vocabulary, organised for look-up.
#[derive(Clone)]
pub(super) struct Pieces {
    /// Pieces that begin a word.
    first: HashMap<Box<str>, u32>,
    /// Pieces that continue a word, without their prefix.
    rest: HashMap<Box<str>, u32>,
    /// The length in bytes of the longest piece of each kind.
    longest: [usize; 2],
    unknown: u32,
    max_chars: usize,
}

impl Pieces {
    /// Creates the table from tokens and their ids. Words of more than `max_chars` characters are `unknown`.
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = (&'a str, u32)>,
        prefix: &str,
        unknown: u32,
        max_chars: usize,
    ) -> Pieces {
        let (mut first, mut rest, mut longest) = (HashMap::new(), HashMap::new(), [0; 2]);
        for (token, id) in tokens {
            if let Some(piece) = token.strip_prefix(prefix) {
                rest.insert(piece.into(), id);
                longest[1] = longest[1].max(piece.len());
            }
            first.insert(token.into(), id);
            longest[0] = longest[0].max(token.len());
        }
        Pieces { first, rest, longest, unknown, max_chars }
    }

    /// Returns the most characters of a word that is known, and the id of others.
    pub(super) fn limit(&self) -> (usize, u32) {
        (self.max_chars, self.unknown)
    }

    /// Returns the id of a token, spelled as in the vocabulary.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.first.get(token).copied()
    }

    /// Appends the ids of a word's pieces, or `unknown` if the vocabulary cannot spell the word.
    pub(super) fn push(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        if !self.spell(word, |id, _| ids.push(id)) {
            ids.truncate(before);
            ids.push(self.unknown);
        }
    }

    /// Appends the ids of a word's pieces, each with its end in bytes of the word.
    pub(super) fn cut(&self, word: &str, pieces: &mut Vec<(u32, usize)>) {
        let before = pieces.len();
        if !self.spell(word, |id, end| pieces.push((id, end))) {
            pieces.truncate(before);
            pieces.push((self.unknown, word.len()));
        }
    }

    /// Calls `each` with the id and the end of every piece. Returns false as soon as no piece fits.
    #[inline]
    fn spell(&self, word: &str, mut each: impl FnMut(u32, usize)) -> bool {
        if word.len() > self.max_chars && word.chars().count() > self.max_chars {
            return false;
        }
        if let Some(&id) = self.first.get(word) {
            each(id, word.len());
            return true;
        }
        let mut start = 0;
        while start < word.len() {
            let (pieces, longest) = if start == 0 { (&self.first, 0) } else { (&self.rest, 1) };
            let most = word.len().min(start + self.longest[longest]);
            let found = (start + 1..=most)
                .rev()
                .filter(|&end| word.is_char_boundary(end))
                .find_map(|end| Some((end, *pieces.get(&word[start..end])?)));
            let Some((end, id)) = found else { return false };
            each(id, end);
            start = end;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_piece_wins() {
        let tokens = ["[UNK]", "un", "##aff", "##able", "##a", "é", "##é"];
        let pieces = Pieces::new(tokens.into_iter().zip(0..), "##", 0, 10);
        let ids = |word: &str| {
            let mut ids = vec![9];
            pieces.push(word, &mut ids);
            ids.split_off(1)
        };
        assert_eq!(ids("unaffable"), [1, 2, 3]);
        assert_eq!(ids("unaé"), [1, 4, 6]);
        assert_eq!(ids("unx"), [0]);
        assert_eq!(ids("éun"), [0]);
        assert_eq!(ids("unaaaaaaaa"), [1, 4, 4, 4, 4, 4, 4, 4, 4]);
        assert_eq!(ids("unaaaaaaaaa"), [0]);
    }
}
