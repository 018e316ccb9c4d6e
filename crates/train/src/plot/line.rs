//! Line charts.

use super::legend::{self, Look, Swatch};
use super::picture::Picture;
use super::style::COLOURS;
use super::svg::{Svg, tooltip};
use super::text;
use super::ticks::{self, Ticks};

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    window: f64,
    markers: bool,
}

impl Series {
    /// A series of (x, y), in the order of x. Points that are not finite leave a gap.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series { name: name.into(), points: points.into_iter().collect(), window: 1.0, markers: false }
    }

    /// Draws, over a faint line of the points themselves, their exponential moving average over about `window` points.
    pub fn smoothed(self, window: f64) -> Series {
        Series { window, ..self }
    }

    /// Draws a dot at each point too.
    pub fn markers(self) -> Series {
        Series { markers: true, ..self }
    }

    fn is_smoothed(&self) -> bool {
        self.window > 1.0
    }

    /// The moving average, free of bias towards its start; of logarithms, on an axis of those.
    ///
    /// Source: D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2015, section 3.
    fn average(&self, logarithmic: bool) -> Vec<(f64, f64)> {
        let weight = 1.0 / self.window.max(1.0);
        let (mut sum, mut total) = (0.0, 0.0);
        let average = |&(x, y): &(f64, f64)| {
            if !ticks::is_drawable(y) || (logarithmic && y <= 0.0) {
                return (x, y);
            }
            sum = (1.0 - weight) * sum + weight * if logarithmic { y.ln() } else { y };
            total = (1.0 - weight) * total + weight;
            (x, if logarithmic { (sum / total).exp() } else { sum / total })
        };
        self.points.iter().map(average).collect()
    }
}

/// A chart of one or several series over a common axis.
#[derive(Clone, Debug)]
pub struct LineChart {
    title: String,
    x: String,
    y: String,
    logarithmic: bool,
    series: Vec<Series>,
    size: (f64, f64),
}

const FONT: f64 = 12.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 20.0;

impl LineChart {
    /// A chart with nothing in it.
    pub fn new(title: impl Into<String>) -> LineChart {
        let (x, y) = (String::new(), String::new());
        LineChart { title: title.into(), x, y, logarithmic: false, series: Vec::new(), size: (640.0, 320.0) }
    }

    /// What the axes are, with their units: `step`, `loss (nats)`.
    pub fn axes(self, x: impl Into<String>, y: impl Into<String>) -> LineChart {
        LineChart { x: x.into(), y: y.into(), ..self }
    }

    /// Makes the vertical axis logarithmic; what is not positive leaves a gap.
    pub fn logarithmic(self) -> LineChart {
        LineChart { logarithmic: true, ..self }
    }

    /// Adds a series.
    pub fn series(mut self, series: Series) -> LineChart {
        self.series.push(series);
        self
    }

    /// Width and height in pixels, at least 240 and 160.
    pub fn size(self, width: f64, height: f64) -> LineChart {
        LineChart { size: (width.max(240.0), height.max(160.0)), ..self }
    }

    /// Draws it.
    pub fn draw(&self) -> Picture {
        let mut svg = Svg::default();
        let (width, height) = self.size;
        svg.text("ti", (TOP, TOP + 12.0), &text::fitted_title(&self.title, width - 2.0 * TOP));
        let legend = legend::draw(&mut svg, &self.legend(), (TOP, TOP + 22.0), width - 2.0 * TOP);
        let top = TOP + 22.0 + legend + if self.y.is_empty() { 12.0 } else { 30.0 };
        let bottom = height - 46.0;
        let y = Vertical::of(self, top, bottom);
        let tick_width = y.ticks.labels.iter().map(|label| text::width(label, FONT)).fold(0.0, f64::max);
        let left = TOP + tick_width + 8.0;
        let x = Horizontal::of(self, left, width - RIGHT);
        self.draw_axes(&mut svg, &x, &y);
        for (index, series) in self.series.iter().enumerate() {
            draw_series(&mut svg, index, series, &x, &y);
        }
        Picture { size: self.size, title: self.title.clone(), body: svg.0 }
    }

    fn legend(&self) -> Vec<(Swatch, String)> {
        let mut entries = Vec::new();
        let alone = self.series.len() == 1;
        for (index, series) in self.series.iter().enumerate() {
            if series.is_smoothed() {
                let points = decimal_points(series.window);
                entries.push((Swatch::Line(index), format!("{}, smoothed over about {points}", series.name)));
                entries.push((
                    Swatch::Raw(index),
                    if alone { "each".to_string() } else { format!("{}, each", series.name) },
                ));
            } else if !alone {
                let swatch = if series.markers { Swatch::Marked(index) } else { Swatch::Line(index) };
                entries.push((swatch, series.name.clone()));
            }
        }
        entries
    }

    fn draw_axes(&self, svg: &mut Svg, x: &Horizontal, y: &Vertical) {
        svg.text("mu", (TOP, y.top - 12.0), &with_power(&self.y, y.ticks.exponent));
        for (&at, label) in y.ticks.at.iter().zip(&y.ticks.labels) {
            let Some(pixel) = y.pixel(at) else { continue };
            svg.line("gr", (x.left, pixel), (x.right, pixel));
            svg.text("e", (x.left - 8.0, pixel + 4.0), label);
        }
        svg.line("ax", (x.left, y.bottom), (x.right, y.bottom));
        for (&at, label) in x.ticks.at.iter().zip(&x.ticks.labels) {
            let pixel = x.pixel(at);
            svg.line("ax", (pixel, y.bottom), (pixel, y.bottom + 4.0));
            svg.text("m", (pixel, y.bottom + 17.0), label);
        }
        let middle = (x.left + x.right) / 2.0;
        svg.text("mu m", (middle, y.bottom + 35.0), &with_power(&self.x, x.ticks.exponent));
    }
}

