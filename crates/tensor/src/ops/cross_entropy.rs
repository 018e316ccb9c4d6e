//! Cross-entropy of logits, with the softmax fused: loss = Σ over rows of (ln Σ e^x - x[target]), divided
//! as [`Reduction`] says. Only the logits and each row's log-sum-exp are kept; dx = (softmax(x) - target)
//! / divisor.

use crate::autograd::differentiable;
use crate::cpu::Real;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::gradients::Destination;
use crate::ops::{alike, float, on_device};
use crate::tensor::Tensor;
use crate::{DType, Error, ErrorKind, Result, cpu};

/// What the sum of the rows' losses is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    /// By the number of rows that count, of which there must be some.
    #[default]
    Mean,
    /// By nothing.
    Sum,
    /// By this: the number of targets of the whole optimizer step, where a step is made of several
    /// batches.
    Divide(f64),
}

/// Settings of [`Tensor::cross_entropy_with`]. The default ignores targets of -100 and takes the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Rows with this target do not count.
    pub ignore_index: i64,
    /// What the sum is divided by.
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy { ignore_index: -100, reduction: Reduction::Mean }
    }
}

impl Tensor {
    /// Mean cross-entropy, in nats, of the logits `self` [R, V] of classes `targets` `[R]`; -100 ignores a
    /// row. One row of logits `[V]` with one target will do too. The loss of two-byte logits is f32.
    ///
    /// # Errors
    /// When there are not as many targets as rows, one is not a class, or all are ignored: a mean over nothing.
    pub fn cross_entropy(&self, targets: &[i64]) -> Result<Tensor> {
        self.cross_entropy_with(targets, CrossEntropy::default())
    }

    /// As [`Tensor::cross_entropy`], with settings.
    ///
    /// # Errors
    /// When there are not as many targets as rows, one is not a class, or a mean is asked for and all are ignored.
    pub fn cross_entropy_with(&self, targets: &[i64], settings: CrossEntropy) -> Result<Tensor> {
        const OP: &str = "cross_entropy";
        if self.dtype().is_half() {
            return self.to_dtype(DType::F32)?.cross_entropy_with(targets, settings);
        }
        let (rows, classes) = logits(OP, self)?;
        if rows != targets.len() {
            let reason = format!("{} targets given for {rows} rows of logits", targets.len());
            return Err(Error::shape(OP, reason, &[("logits", self.shape())]));
        }
        let ignored = |target: i64| target == settings.ignore_index;
        let wrong = |&target: &i64| !ignored(target) && usize::try_from(target).map_or(true, |t| t >= classes);
        if let Some(position) = targets.iter().position(wrong) {
            let value = targets[position];
            return Err(ErrorKind::OutOfRange { op: OP, what: "label", value, position, limit: classes }.into());
        }
        let divisor = match settings.reduction {
            Reduction::Mean => match targets.iter().filter(|&&target| !ignored(target)).count() {
                0 => {
                    let ignored = settings.ignore_index;
                    let reason = format!("none of the {rows} targets counts ({ignored} is ignored): no mean of nothing");
                    return Err(Error::invalid(OP, reason));
                }
                counted => counted as f64,
            },
            Reduction::Sum => 1.0,
            Reduction::Divide(divisor) => divisor,
        };
        let x = self.values()?;
        let ignore = settings.ignore_index;
        on_device!(x, cpu => (), cuda => {
            let (output, kept) = cuda::cross_entropy::forward(OP, &x, targets, ignore, classes, divisor)?;
            drop(x);
            return Ok(differentiable(OP, [self], [], output, move |[], dy, [dx]| {
                dx.give_with(|| cuda::cross_entropy::backward(OP, kept, ignore, classes, divisor, &dy))
            }));
        });
        let (output, log_sums) = float!(OP, x.dtype(), T => {
            let mut losses = vec![0.0; rows];
            let log_sums = Tensor::build(OP, &[rows], &x.device(), |log_sums: &mut [T]| {
                cpu::cross_entropy::forward(x.slice(), targets, ignore, classes, &mut losses, log_sums);
            })?;
            // Summed in f64 and in order: the number a user sees.
            let sum: f64 = losses.iter().map(|&loss: &T| loss.to_f64()).sum();
            (Tensor::new((sum / divisor) as T, &x.device())?, log_sums)
        });
        let targets = targets.to_vec();
        Ok(differentiable(OP, [self], [&x, &log_sums], output, move |[x, log_sums], dy, [dx]| {
            dx.give_with(|| {
                let mut logits = x.into_exclusive()?;
                float!(OP, dy.dtype(), T => {
                    let scale = dy.slice::<T>()[0] / divisor as T;
                    let (x, log_sums) = (logits.exclusive_slice::<T>()?, log_sums.slice());
                    cpu::cross_entropy::backward(x, &targets, ignore, classes, log_sums, |_| scale);
                });
                Ok(logits)
            })
        }))
    }

    /// Mean over rows of -Σ p ln softmax(x), in nats, for the logits `self` [R, V] and distributions
    /// `targets` [R, V]. With soft or smoothed labels, or a teacher's probabilities.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn soft_cross_entropy(&self, targets: &Tensor) -> Result<Tensor> {
        const OP: &str = "soft_cross_entropy";
        alike(OP, &[("logits", self), ("targets", targets)])?;
        if self.dtype().is_half() {
            return self.to_dtype(DType::F32)?.soft_cross_entropy(&targets.to_dtype(DType::F32)?);
        }
        let (rows, classes) = logits(OP, self)?;
        if self.shape() != targets.shape() {
            let operands = [("logits", self.shape()), ("targets", targets.shape())];
            return Err(Error::shape(OP, "logits and targets differ in shape", &operands));
        }
        on_device!(self, cpu => (), cuda => {
            return self.log_softmax()?.mul(targets)?.sum_all()?.mul_scalar(-1.0 / rows as f64);
        });
        let (x, p) = (self.values()?, targets.values()?);
        let (output, log_sums) = float!(OP, x.dtype(), T => {
            let mut losses = vec![0.0; rows];
            let log_sums = Tensor::build(OP, &[rows], &x.device(), |log_sums: &mut [T]| {
                cpu::cross_entropy::soft_forward(x.slice(), p.slice(), classes, &mut losses, log_sums);
            })?;
            let sum: f64 = losses.iter().map(|&loss: &T| loss.to_f64()).sum();
            (Tensor::new((sum / rows as f64) as T, &x.device())?, log_sums)
        });
        let keeps = [&x, &p, &log_sums];
        Ok(differentiable(OP, [self, targets], keeps, output, move |[x, p, log_sums], dy, [dx, dp]| {
            let (mut dx, mut dp) = (dx.open()?, dp.open()?);
            float!(OP, dy.dtype(), T => {
                let scale = dy.slice::<T>()[0] / rows as T;
                let (dx, dp) = (dx.as_mut().map(Destination::target), dp.as_mut().map(Destination::target));
                let (x, p, log_sums) = (x.slice::<T>(), p.slice(), log_sums.slice());
                cpu::cross_entropy::soft_backward(x, p, classes, log_sums, |_| scale, dx, dp);
            });
            Ok(())
        }))
    }
}

/// Rows and classes of logits.
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
    use crate::Device;

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
