//! Cross-entropy and its gradient: cross_entropy.cu. Logits are f32 or, with labels, bf16; losses are f32. The labels were checked on the host. Weighted and smoothed labels become
//! soft targets. The losses that are means of few numbers have no kernels of their own: they are composed of other operations.

use bytemuck::NoUninit;

use super::arguments::{device_of, f32s, floats, fresh, int, kernel_for, pointer};
use super::elementwise::{scaled, sum};
use crate::cuda::{Launch, Pointer};
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dispatch::{Op, TensorOp};
use crate::dtype::DType;
use crate::error::Result;
use crate::gradients::Destination;
use crate::ops::cross_entropy::{LabelCrossEntropy, SoftCrossEntropy};
use crate::ops::pointwise_loss::{Loss, PointwiseLoss};
use crate::tensor::Tensor;

const FILE: &str = "cross_entropy";
const THREADS: u32 = 256;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct CrossEntropyArguments {
    scores: Pointer,
    labels: Pointer,
    losses: Pointer,
    log_sums: Pointer,
    ignored: i64,
    rows: i32,
    classes: i32,
    row: i32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GradientArguments {
    scores: Pointer,
    labels: Pointer,
    log_sums: Pointer,
    factor: Pointer,
    gradient: Pointer,
    ignored: i64,
    rows: i32,
    classes: i32,
    row: i32,
    add: i32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct SoftArguments {
    scores: Pointer,
    targets: Pointer,
    losses: Pointer,
    log_sums: Pointer,
    totals: Pointer,
    rows: i32,
    classes: i32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct SoftGradientArguments {
    scores: Pointer,
    targets: Pointer,
    log_sums: Pointer,
    totals: Pointer,
    factor: Pointer,
    of_scores: Pointer,
    of_targets: Pointer,
    rows: i32,
    classes: i32,
    add_scores: i32,
    add_targets: i32,
}

impl CudaOp for LabelCrossEntropy {
    type Arity = [(); 1];

    fn reads_bf16(&self, _: &[&Tensor]) -> bool {
        self.weights.is_none()
    }

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        if let Some(weights) = &self.weights {
            return Ok(GpuOutput::Composed(self.composed(x, weights)?));
        }
        let (op, ignored, divisor) = (self.name(), self.ignore_index, self.divisor);
        let scores = floats(op, x)?;
        let size = scores.dtype().size();
        let device = device_of(op, &scores)?;
        let count = self.targets.len();
        let (rows, classes) = (int(op, count)?, int(op, self.classes)?);
        let labels = device.upload(op, &self.targets)?;
        let losses = fresh(op, &[count], DType::F32, &device)?;
        let log_sums = fresh(op, &[count], DType::F32, &device)?;
        let arguments = CrossEntropyArguments {
            scores: pointer(&scores),
            labels: labels.pointer(),
            losses: pointer(&losses),
            log_sums: pointer(&log_sums),
            ignored,
            rows,
            classes,
            row: classes,
            padding: 0,
        };
        let name = kernel_for(scores.dtype(), ["cross_entropy_f32", "cross_entropy_bf16"]);
        let launch = Launch::new(&device, op, FILE, name).grid([count, 1, 1]).threads(THREADS);
        launch.shared(THREADS as usize / 32 * 4).moves(size * count * self.classes).with(&arguments)?;
        let loss = scaled(op, &sum(op, &losses, &[1])?, 1.0 / divisor)?.reshape(&[])?;
        Ok(GpuOutput::new(loss, move |dy, [dx]| {
            dx.give_with(|| {
                let factor = scaled(op, &dy, 1.0 / divisor)?;
                // Logits that nothing else holds become their own gradient.
                let gradient = scores.into_exclusive()?;
                let arguments = GradientArguments {
                    scores: pointer(&gradient),
                    labels: labels.pointer(),
                    log_sums: pointer(&log_sums),
                    factor: pointer(&factor),
                    gradient: pointer(&gradient),
                    ignored,
                    rows,
                    classes,
                    row: classes,
                    add: 0,
                };
                let names = ["cross_entropy_gradient_f32", "cross_entropy_gradient_bf16"];
                let launch = Launch::new(&device, op, FILE, kernel_for(gradient.dtype(), names));
                launch.moves(2 * size * gradient.elements()).grid([count, 1, 1]).threads(THREADS).with(&arguments)?;
                Ok(gradient)
            })
        }))
    }
}

impl LabelCrossEntropy {
    /// Computes the loss of weighted and smoothed labels from their soft targets, `[rows, classes]`.
    fn composed(&self, x: &Tensor, weights: &[f64]) -> Result<Tensor> {
        let mut soft = vec![0f32; x.elements()];
        for (row, &target) in soft.chunks_exact_mut(self.classes).zip(&self.targets) {
            if target == self.ignore_index {
                continue;
            }
            if let Some(smoothed) = &self.smoothed {
                row.iter_mut().zip(smoothed).for_each(|(soft, &smoothed)| *soft = smoothed as f32);
            }
            row[target as usize] += weights[target as usize] as f32;
        }
        let soft = Tensor::from_vec(soft, x.shape(), &x.device())?;
        x.soft_cross_entropy(&soft)?.mul_scalar(self.targets.len() as f64 / self.divisor)
    }
}

impl CudaOp for SoftCrossEntropy {
    type Arity = [(); 2];

    fn forward(&self, [x, targets]: [&Tensor; 2], _: bool) -> Result<GpuOutput> {
        let (op, count) = (self.name(), x.elements() / x.width());
        let (x, targets) = (f32s(op, x)?, f32s(op, targets)?);
        let device = device_of(op, &x)?;
        let (rows, classes) = (int(op, count)?, int(op, x.width())?);
        let of_rows = || fresh(op, &[count], DType::F32, &device);
        let (losses, log_sums, totals) = (of_rows()?, of_rows()?, of_rows()?);
        let arguments = SoftArguments {
            scores: pointer(&x),
            targets: pointer(&targets),
            losses: pointer(&losses),
            log_sums: pointer(&log_sums),
            totals: pointer(&totals),
            rows,
            classes,
        };
        let launch = Launch::new(&device, op, FILE, "soft_cross_entropy_f32").grid([count, 1, 1]).threads(THREADS);
        let launch = launch.moves(8 * x.elements());
        launch.shared(THREADS as usize / 32 * 4).with(&arguments)?;
        let factor = 1.0 / count as f64;
        let loss = scaled(op, &sum(op, &losses, &[1])?, factor)?.reshape(&[])?;
        Ok(GpuOutput::new(loss, move |dy, [dx, dtargets]| {
            let factor = scaled(op, &dy, factor)?;
            let (mut dx, mut dtargets) = (dx.open()?, dtargets.open()?);
            let place = |gradient: &mut Option<Destination<'_>>| {
                gradient.as_mut().map_or((0, 0), |gradient| (pointer(gradient.tensor()), gradient.accumulates().into()))
            };
            let ((of_scores, add_scores), (of_targets, add_targets)) = (place(&mut dx), place(&mut dtargets));
            let arguments = SoftGradientArguments {
                scores: pointer(&x),
                targets: pointer(&targets),
                log_sums: pointer(&log_sums),
                totals: pointer(&totals),
                factor: pointer(&factor),
                of_scores,
                of_targets,
                rows,
                classes,
                add_scores,
                add_targets,
            };
            let written = [of_scores, of_targets].into_iter().filter(|&place| place != 0).count();
            let launch = Launch::new(&device, op, FILE, "soft_cross_entropy_gradient_f32");
            launch.moves(4 * x.elements() * (2 + written)).grid([count, 1, 1]).threads(THREADS).with(&arguments)
        }))
    }
}

impl CudaOp for PointwiseLoss {
    type Arity = [(); 1];

    fn forward(&self, [x]: [&Tensor; 1], _: bool) -> Result<GpuOutput> {
        let targets = &self.targets;
        Ok(GpuOutput::Composed(match self.loss {
            // The cross-entropy of two classes with the logits 0 and x.
            Loss::BinaryCrossEntropy => {
                let x = x.reshape(&[targets.len(), 1])?;
                let logits = Tensor::concat(&[&Tensor::zeros(x.shape(), x.dtype(), &x.device())?, &x], 1)?;
                let both = targets.iter().flat_map(|&target| [1.0 - target, target]).collect();
                logits.soft_cross_entropy(&Tensor::from_vec::<f32>(both, &[targets.len(), 2], &x.device())?)?
            }
            Loss::SquaredError => {
                let difference = x.sub(&Tensor::from_slice(targets, x.shape(), &x.device())?)?;
                difference.mul(&difference)?.mean_all()?
            }
        }))
    }
}
