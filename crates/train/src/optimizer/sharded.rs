//! An optimizer step that ranks share (S. Rajbhandari, J. Rasley, O. Ruwase, Y. He, "ZeRO: memory optimizations toward
//! training trillion parameter models", 2019, stage 1).
//!
//! Each rank owns a share of the flat parameters. It receives the gradients of its share from all ranks and adds them in rank
//! order, so the bits depend on the number of ranks and on nothing else. It updates its share, for which alone it has the
//! running means, and sends the parameters to all. That moves as many bytes as a reduction of the gradients in all ranks.
//!
//! Both exchanges go bucket by bucket on a second thread, that of gradients during backward, that of parameters during the
//! update of the next ones.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cloze_tensor::optim::{AdamWStep, clip_factor, sums_of_squares};
use cloze_tensor::{DType, Device, FinalGradients, ParameterRange, Tensor};

use super::shares::{BLOCK, Bucket, Shares};
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

/// The part of this rank in the optimizer of a job.
pub(super) struct Sharded {
    pub(super) ranks: Arc<dyn Communicator>,
    shares: Shares,
    /// Whether gradients travel as bf16.
    is_bf16: bool,
    /// The gradients of the own share, added over the ranks.
    sums: Vec<f32>,
    /// Whether these are the sums of the current step.
    is_summed: bool,
    pub(super) waits: Waits,
    /// The bytes of a bucket that this rank sends and receives.
    sent: Vec<u16>,
    received: Vec<u8>,
}

impl Sharded {
    /// Makes the part of this rank, for flat parameters of this length.
    ///
    /// # Errors
    /// Returns an error if gradients cannot travel as `dtype`.
    pub(super) fn new(ranks: Arc<dyn Communicator>, elements: usize, dtype: DType) -> Result<Sharded> {
        if !matches!(dtype, DType::F32 | DType::BF16) {
            return Err(Error::invalid("type of exchanged gradients", dtype, "f32 or bf16"));
        }
        let shares = Shares::new(elements, ranks.size());
        let sums = vec![0.0; shares.owned(ranks.rank())];
        Ok(Sharded {
            ranks,
            shares,
            is_bf16: dtype == DType::BF16,
            sums,
            is_summed: false,
            waits: Waits::default(),
            sent: Vec::new(),
            received: Vec::new(),
        })
    }

    /// Returns zeros for the own share.
    pub(super) fn zeros(&self) -> Result<Tensor> {
        Ok(Tensor::zeros(&[self.sums.len()], DType::F32, &Device::Cpu)?)
    }

    /// Makes a step, as [`ParameterArena::adamw`](cloze_tensor::ParameterArena::adamw) does on one rank, and returns the norm
    /// of all gradients. If it is not finite, nothing is changed.
    pub(super) fn step(
        &mut self,
        (values, gradients): (&mut [f32], &[f32]),
        [mean, square]: [&mut [f32]; 2],
        clip_norm: Option<f64>,
        parameters: &[ParameterRange],
        step_of: impl Fn(usize) -> AdamWStep,
    ) -> Result<f64> {
        // They were exchanged during backward, unless this rank had none.
        if !std::mem::take(&mut self.is_summed) {
            for bucket in self.shares.buckets().rev() {
                self.add_bucket(&bucket, &gradients[bucket.range.clone()])?;
            }
        }
        let norm = self.norm()?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = clip_factor(norm, clip_norm);
        let (sums, rank) = (&self.sums, self.ranks.rank());
        self.waits.parameters = self.gather_during(values, |bucket, values| {
            let (piece, start) = (bucket.piece(rank), bucket.range.start);
            for (at, part) in parts(parameters, &piece) {
                let own =
                    bucket.share_start() + part.start - piece.start..bucket.share_start() + part.end - piece.start;
                let means = (&mut mean[own.clone()], &mut square[own.clone()]);
                step_of(at).apply(&mut values[part.start - start..part.end - start], &sums[own], scale, means);
            }
        })?;
        Ok(norm)
    }

