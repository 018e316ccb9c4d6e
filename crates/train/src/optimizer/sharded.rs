//! An optimizer step that ranks share (S. Rajbhandari, J. Rasley, O. Ruwase, Y. He, "ZeRO: memory optimizations toward
//! training trillion parameter models", 2019, stage 1).
//!
//! Each rank owns a share of the flat parameters. It receives the gradients of its share from all ranks and adds them in rank
//! order, so the bits depend on the number of ranks and on nothing else. It updates its share, for which alone it has the
//! running means, and sends the parameters to all. That moves as many bytes as a reduction of the gradients in all ranks.
//!
//! `on_cpu` and `on_gpu` do this in the memory of a host and of a GPU.

use std::ops::Range;
use std::sync::Arc;

use cloze_tensor::optim::AdamWStep;
use cloze_tensor::{DType, Device, Gradients, Module, ParameterArena, ParameterRange, Tensor};

use super::on_cpu::OnCpu;
#[cfg(feature = "cuda")]
use super::on_gpu::OnGpu;
use super::shares::{Bucket, Shares};
use crate::communicator::Communicator;
use crate::{Error, Result};

/// What the ranks of a job share, and how.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) ranks: Arc<dyn Communicator>,
    pub(super) shares: Shares,
    /// Whether gradients travel as bf16.
    pub(super) is_bf16: bool,
}

impl Job {
    /// Returns the number of elements that this rank owns.
    pub(super) fn owned(&self) -> usize {
        self.shares.owned(self.ranks.rank())
    }

    /// Returns the range of the piece of a bucket within the share of this rank.
    pub(super) fn own_range(&self, bucket: &Bucket) -> Range<usize> {
        let piece = bucket.piece(self.ranks.rank());
        let start = bucket.share_start();
        start..start + piece.len()
    }
}

/// The part of this rank in the optimizer of a job.
pub(super) struct Sharded {
    job: Job,
    device: Device,
    place: Place,
}

/// Where the gradients of the own share are added, and what that needs.
enum Place {
    Cpu(OnCpu),
    #[cfg(feature = "cuda")]
    Gpu(OnGpu),
}

impl Sharded {
    /// Makes the part of this rank, for the parameters of `arena`.
    ///
    /// # Errors
    /// Returns an error if gradients cannot travel as `dtype`, or if there is not enough memory.
    pub(super) fn new(ranks: Arc<dyn Communicator>, arena: &ParameterArena, dtype: DType) -> Result<Sharded> {
        if !matches!(dtype, DType::F32 | DType::BF16) {
            return Err(Error::invalid("type of exchanged gradients", dtype, "f32 or bf16"));
        }
        let (shares, device) = (Shares::new(arena.elements(), ranks.size()), arena.device().clone());
        let job = Job { ranks, shares, is_bf16: dtype == DType::BF16 };
        let place = match &device {
            Device::Cpu => Place::Cpu(OnCpu::new(job.clone())),
            #[cfg(feature = "cuda")]
            _ => Place::Gpu(OnGpu::new(job.clone(), &device)?),
            #[cfg(not(feature = "cuda"))]
            _ => {
                let why = format!("parameters on {device} need the feature cuda of cloze-train");
                return Err(Error::data("ranks", why));
            }
        };
        Ok(Sharded { job, device, place })
    }

    /// Returns zeros for the own share.
    pub(super) fn zeros(&self) -> Result<Tensor> {
        Ok(Tensor::zeros(&[self.job.owned()], DType::F32, &self.device)?)
    }

    /// Accumulates the gradients of the last loss of a step, and exchanges those of the step meanwhile.
    pub(super) fn backward(&mut self, loss: &Tensor, gradients: &mut Gradients) -> Result<()> {
        match &mut self.place {
            Place::Cpu(place) => place.exchange_during(|send| Ok(loss.backward_streaming(gradients, send)?)),
            #[cfg(feature = "cuda")]
            Place::Gpu(place) => place.exchange_during(|send| Ok(loss.backward_streaming(gradients, send)?)),
        }
    }

