//! How much there is to do, and the least time that the machine can do it in.

use cloze::prelude::{BertConfig, Precision};

use super::Ceilings;
use super::table::thousands;

/// What must be done at least: operations of matrix products (a multiplication and an addition are two), and bytes that are
/// read or written, each once.
#[derive(Clone, Debug)]
pub struct Work {
    phases: Vec<Phase>,
    items: Option<(f64, &'static str)>,
    text: f64,
}

/// Work whose arithmetic and memory traffic overlap: the one that takes longer is its floor.
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
    pub fn new(precision: Precision, operations: f64, bytes: f64) -> Work {
        Work { phases: vec![Phase { precision, operations, bytes }], items: None, text: 0.0 }
    }

    /// Bytes read and written, with little to compute.
    pub fn moving(bytes: f64) -> Work {
        Work::new(Precision::F32, 0.0, bytes)
    }

    /// Texts and the like: their number, and their bytes. The machine's ceilings say nothing of them.
    pub fn text(count: usize, unit: &'static str, bytes: usize) -> Work {
        Work { phases: Vec::new(), items: Some((count as f64, unit)), text: bytes as f64 }
    }

    /// Also counted as so many items.
    pub fn of(self, count: usize, unit: &'static str) -> Work {
        Work { items: Some((count as f64, unit)), ..self }
    }

    /// This, and `next` after it.
    pub fn then(mut self, next: Work) -> Work {
        self.phases.extend(next.phases);
        self
    }

    /// Seconds that this takes at least.
    pub fn floor(&self, ceilings: &Ceilings) -> f64 {
        let seconds: f64 = self.phases.iter().map(|phase| phase.limit(ceilings).0).sum();
        // Without ceilings there is no floor.
        if seconds.is_finite() { seconds } else { 0.0 }
    }

    /// Cells of a table for work that took so long: items, operations and bytes a second, and the floor's share of the
    /// time with what sets the floor.
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

/// `m` rows of `k` elements times the transpose of a weight [n, k], and a bias.
pub fn linear_forward(precision: Precision, [m, n, k]: [usize; 3]) -> Work {
    let [m, n, k] = [m, n, k].map(|size| size as f64);
    Work::new(precision, 2.0 * m * n * k, 4.0 * (m * k + n * k + m * n + n))
}

/// The gradients of all three operands.
pub fn linear_backward(precision: Precision, [m, n, k]: [usize; 3]) -> Work {
    let [m, n, k] = [m, n, k].map(|size| size as f64);
    Work::new(precision, 4.0 * m * n * k, 4.0 * (m * n + 2.0 * m * k + 2.0 * n * k + n))
}

/// Bytes of an element of a weight that is kept for a precision, where no graph is recorded.
pub fn weight_bytes(precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::F16 => 4,
        Precision::Bf16 => 2,
        Precision::Int8 => 1,
    }
}

/// What an encoder's forward takes over sequences of these lengths, of which `rows` rows are wanted: after the attention of
/// the last layer nothing else is computed.
pub struct EncoderForward {
    /// Operations of linear layers.
    pub linear: f64,
    /// Operations of attention.
    pub attention: f64,
    /// Elements of the linear layers' weights.
    pub weights: f64,
}

impl EncoderForward {
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
