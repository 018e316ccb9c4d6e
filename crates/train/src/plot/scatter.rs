//! Scatter plots of several classes of points.

use super::legend::{self, Look, Swatch};
use super::line::spread;
use super::picture::Picture;
use super::style::{FONT, MARGIN, SMALL};
use super::svg::{Svg, tooltip};
use super::text;
use super::ticks::{self, Ticks};

#[derive(Clone, Debug)]
struct PointClass {
    name: String,
    look: Look,
    points: Vec<([f64; 2], String)>,
}

/// A plot of points in a plane, with the same scale on both axes and a colour and shape for each class.
#[derive(Clone, Debug)]
pub struct ScatterPlot {
    title: String,
    axes: [String; 2],
    classes: Vec<PointClass>,
    side: f64,
    legend: bool,
    labels: usize,
}

/// Longest text beside a point, in pixels.
const LONGEST_LABEL: f64 = 120.0;

/// The left, top, right and bottom of a rectangle.
type Bounds = [f64; 4];

fn overlap(a: &Bounds, b: &Bounds) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// An axis: the range of its values, its ticks, and the pixels at both ends of the range.
struct PlaneAxis {
    low: f64,
    high: f64,
    ticks: Ticks,
    pixels: (f64, f64),
}

impl PlaneAxis {
    fn pixel(&self, value: f64) -> f64 {
        let (first, last) = self.pixels;
        first + (value - self.low) / (self.high - self.low) * (last - first)
    }
}

impl ScatterPlot {
    /// Makes an empty plot.
    pub fn new(title: impl Into<String>) -> ScatterPlot {
        let axes = [String::new(), String::new()];
        ScatterPlot { title: title.into(), axes, classes: Vec::new(), side: 400.0, legend: true, labels: 0 }
    }

    /// Sets the names of the axes, with their units.
    pub fn axes(self, x: impl Into<String>, y: impl Into<String>) -> ScatterPlot {
        ScatterPlot { axes: [x.into(), y.into()], ..self }
    }

    /// Adds the points of a class, each with the text of its tooltip. Points that are not finite are left out.
    pub fn class<S: Into<String>>(
        self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = ([f64; 2], S)>,
    ) -> ScatterPlot {
        let index = self.classes.iter().filter(|class| !class.look.hollow).count();
        self.add(name.into(), Look { index, hollow: false }, points)
    }

    /// Adds more points to class number `of` (counted from 0), drawn as outlines of its colour and shape. They can
    /// tell, for example, training from held-out examples.
    pub fn hollow_class<S: Into<String>>(
        self,
        name: impl Into<String>,
        of: usize,
        points: impl IntoIterator<Item = ([f64; 2], S)>,
    ) -> ScatterPlot {
        self.add(name.into(), Look { index: of, hollow: true }, points)
    }

    fn add<S: Into<String>>(
        mut self,
        name: String,
        look: Look,
        points: impl IntoIterator<Item = ([f64; 2], S)>,
    ) -> ScatterPlot {
        let points = points.into_iter().map(|(point, text)| (point, text.into()));
        let points = points.filter(|(point, _)| point.iter().all(|x| ticks::is_drawable(*x))).collect();
        self.classes.push(PointClass { name, look, points });
        self
    }

    /// Returns the legend entries of the classes.
    pub(super) fn entries(&self) -> Vec<(Swatch, String)> {
        self.classes.iter().map(|class| (Swatch::Point(class.look), class.name.clone())).collect()
    }

    /// Writes the texts of up to `most` points beside them, if there is room.
    pub fn labels(self, most: usize) -> ScatterPlot {
        ScatterPlot { labels: most, ..self }
    }

    /// Sets width and height of the plane in pixels, at least 160.
    pub fn side(self, pixels: f64) -> ScatterPlot {
        ScatterPlot { side: pixels.max(160.0), ..self }
    }

    /// Omits the legend, for plots that share one.
    pub fn without_legend(self) -> ScatterPlot {
        ScatterPlot { legend: false, ..self }
    }

    /// Draws the plot.
    pub fn draw(&self) -> Picture {
        let mut svg = Svg::default();
        let [mut x, mut y] = self.plane_axes();
        let left = MARGIN + 20.0 + text::widest(&y.ticks.labels, FONT) + 8.0;
        let width = left + self.side + 18.0;
        svg.text("ti", (MARGIN, MARGIN + 12.0), &text::fitted_title(&self.title, width - 2.0 * MARGIN));
        let mut top = MARGIN + 30.0;
        if self.legend {
            top += legend::draw(&mut svg, &self.entries(), (MARGIN, MARGIN + 22.0), width - 2.0 * MARGIN);
        }
        let bottom = top + self.side;
        (x.pixels, y.pixels) = ((left, left + self.side), (bottom, top));
        self.draw_axes(&mut svg, &x, &y);
        self.draw_points(&mut svg, &x, &y);
        Picture { size: (width, bottom + 50.0), title: self.title.clone(), body: svg.0 }
    }

