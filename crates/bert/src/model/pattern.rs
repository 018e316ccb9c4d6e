//! Regular expressions, as far as the names of modules need them: characters, classes, groups, alternatives, repetition.
//!
//! A pattern maps positions in a text at which it may start to those at which it may end (K. Thompson, "Regular expression
//! search algorithm", 1968), so no pattern takes long.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// The depth of nested groups.
const MAX_DEPTH: usize = 16;

/// A regular expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    /// A character in one of these ranges or, if negated, in none of them.
    One {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `^`
    Start,
    /// `$`
    End,
    Sequence(Vec<Pattern>),
    Either(Vec<Pattern>),
    /// `?` is optional, `+` may repeat, `*` is both.
    Repeat {
        pattern: Box<Pattern>,
        optional: bool,
        many: bool,
    },
}

impl Pattern {
    /// Reads a pattern. Returns `None` if it is invalid or has a part that is not known here.
    pub(super) fn parse(text: &str) -> Option<Pattern> {
        let mut rest = text.chars().peekable();
        let pattern = either(&mut rest, 0)?;
        rest.next().is_none().then_some(pattern)
    }

    /// Returns whether the pattern matches from the beginning of `text` to its end.
    pub(super) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.ends(&text, &BTreeSet::from([0])).contains(&text.len())
    }

    /// Returns the positions at which a match that starts at one of `starts` may end.
    fn ends(&self, text: &[char], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
        match self {
            Pattern::One { negated, ranges } => {
                let fits = |c: &char| ranges.iter().any(|(from, to)| (from..=to).contains(&c)) != *negated;
                starts.iter().filter(|&&at| text.get(at).is_some_and(fits)).map(|at| at + 1).collect()
            }
            Pattern::Start => starts.iter().copied().filter(|&at| at == 0).collect(),
            Pattern::End => starts.iter().copied().filter(|&at| at == text.len()).collect(),
            Pattern::Sequence(parts) => parts.iter().fold(starts.clone(), |starts, part| part.ends(text, &starts)),
            Pattern::Either(parts) => parts.iter().flat_map(|part| part.ends(text, starts)).collect(),
            Pattern::Repeat { pattern, optional, many } => {
                let mut ends = pattern.ends(text, starts);
                let mut new = if *many { ends.clone() } else { BTreeSet::new() };
                while !new.is_empty() {
                    new = pattern.ends(text, &new).difference(&ends).copied().collect();
                    ends.extend(&new);
                }
                ends.extend(starts.iter().filter(|_| *optional));
                ends
            }
        }
    }
}

fn either(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Pattern> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut parts = vec![sequence(rest, depth)?];
    while rest.next_if_eq(&'|').is_some() {
        parts.push(sequence(rest, depth)?);
    }
    Some(Pattern::Either(parts))
}

fn sequence(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Pattern> {
    let mut parts = Vec::new();
    while rest.peek().is_some_and(|c| !"|)".contains(*c)) {
        let pattern = Box::new(atom(rest, depth)?);
        let Some(kind) = rest.next_if(|c| "?*+".contains(*c)) else {
            parts.push(*pattern);
            continue;
        };
        // A lazy repetition matches the same names.
        rest.next_if_eq(&'?');
        parts.push(Pattern::Repeat { pattern, optional: kind != '+', many: kind != '?' });
    }
    Some(Pattern::Sequence(parts))
}

fn atom(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Pattern> {
    let one = |negated, ranges| Some(Pattern::One { negated, ranges });
    match rest.next()? {
        '(' => {
            if rest.next_if_eq(&'?').is_some() {
                rest.next_if_eq(&':')?;
            }
            let group = either(rest, depth + 1)?;
            rest.next_if_eq(&')').map(|_| group)
        }
        '[' => {
            let negated = rest.next_if_eq(&'^').is_some();
            let mut ranges = Vec::new();
            while rest.next_if_eq(&']').is_none() {
                match rest.next()? {
                    '\\' => ranges.extend(escaped(rest.next()?)?),
                    from if rest.next_if_eq(&'-').is_some() => ranges.push((from, rest.next().filter(|c| *c != ']')?)),
                    c => ranges.push((c, c)),
                }
            }
            one(negated, ranges)
        }
        '.' => one(true, Vec::new()),
        '^' => Some(Pattern::Start),
        '$' => Some(Pattern::End),
        '\\' => one(false, escaped(rest.next()?)?),
        c if "?*+{}".contains(c) => None,
        c => one(false, vec![(c, c)]),
    }
}

/// Returns the characters that `\c` stands for.
fn escaped(c: char) -> Option<Vec<(char, char)>> {
    match c {
        'd' => Some(vec![('0', '9')]),
        'w' => Some(vec![('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')]),
        c if c.is_ascii_punctuation() => Some(vec![(c, c)]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_python() {
        const NAME: &str = "encoder.layer.11.attention.self.query";
        for (pattern, expected) in [
            (NAME, true),
            ("query", false),
            (r".*\.query", true),
            (r".*layer\.1\..*(query|value)", false),
            (r".*layer\.(1|11)\..*(query|value)", true),
            (r"^encoder\.layer\.\d+\.[a-z.]+$", true),
            (r"encoder.layer.[2-9].*", false),
            (r"encoder.layer.1?1?.att[^x]*?y", true),
            (r"(?:encoder|decoder)\.(\w+\.)+self\.query", true),
            ("(a*)*b", false),
            ("", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(NAME), expected, "{pattern}");
        }
        for unknown in ["a{2}", "(a", "a)", "[a", "*", r"\s", r"(?=a)", r"\", &"(".repeat(1000)] {
            assert_eq!(Pattern::parse(unknown), None, "{unknown}");
        }
    }
}
