//! Line charts, scatter plots, heat maps and confusion matrices as SVG, and HTML pages of them.
//!
//! Pictures follow the viewer's light or dark mode and are readable with colour vision deficiency. The colours of
//! series and classes come from the palette of M. Okabe and K. Ito ("Color Universal Design", 2008), with the lightness
//! adjusted to contrast with each background, and classes of points also differ in shape. Heat maps encode values as
//! opacity, so that low values fade into the background.

mod confusion;
mod grid;
mod heat_map;
mod legend;
mod line;
mod matrix;
mod page;
mod picture;
mod scatter;
mod style;
mod svg;
mod text;
mod ticks;

pub use confusion::ConfusionMatrix;
pub use grid::Grid;
pub use heat_map::HeatMap;
pub use line::{LineChart, Series};
pub use page::Page;
pub use picture::Picture;
pub use scatter::ScatterPlot;
pub use style::STYLE;
pub(crate) use ticks::significant;

#[cfg(test)]
mod tests;
