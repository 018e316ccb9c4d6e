//! How much there is to do, and the least time that the machine can do it in.

use cloze::bert::BertConfig;

use super::Ceilings;
use super::table::thousands;

/// What multiplies and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peak {
    F32,
    Bf16,
    Int8,
}

impl Peak {
    fn name(self) -> &'static str {
        match self {
            Peak::F32 => "f32",
            Peak::Bf16 => "bf16",
            Peak::Int8 => "int8",
        }
    }
}

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
    peak: Peak,
    operations: f64,
    bytes: f64,
}

impl Phase {
    fn limit(&self, ceilings: &Ceilings) -> (f64, &'static str) {
        let (arithmetic, memory) = (self.operations / ceilings.peak(self.peak), self.bytes / ceilings.memory);
        if arithmetic > memory { (arithmetic, self.peak.name()) } else { (memory, "memory") }
    }
}

impl Work {
    pub fn new(peak: Peak, operations: f64, bytes: f64) -> Work {
        Work { phases: vec![Phase { peak, operations, bytes }], items: None, text: 0.0 }
    }

    /// Bytes read and written, with little to compute.
    pub fn moving(bytes: f64) -> Work {
        Work::new(Peak::F32, 0.0, bytes)
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
        let limits: Vec<&str> = self.phases.iter().map(|phase| phase.limit(ceilings).1).collect();
        let ceiling = match self.phases.is_empty() {
            true => String::new(),
            false => format!("{:.0} % ({})", 100.0 * self.floor(ceilings) / seconds, limits.join(" + ")),
        };
        [items, arithmetic, memory, ceiling]
    }
}

/// `m` rows of `k` elements times the transpose of a weight [n, k], and a bias.
pub fn linear_forward(peak: Peak, [m, n, k]: [usize; 3]) -> Work {
    let [m, n, k] = [m, n, k].map(|size| size as f64);
    Work::new(peak, 2.0 * m * n * k, 4.0 * (m * k + n * k + m * n + n))
}

/// The gradients of all three operands.
pub fn linear_backward(peak: Peak, [m, n, k]: [usize; 3]) -> Work {
    let [m, n, k] = [m, n, k].map(|size| size as f64);
    Work::new(peak, 4.0 * m * n * k, 4.0 * (m * n + 2.0 * m * k + 2.0 * n * k + n))
}

/// Operations and bytes of weights of an encoder's forward over sequences of these lengths, of which `rows` rows are
/// wanted: after the attention of the last layer nothing else is computed.
pub fn encoder_forward(config: &BertConfig, lengths: &[usize], rows: usize) -> [f64; 2] {
    let sizes = [config.hidden_size, config.intermediate_size, config.num_hidden_layers, rows];
    let [hidden, inner, layers, rows] = sizes.map(|size| size as f64);
    let tokens: f64 = lengths.iter().map(|&length| length as f64).sum();
    let squares: f64 = lengths.iter().map(|&length| (length * length) as f64).sum();
    let (projections, rest) = (3.0 * hidden * hidden, hidden * hidden + 2.0 * hidden * inner);
    let a_layer = 2.0 * projections * tokens + 4.0 * squares * hidden;
    let operations = layers * a_layer + 2.0 * rest * ((layers - 1.0) * tokens + rows);
    [operations, 4.0 * layers * (projections + rest)]
}
