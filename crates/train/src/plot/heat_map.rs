//! Heat maps.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::matrix::{Cells, Side};
use super::picture::Picture;
use super::style::{DARK, FONT, MARGIN};
use super::svg::{Svg, number, tooltip};
use super::text;
use super::ticks::{self, decimal};

/// A matrix of numbers as cells whose opacity shows their value. Negative values have another colour.
#[derive(Clone, Debug)]
pub struct HeatMap {
    title: String,
    values: Vec<Vec<f64>>,
    rows: Side,
    columns: Side,
    range: Option<(f64, f64)>,
    unit: String,
    numbers: bool,
    compact: bool,
}

/// Maps of up to this many cells have a tooltip for each. In larger ones they would make the file too large.
const MAX_TOOLTIPS: usize = 1024;
/// Number of different opacities in maps without tooltips.
const LEVELS: f64 = 50.0;
/// Width of the colour scale in pixels.
const BAR: f64 = 12.0;

impl HeatMap {
    /// Makes a map of `values`, given row by row. Cells are left blank if their value is missing or not finite.
    pub fn new(title: impl Into<String>, values: Vec<Vec<f64>>) -> HeatMap {
        let (rows, columns) = Default::default();
        let (title, unit) = (title.into(), String::new());
        HeatMap { title, values, rows, columns, range: None, unit, numbers: false, compact: false }
    }

    /// Sets what the rows are, and the label of each.
    pub fn rows<S: Into<String>>(self, name: impl Into<String>, labels: impl IntoIterator<Item = S>) -> HeatMap {
        HeatMap { rows: Side { name: name.into(), labels: labels.into_iter().map(Into::into).collect() }, ..self }
    }

    /// Sets what the columns are, and the label of each.
    pub fn columns<S: Into<String>>(self, name: impl Into<String>, labels: impl IntoIterator<Item = S>) -> HeatMap {
        HeatMap { columns: Side { name: name.into(), labels: labels.into_iter().map(Into::into).collect() }, ..self }
    }

    /// Sets the values at which cells are transparent and opaque, where `low` must be less than `high`. If `low` is
    /// negative, 0 is transparent, and the scale extends equally to both sides. By default, the range is that of the
    /// values and 0.
    pub fn range(self, low: f64, high: f64) -> HeatMap {
        HeatMap { range: Some((low, high)), ..self }
    }

    /// Sets the label of the scale: what the values are, with their unit.
    pub fn unit(self, unit: impl Into<String>) -> HeatMap {
        HeatMap { unit: unit.into(), ..self }
    }

    /// Writes each value in its cell if cells are large enough.
    pub fn numbers(self) -> HeatMap {
        HeatMap { numbers: true, ..self }
    }

    /// Draws the map smaller and without a scale, to be one of several.
    pub fn compact(self) -> HeatMap {
        HeatMap { compact: true, ..self }
    }

    /// Draws the map.
    pub fn draw(&self) -> Picture {
        let mut svg = Svg::default();
        let count = (self.values.len(), self.values.iter().map(Vec::len).max().unwrap_or(0));
        let (room, most) = if self.compact { (210.0, 24.0) } else { (440.0, 38.0) };
        // Labels need cells as high as their text.
        let least = if self.rows.labels.is_empty() && self.columns.labels.is_empty() { 2.0 } else { 11.0 };
        let cell = (room / count.0.max(count.1).max(1) as f64).clamp(least, most).floor();
        let heading = if self.compact { "st" } else { "ti" };
        let cells = Cells::draw(&mut svg, (heading, &self.title), (&self.rows, &self.columns), count, (cell, cell));
        let scale = self.scale();
        match count.0 * count.1 <= MAX_TOOLTIPS {
            true => self.draw_cells(&mut svg, &cells, scale),
            false => self.draw_levels(&mut svg, &cells, scale),
        }
        let mut right = cells.label_reach(&self.columns);
        let mut bottom = cells.bottom();
        if !self.compact {
            right = right.max(self.draw_scale(&mut svg, (cells.right() + 22.0, cells.top), scale, &mut bottom));
        }
        let heading = if self.compact { text::width(&self.title, 14.5) } else { text::title_width(&self.title) };
        let size = (right.max(heading + MARGIN) + MARGIN, bottom + MARGIN);
        Picture { size, title: self.title.clone(), body: svg.0 }
    }

    /// Iterates over row, column and value of all cells that are not blank.
    fn cells(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let cells = self
            .values
            .iter()
            .enumerate()
            .flat_map(|(row, values)| values.iter().enumerate().map(move |(column, &value)| (row, column, value)));
        cells.filter(|&(_, _, value)| ticks::is_drawable(value))
    }

    /// Returns the values at which cells are transparent and opaque; with negative values, those of opposite opacity.
    fn scale(&self) -> (f64, f64) {
        let (low, high) =
            self.cells().fold((0.0f64, 0.0f64), |(low, high), (_, _, value)| (low.min(value), high.max(value)));
        let (low, high) = self.range.unwrap_or((low, high));
        // The same opacity means the same absolute value on both sides of zero.
        let (low, high) = if low < 0.0 { (-high.max(-low), high.max(-low)) } else { (low, high) };
        if low < high { (low, high) } else { (low, low + 1.0) }
    }

