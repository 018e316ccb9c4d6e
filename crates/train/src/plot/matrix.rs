//! What heat maps and confusion matrices share: cells in labelled rows and columns.

use super::svg::Svg;
use super::text;

const MARGIN: f64 = 14.0;
const FONT: f64 = 12.0;
const SMALL: f64 = 10.5;
const LONGEST_LABEL: f64 = 110.0;

/// Names of the rows or the columns, and what they are together.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) labels: Vec<String>,
}

/// Where the cells are.
pub(super) struct Cells {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    count: (usize, usize),
}

impl Cells {
    /// Draws title and labels around `rows` by `columns` cells of `width` by `height` pixels.
    pub(super) fn draw(
        svg: &mut Svg,
        (class, title): (&str, &str),
        (rows, columns): (&Side, &Side),
        (row_count, column_count): (usize, usize),
        (width, height): (f64, f64),
    ) -> Cells {
        let font = if height.min(width) < 14.0 { SMALL } else { FONT };
        let small = if font == SMALL { " sm" } else { "" };
        let short = |labels: &[String], count| -> Vec<String> {
            labels.iter().take(count).map(|label| text::fitted(label, font, LONGEST_LABEL)).collect()
        };
        let widest = |labels: &[String]| labels.iter().map(|label| text::width(label, font)).fold(0.0, f64::max);
        let (row_labels, column_labels) = (short(&rows.labels, row_count), short(&columns.labels, column_count));

        let name_room = if rows.name.is_empty() { 0.0 } else { 20.0 };
        let label_room = if row_labels.is_empty() { 0.0 } else { widest(&row_labels) + 8.0 };
        let left = MARGIN + name_room + label_room;
        let longest = widest(&column_labels);
        let degrees: f64 = if longest + 6.0 <= width {
            0.0
        } else if width < 18.0 {
            -90.0
        } else {
            -45.0
        };
        let label_room = match degrees {
            _ if column_labels.is_empty() => 0.0,
            0.0 => 18.0,
            degrees => longest * degrees.abs().to_radians().sin() + 14.0,
        };
        let title_room = if title.is_empty() { 0.0 } else { 22.0 };
        // Beside turned labels there is room for their name in the corner.
        let in_corner = degrees != 0.0 && text::width(&columns.name, FONT) <= left - name_room - MARGIN - 7.0;
        let name_room = if columns.name.is_empty() || in_corner { 0.0 } else { 20.0 };
        let top = MARGIN + title_room + name_room + label_room;
        let cells = Cells { left, top, width, height, count: (row_count, column_count) };
        let (right, bottom) = (cells.right(), cells.bottom());

        svg.text(class, (MARGIN, MARGIN + 12.0), title);
        match in_corner {
            true => svg.text("mu e", (left - 7.0, top - 8.0), &columns.name),
            false => svg.text("mu", (left, MARGIN + title_room + 12.0), &columns.name),
        }
        if !rows.name.is_empty() {
            svg.turned_text("mu m", (MARGIN + 11.0, (top + bottom) / 2.0), -90.0, &rows.name);
        }
        for (row, label) in row_labels.iter().enumerate() {
            let middle = top + (row as f64 + 0.5) * height;
            svg.text(&format!("e{small}"), (left - 7.0, middle + font / 3.0), label);
        }
        for (column, label) in column_labels.iter().enumerate() {
            let middle = left + (column as f64 + 0.5) * width;
            match degrees {
                0.0 => svg.text(&format!("m{small}"), (middle, top - 7.0), label),
                -90.0 => svg.turned_text(small.trim(), (middle + font / 3.0, top - 6.0), degrees, label),
                _ => svg.turned_text(small.trim(), (middle + 2.0, top - 6.0), degrees, label),
            }
        }
        svg.rect("class=\"fr\"", (left - 0.5, top - 0.5), (right - left + 1.0, bottom - top + 1.0), "");
        cells
    }

    /// How far turned labels of columns reach.
    pub(super) fn label_reach(&self, columns: &Side) -> f64 {
        let font = if self.height.min(self.width) < 14.0 { SMALL } else { FONT };
        let labels = columns.labels.iter().take(self.count.1).enumerate();
        let widths = labels.map(|(column, label)| (column, text::width(label, font).min(LONGEST_LABEL)));
        let is_turned = widths.clone().any(|(_, label)| label + 6.0 > self.width) && self.width >= 18.0;
        let end = |(column, label): (usize, f64)| {
            self.left + (column as f64 + 0.5) * self.width + label * if is_turned { 0.71 } else { 0.5 }
        };
        widths.map(end).fold(self.right(), f64::max)
    }

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
