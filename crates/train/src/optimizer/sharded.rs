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
use std::time::Duration;

use cloze_tensor::optim::AdamWStep;
use cloze_tensor::{DType, Device, Gradients, Module, ParameterArena, ParameterRange, Tensor};

use super::on_cpu::OnCpu;
#[cfg(feature = "cuda")]
use super::on_gpu::OnGpu;
use super::shares::{Bucket, Shares};
use crate::communicator::Communicator;
use crate::{Error, Result};

/// The time for which an optimizer step waited for other ranks, and did nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// After backward, until the last gradients were exchanged and added.
    pub gradients: Duration,
    /// For the norm of all gradients.
    pub norm: Duration,
    /// After the update of the own parameters, until those of all ranks were here.
    pub parameters: Duration,
}

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

    /// Returns the number of this rank.
    pub(super) fn rank(&self) -> usize {
        self.job.ranks.rank()
    }

    /// Returns how long the last step waited for other ranks. A host does not wait for the exchanges of its GPU.
    pub(super) fn waits(&self) -> Waits {
        match &self.place {
            Place::Cpu(place) => place.waits,
            #[cfg(feature = "cuda")]
            Place::Gpu(_) => Waits::default(),
        }
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

    /// Returns the pieces that a rank owns, in order.
    pub(super) fn pieces(&self, rank: usize) -> impl Iterator<Item = Range<usize>> {
        self.job.shares.pieces(rank)
    }

    /// Sends a `share` from another rank to rank 0, which alone gets it.
    pub(super) fn to_root(&self, from: usize, share: &Tensor) -> Result<Option<Tensor>> {
        let (rank, size) = (self.job.ranks.rank(), self.job.ranks.size());
        let own = if rank == from { share.to_vec::<f32>()? } else { Vec::new() };
        let mut all = vec![0f32; if rank == 0 { self.job.shares.owned(from) } else { 0 }];
        let (mut own, mut rest) = (&own[..], &mut all[..]);
        for piece in self.pieces(from) {
            let sent = own.split_off(..piece.len().min(own.len())).unwrap_or_default();
            let received = rest.split_off_mut(..piece.len().min(rest.len())).unwrap_or_default();
            let (mut to, mut of) = (vec![0; size], vec![0; size]);
            (to[0], of[from]) = (4 * sent.len(), 4 * received.len());
            self.job.ranks.all_to_all(bytemuck::cast_slice(sent), &to, bytemuck::cast_slice_mut(received), &of)?;
        }
        let length = all.len();
        Ok(if rank == 0 { Some(Tensor::from_vec(all, &[length], &Device::Cpu)?) } else { None })
    }

    /// Returns the own share of flat values, of which `read` on rank 0 returns the elements of a range.
    pub(super) fn spread(&self, read: impl Fn(Range<usize>, &mut [f32]) -> Result<()>) -> Result<Tensor> {
        let (mut share, mut values) = (vec![0f32; self.job.owned()], Vec::new());
        let mut rest = &mut share[..];
        for bucket in self.job.shares.buckets() {
            let own = rest.split_off_mut(..bucket.piece(self.job.ranks.rank()).len()).unwrap_or_default();
            let (from_root, to_all) = self.lengths_at_root(&bucket, own.len());
            if self.job.ranks.rank() == 0 {
                values.clear();
                values.resize(bucket.range.len(), 0.0);
                read(bucket.range.clone(), &mut values)?;
            }
            self.job.ranks.all_to_all(
                bytemuck::cast_slice(&values),
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
