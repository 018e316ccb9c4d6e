//! Plain-text tables.

use std::fmt;

/// A table with aligned columns.
pub struct Table {
    /// `<` or `>` for each column; the last one also applies to all further columns.
    alignment: Vec<char>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table whose columns are aligned to the left (`<`) or to the right (`>`). The last character also
    /// applies to all further columns.
    pub fn new(alignment: &str) -> Table {
        Table { alignment: alignment.chars().collect(), rows: Vec::new() }
    }

    /// Creates a table of pairwise cosines, with numbered rows and columns.
    pub fn square(cosines: &[Vec<f64>]) -> Table {
        let numbers = (1..=cosines.len()).map(|number| number.to_string());
        let table = Table::new(">").row(std::iter::once(String::new()).chain(numbers));
        cosines.iter().zip(1..).fold(table, |table, (row, number)| {
            table.row(std::iter::once(number.to_string()).chain(row.iter().map(|cosine| format!("{cosine:.3}"))))
        })
    }

    /// Appends a row. A row without cells is a blank line.
    pub fn row<S: Into<String>>(mut self, cells: impl IntoIterator<Item = S>) -> Table {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                match self.alignment.get(column).or(self.alignment.last()) {
                    Some('>') => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Formats a number with thousands separators: 109,482,240.
pub fn thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}
