//! The grid of labelled rows and columns shared by heat maps and confusion matrices.

use super::style::{FONT, MARGIN, SMALL};
use super::svg::Svg;
use super::text;

/// Longest label of a row or column, in pixels.
const LONGEST_LABEL: f64 = 110.0;

/// The labels of the rows or the columns, and what they are together.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) labels: Vec<String>,
}

impl Side {
    /// Returns the labels of the first `count` rows or columns, cut where they are too long.
    fn short_labels(&self, count: usize, font: f64) -> Vec<String> {
        self.labels.iter().take(count).map(|label| text::fitted(label, font, LONGEST_LABEL)).collect()
    }
}

/// Position and size of the cells.
pub(super) struct Cells {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    count: (usize, usize),
}

impl Cells {
    /// Draws title, labels and frame of `count` rows and columns of cells, which are `width` by `height` pixels each.
    pub(super) fn draw(
        svg: &mut Svg,
        (class, title): (&str, &str),
        (rows, columns): (&Side, &Side),
        count: (usize, usize),
        (width, height): (f64, f64),
    ) -> Cells {
        let mut cells = Cells { left: 0.0, top: 0.0, width, height, count };
        let font = cells.font();
        let (row_labels, column_labels) = (rows.short_labels(count.0, font), columns.short_labels(count.1, font));

        let name_room = if rows.name.is_empty() { 0.0 } else { 20.0 };
        let label_room = if row_labels.is_empty() { 0.0 } else { text::widest(&row_labels, font) + 8.0 };
        cells.left = MARGIN + name_room + label_room;
        let (degrees, column_room) = cells.turn_of_labels(&column_labels);
        let title_room = if title.is_empty() { 0.0 } else { 22.0 };
        // Turned labels leave room for the name of the columns in the corner.
        let in_corner = degrees != 0.0 && text::width(&columns.name, FONT) <= label_room - 7.0;
        let name_room = if columns.name.is_empty() || in_corner { 0.0 } else { 20.0 };
        cells.top = MARGIN + title_room + name_room + column_room;

        svg.text(class, (MARGIN, MARGIN + 12.0), title);
        match in_corner {
            true => svg.text("mu e", (cells.left - 7.0, cells.top - 8.0), &columns.name),
            false => svg.text("mu", (cells.left, MARGIN + title_room + 12.0), &columns.name),
        }
        if !rows.name.is_empty() {
            svg.turned_text("mu m", (MARGIN + 11.0, (cells.top + cells.bottom()) / 2.0), -90.0, &rows.name);
        }
        cells.draw_labels(svg, &row_labels, &column_labels, degrees);
        let size = (cells.right() - cells.left + 1.0, cells.bottom() - cells.top + 1.0);
        svg.rect("class=\"fr\"", (cells.left - 0.5, cells.top - 0.5), size, "");
        cells
    }

    fn font(&self) -> f64 {
        if self.height.min(self.width) < 14.0 { SMALL } else { FONT }
    }

    /// Returns by how many degrees the labels of columns must be turned to fit, and the height that they then take.
    fn turn_of_labels(&self, labels: &[String]) -> (f64, f64) {
        let longest = text::widest(labels, self.font());
        let degrees: f64 = if longest + 6.0 <= self.width {
            0.0
        } else if self.width < 18.0 {
            -90.0
        } else {
            -45.0
        };
        match degrees {
            _ if labels.is_empty() => (degrees, 0.0),
            0.0 => (degrees, 18.0),
            _ => (degrees, longest * degrees.abs().to_radians().sin() + 14.0),
        }
    }

    fn draw_labels(&self, svg: &mut Svg, rows: &[String], columns: &[String], degrees: f64) {
        let font = self.font();
        let small = if font == SMALL { " sm" } else { "" };
        for (row, label) in rows.iter().enumerate() {
            let middle = self.top + (row as f64 + 0.5) * self.height;
            svg.text(&format!("e{small}"), (self.left - 7.0, middle + font / 3.0), label);
        }
        for (column, label) in columns.iter().enumerate() {
            let middle = self.left + (column as f64 + 0.5) * self.width;
            match degrees {
                0.0 => svg.text(&format!("m{small}"), (middle, self.top - 7.0), label),
                -90.0 => svg.turned_text(small.trim(), (middle + font / 3.0, self.top - 6.0), degrees, label),
                _ => svg.turned_text(small.trim(), (middle + 2.0, self.top - 6.0), degrees, label),
            }
        }
    }

    /// Returns the rightmost coordinate that cells or labels of columns reach.
    pub(super) fn label_reach(&self, columns: &Side) -> f64 {
        let font = self.font();
        let labels = columns.labels.iter().take(self.count.1).enumerate();
        let widths = labels.map(|(column, label)| (column, text::width(label, font).min(LONGEST_LABEL)));
        let is_turned = widths.clone().any(|(_, label)| label + 6.0 > self.width) && self.width >= 18.0;
        let end = |(column, label): (usize, f64)| {
            self.left + (column as f64 + 0.5) * self.width + label * if is_turned { 0.71 } else { 0.5 }
        };
        widths.map(end).fold(self.right(), f64::max)
    }

    /// Returns the upper left corner of a cell.
    pub(super) fn corner(&self, row: usize, column: usize) -> (f64, f64) {
        (self.left + column as f64 * self.width, self.top + row as f64 * self.height)
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.count.1 as f64 * self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.count.0 as f64 * self.height
    }
}
