//! Cross-entropy of logits, with the softmax fused: loss = Σ over rows of (ln Σ e^x - x[target]), divided as [`Reduction`]
//! says. Only the logits and each row's log-sum-exp are kept; dx = (softmax(x) - target) / divisor. Class weights and label
//! smoothing make soft targets of the labels, which are never stored.

mod settings;

use crate::cpu::cross_entropy::Labels;
use crate::cpu::{self, Target};
use crate::device::Device;
use crate::dispatch::{Float, Forward, Keep, Op, TensorOp, apply, apply_tensors};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gradients::Slot;
use crate::layout::Dims;
use crate::tensor::Tensor;
pub use settings::{CrossEntropy, Reduction};

impl Tensor {
    /// Computes the mean cross-entropy, in nats, of the logits `self` [R, V] of classes `targets` `[R]`; -100 ignores a
    /// row. A single row of logits `[V]` with one target is also accepted. The loss of two-byte logits is f32.
    ///
    /// # Errors
    /// Returns an error if the number of targets is not that of the rows, a target is not a class, or all are ignored.
    pub fn cross_entropy(&self, targets: &[i64]) -> Result<Tensor> {
        self.cross_entropy_with(targets, &CrossEntropy::default())
    }

    /// Computes the cross-entropy as [`Tensor::cross_entropy`], with settings.
    ///
    /// # Errors
    /// Returns an error if the number of targets is not that of the rows, a target is not a class, a setting is out of
    /// range or has not one weight per class, or a mean is asked for and the targets have no weight.
    pub fn cross_entropy_with(&self, targets: &[i64], settings: &CrossEntropy) -> Result<Tensor> {
        let (_, classes) = logits(CROSS_ENTROPY, self)?;
        settings.check(classes)?;
        let weight = settings.total_weight(targets);
        let divisor = match settings.reduction {
            Reduction::Mean => weight,
            Reduction::Sum => 1.0,
            Reduction::Divide(divisor) => divisor,
        };
        let op = LabelCrossEntropy::new(targets, settings, classes, divisor);
        op.check_targets(self)?;
        if settings.reduction == Reduction::Mean && weight == 0.0 {
            let (rows, ignored) = (targets.len(), settings.ignore_index);
            let counted = targets.iter().filter(|&&target| target != ignored).count();
            let reason = match counted {
                0 => format!("all {rows} targets are ignored ({ignored}), so there is no mean"),
                _ => format!("the class weights of all {counted} targets are 0, so there is no mean"),
            };
            return Err(Error::invalid(CROSS_ENTROPY, reason));
        }
        apply_tensors(op, [self])
    }

    /// Computes the mean over rows of -Σ p ln softmax(x), in nats, for the logits `self` [R, V] and distributions
    /// `targets` [R, V]: soft or smoothed labels, or a teacher's probabilities.
    ///
    /// # Errors
    /// Returns an error if the shapes differ.
    pub fn soft_cross_entropy(&self, targets: &Tensor) -> Result<Tensor> {
        if self.dtype().is_half() && targets.dtype() == self.dtype() {
            return self.to_dtype(DType::F32)?.soft_cross_entropy(&targets.to_dtype(DType::F32)?);
        }
        apply(SoftCrossEntropy { classes: self.width() }, [self, targets])
    }
}

const CROSS_ENTROPY: &str = "cross_entropy";

/// Cross-entropy with a label for each row.
pub(crate) struct LabelCrossEntropy {
    pub(crate) targets: Vec<i64>,
    pub(crate) ignore_index: i64,
    pub(crate) classes: usize,
    pub(crate) divisor: f64,
    /// The weight of each class as a label, if they are not all 1.
    pub(crate) weights: Option<Vec<f64>>,
    /// What each class adds to the target of every row, if labels are smoothed.
    pub(crate) smoothed: Option<Vec<f64>>,
}