    /// Runs `backward`, which calls its argument whenever more gradients are final, and exchanges them meanwhile on another
    /// thread. All ranks exchange the buckets in the same order, from the last to the first.
    pub(super) fn exchange_during<'g>(
        &mut self,
        backward: impl FnOnce(&mut dyn FnMut(FinalGradients<'g>)) -> Result<()>,
    ) -> Result<()> {
        let (sender, receiver) = channel();
        let buckets: Vec<Bucket> = self.shares.buckets().rev().collect();
        let sharded = &mut *self;
        let exchange = move || -> Result<bool> {
            let mut last: Option<FinalGradients<'g>> = None;
            for bucket in buckets {
                let ready = loop {
                    match last.as_ref().filter(|last| last.start() <= bucket.range.start) {
                        Some(ready) => break ready,
                        None => match receiver.recv() {
                            Ok(more) => last = Some(more),
                            // Backward has failed.
                            Err(_) => return Ok(false),
                        },
                    }
                };
                let range = bucket.range.start - ready.start()..bucket.range.end - ready.start();
                sharded.add_bucket(&bucket, &ready.values()[range])?;
            }
            Ok(true)
        };
        let (walked, exchanged, waited) = std::thread::scope(|scope| {
            let exchange = scope.spawn(exchange);
            // If the exchange has failed, the result says so.
            let walked = backward(&mut |last| drop(sender.send(last)));
            drop(sender);
            let start = Instant::now();
            let exchanged = exchange.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (walked, exchanged, start.elapsed())
        });
        walked?;
        self.is_summed = exchanged?;
        self.waits.gradients = waited;
        Ok(())
    }

    /// Adds the gradients of a bucket of all ranks, in rank order, for the piece of this rank.
    fn add_bucket(&mut self, bucket: &Bucket, gradients: &[f32]) -> Result<()> {
        let size = if self.is_bf16 { 2 } else { 4 };
        let own = self.own_range(bucket);
        let received = vec![own.len() * size; self.ranks.size()];
        self.received.resize(own.len() * size * self.ranks.size(), 0);
        let bytes = if self.is_bf16 {
            self.sent.clear();
            self.sent.extend(gradients.iter().map(|&x| to_bf16(x)));
            bytemuck::cast_slice(&self.sent)
        } else {
            bytemuck::cast_slice(gradients)
        };
        self.ranks.all_to_all(bytes, &bucket.lengths(size), &mut self.received, &received)?;
        add_in_order(&mut self.sums[own], &self.received, self.is_bf16);
        Ok(())
    }

    /// Returns the range of the piece of a bucket within the share of this rank.
    fn own_range(&self, bucket: &Bucket) -> Range<usize> {
        let piece = bucket.piece(self.ranks.rank());
        let start = bucket.share_start();
        start..start + piece.len()
    }

    /// Returns the norm of all gradients. The squares are added in an order that does not depend on the number of ranks.
    fn norm(&mut self) -> Result<f64> {
        let blocks = |rank| self.shares.pieces(rank).map(|piece| piece.len().div_ceil(BLOCK)).sum::<usize>();
        let counts: Vec<usize> = (0..self.ranks.size()).map(blocks).collect();
        let lengths: Vec<usize> = counts.iter().map(|count| count * size_of::<f64>()).collect();
        let mut sums = vec![0f64; counts.iter().sum()];
        let own = sums_of_squares(&self.sums, BLOCK);
        let start = Instant::now();
        self.ranks.all_gather(bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut sums), &lengths)?;
        self.waits.norm = start.elapsed();
        let mut rest = &sums[..];
        let mut of_rank: Vec<_> =
            counts.iter().map(|&count| rest.split_off(..count).unwrap_or_default().iter()).collect();
        let mut total = 0.0;
        for bucket in self.shares.buckets() {
            for (rank, sums) in of_rank.iter_mut().enumerate() {
                let blocks = bucket.piece(rank).len().div_ceil(BLOCK);
                total = sums.by_ref().take(blocks).fold(total, |total, sum| total + sum);
            }
        }
        Ok(total.sqrt())
    }