    /// Draws every cell as an element, with its value as a tooltip.
    fn draw_cells(&self, svg: &mut Svg, cells: &Cells, scale: (f64, f64)) {
        let label = |side: &Side, at: usize| side.labels.get(at).cloned().unwrap_or_else(|| (at + 1).to_string());
        svg.raw("<g shape-rendering=\"crispEdges\">");
        for (row, column, value) in self.cells() {
            let (class, opacity) = colour(value, scale);
            let hint =
                format!("{} → {}: {}", label(&self.rows, row), label(&self.columns, column), ticks::significant(value));
            let attributes = format!("class=\"{class}\" fill-opacity=\"{}\"", number(opacity));
            svg.rect(&attributes, cells.corner(row, column), (cells.width, cells.height), &tooltip(&hint));
        }
        svg.raw("</g>");
        if !self.numbers || cells.width < 30.0 {
            return;
        }
        for (row, column, value) in self.cells() {
            let (x, y) = cells.corner(row, column);
            let class = if colour(value, scale).1 > DARK { "on m sm" } else { "m sm" };
            let middle = (x + cells.width / 2.0, y + cells.height / 2.0 + 3.5);
            svg.text(class, middle, &decimal(value, if value.abs() < 9.995 { 2 } else { 0 }));
        }
    }

    /// Draws all cells of about the same value as one element, without tooltips.
    fn draw_levels(&self, svg: &mut Svg, cells: &Cells, scale: (f64, f64)) {
        let mut levels: BTreeMap<(&str, u32), String> = BTreeMap::new();
        for (row, column, value) in self.cells() {
            let (class, opacity) = colour(value, scale);
            let level = (opacity * LEVELS).round() as u32;
            if level > 0 {
                let path = levels.entry((class, level)).or_default();
                let _ = write!(path, "M{column} {row}h1v1h-1z");
            }
        }
        let (x, y) = (number(cells.left), number(cells.top));
        svg.raw(&format!(
            "<g shape-rendering=\"crispEdges\" transform=\"translate({x} {y})scale({})\">",
            number(cells.width)
        ));
        for ((class, level), path) in levels {
            let opacity = number(f64::from(level) / LEVELS);
            svg.raw(&format!("<path class=\"{class}\" fill-opacity=\"{opacity}\" d=\"{path}\"/>"));
        }
        svg.raw("</g>");
    }

    /// Draws the colour scale. Returns its right end, and moves `bottom` if the scale ends below it.
    fn draw_scale(&self, svg: &mut Svg, (left, top): (f64, f64), scale: (f64, f64), bottom: &mut f64) -> f64 {
        const STEPS: usize = 32;
        let height = (*bottom - top).clamp(90.0, 200.0);
        *bottom = bottom.max(top + height);
        let at = |part: f64| top + height * (1.0 - part);
        svg.raw("<g shape-rendering=\"crispEdges\">");
        for step in 0..STEPS {
            let part = (step as f64 + 0.5) / STEPS as f64;
            let (class, opacity) = colour(scale.0 + part * (scale.1 - scale.0), scale);
            let corner = (left, at((step + 1) as f64 / STEPS as f64));
            let attributes = format!("class=\"{class}\" fill-opacity=\"{}\"", number(opacity));
            svg.rect(&attributes, corner, (BAR, height / STEPS as f64), "");
        }
        svg.raw("</g>");
        svg.rect("class=\"fr\"", (left - 0.5, top - 0.5), (BAR + 1.0, height + 1.0), "");
        let ticks = ticks::linear(scale.0, scale.1, (height / 40.0) as usize);
        let mut right = left + BAR;
        for (&value, label) in ticks.at.iter().zip(&ticks.labels) {
            let label = if ticks.exponent == 0 {
                label.clone()
            } else {
                format!("{label}×10{}", ticks::superscript(ticks.exponent))
            };
            svg.text("", (left + BAR + 7.0, at((value - scale.0) / (scale.1 - scale.0)) + 4.0), &label);
            right = right.max(left + BAR + 7.0 + text::width(&label, FONT));
        }
        if !self.unit.is_empty() {
            right += 10.0;
            svg.turned_text("mu m", (right + 8.0, top + height / 2.0), -90.0, &self.unit);
            *bottom = bottom.max(top + text::width(&self.unit, FONT));
            right += 12.0;
        }
        right
    }
}

/// Returns the style class of a value's colour, and its opacity.
fn colour(value: f64, (low, high): (f64, f64)) -> (&'static str, f64) {
    let from = low.max(0.0);
    let part = (value.abs() - from) / (high - from);
    (if value < 0.0 { "cd" } else { "ht" }, if value < 0.0 && low >= 0.0 { 0.0 } else { part.clamp(0.0, 1.0) })
}
