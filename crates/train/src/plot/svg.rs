//! Formatting of SVG elements.

use std::fmt::Write as _;

/// Escapes text for XML. Characters that XML forbids become U+FFFD.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

/// Formats a coordinate to a hundredth of a pixel, in as few characters as possible.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_string() } else { text.to_string() }
}

/// A sequence of SVG elements.
#[derive(Default)]
pub(super) struct Svg(pub(super) String);

impl Svg {
    pub(super) fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// Adds `text` with its baseline at (x, y). The class decides the anchor.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let (x, y, text) = (number(x), number(y), escaped(text));
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let _ = write!(self.0, "<text{class} x=\"{x}\" y=\"{y}\">{text}</text>");
    }

    /// Adds text that is rotated by `degrees` about its anchor.
    pub(super) fn turned_text(&mut self, class: &str, (x, y): (f64, f64), degrees: f64, text: &str) {
        let (x, y, text) = (number(x), number(y), escaped(text));
        let degrees = number(degrees);
        let _ =
            write!(self.0, "<text class=\"{class}\" transform=\"translate({x} {y})rotate({degrees})\">{text}</text>");
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        let _ = write!(self.0, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    /// Adds a rectangle. `inside` is the content of the element: empty, or a [`tooltip`].
    pub(super) fn rect(&mut self, attributes: &str, (x, y): (f64, f64), (width, height): (f64, f64), inside: &str) {
        let [x, y, width, height] = [x, y, width, height].map(number);
        let _ = write!(self.0, "<rect {attributes} x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
        self.raw(&if inside.is_empty() { "/>".to_string() } else { format!(">{inside}</rect>") });
    }

    /// Adds a line through `points`.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        if points.is_empty() {
            return;
        }
        let _ = write!(self.0, "<path class=\"{class}\" d=\"");
        for (index, &(x, y)) in points.iter().enumerate() {
            let _ = write!(self.0, "{}{} {}", if index == 0 { 'M' } else { 'L' }, number(x), number(y));
        }
        // A line of zero length draws a single point as a dot.
        self.raw(if points.len() == 1 { "h0\"/>" } else { "\"/>" });
    }
}

/// Returns an element that makes its parent show `text` as a tooltip.
pub(super) fn tooltip(text: &str) -> String {
    format!("<title>{}</title>", escaped(text))
}
