//! Points of several classes in a plane.

use super::legend::{self, Look, Swatch};
use super::line::spread;
use super::picture::Picture;
use super::svg::{Svg, tooltip};
use super::text;
use super::ticks::{self, Ticks};

#[derive(Clone, Debug)]
struct Class {
    name: String,
    look: Look,
    points: Vec<([f64; 2], String)>,
}

/// Points in a plane, the same scale both ways, with a colour and a shape for each class.
#[derive(Clone, Debug)]
pub struct ScatterPlot {
    title: String,
    axes: [String; 2],
    classes: Vec<Class>,
    side: f64,
    legend: bool,
    labels: usize,
}

const MARGIN: f64 = 14.0;
const FONT: f64 = 12.0;
const SMALL: f64 = 10.5;
/// Longest text beside a point, in pixels.
const LONGEST_LABEL: f64 = 120.0;

/// A rectangle that is taken: left, top, right, bottom.
type Area = [f64; 4];

fn overlap(a: &Area, b: &Area) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

impl ScatterPlot {
    /// A plot with nothing in it.
    pub fn new(title: impl Into<String>) -> ScatterPlot {
        let axes = [String::new(), String::new()];
        ScatterPlot { title: title.into(), axes, classes: Vec::new(), side: 400.0, legend: true, labels: 0 }
    }

    /// What the axes are, with their units.
    pub fn axes(self, x: impl Into<String>, y: impl Into<String>) -> ScatterPlot {
        ScatterPlot { axes: [x.into(), y.into()], ..self }
    }

    /// Adds the points of a class, each with a text that a mouse finds. Those that are not finite are left out.
    pub fn class<S: Into<String>>(
        self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = ([f64; 2], S)>,
    ) -> ScatterPlot {
        let index = self.classes.iter().filter(|class| !class.look.hollow).count();
        self.add(name.into(), Look { index, hollow: false }, points)
    }