impl LabelCrossEntropy {
    fn new(targets: &[i64], settings: &CrossEntropy, classes: usize, divisor: f64) -> LabelCrossEntropy {
        let smoothing = settings.label_smoothing;
        let is_plain = settings.class_weights.is_none() && smoothing == 0.0;
        let weights = |factor: f64| match &settings.class_weights {
            Some(weights) => weights.iter().map(|&weight| factor * f64::from(weight)).collect(),
            None => vec![factor; classes],
        };
        LabelCrossEntropy {
            targets: targets.to_vec(),
            ignore_index: settings.ignore_index,
            classes,
            divisor,
            weights: (!is_plain).then(|| weights(1.0 - smoothing)),
            smoothed: (smoothing > 0.0).then(|| weights(smoothing / classes as f64)),
        }
    }

    /// Calls `with` with the labels as the loops read them.
    fn with_labels<T: Float, R>(&self, with: impl FnOnce(&Labels<'_, T>) -> R) -> R {
        let convert = |of_classes: &Option<Vec<f64>>| -> Option<Vec<T>> {
            of_classes.as_ref().map(|of_classes| of_classes.iter().map(|&x| T::from_f64(x)).collect())
        };
        let (weights, smoothed) = (convert(&self.weights), convert(&self.smoothed));
        with(&Labels {
            targets: &self.targets,
            ignore_index: self.ignore_index,
            classes: self.classes,
            weights: weights.as_deref(),
            smoothed: smoothed.as_deref(),
        })
    }

    fn check_targets(&self, x: &Tensor) -> Result<()> {
        let (rows, classes) = logits(CROSS_ENTROPY, x)?;
        if rows != self.targets.len() {
            let reason = format!("{} targets given for {rows} rows of logits", self.targets.len());
            return Err(Error::shape(CROSS_ENTROPY, reason, &[("logits", x.shape())]));
        }
        let is_wrong = |&target: &i64| {
            target != self.ignore_index && usize::try_from(target).map_or(true, |target| target >= classes)
        };
        let Some(position) = self.targets.iter().position(is_wrong) else { return Ok(()) };
        let value = self.targets[position];
        Err(ErrorKind::OutOfRange { op: CROSS_ENTROPY, what: "label", value, position, limit: classes }.into())
    }
}

/// Works on tensors, so that logits that nothing else holds become their own gradient.
impl TensorOp for LabelCrossEntropy {
    type Arity = [(); 1];

    fn name(&self) -> &'static str {
        CROSS_ENTROPY
    }

    fn operands(&self) -> &[&'static str] {
        &["logits"]
    }

    fn output_dtype(&self, _: DType) -> DType {
        DType::F32
    }

    fn forward<T: Float>(&mut self, [x]: [&Tensor; 1], _: bool) -> Result<Forward> {
        let x = x.values()?;
        let rows = self.targets.len();
        let mut losses = vec![T::ZERO; rows];
        let log_sums = Tensor::build(CROSS_ENTROPY, &[rows], &Device::Cpu, |log_sums: &mut [T]| {
            self.with_labels(|labels| cpu::cross_entropy::forward(x.slice(), labels, &mut losses, log_sums));
        })?;
        let output = Tensor::from_slice(&[mean(&losses, self.divisor)], &[], &Device::Cpu)?;
        Ok(Forward { output, kept: vec![x, log_sums] })
    }

    fn backward<T: Float>(self, kept: Vec<Tensor>, dy: Tensor, [dx]: [Slot<'_>; 1]) -> Result<()> {
        let Ok([x, log_sums]) = <[Tensor; 2]>::try_from(kept) else { return Ok(()) };
        dx.give_with(|| {
            let mut logits = x.into_exclusive()?;
            let scale = dy.slice::<T>()[0] / T::from_f64(self.divisor);
            let (x, log_sums) = (logits.exclusive_slice::<T>()?, log_sums.slice());
            self.with_labels(|labels| cpu::cross_entropy::backward(x, labels, log_sums, |_| scale));
            Ok(logits)
        })
    }
}

/// Mean cross-entropy with a distribution for each row.
pub(crate) struct SoftCrossEntropy {
    classes: usize,
}

impl Op<2, 2, 3> for SoftCrossEntropy {
    const OPERANDS: [&'static str; 2] = ["logits", "targets"];

    fn name(&self) -> &'static str {
        "soft_cross_entropy"
    }