    /// Runs `update` on the values of each bucket, where it changes the own piece, and completes them from the other ranks
    /// meanwhile on another thread. Returns how long that took after the last update.
    fn gather_during(&self, values: &mut [f32], mut update: impl FnMut(&Bucket, &mut [f32])) -> Result<Duration> {
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let gather = scope.spawn(move || self.gather(receiver));
            let mut rest = values;
            for bucket in self.shares.buckets() {
                let values = rest.split_off_mut(..bucket.range.len()).unwrap_or_default();
                update(&bucket, values);
                // If the exchange has failed, the result says so.
                let _ = sender.send((bucket, values));
            }
            drop(sender);
            let start = Instant::now();
            gather.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(start.elapsed())
        })
    }

    /// Completes the values of buckets, of which each rank has its own piece.
    fn gather(&self, buckets: Receiver<(Bucket, &mut [f32])>) -> Result<()> {
        let mut own = Vec::new();
        for (bucket, values) in buckets {
            let piece = bucket.piece(self.ranks.rank());
            own.clear();
            own.extend_from_slice(&values[piece.start - bucket.range.start..piece.end - bucket.range.start]);
            self.ranks.all_gather(bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(values), &bucket.lengths(4))?;
        }
        Ok(())
    }

    /// Returns the pieces that a rank owns, in order.
    pub(super) fn pieces(&self, rank: usize) -> impl Iterator<Item = Range<usize>> {
        self.shares.pieces(rank)
    }

    /// Sends a `share` from another rank to rank 0, which alone gets it.
    pub(super) fn to_root(&self, from: usize, share: &Tensor) -> Result<Option<Tensor>> {
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        let own = if rank == from { share.to_vec::<f32>()? } else { Vec::new() };
        let mut all = vec![0f32; if rank == 0 { self.shares.owned(from) } else { 0 }];
        let (mut own, mut rest) = (&own[..], &mut all[..]);
        for piece in self.pieces(from) {
            let sent = own.split_off(..piece.len().min(own.len())).unwrap_or_default();
            let received = rest.split_off_mut(..piece.len().min(rest.len())).unwrap_or_default();
            let (mut to, mut of) = (vec![0; size], vec![0; size]);
            (to[0], of[from]) = (4 * sent.len(), 4 * received.len());
            self.ranks.all_to_all(bytemuck::cast_slice(sent), &to, bytemuck::cast_slice_mut(received), &of)?;
        }
        let length = all.len();
        Ok(if rank == 0 { Some(Tensor::from_vec(all, &[length], &Device::Cpu)?) } else { None })
    }

    /// Returns the own share of flat values, of which `read` on rank 0 returns the elements of a range.
    pub(super) fn spread(&self, read: impl Fn(Range<usize>, &mut [f32]) -> Result<()>) -> Result<Tensor> {
        let (mut share, mut values) = (vec![0f32; self.sums.len()], Vec::new());
        let mut rest = &mut share[..];
        for bucket in self.shares.buckets() {
            let own = rest.split_off_mut(..bucket.piece(self.ranks.rank()).len()).unwrap_or_default();
            let (from_root, to_all) = self.lengths_at_root(&bucket, own.len());
            if self.ranks.rank() == 0 {
                values.clear();
                values.resize(bucket.range.len(), 0.0);
                read(bucket.range.clone(), &mut values)?;
            }
            self.ranks.all_to_all(bytemuck::cast_slice(&values), &to_all, bytemuck::cast_slice_mut(own), &from_root)?;
        }
        let length = share.len();
        Ok(Tensor::from_vec(share, &[length], &Device::Cpu)?)
    }

    /// Returns the bytes that this rank exchanges with each rank if only rank 0 has whole buckets: those of its own piece of
    /// `own` elements, and those of all pieces, which are none except on rank 0.
    fn lengths_at_root(&self, bucket: &Bucket, own: usize) -> (Vec<usize>, Vec<usize>) {
        let size = self.ranks.size();
        let with_root = (0..size).map(|rank| if rank == 0 { own * 4 } else { 0 }).collect();
        let of_all = if self.ranks.rank() == 0 { bucket.lengths(4) } else { vec![0; size] };
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

/// Adds the parts of `received`, one per rank, in rank order.
fn add_in_order(sum: &mut [f32], received: &[u8], is_bf16: bool) {
    let size = if is_bf16 { 2 } else { 4 };
    if sum.is_empty() {
        return;
    }
    for (rank, part) in received.chunks_exact(sum.len() * size).enumerate() {
        let add = |(sum, x): (&mut f32, f32)| *sum = if rank == 0 { x } else { *sum + x };
        if is_bf16 {
            let values = part.as_chunks::<2>().0.iter().map(|&bytes| from_bf16(u16::from_ne_bytes(bytes)));
            sum.iter_mut().zip(values).for_each(add);
        } else {
            let values = part.as_chunks::<4>().0.iter().map(|&bytes| f32::from_ne_bytes(bytes));
            sum.iter_mut().zip(values).for_each(add);
        }
    }
}

/// Rounds to bf16, ties to even.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        // Rounding could turn it into an infinity.
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_the_nearest_even() {
        for (x, rounded) in [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 1.0 / 64.0),
            (1.0 + 1.1 / 256.0, 1.0 + 1.0 / 128.0),
            (-0.0, -0.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            assert_eq!(from_bf16(to_bf16(x)).to_bits(), f32::to_bits(rounded), "{x}");
        }
        assert!(from_bf16(to_bf16(f32::from_bits(0x7f80_0001))).is_nan());
    }

    #[test]
    fn sums_are_in_rank_order() {
        let parts = [1e8f32, 1.0, -1e8, 1.0];
        let bytes: Vec<u8> = parts.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let mut sum = [f32::NAN];
        add_in_order(&mut sum, &bytes, false);
        assert_eq!(sum[0], ((1e8 + 1.0) - 1e8) + 1.0);
    }
}