fn decimal_points(window: f64) -> String {
    format!("{} points", ticks::decimal(window, 0))
}

/// An axis' name, with the power of ten of its numbers.
fn with_power(name: &str, exponent: i32) -> String {
    match exponent {
        0 => name.to_string(),
        _ => format!("{name}  ×10{}", ticks::superscript(exponent)).trim_start().to_string(),
    }
}

/// The horizontal axis.
struct Horizontal {
    left: f64,
    right: f64,
    range: (f64, f64),
    ticks: Ticks,
}

impl Horizontal {
    fn of(chart: &LineChart, left: f64, right: f64) -> Horizontal {
        let finite = chart
            .series
            .iter()
            .flat_map(|series| &series.points)
            .filter(|(x, y)| ticks::is_drawable(*x) && ticks::is_drawable(*y));
        let (low, high) = spread(finite.map(|(x, _)| *x));
        let mut count = ((right - left) / 60.0) as usize;
        // Numbers with many digits need room: fewer of them, until they fit.
        let ticks = loop {
            let ticks = ticks::linear(low, high, count);
            let widest = ticks.labels.iter().map(|label| text::width(label, FONT)).fold(0.0, f64::max);
            if count <= 2 || (widest + 16.0) * ticks.at.len() as f64 <= right - left {
                break ticks;
            }
            count -= 1;
        };
        Horizontal { left, right, range: (low, high), ticks }
    }

    fn pixel(&self, x: f64) -> f64 {
        self.left + (x - self.range.0) / (self.range.1 - self.range.0) * (self.right - self.left)
    }
}

/// The vertical axis.
struct Vertical {
    top: f64,
    bottom: f64,
    range: (f64, f64),
    logarithmic: bool,
    ticks: Ticks,
}

impl Vertical {
    fn of(chart: &LineChart, top: f64, bottom: f64) -> Vertical {
        let values = chart.series.iter().flat_map(|series| &series.points).map(|(_, y)| *y);
        let count = ((bottom - top) / 38.0).max(2.0) as usize;
        let positive = |y: &f64| (1e-150..1e150).contains(y);
        let logarithmic = chart.logarithmic && values.clone().any(|y| positive(&y));
        if logarithmic {
            let (low, high) = spread_within(values.filter(positive), |value| (value * 0.8, value * 1.25));
            let ticks = ticks::logarithmic(low, high, count);
            return Vertical { top, bottom, range: (low, high), logarithmic, ticks };
        }
        let (low, high) = spread(values.filter(|y| ticks::is_drawable(*y)));
        let (range, ticks) = ticks::widened(low, high, count);
        Vertical { top, bottom, range, logarithmic, ticks }
    }

    fn pixel(&self, y: f64) -> Option<f64> {
        let (low, high) = self.range;
        let part = match self.logarithmic {
            _ if !ticks::is_drawable(y) => return None,
            true => (y / low).ln() / (high / low).ln(),
            false => (y - low) / (high - low),
        };
        part.is_finite().then_some(self.bottom - part * (self.bottom - self.top))
    }
}

/// Least and greatest of some values; a little around them where they are one.
pub(super) fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    spread_within(values, |value| (value - 0.05 * value.abs().max(1e-12), value + 0.05 * value.abs().max(1e-12)))
}

fn spread_within(values: impl Iterator<Item = f64>, around: impl Fn(f64) -> (f64, f64)) -> (f64, f64) {
    let none = (f64::INFINITY, f64::NEG_INFINITY);
    match values.fold(none, |(low, high), value| (low.min(value), high.max(value))) {
        (low, high) if low < high => (low, high),
        (low, high) if low == high && low != 0.0 => around(low),
        _ => (0.0, 1.0),
    }
}

fn draw_series(svg: &mut Svg, index: usize, series: &Series, x: &Horizontal, y: &Vertical) {
    let colour = index % COLOURS;
    let lines = match series.is_smoothed() {
        true => {
            // So many points are an area rather than a line.
            let raw = if series.points.len() as f64 > x.right - x.left { "ra de" } else { "ra" };
            vec![(raw, series.points.clone()), ("ln", series.average(y.logarithmic))]
        }
        false => vec![("ln", series.points.clone())],
    };
    for (class, points) in lines {
        for run in runs(&points, x, y) {
            svg.path(&format!("{class} s{colour}"), &thinned(&run));
        }
    }
    if series.markers {
        for &(at, value) in &series.points {
            let Some(pixel) = y.pixel(value).filter(|_| ticks::is_drawable(at)) else { continue };
            let said = tooltip(&format!("{}: {} at {}", series.name, ticks::significant(value), ticks::decimal(at, 0)));
            legend::point(svg, Look { index, hollow: false }, (x.pixel(at), pixel), 3.6, &said);
        }
    }
}

/// Pixels of the points, parted where one cannot be drawn.
fn runs(points: &[(f64, f64)], x: &Horizontal, y: &Vertical) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for &(at, value) in points {
        match (y.pixel(value).filter(|_| ticks::is_drawable(at)), runs.last_mut()) {
            (Some(pixel), Some(run)) => run.push((x.pixel(at), pixel)),
            _ => runs.push(Vec::new()),
        }
    }
    runs
}

/// Of the points over one pixel the first, the lowest, the highest and the last: what is drawn is the same.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a.0.floor() == b.0.floor()) {
        if column.len() <= 4 {
            kept.extend(column);
            continue;
        }
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = [column.first(), column.iter().min_by(by_height), column.iter().max_by(by_height), column.last()];
        let mut ends: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.extend(ends);
    }
    kept
}
