//! Confusion matrices.

use super::matrix::{Cells, Side};
use super::picture::Picture;
use super::svg::{Svg, number, tooltip};
use super::text;
use super::ticks::decimal;

/// How often each class was taken for each: a row for a true class, a column for a predicted one, as
/// [`confusion_matrix`](crate::metrics::confusion_matrix) counts. Colours are the parts of the row.
#[derive(Clone, Debug)]
pub struct ConfusionMatrix {
    title: String,
    labels: Vec<String>,
    counts: Vec<Vec<usize>>,
}

impl ConfusionMatrix {
    /// The matrix of classes called `labels`.
    pub fn new<S: Into<String>>(
        title: impl Into<String>,
        labels: impl IntoIterator<Item = S>,
        counts: Vec<Vec<usize>>,
    ) -> ConfusionMatrix {
        ConfusionMatrix { title: title.into(), labels: labels.into_iter().map(Into::into).collect(), counts }
    }

    /// Draws it.
    pub fn draw(&self) -> Picture {
        let mut svg = Svg::default();
        let classes = self.counts.iter().map(Vec::len).fold(self.counts.len(), usize::max);
        let width = (420.0 / classes.max(1) as f64).clamp(16.0, 104.0).floor();
        let height = (width * 0.62).max(16.0).floor();
        let rows = Side { name: "true class".into(), labels: self.labels.clone() };
        let columns = Side { name: "predicted class".into(), labels: self.labels.clone() };
        let cells = Cells::draw(&mut svg, ("ti", &self.title), (&rows, &columns), (classes, classes), (width, height));
        let label = |class: usize| self.labels.get(class).cloned().unwrap_or_else(|| class.to_string());
        for (row, counts) in self.counts.iter().enumerate() {
            let all: usize = counts.iter().sum();
            for (column, &count) in counts.iter().enumerate() {
                let part = if all == 0 { 0.0 } else { count as f64 / all as f64 };
                let percent = format!("{} %", decimal(100.0 * part, 1));
                let corner = cells.corner(row, column);
                let attributes =
                    format!("class=\"ht\" shape-rendering=\"crispEdges\" fill-opacity=\"{}\"", number(part));
                let said = format!("{} predicted as {}: {count} of {all}, {percent}", label(row), label(column));
                svg.rect(&attributes, corner, (width, height), &tooltip(&said));
                let (plain, count) = (count.to_string(), decimal(count as f64, 0));
                let colour = if part > 0.55 { "on " } else { "" };
                let (x, y) = (corner.0 + width / 2.0, corner.1 + height / 2.0);
                let fits = |text: &str, size: f64| text::width(text, size) + 2.0 <= width;
                if height >= 36.0 && fits(&percent, 10.5) {
                    svg.text(&format!("{colour}m st"), (x, y - 1.0), &count);
                    svg.text(&format!("{colour}m sm"), (x, y + 14.0), &percent);
                } else if fits(&count, 10.5) {
                    svg.text(&format!("{colour}m sm"), (x, y + 4.0), &count);
                } else if fits(&plain, 10.5) {
                    svg.text(&format!("{colour}m sm"), (x, y + 4.0), &plain);
                }
            }
        }
        let note = "Each row adds up to 100 %.";
        svg.text("mu sm", (cells.left, cells.bottom() + 18.0), note);
        let right = cells.label_reach(&columns).max(cells.left + text::width(note, 10.5));
        let right = right.max(14.0 + text::title_width(&self.title));
        Picture { size: (right + 14.0, cells.bottom() + 32.0), title: self.title.clone(), body: svg.0 }
    }
}
