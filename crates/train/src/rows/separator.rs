//! Finding the separator of TSV and CSV files.

use csv::{ReaderBuilder, StringRecord};

use super::Columns;

/// Number of bytes at the beginning of a file in which the separator is looked for.
pub(super) const LOOK_AHEAD: u64 = 1 << 16;

/// The separators that are looked for, those of `.tsv` and `.csv` files first.
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// The beginning of the line by which Excel is told the separator: `sep=;`.
const DIRECTIVE: &str = "sep=";

/// The separator of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Separator {
    pub(super) character: char,
    /// Whether the first line only names the separator.
    pub(super) has_line: bool,
    /// Whether quotation marks around a column are not part of it.
    pub(super) is_quoted: bool,
}

impl Separator {
    /// Finds the separator of a file that begins with `head`: the first that gives it the wanted columns, beginning
    /// with the usual one.
    pub(super) fn of(head: &str, columns: &Columns, usual: char) -> Separator {
        let first_line = head.lines().next().unwrap_or_default();
        let named = first_line.strip_prefix(DIRECTIVE).and_then(|name| name.chars().next());
        let chosen = columns.chosen_separator().or(named).filter(char::is_ascii);
        let found = || match columns.has_header() {
            true => by_header(head, columns, usual),
            false => by_widths(head, columns, usual),
        };
        let character = chosen.unwrap_or_else(found);
        let header = head.lines().nth(usize::from(named.is_some())).filter(|_| columns.has_header());
        Separator { character, has_line: named.is_some(), is_quoted: is_quoted(character, header.unwrap_or_default()) }
    }

    /// Returns a reader for files with this separator. Rows may have any number of columns.
    pub(super) fn reader(&self) -> ReaderBuilder {
        reader(self.character, self.is_quoted)
    }
}

fn reader(character: char, is_quoted: bool) -> ReaderBuilder {
    let mut form = ReaderBuilder::new();
    form.delimiter(character as u8).quoting(is_quoted).flexible(true).has_headers(false);
    form
}

/// Returns whether quotation marks quote: between tabs, only if they do so in the whole header.
fn is_quoted(character: char, header: &str) -> bool {
    let quotes = |name: &str| name.len() > 1 && name.starts_with('"') && name.ends_with('"');
    character != '\t' || header.split('\t').map(str::trim_end).all(quotes)
}

/// Returns the separators to try, in order.
fn candidates(usual: char) -> Vec<char> {
    let others = SEPARATORS.into_iter().filter(|&other| other != usual);
    std::iter::once(usual).chain(others).collect()
}

fn records(head: &str, character: char, is_quoted: bool) -> impl Iterator<Item = StringRecord> {
    reader(character, is_quoted).from_reader(head.as_bytes()).into_records().map_while(Result::ok)
}

/// Returns the first candidate for which `measure` is largest.
fn first_largest<T: Ord>(candidates: Vec<char>, usual: char, measure: impl Fn(char) -> T) -> char {
    candidates.into_iter().rev().max_by_key(|&character| measure(character)).unwrap_or(usual)
}

/// Returns the first separator by which the header has the wanted columns, or else the most columns.
fn by_header(head: &str, columns: &Columns, usual: char) -> char {
    first_largest(candidates(usual), usual, |character| {
        let is_quoted = is_quoted(character, head.lines().next().unwrap_or_default());
        let header = records(head, character, is_quoted).next().unwrap_or_default();
        let fits = columns.find(&header.iter().collect::<Vec<_>>()).is_ok();
        (fits, if fits { 0 } else { header.len() })
    })
}

/// Returns the first separator by which all rows are wide enough, if possible equally wide, and then as wide as
/// possible.
fn by_widths(head: &str, columns: &Columns, usual: char) -> char {
    let (needed, _) = columns.width();
    first_largest(candidates(usual), usual, |character| {
        let widths: Vec<usize> =
            records(head, character, is_quoted(character, "")).map(|record| record.len()).collect();
        let is_cut = head.len() as u64 >= LOOK_AHEAD && widths.len() > 1;
        let widths = &widths[..widths.len() - usize::from(is_cut)];
        let least = widths.iter().min().copied().unwrap_or_default();
        let is_even = widths.iter().all(|&width| width == least);
        (least >= needed.max(2), is_even && least > 1, least)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell() {
        let found = |head: &str, usual| Separator::of(head, &Columns::new(), usual).character;
        for (head, expected) in [
            ("text,label\na;b,1\n", ','),
            ("text;label\n\"a, b; c\";1\n", ';'),
            ("label\tid;a,b\ttext\n", '\t'),
            ("id|text|label\n", '|'),
            ("\"text\";\"label\"\n", ';'),
            // Without the wanted columns, the most columns.
            ("review;stars;a,b\n", ';'),
            ("review\n", ','),
        ] {
            assert_eq!(found(head, ','), expected, "{head}");
        }
        assert_eq!((found("text\tlabel\n", '\t'), found("text,label\n", '\t')), ('\t', ','));
        assert_eq!((found("review\n", '\t'), found("", '\t')), ('\t', '\t'));
        let chosen = Columns::new().separator(':');
        assert_eq!(Separator::of("text,label:text:label\n", &chosen, ',').character, ':');
        let named = Separator { character: ';', has_line: true, is_quoted: true };
        assert_eq!(Separator::of("sep=;\r\ntext;label\n", &Columns::new(), ','), named);
    }

    #[test]
    fn between_tabs_a_quoted_header_tells_of_quotation_marks() {
        let found = |head: &str, columns: &Columns| {
            let Separator { character, is_quoted, .. } = Separator::of(head, columns, '\t');
            (character, is_quoted)
        };
        assert_eq!(found("\"text\"\t\"label\"\r\n\"a\tb\"\t1\n", &Columns::new()), ('\t', true));
        assert_eq!(found("sep=\t\n\"text\"\t\"label\"\n", &Columns::new()), ('\t', true));
        assert_eq!(found("text\t\"label\"\n\"a\"\t1\n", &Columns::new().label("\"label\"")), ('\t', false));
        assert_eq!(found("\"a\"\t\"b\"\n", &Columns::numbered()), ('\t', false));
    }

    #[test]
    fn rows_without_a_header_tell() {
        let found = |head: &str, columns: &Columns| Separator::of(head, columns, ',').character;
        let last = Columns::numbered();
        assert_eq!(found("a, b,1\nc,d,0\n\ne", &last), ',');
        assert_eq!(found("a, b, c;1\nd, e;0\nf;0\n", &last), ';');
        let seventh = Columns::numbered().text("3").second_text("4").label("2");
        assert_eq!(found("x\t1\ta, b, c, d, e\tf\ny\t2\ta\tb\tsource\n", &seventh), '\t');
    }
}
