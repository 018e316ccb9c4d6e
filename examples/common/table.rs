//! Tables of plain text.

use std::fmt;

/// A table with aligned columns, which prints itself.
pub struct Table {
    /// For each column `<` or `>`; the last stands for all after it.
    alignment: Vec<char>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table whose columns are aligned to the left (`<`) or to the right (`>`), with its header.
    pub fn new<S: Into<String>>(alignment: &str, header: impl IntoIterator<Item = S>) -> Table {
        Table { alignment: alignment.chars().collect(), rows: Vec::new() }.row(header)
    }

    /// The table with one more row; of no cells, for a blank line.
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

/// A number with commas between its thousands: 109,482,240.
pub fn thousands(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1000), number % 1000),
    }
}