    /// Makes a step, as [`ParameterArena::adamw`] does on one rank, and returns the norm of all gradients. If it is not finite,
    /// nothing is changed.
    pub(super) fn update(
        &mut self,
        (arena, model): (&ParameterArena, &mut impl Module),
        gradients: &Gradients,
        means: &mut [Tensor; 2],
        clip_norm: Option<f64>,
        step_of: impl Fn(usize) -> AdamWStep,
    ) -> Result<f64> {
        match &mut self.place {
            Place::Cpu(place) => {
                let [mean, square] = means;
                let means = [mean.exclusive_slice()?, square.exclusive_slice()?];
                let mut norm = Ok(0.0);
                arena.update(model, gradients, |values, gradients, parameters| {
                    norm = place.step((values, gradients), means, clip_norm, parameters, step_of);
                })?;
                norm
            }
            #[cfg(feature = "cuda")]
            Place::Gpu(place) => arena.update_on_gpu(model, gradients, |values, gradients, parameters| {
                place.step((values, gradients), means, clip_norm, parameters, step_of)
            }),
        }
    }

    /// Returns flat values of rank 0 on all ranks.
    pub(super) fn broadcast(&self, values: &Tensor) -> Result<Tensor> {
        let mut all = values.to_vec::<f32>()?;
        self.job.ranks.broadcast(bytemuck::cast_slice_mut(&mut all), 0)?;
        Ok(Tensor::from_vec(all, values.shape(), &self.device)?)
    }

    /// Returns the flat values on the CPU of rank 0, of which each rank has its own share, and `None` on the others.
    pub(super) fn collect(&self, share: &[f32]) -> Result<Option<Tensor>> {
        let mut all = vec![0f32; if self.job.ranks.rank() == 0 { self.elements() } else { 0 }];
        let mut share = share;
        for bucket in self.job.shares.buckets() {
            let own = share.split_off(..bucket.piece(self.job.ranks.rank()).len()).unwrap_or_default();
            let (to_root, from_all) = self.lengths_at_root(&bucket, own.len());
            let received: &mut [f32] = if all.is_empty() { &mut [] } else { &mut all[bucket.range.clone()] };
            let received = bytemuck::cast_slice_mut(received);
            self.job.ranks.all_to_all(bytemuck::cast_slice(own), &to_root, received, &from_all)?;
        }
        let length = all.len();
        Ok(if self.job.ranks.rank() == 0 { Some(Tensor::from_vec(all, &[length], &Device::Cpu)?) } else { None })
    }

    /// Returns the own share of the flat values that rank 0 has.
    pub(super) fn spread(&self, all: Option<Vec<f32>>) -> Result<Tensor> {
        let all = all.unwrap_or_default();
        let mut share = vec![0f32; self.job.owned()];
        let mut rest = &mut share[..];
        for bucket in self.job.shares.buckets() {
            let own = rest.split_off_mut(..bucket.piece(self.job.ranks.rank()).len()).unwrap_or_default();
            let (from_root, to_all) = self.lengths_at_root(&bucket, own.len());
            let sent: &[f32] = if all.is_empty() { &[] } else { &all[bucket.range.clone()] };
            self.job.ranks.all_to_all(
                bytemuck::cast_slice(sent),
                &to_all,
                bytemuck::cast_slice_mut(own),
                &from_root,
            )?;
        }
        let length = share.len();
        Ok(Tensor::from_vec(share, &[length], &self.device)?)
    }

    /// Returns the bytes that this rank exchanges with each rank if only rank 0 has whole buckets: those of its own piece of
    /// `own` elements, and those of all pieces, which are none except on rank 0.
    fn lengths_at_root(&self, bucket: &Bucket, own: usize) -> (Vec<usize>, Vec<usize>) {
        let size = self.job.ranks.size();
        let with_root = (0..size).map(|rank| if rank == 0 { own * 4 } else { 0 }).collect();
        let of_all = if self.job.ranks.rank() == 0 { bucket.lengths(4) } else { vec![0; size] };
        (with_root, of_all)
    }

    fn elements(&self) -> usize {
        self.job.shares.buckets().last().map_or(0, |bucket| bucket.range.end)
    }
}

/// Returns the parameters that `piece` touches, by index, and the range of each within it.
pub(super) fn parts<'p>(
    parameters: &'p [ParameterRange],
    piece: &'p Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> + 'p {
    let first = parameters.partition_point(|parameter| parameter.range.end <= piece.start);
    let touched = parameters.iter().enumerate().skip(first).take_while(|(_, p)| p.range.start < piece.end);
    touched.map(|(at, p)| (at, p.range.start.max(piece.start)..p.range.end.min(piece.end)))
}
