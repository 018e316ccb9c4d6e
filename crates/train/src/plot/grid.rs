//! Several pictures combined into one.

use super::legend::{self, Swatch};
use super::picture::Picture;
use super::scatter::ScatterPlot;
use super::style::MARGIN;
use super::svg::{Svg, number};
use super::text;

/// Pictures arranged in rows and columns, with a title and an optional common legend for plots of the same classes.
#[derive(Clone, Debug)]
pub struct Grid {
    title: String,
    columns: usize,
    entries: Vec<(Swatch, String)>,
    pictures: Vec<Picture>,
}

impl Grid {
    /// Makes an empty grid with `columns` columns.
    pub fn new(title: impl Into<String>, columns: usize) -> Grid {
        Grid { title: title.into(), columns: columns.max(1), entries: Vec::new(), pictures: Vec::new() }
    }

    /// Shows the legend of `plot` above all pictures, which are drawn [without one](ScatterPlot::without_legend).
    pub fn legend(self, plot: &ScatterPlot) -> Grid {
        Grid { entries: plot.entries(), ..self }
    }

    /// Adds a picture to the right of the last one, or at the beginning of the next row.
    pub fn picture(mut self, picture: Picture) -> Grid {
        self.pictures.push(picture);
        self
    }

    /// Draws the grid.
    pub fn draw(&self) -> Picture {
        let most = |sizes: &mut dyn Iterator<Item = f64>| sizes.fold(0.0, f64::max);
        let columns = self.columns.min(self.pictures.len().max(1));
        let column =
            |column: usize| most(&mut self.pictures.iter().skip(column).step_by(self.columns).map(|p| p.size.0));
        let widths: Vec<f64> = (0..columns).map(column).collect();
        let width = widths.iter().sum::<f64>().max(text::title_width(&self.title) + 2.0 * MARGIN);

        let mut svg = Svg::default();
        svg.text("ti", (MARGIN, MARGIN + 12.0), &self.title);
        let mut y = if self.title.is_empty() { 0.0 } else { MARGIN + 22.0 };
        y += legend::draw(&mut svg, &self.entries, (MARGIN, y), width - 2.0 * MARGIN);
        for row in self.pictures.chunks(self.columns) {
            let mut x = 0.0;
            for (picture, width) in row.iter().zip(&widths) {
                svg.raw(&format!("<g transform=\"translate({} {})\">{}</g>", number(x), number(y), picture.body));
                x += width;
            }
            y += most(&mut row.iter().map(|picture| picture.size.1));
        }
        Picture { size: (width, y), title: self.title.clone(), body: svg.0 }
    }
}