    /// Adds further points of the class that was added as number `of`, from 0: outlines of its colour and shape, such as
    /// for what was trained on beside what was held out.
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
        self.classes.push(Class { name, look, points });
        self
    }

    /// What the classes look like, and their names.
    pub(super) fn entries(&self) -> Vec<(Swatch, String)> {
        self.classes.iter().map(|class| (Swatch::Point(class.look), class.name.clone())).collect()
    }

    /// Writes the texts of the points beside them, of at most so many and only where there is room.
    pub fn labels(self, most: usize) -> ScatterPlot {
        ScatterPlot { labels: most, ..self }
    }

    /// Width and height of the plane in pixels, at least 160.
    pub fn side(self, pixels: f64) -> ScatterPlot {
        ScatterPlot { side: pixels.max(160.0), ..self }
    }

    /// Leaves the names of the classes out, as where several plots have a common legend.
    pub fn without_legend(self) -> ScatterPlot {
        ScatterPlot { legend: false, ..self }
    }

    /// Draws it.
    pub fn draw(&self) -> Picture {
        let mut svg = Svg::default();
        let [x, y] = self.ticks();
        let tick_width = y.1.labels.iter().map(|label| text::width(label, FONT)).fold(0.0, f64::max);
        let left = MARGIN + 20.0 + tick_width + 8.0;
        let width = left + self.side + 18.0;
        svg.text("ti", (MARGIN, MARGIN + 12.0), &text::fitted_title(&self.title, width - 2.0 * MARGIN));
        let mut top = MARGIN + 30.0;
        if self.legend {
            top += legend::draw(&mut svg, &self.entries(), (MARGIN, MARGIN + 22.0), width - 2.0 * MARGIN);
        }
        let bottom = top + self.side;
        let across = |value: f64| left + (value - x.0) / (x.2 - x.0) * self.side;
        let up = |value: f64| bottom - (value - y.0) / (y.2 - y.0) * self.side;

        for (&at, label) in x.1.at.iter().zip(&x.1.labels) {
            svg.line("gr", (across(at), top), (across(at), bottom));
            svg.text("m", (across(at), bottom + 17.0), label);
        }
        for (&at, label) in y.1.at.iter().zip(&y.1.labels) {
            svg.line("gr", (left, up(at)), (left + self.side, up(at)));
            svg.text("e", (left - 8.0, up(at) + 4.0), label);
        }
        svg.rect("class=\"fr\"", (left, top), (self.side, self.side), "");
        let name = |axis: &str, ticks: &Ticks| match ticks.exponent {
            0 => axis.to_string(),
            power => format!("{axis}  ×10{}", ticks::superscript(power)),
        };
        svg.text("mu m", (left + self.side / 2.0, bottom + 36.0), &name(&self.axes[0], &x.1));
        svg.turned_text("mu m", (MARGIN + 10.0, top + self.side / 2.0), -90.0, &name(&self.axes[1], &y.1));

        let count: usize = self.classes.iter().map(|class| class.points.len()).sum();
        let radius = if count <= 150 {
            4.6
        } else if count <= 600 {
            3.6
        } else {
            2.8
        };
        let mut taken: Vec<Area> = Vec::new();
        let mut texts: Vec<((f64, f64), &str)> = Vec::new();
        // Outlines lie below.
        let (hollow, whole): (Vec<&Class>, Vec<&Class>) = self.classes.iter().partition(|class| class.look.hollow);
        for class in hollow.into_iter().chain(whole) {
            for ([a, b], said) in &class.points {
                let (a, b) = (across(*a), up(*b));
                let tooltip = tooltip(&format!("{}: {said}", class.name));
                legend::point(&mut svg, class.look, (a, b), radius, &tooltip);
                taken.push([a - radius, b - radius, a + radius, b + radius]);
                texts.push(((a, b), said));
            }
        }
        let frame = [left, top, left + self.side, bottom];
        texts.into_iter().filter(|(_, said)| !said.is_empty()).take(self.labels).for_each(|(point, said)| {
            write_beside(&mut svg, point, said, radius, frame, &mut taken);
        });
        Picture { size: (width, bottom + 50.0), title: self.title.clone(), body: svg.0 }
    }

    /// Of both axes the least value, the ticks and the greatest value: the same length, so that distances are true.
    fn ticks(&self) -> [(f64, Ticks, f64); 2] {
        let ranges = [0, 1].map(|axis| {
            let points = self.classes.iter().flat_map(|class| &class.points);
            spread(points.filter_map(|(point, _)| point.get(axis).copied()))
        });
        let length = ranges.iter().map(|(low, high)| high - low).fold(0.0, f64::max) * 1.1;
        ranges.map(|(low, high)| {
            let (low, high) = ((low + high - length) / 2.0, (low + high + length) / 2.0);
            (low, ticks::linear(low, high, (self.side / 60.0) as usize), high)
        })
    }
}

/// Writes a text to the right, left, top or bottom of a point, where nothing else is.
fn write_beside(svg: &mut Svg, (x, y): (f64, f64), said: &str, radius: f64, frame: Area, taken: &mut Vec<Area>) {
    let said = text::fitted(said, SMALL, LONGEST_LABEL);
    let width = text::width(&said, SMALL);
    let gap = radius + 3.0;
    let starts =
        [(x + gap, y + 3.5), (x - gap - width, y + 3.5), (x - width / 2.0, y - gap), (x - width / 2.0, y + gap + 8.0)];
    let area = |(left, base): (f64, f64)| [left, base - 9.0, left + width, base + 2.5];
    let fits = |area: &Area| {
        let inside = area[0] > frame[0] && area[1] > frame[1] && area[2] < frame[2] && area[3] < frame[3];
        inside && !taken.iter().any(|other| overlap(area, other))
    };
    if let Some(start) = starts.into_iter().find(|&start| fits(&area(start))) {
        taken.push(area(start));
        svg.text("sm", start, &said);
    }
}
