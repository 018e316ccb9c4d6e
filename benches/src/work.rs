//! The work that a measurement contains, and the least time the machine needs for it.

use cloze::prelude::{BertConfig, Precision};

use cloze_examples::thousands;

use crate::Ceilings;

/// The minimum work of a measurement: the operations of matrix products (a multiplication and an addition are two), and
/// the bytes that are read or written, each once.
#[derive(Clone, Debug)]
pub struct Work {
    phases: Vec<Phase>,
    items: Option<(f64, &'static str)>,
    text: f64,
}

/// Work whose arithmetic and memory traffic overlap, so that the slower of them is the floor.
#[derive(Clone, Copy, Debug)]
struct Phase {
    precision: Precision,
    operations: f64,
    bytes: f64,
}

impl Phase {
    fn limit(&self, ceilings: &Ceilings) -> (f64, String) {
        let (arithmetic, memory) = (self.operations / ceilings.peak(self.precision), self.bytes / ceilings.memory);
        if arithmetic > memory { (arithmetic, self.precision.to_string()) } else { (memory, "memory".into()) }
    }
}

impl Work {
    /// Creates work with `operations` in a precision, and `bytes` of memory traffic.
    pub fn new(precision: Precision, operations: f64, bytes: f64) -> Work {
        Work { phases: vec![Phase { precision, operations, bytes }], items: None, text: 0.0 }
    }

    /// Creates work that only reads and writes bytes.
    pub fn moving(bytes: f64) -> Work {
        Work::new(Precision::F32, 0.0, bytes)
    }

    /// Creates work on texts or similar items, counted by number and bytes. The ceilings do not apply to it.
    pub fn text(count: usize, unit: &'static str, bytes: usize) -> Work {
        Work { phases: Vec::new(), items: Some((count as f64, unit)), text: bytes as f64 }
    }

    /// Adds a number of items, which the table shows per second.
    pub fn of(self, count: usize, unit: &'static str) -> Work {
        Work { items: Some((count as f64, unit)), ..self }
    }

    /// Appends work that follows this one.
    pub fn then(mut self, next: Work) -> Work {
        self.phases.extend(next.phases);
        self
    }

    /// Returns the least time for this work, in seconds. Without ceilings it is 0.
    pub fn floor(&self, ceilings: &Ceilings) -> f64 {
        let seconds: f64 = self.phases.iter().map(|phase| phase.limit(ceilings).0).sum();
        if seconds.is_finite() { seconds } else { 0.0 }
    }

    /// Returns the table cells of work that took `seconds`: items, operations and bytes per second, and the floor as a
    /// share of the time, with the name of the limiting resource.
    pub fn rates(&self, seconds: f64, ceilings: &Ceilings) -> [String; 4] {
        let total = |part: fn(&Phase) -> f64| self.phases.iter().map(part).sum::<f64>();
        let rate = |amount: f64, scale: f64, unit: &str, digits: usize| match amount > 0.0 {
            true => format!("{:.digits$} {unit}", amount / seconds / scale),
            false => String::new(),
        };
        let items = self.items.map_or_else(String::new, |(count, unit)| {
            format!("{} {unit}/s", thousands((count / seconds).round() as u64))
        });
        let arithmetic = rate(total(|phase| phase.operations), 1e9, "GFLOP/s", 0);
        let memory = match self.text > 0.0 {
            true => rate(self.text, 1e6, "MB/s", 1),
            false => rate(total(|phase| phase.bytes), 1e9, "GB/s", 1),
        };
        let mut limits: Vec<String> = self.phases.iter().map(|phase| phase.limit(ceilings).1).collect();
        limits.dedup();
        let ceiling = match self.phases.is_empty() {
            true => String::new(),
            false => format!("{:.0} % ({})", 100.0 * self.floor(ceilings) / seconds, limits.join(" + ")),
        };
        [items, arithmetic, memory, ceiling]
    }
}

/// Returns the work of a linear layer: `m` rows of `k` elements times the transpose of a weight `[n, k]`, plus a bias.
pub fn linear_forward(precision: Precision, [m, n, k]: [usize; 3]) -> Work {
    let [m, n, k] = [m, n, k].map(|size| size as f64);
    Work::new(precision, 2.0 * m * n * k, 4.0 * (m * k + n * k + m * n + n))
}

/// Returns the work of its backward, for the gradients of all three operands.
pub fn linear_backward(precision: Precision, [m, n, k]: [usize; 3]) -> Work {
    let [m, n, k] = [m, n, k].map(|size| size as f64);
    Work::new(precision, 4.0 * m * n * k, 4.0 * (m * n + 2.0 * m * k + 2.0 * n * k + n))
}

/// Returns the bytes per element of a weight that is packed for inference in this precision.
pub fn weight_bytes(precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::F16 => 4,
        Precision::Bf16 => 2,
        Precision::Int8 => 1,
    }
}

/// The work of an encoder's forward.
pub struct EncoderForward {
    /// Operations of linear layers.
    pub linear: f64,
    /// Operations of attention.
    pub attention: f64,
    /// Elements of the linear layers' weights.
    pub weights: f64,
}

impl EncoderForward {
    /// Counts the work for sequences of these lengths if only `rows` rows of the output are wanted: the last layer
    /// computes no others after its attention.
    pub fn new(config: &BertConfig, lengths: &[usize], rows: usize) -> EncoderForward {
        let sizes = [config.hidden_size, config.intermediate_size, config.num_hidden_layers, rows];
        let [hidden, inner, layers, rows] = sizes.map(|size| size as f64);
        let tokens: f64 = lengths.iter().map(|&length| length as f64).sum();
        let squares: f64 = lengths.iter().map(|&length| (length * length) as f64).sum();
        let (projections, rest) = (3.0 * hidden * hidden, hidden * hidden + 2.0 * hidden * inner);
        EncoderForward {
            linear: 2.0 * (layers * projections * tokens + rest * ((layers - 1.0) * tokens + rows)),
            attention: 4.0 * layers * squares * hidden,
            weights: layers * (projections + rest),
        }
    }
}
