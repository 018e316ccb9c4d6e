//! Cases at the edges: masked classes (logits of minus infinity), logits of 10,000, rows of equal numbers, tiny variances, huge and
//! tiny magnitudes, sequences of one token and of 512.
//!
//! Finite differences say nothing there, so f64 is compared with a formula, written here from the definition; f32, bf16 and the
//! GPU are compared with f64. Every result must be finite.

use super::{Case, Cases, Input, checks, normal};
use crate::cpu::simd;
use crate::device::Device;
use crate::dropout::Dropout;
use crate::dtype::DType;
use crate::error::Result;
use crate::gelu::Gelu;
use crate::ops::{CrossEntropy, Pooling, Reduction};
use crate::precision::Precision;
use crate::sequences::Sequences;
use crate::tensor::Tensor;

/// Returns the output and the gradient of each input, given the inputs and the gradient of the output.
pub(super) type Formula = dyn Fn(&[&[f64]], &[f64]) -> (Vec<f64>, Vec<Vec<f64>>);

/// A case, the formula that f64 is compared with, and what f32 and bf16 may be off by, relative to the largest number.
struct Extreme {
    case: Case,
    formula: Option<Box<Formula>>,
    tolerance: (f64, f64),
    /// Whether all numbers are in the range of f16.
    fits_f16: bool,
}

/// The tolerances of `conformance`.
const USUAL: (f64, f64) = (5e-6, 4e-2);
/// Logits of 10,000, a unit in the last place of which is 1e-3 in f32, and whose log-sum-exp is kept as f32.
const LARGE_LOGITS: (f64, f64) = (1e-3, 4e-2);

#[derive(Default)]
struct Extremes(Vec<Extreme>);

