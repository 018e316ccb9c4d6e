//! Pictures of what was learned: lines, points, heat maps and confusion matrices, as SVG.
//!
//! They are readable in light and dark, which whoever looks at them chooses, and by the colour-blind: series have colours
//! of the palette of M. Okabe and K. Ito ("Color Universal Design", 2008), made darker or lighter to stand out from
//! the background, and classes of points have shapes too. Heat is the opacity of a colour, so that nothing is the background.

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
