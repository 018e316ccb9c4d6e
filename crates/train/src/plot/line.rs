//! Line charts.

use super::legend::{self, Look, Swatch};
use super::picture::Picture;
use super::style::{COLOURS, FONT, MARGIN};
use super::svg::{Svg, tooltip};
use super::text;
use super::ticks::{self, Ticks};

/// The points of one line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    window: f64,
    markers: bool,
}

impl Series {
    /// Makes a series of (x, y) points, ordered by x. Points that are not finite leave a gap.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series { name: name.into(), points: points.into_iter().collect(), window: 1.0, markers: false }
    }

    /// Draws the exponential moving average over about `window` points, in front of a faint line of the raw values.
    pub fn smoothed(self, window: f64) -> Series {
        Series { window, ..self }
    }

    /// Marks each point.
    pub fn markers(self) -> Series {
        Series { markers: true, ..self }
    }

    fn is_smoothed(&self) -> bool {
        self.window > 1.0
    }

    /// Returns the moving average with its initial bias corrected. On a logarithmic axis, it averages logarithms.
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

/// A chart of one or more series over a common axis.
#[derive(Clone, Debug)]
pub struct LineChart {
    title: String,
    x: String,
    y: String,
    logarithmic: bool,
    series: Vec<Series>,
    size: (f64, f64),
}

/// Distance of the plane from the right edge, in pixels.
const RIGHT: f64 = 20.0;

impl LineChart {
    /// Makes an empty chart.
    pub fn new(title: impl Into<String>) -> LineChart {
        let (x, y) = (String::new(), String::new());
        LineChart { title: title.into(), x, y, logarithmic: false, series: Vec::new(), size: (640.0, 320.0) }
    }

    /// Sets the names of the axes, with their units: `step`, `loss (nats)`.
    pub fn axes(self, x: impl Into<String>, y: impl Into<String>) -> LineChart {
        LineChart { x: x.into(), y: y.into(), ..self }
    }

    /// Makes the vertical axis logarithmic. Values that are not positive leave a gap.
    pub fn logarithmic(self) -> LineChart {
        LineChart { logarithmic: true, ..self }
    }

    /// Adds a series.
    pub fn series(mut self, series: Series) -> LineChart {
        self.series.push(series);
        self
    }

    /// Sets width and height in pixels, at least 240 and 160.
    pub fn size(self, width: f64, height: f64) -> LineChart {
        LineChart { size: (width.max(240.0), height.max(160.0)), ..self }
    }

    /// Draws the chart.
    pub fn draw(&self) -> Picture {
        let mut svg = Svg::default();
        let (width, height) = self.size;
        svg.text("ti", (MARGIN, MARGIN + 12.0), &text::fitted_title(&self.title, width - 2.0 * MARGIN));
        let legend = legend::draw(&mut svg, &self.legend(), (MARGIN, MARGIN + 22.0), width - 2.0 * MARGIN);
        let top = MARGIN + 22.0 + legend + if self.y.is_empty() { 12.0 } else { 30.0 };
        let bottom = height - 46.0;
        let y = Vertical::of(self, top, bottom);
        let left = MARGIN + text::widest(&y.ticks.labels, FONT) + 8.0;
        let x = Horizontal::of(self, left, width - RIGHT);
        self.draw_axes(&mut svg, &x, &y);
        for (index, series) in self.series.iter().enumerate() {
            draw_series(&mut svg, index, series, &x, &y);
        }
        Picture { size: self.size, title: self.title.clone(), body: svg.0 }
    }

    fn legend(&self) -> Vec<(Swatch, String)> {
        let mut entries = Vec::new();
        let single = self.series.len() == 1;
        for (index, series) in self.series.iter().enumerate() {
            if series.is_smoothed() {
                let points = ticks::decimal(series.window, 0);
                entries.push((Swatch::Line(index), format!("{}, average over about {points} points", series.name)));
                let raw = if single { "raw values".to_string() } else { format!("{}, raw values", series.name) };
                entries.push((Swatch::Raw(index), raw));
            } else if !single {
                let swatch = if series.markers { Swatch::Marked(index) } else { Swatch::Line(index) };
                entries.push((swatch, series.name.clone()));
            }
        }
        entries
    }

    fn draw_axes(&self, svg: &mut Svg, x: &Horizontal, y: &Vertical) {
        svg.text("mu", (MARGIN, y.top - 12.0), &y.ticks.name_with_power(&self.y));
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
        svg.text("mu m", (middle, y.bottom + 35.0), &x.ticks.name_with_power(&self.x));
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
        // Steps and epochs have no parts.
        let are_whole = finite.clone().all(|(x, _)| x.fract() == 0.0);
        let (low, high) = spread(finite.map(|(x, _)| *x));
        let ticks = if are_whole { ticks::integers } else { ticks::linear };
        let mut count = ((right - left) / 60.0) as usize;
        // Long numbers need room, so reduce the number of ticks until their labels fit.
        let ticks = loop {
            let ticks = ticks(low, high, count);
            let room = text::widest(&ticks.labels, FONT) + 16.0;
            if count <= 2 || room * ticks.at.len() as f64 <= right - left {
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

/// Returns the range of `values`, widened a little if they are all equal.
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
            // With more points than pixels, the line becomes an area, which must be fainter.
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
            let hint = format!("{}: {} at {}", series.name, ticks::significant(value), ticks::decimal(at, 0));
            legend::point(svg, Look { index, hollow: false }, (x.pixel(at), pixel), 3.6, &tooltip(&hint));
        }
    }
}

/// Returns the pixel coordinates of the points, split at those that cannot be drawn.
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

/// Keeps the first, lowest, highest and last of the points in each pixel column, which draw the same line.
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
