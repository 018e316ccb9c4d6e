//! What colours and shapes stand for.

use super::style::COLOURS;
use super::svg::Svg;
use super::text;

const ROW: f64 = 18.0;
const SWATCH: f64 = 24.0;
const GAP: f64 = 18.0;
const FONT: f64 = 12.0;

/// How an entry is drawn beside its name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Swatch {
    Line(usize),
    /// A line with dots on it.
    Marked(usize),
    /// A faint line: the measurements behind a smoothed one.
    Raw(usize),
    Point(Look),
}

/// How points of a class look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Number of the class, for colour and shape.
    pub(super) index: usize,
    /// Whether there is an outline alone.
    pub(super) hollow: bool,
}

/// The entries in rows that are as wide as `room`; gives the height.
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

/// A point of a class, which has a colour and a shape, of about `radius` pixels; `inside` may be a tooltip.
pub(super) fn point(svg: &mut Svg, look: Look, (x, y): (f64, f64), radius: f64, inside: &str) {
    use super::svg::number;
    let Look { index, hollow } = look;
    let class = if hollow { format!("ho s{}", index % COLOURS) } else { format!("dt f{}", index % COLOURS) };
    // When the colours begin again, the shapes are others.
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
        _ => {
            let (a, b) = (0.4, 1.15);
            let arms = [
                (-a, -b),
                (a, -b),
                (a, -a),
                (b, -a),
                (b, a),
                (a, a),
                (a, b),
                (-a, b),
                (-a, a),
                (-b, a),
                (-b, -a),
                (-a, -a),
            ];
            polygon(&arms)
        }
    };
    svg.raw(&drawn);
}
