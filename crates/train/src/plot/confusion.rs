//! Confusion matrices.

use super::matrix::{Cells, Side};
use super::picture::Picture;
use super::style::{DARK, MARGIN, SMALL};
use super::svg::{Svg, number, tooltip};
use super::text;
use super::ticks::decimal;

/// A picture of a confusion matrix, with a row for each true class and a column for each predicted class, as
/// [`confusion_matrix`](crate::metrics::confusion_matrix) counts them. Colours show fractions of the row.
#[derive(Clone, Debug)]
pub struct ConfusionMatrix {
    title: String,
    labels: Vec<String>,
    counts: Vec<Vec<usize>>,
}

impl ConfusionMatrix {
    /// Makes the picture of `counts`, with `labels` as the names of the classes.
    pub fn new<S: Into<String>>(
        title: impl Into<String>,
        labels: impl IntoIterator<Item = S>,
        counts: Vec<Vec<usize>>,
    ) -> ConfusionMatrix {
        ConfusionMatrix { title: title.into(), labels: labels.into_iter().map(Into::into).collect(), counts }
    }

    /// Draws the matrix.
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
            let total: usize = counts.iter().sum();
            for (column, &count) in counts.iter().enumerate() {
                let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
                let percent = format!("{} %", decimal(100.0 * share, 1));
                let corner = cells.corner(row, column);
                let attributes =
                    format!("class=\"ht\" shape-rendering=\"crispEdges\" fill-opacity=\"{}\"", number(share));
                let hint = format!("{} predicted as {}: {count} of {total}, {percent}", label(row), label(column));
                svg.rect(&attributes, corner, (width, height), &tooltip(&hint));
                write_count(&mut svg, corner, (width, height), count, &percent, share > DARK);
            }
        }
        let note = "Each row adds up to 100 %.";
        svg.text("mu sm", (cells.left, cells.bottom() + 18.0), note);
        let right = cells.label_reach(&columns).max(cells.left + text::width(note, SMALL));
        let right = right.max(MARGIN + text::title_width(&self.title));
        Picture { size: (right + MARGIN, cells.bottom() + 32.0), title: self.title.clone(), body: svg.0 }
    }
}

/// Writes a count into its cell, with as much of percentage and thousands separators as there is room for.
fn write_count(
    svg: &mut Svg,
    corner: (f64, f64),
    (width, height): (f64, f64),
    count: usize,
    percent: &str,
    on_dark: bool,
) {
    let colour = if on_dark { "on " } else { "" };
    let (x, y) = (corner.0 + width / 2.0, corner.1 + height / 2.0);
    let (plain, grouped) = (count.to_string(), decimal(count as f64, 0));
    let fits = |text: &str| text::width(text, SMALL) + 2.0 <= width;
    if height >= 36.0 && fits(percent) {
        svg.text(&format!("{colour}m st"), (x, y - 1.0), &grouped);
        svg.text(&format!("{colour}m sm"), (x, y + 14.0), percent);
    } else if let Some(text) = [grouped, plain].iter().find(|text| fits(text)) {
        svg.text(&format!("{colour}m sm"), (x, y + 4.0), text);
    }
}
