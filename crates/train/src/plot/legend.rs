//! Legends, which explain colours and shapes.

use super::style::{COLOURS, FONT};
use super::svg::{Svg, number};
use super::text;

const ROW: f64 = 18.0;
const SWATCH: f64 = 24.0;
const GAP: f64 = 18.0;

/// The sample of colour and shape beside the name of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Swatch {
    Line(usize),
    /// A line with a marker.
    Marked(usize),
    /// The faint line of raw values behind a smoothed one.
    Raw(usize),
    Point(Look),
}

/// The appearance of the points of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Index of the class, which decides colour and shape.
    pub(super) index: usize,
    /// Whether only the outline is drawn.
    pub(super) hollow: bool,
}

/// Draws the entries in rows of at most `room` pixels and returns their total height.
pub(super) fn draw(svg: &mut Svg, entries: &[(Swatch, String)], (left, top): (f64, f64), room: f64) -> f64 {
    let (mut x, mut y) = (left, top);
    for (swatch, name) in entries {
        let name = text::fitted(name, FONT, room - SWATCH);
        let width = SWATCH + text::width(&name, FONT);
        if x > left && x + width > left + room {
            (x, y) = (left, y + ROW);
        }
        let middle = y + ROW / 2.0;
        match *swatch {
            Swatch::Line(index) => svg.line(&format!("ln s{}", index % COLOURS), (x, middle), (x + 16.0, middle)),
            Swatch::Marked(index) => {
                svg.line(&format!("ln s{}", index % COLOURS), (x, middle), (x + 16.0, middle));
                point(svg, Look { index, hollow: false }, (x + 8.0, middle), 3.6, "");
            }
            Swatch::Raw(index) => svg.line(&format!("ra rs s{}", index % COLOURS), (x, middle), (x + 16.0, middle)),
            Swatch::Point(look) => point(svg, look, (x + 8.0, middle), 5.0, ""),
        }
        svg.text("", (x + SWATCH, middle + 4.0), &name);
        x += width + GAP;
    }
    if entries.is_empty() { 0.0 } else { y + ROW - top }
}

/// Draws a point with the colour and shape of its class and a radius of about `radius` pixels. `inside` is the content
/// of the element: empty, or a tooltip.
pub(super) fn point(svg: &mut Svg, look: Look, (x, y): (f64, f64), radius: f64, inside: &str) {
    let Look { index, hollow } = look;
    let class = if hollow { format!("ho s{}", index % COLOURS) } else { format!("dt f{}", index % COLOURS) };
    // Shapes shift each time the colours repeat, so that 36 classes differ.
    let shape = (index + index / COLOURS) % 6;
    let end = if inside.is_empty() {
        "/>".to_string()
    } else {
        format!(">{inside}</{}>", if shape == 0 { "circle" } else { "path" })
    };
    let polygon = |corners: &[(f64, f64)]| {
        let corner = |&(dx, dy): &(f64, f64)| format!("{} {}", number(x + radius * dx), number(y + radius * dy));
        format!("<path class=\"{class}\" d=\"M{}Z\"{end}", corners.iter().map(corner).collect::<Vec<_>>().join("L"))
    };
    let drawn = match shape {
        0 => {
            format!("<circle class=\"{class}\" cx=\"{}\" cy=\"{}\" r=\"{}\"{end}", number(x), number(y), number(radius))
        }
        1 => polygon(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)]),
        2 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        3 => polygon(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
        4 => polygon(&[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)]),
        _ => polygon(&CROSS),
    };
    svg.raw(&drawn);
}

/// The corners of a cross.
#[rustfmt::skip]
const CROSS: [(f64, f64); 12] = {
    let (a, b) = (0.4, 1.15);
    [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
};
