//! Cross-entropy of logits, with the softmax fused: loss = Σ over rows of (ln Σ e^x - x[target]), divided as [`Reduction`]
//! says. Only the logits and each row's log-sum-exp are kept; dx = (softmax(x) - target) / divisor.

use crate::cpu::{self, Target};
use crate::device::Device;
use crate::dispatch::{Float, Forward, Keep, Op, TensorOp, apply, apply_tensors};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gradients::Slot;
use crate::layout::Dims;
use crate::tensor::Tensor;

/// The divisor of the sum of the rows' losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    /// Divides by the number of non-ignored rows (at least one).
    #[default]
    Mean,
    /// Does not divide.
    Sum,
    /// Divides by this: the number of targets of the whole optimizer step, if a step has several batches.
    Divide(f64),
}

/// Settings of [`Tensor::cross_entropy_with`]. The default ignores targets of -100 and takes the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Rows with this target are ignored.
    pub ignore_index: i64,
    /// The divisor of the sum.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy { ignore_index: -100, reduction: Reduction::Mean }
    }
}

impl Tensor {
    /// Computes the mean cross-entropy, in nats, of the logits `self` [R, V] of classes `targets` `[R]`; -100 ignores a
    /// row. A single row of logits `[V]` with one target is also accepted. The loss of two-byte logits is f32.
    ///
    /// # Errors
    /// Returns an error if the number of targets is not that of the rows, a target is not a class, or all are ignored.
    pub fn cross_entropy(&self, targets: &[i64]) -> Result<Tensor> {
        self.cross_entropy_with(targets, CrossEntropy::default())
    }

    /// Computes the cross-entropy as [`Tensor::cross_entropy`], with settings.
    ///
    /// # Errors
    /// Returns an error if the number of targets is not that of the rows, a target is not a class, or a mean is asked for
    /// and all are ignored.
    pub fn cross_entropy_with(&self, targets: &[i64], settings: CrossEntropy) -> Result<Tensor> {
        if self.dtype().is_half() {
            return self.to_dtype(DType::F32)?.cross_entropy_with(targets, settings);
        }
        let (_, classes) = logits(CROSS_ENTROPY, self)?;
        let counted = targets.iter().filter(|&&target| target != settings.ignore_index).count();
        let divisor = match settings.reduction {
            Reduction::Mean => counted as f64,
            Reduction::Sum => 1.0,
            Reduction::Divide(divisor) => divisor,
        };
        let op = LabelCrossEntropy { targets: targets.to_vec(), ignore_index: settings.ignore_index, classes, divisor };
        op.check_targets(self)?;
        if settings.reduction == Reduction::Mean && counted == 0 {
            let (rows, ignored) = (targets.len(), settings.ignore_index);
            let reason = format!("all {rows} targets are ignored ({ignored}), so there is no mean");
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
}

impl LabelCrossEntropy {
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

    fn forward<T: Float>(&mut self, [x]: [&Tensor; 1], _: bool) -> Result<Forward> {
        let x = x.values()?;
        let rows = self.targets.len();
        let mut losses = vec![T::ZERO; rows];
        let log_sums = Tensor::build(CROSS_ENTROPY, &[rows], &Device::Cpu, |log_sums: &mut [T]| {
            let (targets, ignored) = (&self.targets, self.ignore_index);
            cpu::cross_entropy::forward(x.slice(), targets, ignored, self.classes, &mut losses, log_sums);
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
            cpu::cross_entropy::backward(x, &self.targets, self.ignore_index, self.classes, log_sums, |_| scale);
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
        x[0].cross_entropy_with(&[1, 2, -1], CrossEntropy { ignore_index: -1, reduction: Reduction::Sum })
    });
    cases.add("cross_entropy", "divide", [normal(&[3, 300])], |x| {
        let reduction = Reduction::Divide(7.0);
        x[0].cross_entropy_with(&[1, 299, 2], CrossEntropy { reduction, ..Default::default() })
    });
    cases.add("cross_entropy", "extremes", [normal(&[3, 20]).scaled(1e4)], |x| x[0].cross_entropy(&[1, 19, 2]));
    let inputs = [normal(&[3, 17]), normal(&[3, 17])];
    cases.add("soft_cross_entropy", "", inputs, |x| x[0].soft_cross_entropy(&x[1]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{assert_same_with_gradients, normal};
    use crate::device::Device;

    #[test]
    fn fused_equals_composed() {
        assert_same_with_gradients(
            &[normal(&[2, 9])],
            |x| x[0].cross_entropy(&[4, 0]),
            |x| {
                let y = x[0].log_softmax()?;
                let picked = y.narrow(0, 0, 1)?.narrow(1, 4, 1)?.add(&y.narrow(0, 1, 1)?.narrow(1, 0, 1)?)?;
                picked.reshape(&[])?.mul_scalar(-0.5)
            },
        );
        assert_same_with_gradients(
            &[normal(&[4, 9]), normal(&[4, 9])],
            |x| x[0].soft_cross_entropy(&x[1]),
            |x| x[0].log_softmax()?.mul(&x[1])?.sum(1)?.mean_all()?.mul_scalar(-1.0),
        );
    }

    #[test]
    fn the_loss_of_half_logits_is_f32() -> Result<()> {
        let logits = Tensor::new([[0.5f32, -1.0, 2.25]], &Device::Cpu)?;
        let half = logits.to_dtype(DType::BF16)?.requires_grad();
        let loss = half.cross_entropy(&[1])?;
        assert_eq!(loss.dtype(), DType::F32);
        assert_eq!(loss.item()?, logits.cross_entropy(&[1])?.item()?);
        assert_eq!(loss.backward()?.get(&half).map(|gradient| gradient.dtype()), Some(DType::BF16));
        assert_eq!(half.detach().soft_cross_entropy(&half.detach().softmax()?)?.dtype(), DType::F32);
        Ok(())
    }

    #[test]
    fn labels_out_of_range_are_named() -> Result<()> {
        let logits = Tensor::zeros(&[2, 3], DType::F32, &Device::Cpu)?;
        for label in [3, -1, i64::MIN] {
            let Err(error) = logits.cross_entropy(&[0, label]) else { panic!("{label} is out of range") };
            assert!(error.to_string().contains(&label.to_string()), "{error}");
        }
        Ok(())
    }
}