    fn shapes(&self, [x, targets]: [&Tensor; 2]) -> Result<[Dims; 2]> {
        let (rows, _) = logits(self.name(), x)?;
        if x.shape() != targets.shape() {
            let operands = [("logits", x.shape()), ("targets", targets.shape())];
            return Err(Error::shape(self.name(), "logits and targets differ in shape", &operands));
        }
        Ok([Dims::default(), Dims::new(self.name(), &[rows])?])
    }

    fn forward<T: Float>(&mut self, [x, targets]: [&[T]; 2], [loss, log_sums]: [&mut [T]; 2]) {
        let rows = log_sums.len();
        let mut losses = vec![T::ZERO; rows];
        cpu::cross_entropy::soft_forward(x, targets, self.classes, &mut losses, log_sums);
        loss.fill(mean(&losses, rows as f64));
    }

    fn keeps(&self) -> [Keep; 3] {
        [Keep::Input(0), Keep::Input(1), Keep::Output(1)]
    }

    fn backward<T: Float>(
        &self,
        [x, targets, log_sums]: [&[T]; 3],
        dy: &[T],
        [dx, dtargets]: [Option<Target<'_, T>>; 2],
    ) {
        let scale = dy[0] / T::from_f64(log_sums.len() as f64);
        cpu::cross_entropy::soft_backward(x, targets, self.classes, log_sums, |_| scale, dx, dtargets);
    }
}

/// The sum of losses over a divisor. Summed in f64 and in order, because it is the number that a user sees.
fn mean<T: Float>(losses: &[T], divisor: f64) -> T {
    let sum: f64 = losses.iter().map(|loss| loss.to_f64()).sum();
    T::from_f64(sum / divisor)
}

/// Returns the number of rows and of classes of logits.
fn logits(op: &'static str, tensor: &Tensor) -> Result<(usize, usize)> {
    match tensor.shape() {
        shape @ (&[0] | &[_, 0]) => Err(Error::shape(op, "logits of 0 classes", &[("logits", shape)])),
        &[classes] => Ok((1, classes)),
        &[rows, classes] => Ok((rows, classes)),
        shape => Err(Error::shape(op, "logits must be [rows, classes]", &[("logits", shape)])),
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("cross_entropy", "mean", [normal(&[4, 33])], |x| x[0].cross_entropy(&[3, -100, 32, 0]));
    cases.add("cross_entropy", "one row", [normal(&[5])], |x| x[0].cross_entropy(&[1]));
    cases.add("cross_entropy", "sum", [normal(&[3, 7])], |x| {
        let settings = CrossEntropy { ignore_index: -1, reduction: Reduction::Sum, ..Default::default() };
        x[0].cross_entropy_with(&[1, 2, -1], &settings)
    });
    cases.add("cross_entropy", "divide", [normal(&[3, 300])], |x| {
        let reduction = Reduction::Divide(7.0);
        x[0].cross_entropy_with(&[1, 299, 2], &CrossEntropy { reduction, ..Default::default() })
    });
    let weights = || Some((0..33).map(|class| 0.25 * class as f32).collect());
    cases.add("cross_entropy", "weighted", [normal(&[4, 33])], move |x| {
        let settings = CrossEntropy { class_weights: weights(), ..Default::default() };
        x[0].cross_entropy_with(&[3, -100, 32, 0], &settings)
    });
    cases.add("cross_entropy", "smoothed", [normal(&[4, 33])], |x| {
        let settings = CrossEntropy { label_smoothing: 0.1, ..Default::default() };
        x[0].cross_entropy_with(&[3, -100, 32, 0], &settings)
    });
    cases.add("cross_entropy", "weighted and smoothed", [normal(&[4, 33])], move |x| {
        let reduction = Reduction::Divide(7.0);
        let settings = CrossEntropy { class_weights: weights(), label_smoothing: 0.3, reduction, ..Default::default() };
        x[0].cross_entropy_with(&[3, -100, 32, 0], &settings)
    });
    cases.add("cross_entropy", "extremes", [normal(&[3, 20]).scaled(1e4)], |x| x[0].cross_entropy(&[1, 19, 2]));
    let inputs = [normal(&[3, 17]), normal(&[3, 17])];
    cases.add("soft_cross_entropy", "", inputs, |x| x[0].soft_cross_entropy(&x[1]));
}

#[cfg(test)]
mod tests;
