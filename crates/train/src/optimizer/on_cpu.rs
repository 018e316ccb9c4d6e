//! The sharded step on CPUs.
//!
//! Both exchanges go bucket by bucket on a second thread, that of gradients during backward, that of parameters during the
//! update of the next ones.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cloze_tensor::optim::{AdamWStep, clip_factor, sums_of_squares};
use cloze_tensor::{FinalGradients, ParameterRange};

use super::sharded::{Job, Waits, parts};
use super::shares::{BLOCK, Bucket};
use crate::Result;

/// The part of a rank on a CPU.
pub(super) struct OnCpu {
    job: Job,
    /// The gradients of the own share, added over the ranks.
    sums: Vec<f32>,
    /// Whether these are the sums of the current step.
    is_summed: bool,
    pub(super) waits: Waits,
    /// The bytes of a bucket that this rank sends and receives.
    sent: Vec<u16>,
    received: Vec<u8>,
}

impl OnCpu {
    pub(super) fn new(job: Job) -> OnCpu {
        let sums = vec![0.0; job.owned()];
        OnCpu { job, sums, is_summed: false, waits: Waits::default(), sent: Vec::new(), received: Vec::new() }
    }

    /// Makes a step and returns the norm of all gradients. If it is not finite, nothing is changed.
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
            for bucket in self.job.shares.buckets().rev() {
                self.add_bucket(&bucket, &gradients[bucket.range.clone()])?;
            }
        }
        let norm = self.norm()?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = clip_factor(norm, clip_norm);
        let (sums, rank) = (&self.sums, self.job.ranks.rank());
        self.waits.parameters = self.gather_during(values, |bucket, values| {
            let (piece, first, start) = (bucket.piece(rank), bucket.share_start(), bucket.range.start);
            for (at, part) in parts(parameters, &piece) {
                let own = first + part.start - piece.start..first + part.end - piece.start;
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
        let buckets: Vec<Bucket> = self.job.shares.buckets().rev().collect();
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
        let size = if self.job.is_bf16 { 2 } else { 4 };
        let own = self.job.own_range(bucket);
        let received = vec![own.len() * size; self.job.ranks.size()];
        self.received.resize(own.len() * size * self.job.ranks.size(), 0);
        let bytes = if self.job.is_bf16 {
            self.sent.clear();
            self.sent.extend(gradients.iter().map(|&x| to_bf16(x)));
            bytemuck::cast_slice(&self.sent)
        } else {
            bytemuck::cast_slice(gradients)
        };
        self.job.ranks.all_to_all(bytes, &bucket.lengths(size), &mut self.received, &received)?;
        add_in_order(&mut self.sums[own], &self.received, self.job.is_bf16);
        Ok(())
    }

    /// Returns the norm of all gradients. The squares are added in an order that does not depend on the number of ranks.
    fn norm(&mut self) -> Result<f64> {
        let blocks = |rank| self.job.shares.pieces(rank).map(|piece| piece.len().div_ceil(BLOCK)).sum::<usize>();
        let counts: Vec<usize> = (0..self.job.ranks.size()).map(blocks).collect();
        let lengths: Vec<usize> = counts.iter().map(|count| count * size_of::<f64>()).collect();
        let mut sums = vec![0f64; counts.iter().sum()];
        let own = sums_of_squares(&self.sums, BLOCK);
        let start = Instant::now();
        self.job.ranks.all_gather(bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut sums), &lengths)?;
        self.waits.norm = start.elapsed();
        let mut rest = &sums[..];
        let mut of_rank: Vec<_> =
            counts.iter().map(|&count| rest.split_off(..count).unwrap_or_default().iter()).collect();
        let mut total = 0.0;
        for bucket in self.job.shares.buckets() {
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
            for bucket in self.job.shares.buckets() {
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
            let piece = bucket.piece(self.job.ranks.rank());
            own.clear();
            own.extend_from_slice(&values[piece.start - bucket.range.start..piece.end - bucket.range.start]);
            self.job.ranks.all_gather(
                bytemuck::cast_slice(&own),
                bytemuck::cast_slice_mut(values),
                &bucket.lengths(4),
            )?;
        }
        Ok(())
    }
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
