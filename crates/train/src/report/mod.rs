//! Reports of runs as HTML pages.

mod machine;
mod summary;

use std::fmt::Display;
use std::path::Path;
use std::time::SystemTime;

pub use machine::Machine;

use crate::plot::{ConfusionMatrix, LineChart, Page, Picture, Series};
use crate::{Result, RunRecord, StepRecord};

/// A report of a run: results, learning curves, evaluations, settings, machine and time. It is a self-contained HTML
/// file that loads nothing and supports light and dark mode.
///
/// ```
/// use cloze_train::{RunReport, RunRecord};
/// # let folder = tempfile::tempdir()?;
/// RunReport::new("SST-2", &RunRecord::default())
///     .result("accuracy", "0.897")
///     .setting("learning rate", 5e-5)
///     .confusion(&["negative", "positive"], &[vec![390, 38], vec![52, 392]])
///     .save(folder.path().join("report.html"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RunReport<'r> {
    title: String,
    record: &'r RunRecord,
    results: Vec<(String, String)>,
    notes: Vec<String>,
    settings: Vec<(String, String)>,
    confusion: Option<(Vec<String>, Vec<Vec<usize>>)>,
    examples: Option<(Vec<String>, Vec<Vec<String>>)>,
    pictures: Vec<Picture>,
    machine: Machine,
    written: SystemTime,
}

impl<'r> RunReport<'r> {
    /// Makes a report of the measurements in `record`, on the machine that this program runs on.
    pub fn new(title: impl Into<String>, record: &'r RunRecord) -> RunReport<'r> {
        RunReport {
            title: title.into(),
            record,
            results: Vec::new(),
            notes: Vec::new(),
            settings: Vec::new(),
            confusion: None,
            examples: None,
            pictures: Vec::new(),
            machine: Machine::this(),
            written: SystemTime::now(),
        }
    }

    /// Adds a result, shown at the top of the page.
    pub fn result(mut self, name: impl Into<String>, value: impl Display) -> RunReport<'r> {
        self.results.push((name.into(), value.to_string()));
        self
    }

    /// Adds a paragraph under the title.
    pub fn note(mut self, text: impl Into<String>) -> RunReport<'r> {
        self.notes.push(text.into());
        self
    }

    /// Adds a line to the table of settings.
    pub fn setting(mut self, name: impl Into<String>, value: impl Display) -> RunReport<'r> {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Adds several settings.
    pub fn settings(mut self, settings: impl IntoIterator<Item = (String, String)>) -> RunReport<'r> {
        self.settings.extend(settings);
        self
    }

    /// Shows a confusion matrix: a row for each true class, as
    /// [`confusion_matrix`](crate::metrics::confusion_matrix) counts.
    pub fn confusion<S: AsRef<str>>(self, labels: &[S], counts: &[Vec<usize>]) -> RunReport<'r> {
        let labels = labels.iter().map(|label| label.as_ref().to_string()).collect();
        RunReport { confusion: Some((labels, counts.to_vec())), ..self }
    }

    /// Shows a table of examples, with `heads` as the names of the columns.
    pub fn examples<S: AsRef<str>>(self, heads: &[S], rows: Vec<Vec<String>>) -> RunReport<'r> {
        let heads = heads.iter().map(|head| head.as_ref().to_string()).collect();
        RunReport { examples: Some((heads, rows)), ..self }
    }

    /// Adds a picture after the curves.
    pub fn picture(mut self, picture: Picture) -> RunReport<'r> {
        self.pictures.push(picture);
        self
    }

    /// Returns the report as a page.
    pub fn page(&self) -> Page {
        let record = self.record;
        let mut tiles = if self.results.is_empty() { summary::last_evaluation(record) } else { self.results.clone() };
        tiles.extend(summary::training(record));
        let mut time = summary::time(record);
        tiles.extend(time.iter().take(2).cloned());
        let page = self.notes.iter().fold(Page::new(&self.title), Page::note).tiles(&tiles);
        let page = page
            .pictures("Training", self.curves())
            .pictures("Evaluation", self.evaluations().into_iter().chain(self.confusion_matrix()))
            .pictures("Figures", self.pictures.clone());
        let page = match &self.examples {
            Some((heads, rows)) => page.table("Examples", heads, rows),
            None => page,
        };
        time.push(("written".to_string(), humantime::format_rfc3339_seconds(self.written).to_string()));
        let lists = [("Settings", self.settings.clone()), ("Time", time), ("Machine", self.machine.table())];
        page.lists("Settings and environment", &lists.map(|(name, lines)| (name.to_string(), lines)))
    }

    /// Writes the report to a file atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.page().save(path)
    }

    /// Draws loss, learning rate and gradient norm over the steps.
    fn curves(&self) -> Vec<Picture> {
        let steps = &self.record.steps;
        if steps.is_empty() {
            return Vec::new();
        }
        let of = |value: fn(&StepRecord) -> f64| steps.iter().map(move |step| (f64::from(step.step), value(step)));
        // Short runs are drawn without smoothing.
        let window = if steps.len() < 30 { 1.0 } else { (steps.len() as f64 / 40.0).clamp(5.0, 500.0) };
        let mut loss = LineChart::new("Loss")
            .axes("step", "loss")
            .series(Series::new("training", of(|s| s.loss)).smoothed(window));
        let evaluated = self.record.metric("loss");
        if !evaluated.is_empty() {
            loss = loss.series(series("evaluation", evaluated));
        }
        let rate = Series::new("learning rate", of(|s| s.learning_rate));
        let norm = Series::new("gradient norm", of(|s| s.gradient_norm)).smoothed(window);
        vec![
            loss.draw(),
            LineChart::new("Learning rate").axes("step", "learning rate").series(rate).draw(),
            LineChart::new("Gradient norm before clipping")
                .axes("step", "gradient norm")
                .logarithmic()
                .series(norm)
                .draw(),
        ]
    }

    /// Draws all metrics except the loss over the steps. Those that stay within [-1, 1] share charts, four to each.
    fn evaluations(&self) -> Vec<Picture> {
        let names = self.record.metrics().into_iter().filter(|name| *name != "loss");
        let (shares, others): (Vec<&str>, Vec<&str>) = names.partition(|name| {
            self.record.metric(name).iter().all(|(_, value)| value.is_nan() || (-1.0..=1.0).contains(value))
        });
        let mut charts = Vec::new();
        for names in shares.chunks(4) {
            let title = if let [name] = names { format!("Evaluation: {name}") } else { "Evaluation".to_string() };
            let lines = names.iter().map(|name| series(name, self.record.metric(name)));
            charts.push(lines.fold(LineChart::new(title).axes("step", names.join(", ")), LineChart::series).draw());
        }
        for name in others {
            let chart = LineChart::new(format!("Evaluation: {name}")).axes("step", name);
            charts.push(chart.series(series(name, self.record.metric(name))).draw());
        }
        charts
    }

    fn confusion_matrix(&self) -> Option<Picture> {
        let (labels, counts) = self.confusion.as_ref()?;
        Some(ConfusionMatrix::new("Confusion matrix", labels.clone(), counts.clone()).draw())
    }
}

fn series(name: &str, values: Vec<(u32, f64)>) -> Series {
    Series::new(name, values.into_iter().map(|(step, value)| (f64::from(step), value))).markers()
}

#[cfg(test)]
mod tests;
