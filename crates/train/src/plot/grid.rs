//! Several pictures as one.

use super::legend::{self, Swatch};
use super::picture::Picture;
use super::scatter::ScatterPlot;
use super::svg::{Svg, number};
use super::text;

/// Pictures in rows and columns, with a title and, for plots of the same classes, a common legend.
#[derive(Clone, Debug)]
pub struct Grid {
    title: String,
    columns: usize,
    entries: Vec<(Swatch, String)>,
    pictures: Vec<Picture>,
}

const MARGIN: f64 = 14.0;

impl Grid {
    /// A grid with so many columns and nothing in it.
    pub fn new(title: impl Into<String>, columns: usize) -> Grid {
        Grid { title: title.into(), columns: columns.max(1), entries: Vec::new(), pictures: Vec::new() }
    }

    /// The legend of `plot`, for all of them, which are [without one](ScatterPlot::without_legend).
    pub fn legend(self, plot: &ScatterPlot) -> Grid {
        Grid { entries: plot.entries(), ..self }
    }

    /// Adds a picture: to the right of the last, or at the beginning of the next row.
    pub fn picture(mut self, picture: Picture) -> Grid {
        self.pictures.push(picture);
        self
    }

    /// Draws it.
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