    fn draw_axes(&self, svg: &mut Svg, x: &PlaneAxis, y: &PlaneAxis) {
        let ((left, right), (bottom, top)) = (x.pixels, y.pixels);
        for (&at, label) in x.ticks.at.iter().zip(&x.ticks.labels) {
            svg.line("gr", (x.pixel(at), top), (x.pixel(at), bottom));
            svg.text("m", (x.pixel(at), bottom + 17.0), label);
        }
        for (&at, label) in y.ticks.at.iter().zip(&y.ticks.labels) {
            svg.line("gr", (left, y.pixel(at)), (right, y.pixel(at)));
            svg.text("e", (left - 8.0, y.pixel(at) + 4.0), label);
        }
        svg.rect("class=\"fr\"", (left, top), (self.side, self.side), "");
        let [across, up] = &self.axes;
        svg.text("mu m", (left + self.side / 2.0, bottom + 36.0), &x.ticks.name_with_power(across));
        let beside = (MARGIN + 10.0, top + self.side / 2.0);
        svg.turned_text("mu m", beside, -90.0, &y.ticks.name_with_power(up));
    }

    /// Draws the points, outlines first so that they lie below, and the texts beside them.
    fn draw_points(&self, svg: &mut Svg, x: &PlaneAxis, y: &PlaneAxis) {
        let radius = match self.classes.iter().map(|class| class.points.len()).sum::<usize>() {
            0..=150 => 4.6,
            151..=600 => 3.6,
            _ => 2.8,
        };
        let mut taken: Vec<Bounds> = Vec::new();
        let mut texts: Vec<((f64, f64), &str)> = Vec::new();
        let (hollow, filled): (Vec<_>, Vec<_>) = self.classes.iter().partition(|class| class.look.hollow);
        for class in hollow.into_iter().chain(filled) {
            for (point, text) in &class.points {
                let (a, b) = (x.pixel(point[0]), y.pixel(point[1]));
                let tooltip = tooltip(&format!("{}: {text}", class.name));
                legend::point(svg, class.look, (a, b), radius, &tooltip);
                taken.push([a - radius, b - radius, a + radius, b + radius]);
                texts.push(((a, b), text));
            }
        }
        let frame = [x.pixels.0, y.pixels.1, x.pixels.1, y.pixels.0];
        for (point, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()).take(self.labels) {
            write_beside(svg, point, text, radius, frame, &mut taken);
        }
    }

    /// Returns both axes, with the same length so that distances are true, and without their pixels.
    fn plane_axes(&self) -> [PlaneAxis; 2] {
        let ranges = [0, 1].map(|axis| {
            let points = self.classes.iter().flat_map(|class| &class.points);
            spread(points.filter_map(|(point, _)| point.get(axis).copied()))
        });
        let length = ranges.iter().map(|(low, high)| high - low).fold(0.0, f64::max) * 1.1;
        ranges.map(|(low, high)| {
            let (low, high) = ((low + high - length) / 2.0, (low + high + length) / 2.0);
            let ticks = ticks::linear(low, high, (self.side / 60.0) as usize);
            PlaneAxis { low, high, ticks, pixels: (0.0, 0.0) }
        })
    }
}

/// Writes a label to the right, left, top or bottom of a point, wherever nothing else is. If there is no room, it is
/// left out.
fn write_beside(svg: &mut Svg, (x, y): (f64, f64), label: &str, radius: f64, frame: Bounds, taken: &mut Vec<Bounds>) {
    let label = text::fitted(label, SMALL, LONGEST_LABEL);
    let width = text::width(&label, SMALL);
    let gap = radius + 3.0;
    let starts =
        [(x + gap, y + 3.5), (x - gap - width, y + 3.5), (x - width / 2.0, y - gap), (x - width / 2.0, y + gap + 8.0)];
    let bounds = |(left, base): (f64, f64)| [left, base - 9.0, left + width, base + 2.5];
    let fits = |bounds: &Bounds| {
        let inside = bounds[0] > frame[0] && bounds[1] > frame[1] && bounds[2] < frame[2] && bounds[3] < frame[3];
        inside && !taken.iter().any(|other| overlap(bounds, other))
    };
    if let Some(start) = starts.into_iter().find(|&start| fits(&bounds(start))) {
        taken.push(bounds(start));
        svg.text("sm", start, &label);
    }
}
