//! Division of lines into columns.

const BLANKS: [char; 2] = [' ', '\t'];

/// The number of columns of CoNLL-U.
const CONLLU_WIDTH: usize = 10;

/// How the lines of a file are divided into columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// A column between any two tabs, so that columns may be empty.
    Tabs,
    /// The same, without the tabs at the end of the line.
    TabsWithin,
    /// A column between any blanks and tabs.
    Blanks,
}

impl Division {
    /// Finds the division by which all lines have the same number of columns, at least two. If there is none, the first
    /// line decides.
    pub(super) fn of<'l>(lines: impl Iterator<Item = &'l str> + Clone) -> Division {
        let fits = |division: &Division| {
            let mut columns = lines.clone().map(|line| division.split(line));
            let count = columns.next().map_or(0, |first| first.len());
            let ends_empty = *division == Division::Tabs
                && lines.clone().all(|line| division.split(line).last().is_some_and(|last| last.is_empty()));
            count > 1 && columns.all(|columns| columns.len() == count) && !ends_empty
        };
        let has_tab = lines.clone().next().is_some_and(|line| line.trim_matches(BLANKS).contains('\t'));
        let otherwise = if has_tab { Division::Tabs } else { Division::Blanks };
        [Division::Tabs, Division::TabsWithin, Division::Blanks].into_iter().find(fits).unwrap_or(otherwise)
    }

    pub(super) fn split(self, line: &str) -> Vec<&str> {
        match self {
            Division::Tabs => line.split('\t').map(|column| column.trim_matches(BLANKS)).collect(),
            Division::TabsWithin => Division::Tabs.split(line.trim_end_matches(BLANKS)),
            Division::Blanks => line.split(BLANKS).filter(|column| !column.is_empty()).collect(),
        }
    }
}

/// Returns whether lines are those of CoNLL-U: except for comments, they begin with the id of a word, and there are ten
/// columns, or the words are in another column than the first, or the ids of several columns count from 1.
pub(super) fn is_conllu<'l>(lines: impl Iterator<Item = &'l str> + Clone, word_column: Option<usize>) -> bool {
    let mut lines = lines.filter(|line| !line.starts_with('#')).peekable();
    let may_be = match word_column {
        None => lines.peek().is_some_and(|line| has_conllu_width(line)) || count_words(lines.clone()),
        Some(column) => column > 1,
    };
    may_be && lines.peek().is_some() && lines.all(|line| is_id(first_column(line)))
}

/// Returns whether a line has the columns of CoNLL-U.
pub(super) fn has_conllu_width(line: &str) -> bool {
    let division = if line.contains('\t') { Division::Tabs } else { Division::Blanks };
    division.split(line).len() == CONLLU_WIDTH
}

/// Returns whether the first of at least three columns counts from 1 to at least 2, again and again.
fn count_words<'l>(lines: impl Iterator<Item = &'l str>) -> bool {
    let (mut last, mut largest) = (0usize, 0);
    for line in lines.filter(|line| is_word_id(line)) {
        let Ok(id) = first_column(line).parse::<usize>() else { return false };
        if Division::Blanks.split(line).len() < 3 || (id != 1 && id != last + 1) {
            return false;
        }
        (last, largest) = (id, largest.max(id));
    }
    largest > 1
}

/// Returns whether the line of a CoNLL-U file is a word, rather than a comment, a multi-word token or an empty node.
pub(super) fn is_word_id(line: &str) -> bool {
    is_number(first_column(line))
}

fn first_column(line: &str) -> &str {
    line.split(BLANKS).next().unwrap_or_default()
}

/// Returns whether a column is the id of a word (`1`), of a multi-word token (`1-2`) or of an empty node (`1.1`).
fn is_id(column: &str) -> bool {
    match column.split_once(['-', '.']) {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(column),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