impl Extremes {
    fn add<const N: usize>(
        &mut self,
        label: &str,
        inputs: [Input; N],
        tolerance: (f64, f64),
        function: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
    ) -> &mut Extreme {
        let mut cases = Cases::default();
        let fits_f16 = inputs.iter().flat_map(Input::values).all(|x| x.abs() < 6e4 && (*x == 0.0 || x.abs() > 1e-4));
        cases.add("extremes", label, inputs, function);
        let case = cases.0.pop().unwrap_or_else(|| unreachable!("it was added"));
        self.0.push(Extreme { case, formula: None, tolerance, fits_f16 });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

impl Extreme {
    fn formula(&mut self, formula: impl Fn(&[&[f64]], &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) + 'static) {
        self.formula = Some(Box::new(formula));
    }
}

/// Returns `ln Σ e^x`.
fn log_sum(x: &[f64]) -> f64 {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + x.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

/// Rows for softmax and cross-entropy, `[rows, classes]`, by name. The last class of a row is never masked.
fn logits(classes: usize) -> Vec<(String, Input, (f64, f64))> {
    let shape = [3, classes];
    let with = |name: &str, input: Input, tolerance| (format!("{name}, {classes} classes"), input, tolerance);
    let signs = |at: usize| if (at * 7919).is_multiple_of(3) { 1e4 } else { -1e4 };
    let is_masked = move |at: usize| at % classes != classes - 1 && (at.is_multiple_of(2) || at % 256 < 40);
    vec![
        with("all 0", Input::of(&shape, |_| 0.0), USUAL),
        with("all 10,000", Input::of(&shape, |_| 1e4), LARGE_LOGITS),
        with("all -10,000", Input::of(&shape, |_| -1e4), LARGE_LOGITS),
        with("10,000 and -10,000", Input::of(&shape, signs), LARGE_LOGITS),
        with("one of 10,000", Input::of(&shape, |at| if at % classes == 0 { 1e4 } else { 0.0 }), LARGE_LOGITS),
        with("masked", normal(&shape).with(move |at| is_masked(at).then_some(f64::NEG_INFINITY)), USUAL),
        with(
            "all but one masked",
            normal(&shape).with(move |at| (at % classes != classes - 1).then_some(f64::NEG_INFINITY)),
            USUAL,
        ),
    ]
}

fn softmax(extremes: &mut Extremes) {
    for classes in [1, 2, 5, 33, 300, 1000] {
        for (label, x, tolerance) in logits(classes) {
            let x_of = x.clone();
            extremes.add(&format!("softmax, {label}"), [x], tolerance, |x| x[0].softmax()).formula(move |x, dy| {
                let (mut y, mut dx) = (Vec::new(), Vec::new());
                for (x, dy) in x[0].chunks(classes).zip(dy.chunks(classes)) {
                    let p: Vec<f64> = x.iter().map(|&of| (of - log_sum(x)).exp()).collect();
                    let mean: f64 = p.iter().zip(dy).map(|(p, dy)| p * dy).sum();
                    dx.extend(p.iter().zip(dy).map(|(p, dy)| p * (dy - mean)));
                    y.extend(p);
                }
                (y, vec![dx])
            });
            cross_entropy(extremes, classes, &label, x_of, tolerance);
        }
    }
}

fn cross_entropy(extremes: &mut Extremes, classes: usize, label: &str, x: Input, tolerance: (f64, f64)) {
    let last = classes as i64 - 1;
    // The first two rows have labels, which are never masked; the last one has none.
    let targets = [last, last, -100];
    let weights: Vec<f32> = (0..classes).map(|class| 0.5 + class as f32 % 3.0).collect();
    for (name, weight) in [("", None), (", weighted", Some(weights))] {
        let settings = CrossEntropy { class_weights: weight.clone(), ..Default::default() };
        let label = format!("cross-entropy, {label}{name}");
        extremes.add(&label, [x.clone()], tolerance, move |x| x[0].cross_entropy_with(&targets, &settings)).formula(
            move |x, dy| {
                let rows: Vec<&[f64]> = x[0].chunks(classes).collect();
                let losses = (0..2).map(|row| log_sum(rows[row]) - rows[row][classes - 1]);
                let gradient = |(at, x): (usize, &f64)| {
                    let (row, class) = (at / classes, at % classes);
                    let hot = if class == classes - 1 { 1.0 } else { 0.0 };
                    if row == 2 { 0.0 } else { ((x - log_sum(rows[row])).exp() - hot) / 2.0 * dy[0] }
                };
                (vec![losses.sum::<f64>() / 2.0], vec![x[0].iter().enumerate().map(gradient).collect()])
            },
        );
    }
    // Masked classes have a probability of 0 in the target too.
    let values: Vec<f64> = x.values().to_vec();
    let soft = Input::of(x.shape(), |at| if values[at].is_finite() { 0.25 + (at % 3) as f64 / 4.0 } else { 0.0 });
    let fixed = soft.clone();
    extremes.add(&format!("soft cross-entropy, {label}"), [x], tolerance, move |x| {
        x[0].soft_cross_entropy(&fixed.tensor().to_dtype(x[0].dtype())?.to_device(&x[0].device())?)
    });
    if let Some(last) = extremes.0.last_mut() {
        last.formula(move |x, dy| {
            let (mut loss, mut dx) = (0.0, Vec::new());
            for (x, p) in x[0].chunks(classes).zip(soft.values().chunks(classes)) {
                let total: f64 = p.iter().sum();
                loss += x.iter().zip(p).map(|(of, p)| if *p == 0.0 { 0.0 } else { p * (log_sum(x) - of) }).sum::<f64>();
                dx.extend(x.iter().zip(p).map(|(of, p)| ((of - log_sum(x)).exp() * total - p) / 3.0 * dy[0]));
            }
            (vec![loss / 3.0], vec![dx])
        });
    }
}

/// Losses over few targets: one in 64 rows, and none, whose sum is 0.
fn few_targets(extremes: &mut Extremes) {
    let mut one = [-100; 64];
    one[63] = 4;
    for (label, targets, reduction) in [
        ("one target", one, Reduction::Mean),
        ("one target of a step of 1,000,000", one, Reduction::Divide(1e6)),
        ("no target", [-100; 64], Reduction::Sum),
    ] {
        extremes.add(label, [normal(&[64, 33])], USUAL, move |x| {
            x[0].cross_entropy_with(&targets, &CrossEntropy { reduction, ..Default::default() })
        });
    }
    for (label, logit) in [("10,000", 1e4), ("-10,000", -1e4), ("0", 0.0)] {
        let x = Input::of(&[4], |_| logit);
        extremes.add(&format!("binary cross-entropy, {label}"), [x], USUAL, |x| {
            x[0].binary_cross_entropy(&[1.0, 0.0, 0.5, 1.0])
        });
    }
}

fn attention(extremes: &mut Extremes) {
    // Queries, keys and values of two heads of 32, for which a GPU has kernels on tensor cores, and of a head of 12.
    for (heads, size) in [(2, 32), (1, 12)] {
        let wide = 3 * heads * size;
        let attend = move |lengths: &'static [usize]| {
            move |x: &[Tensor]| x[0].attention(&Sequences::new(lengths)?, heads, &Dropout::NONE)
        };
        let label = |what: &str| format!("attention, {heads} heads of {size}, {what}");
        let is_value = move |at: usize| at % wide >= 2 * heads * size;
        extremes.add(&label("sequences of one token"), [normal(&[3, wide])], USUAL, attend(&[1, 1, 1])).formula(
            move |x, dy| {
                // The only token gets all attention.
                let y: Vec<f64> = x[0].chunks(wide).flat_map(|row| row[2 * heads * size..].to_vec()).collect();
                let gradient = |row: &[f64]| [vec![0.0; 2 * heads * size], row.to_vec()].concat();
                (y, vec![dy.chunks(heads * size).flat_map(gradient).collect()])
            },
        );
        extremes.add(&label("512 tokens"), [normal(&[512, wide])], USUAL, attend(&[512]));
        let equal = Input::of(&[70, wide], move |at| (at % wide % 7) as f64 / 4.0);
        extremes.add(&label("equal rows"), [equal], USUAL, attend(&[70]));
        // Scores of plus and minus 10,000: one key gets all attention, or several equal ones share it.
        let large = normal(&[70, wide]).with(move |at| {
            let sign = if at / wide % 3 == 0 { 1.0 } else { -1.0 };
            (!is_value(at)).then_some(sign * (1e4 / (size as f64).sqrt()).sqrt())
        });
        extremes.add(&label("scores of 10,000"), [large], LARGE_LOGITS, attend(&[70]));
        // Scores of minus infinity in f32, for a whole tile of 64 keys and more: the first column of queries times that of keys.
        let masked =
            normal(&[140, wide]).with(move |at| match (at / wide, at % wide % size, at % wide / (heads * size)) {
                (_, 0, 0) => Some(1e20),
                (row, 0, 1) => Some(if row < 70 { -1e20 } else { 0.0 }),
                _ => None,
            });
        extremes.add(&label("masked keys"), [masked], USUAL, attend(&[140]));
    }
}

fn layer_norm(extremes: &mut Extremes) {
    for width in [1, 3, 33, 768, 1024, 1400] {
        let parameters = || [normal(&[width]), normal(&[width])];
        let mut add = |label: &str, x: Input, eps: f64, tolerance: (f64, f64)| {
            let [gamma, beta] = parameters();
            let label = format!("layer_norm, {label}, {width} wide");
            let case = extremes.add(&label, [x, gamma, beta], tolerance, move |x| x[0].layer_norm(&x[1], &x[2], eps));
            // Gradients are divided by the deviation, or the root of `eps`.
            case.fits_f16 &= eps > 1e-6;
            case.formula(move |x, dy| {
                let (mut y, mut dx, mut dg, mut db) = (Vec::new(), Vec::new(), vec![0.0; width], vec![0.0; width]);
                let mean_of = |x: &[f64]| x.iter().sum::<f64>() / width as f64;
                for (x_row, dy) in x[0].chunks(width).zip(dy.chunks(width)) {
                    // Relative to the first number, so that equal ones have no variance, in spite of rounding.
                    let z: Vec<f64> = x_row.iter().map(|x| x - x_row[0]).collect();
                    let mean = mean_of(&z);
                    let squares: Vec<f64> = z.iter().map(|z| (z - mean) * (z - mean)).collect();
                    let rstd = 1.0 / (mean_of(&squares) + eps).sqrt();
                    let h: Vec<f64> = z.iter().map(|z| (z - mean) * rstd).collect();
                    let w: Vec<f64> = dy.iter().zip(x[1]).map(|(dy, gamma)| dy * gamma).collect();
                    let products: Vec<f64> = w.iter().zip(&h).map(|(w, h)| w * h).collect();
                    for c in 0..width {
                        y.push(h[c] * x[1][c] + x[2][c]);
                        dx.push(rstd * (w[c] - mean_of(&w) - h[c] * mean_of(&products)));
                        dg[c] += dy[c] * h[c];
                        db[c] += dy[c];
                    }
                }
                (y, vec![dx, dg, db])
            });
        };
        for eps in [1e-12, 1e-5] {
            let label = |what: &str| format!("{what}, eps {eps:e}");
            add(&label("equal numbers"), Input::of(&[4, width], |at| 0.1 + 33.3 * (at / width) as f64), eps, USUAL);
            add(&label("zeros"), Input::of(&[2, width], |_| 0.0), eps, USUAL);
        }
        // Two neighbours in bf16, whose difference is 1 / 128 of them.
        let neighbours = Input::of(&[3, width], |at| if at % 7 == 3 { 3.015_625 } else { 3.0 });
        if width > 3 {
            add("tiny variance", neighbours, 1e-12, (2e-5, 4e-2));
            add("tiny numbers", normal(&[3, width]).scaled(1e-5), 1e-12, USUAL);
            add("huge numbers", normal(&[3, width]).scaled(1e15), 1e-12, USUAL);
        }
    }
}

fn pointwise(extremes: &mut Extremes) {
    let magnitudes = [0.0, 1e-30, 1e-5, 1.0, 20.0, 90.0, 1e4, 1e10, 1e20, 1e30, 3e38];
    for magnitude in magnitudes {
        let x = || Input::of(&[2], move |at| if at == 0 { magnitude } else { -magnitude });
        // From 20 on, GELU is the identity for positive numbers and 0 for negative ones, in any precision.
        let gelu = |x: &[&[f64]], dy: &[f64]| (vec![x[0][0], 0.0], vec![vec![dy[0], 0.0]]);
        for kind in [Gelu::Erf, Gelu::Tanh] {
            let case = extremes.add(&format!("{kind:?} GELU of {magnitude:e}"), [x()], USUAL, move |x| x[0].gelu(kind));
            if magnitude >= 20.0 {
                case.formula(gelu);
            }
        }
        extremes.add(&format!("tanh of {magnitude:e}"), [x()], USUAL, |x| x[0].tanh()).formula(|x, dy| {
            let y: Vec<f64> = x[0].iter().map(|x| x.tanh()).collect();
            let dx = y.iter().zip(dy).map(|(y, dy)| dy * (1.0 - y * y)).collect();
            (y, vec![dx])
        });
        extremes.add(&format!("relu of {magnitude:e}"), [x()], USUAL, |x| x[0].relu());
    }
}

fn rows(extremes: &mut Extremes) {
    // A row of zeros, of huge, of tiny and of usual numbers.
    let x = |rows: usize| {
        normal(&[rows, 64]).with(|at| match at / 64 % 4 {
            0 => Some(0.0),
            1 => Some(if at % 2 == 0 { 1e15 } else { -1e14 }),
            2 => Some(1e-20),
            _ => None,
        })
    };
    for count in [4, 17] {
        extremes.add(
            "linear, rows of zeros, huge and tiny numbers",
            [x(count), normal(&[48, 64]), normal(&[48])],
            USUAL,
            |x| x[0].linear(&x[1], &x[2]),
        );
    }
    for pooling in [Pooling::Mean, Pooling::Max] {
        let pool = move |x: &[Tensor]| x[0].pool(&Sequences::new(&[1, 2, 1])?, pooling);
        extremes.add(&format!("{pooling:?} of one token"), [normal(&[4, 33])], USUAL, pool);
        extremes.add(&format!("{pooling:?} of 512 equal tokens"), [Input::of(&[512, 5], |_| 0.3)], USUAL, move |x| {
            x[0].pool(&Sequences::new(&[512])?, pooling)
        });
    }
    extremes.add("mean of many", [normal(&[9_000])], USUAL, |x| x[0].mean_all());
}

fn extremes() -> Vec<Extreme> {
    let mut extremes = Extremes::default();
    softmax(&mut extremes);
    few_targets(&mut extremes);
    attention(&mut extremes);
    layer_norm(&mut extremes);
    pointwise(&mut extremes);
    rows(&mut extremes);
    extremes.0
}

#[test]
fn f64_follows_the_formulas() {
    let (mut failures, mut checked) = (Vec::new(), 0);
    for Extreme { case, formula, .. } in extremes() {
        if let Some(formula) = formula {
            checked += 1;
            checks::formula(&case, &*formula)
                .unwrap_or_else(|message| failures.push(format!("{}: {message}", case.label)));
        }
    }
    assert!(checked > 200, "{checked} cases have a formula");
    assert!(failures.is_empty(), "{} of {checked} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Compares each case in several types on a device with f64, and returns what differs.
fn against_f64(device: &Device, what: &str) -> Vec<String> {
    let mut failures = Vec::new();
    for Extreme { case, tolerance, fits_f16, .. } in extremes() {
        let types = [
            (DType::F32, Precision::F32, tolerance.0),
            (DType::F32, Precision::Bf16, tolerance.1),
            (DType::F32, Precision::F16, tolerance.1.min(tolerance.0.max(4e-3))),
            (DType::BF16, Precision::F32, tolerance.1),
            (DType::F16, Precision::F32, tolerance.1),
        ];
        for (dtype, precision, tolerance) in types {
            // Products in f16 on a CPU have its range.
            let is_f16 = dtype == DType::F16 || precision == Precision::F16;
            if !device.supports(precision) || (is_f16 && !fits_f16) {
                continue;
            }
            let compared = || checks::narrow_types_of(&case, &case.inputs, [dtype; 2], tolerance, device);
            if let Err(message) = precision.scope(compared) {
                failures.push(format!("{} of {dtype} in {precision}, {what}: {message}", case.label));
            }
        }
    }
    failures
}

#[test]
fn every_type_agrees_with_f64_at_every_simd_level() {
    let mut failures = Vec::new();
    simd::testing::at_each_level(|level| failures.extend(against_f64(&Device::Cpu, &format!("{level:?}"))));
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Runs on a GPU, or on the emulator that `kernels/emulator` builds.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_agrees_with_f64_on_extremes() {
    let device = match Device::cuda(0) {
        Ok(device) => device,
        Err(error) if std::env::var_os("CLOZE_REQUIRE_GPU").is_some() => panic!("{error}"),
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let failures = against_f64(&device, "on a GPU");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
