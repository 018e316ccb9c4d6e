//! The sharded step on GPUs, one of each rank.
//!
//! Gradients never leave the GPUs, unless their memory is exchanged through the hosts. The host only submits work: exchanges and
//! the sums of what they bring run on a second stream, while backward goes on. It waits once per step, for the norm.

use std::ops::Range;

use cloze_tensor::optim::{AdamWStep, GpuStep};
use cloze_tensor::{DType, Device, FinalGradients, GpuExchange, ParameterRange, Tensor};

use super::sharded::{Job, parts};
use super::shares::{BLOCK, Bucket};
use crate::Result;

/// The part of a rank on a GPU.
pub(super) struct OnGpu {
    job: Job,
    exchange: GpuExchange,
    /// The gradients of the own share, added over the ranks.
    sums: Tensor,
    /// Whether these are the sums of the current step.
    is_summed: bool,
    /// The sum of the squares of each block of all gradients, of which this rank computes its own: `[blocks]`, f64.
    squares: Tensor,
    /// A bucket as bf16, if it travels as such.
    sent: Option<Tensor>,
    /// The parts of a bucket that this rank receives.
    received: Tensor,
}

impl OnGpu {
    pub(super) fn new(job: Job, device: &Device) -> Result<OnGpu> {
        let zeros = |elements: usize, dtype: DType| Tensor::zeros(&[elements], dtype, device);
        let (rank, size) = (job.ranks.rank(), job.ranks.size());
        let longest = job.shares.buckets().map(|bucket| bucket.range.len()).max().unwrap_or(0);
        let piece = job.shares.pieces(rank).map(|piece| piece.len()).max().unwrap_or(0);
        let blocks = job.shares.buckets().last().map_or(0, |bucket| blocks(&bucket.range).end);
        let dtype = if job.is_bf16 { DType::BF16 } else { DType::F32 };
        Ok(OnGpu {
            exchange: GpuExchange::new(device)?,
            sums: zeros(job.owned(), DType::F32)?,
            is_summed: false,
            squares: zeros(blocks, DType::F64)?,
            sent: if job.is_bf16 { Some(zeros(longest, dtype)?) } else { None },
            received: zeros(piece * size, dtype)?,
            job,
        })
    }

    /// Runs `backward`, which calls its argument whenever more gradients are final, and begins to exchange them as soon as a
    /// bucket is. All ranks exchange the buckets in the same order, from the last to the first.
    pub(super) fn exchange_during<'g>(
        &mut self,
        backward: impl FnOnce(&mut dyn FnMut(FinalGradients<'g>)) -> Result<()>,
    ) -> Result<()> {
        let buckets: Vec<Bucket> = self.job.shares.buckets().rev().collect();
        let (mut left, mut exchanged) = (&buckets[..], Ok(()));
        backward(&mut |last| {
            if exchanged.is_ok() {
                exchanged = self.exchange_final(&last, &mut left);
            }
        })?;
        exchanged?;
        self.is_summed = true;
        Ok(())
    }

    /// Exchanges the first of the buckets `left`, as many as are final.
    fn exchange_final(&mut self, last: &FinalGradients<'_>, left: &mut &[Bucket]) -> Result<()> {
        let ready = left.iter().take_while(|bucket| last.start() <= bucket.range.start).count();
        let Some(ready) = left.split_off(..ready).filter(|ready| !ready.is_empty()) else { return Ok(()) };
        let gradients = last.on_gpu()?;
        // Whatever computes them has been submitted by now.
        self.exchange.begin()?;
        ready.iter().try_for_each(|bucket| {
            let range = bucket.range.start - last.start()..bucket.range.end - last.start();
            self.add_bucket(bucket, &part(&gradients, range)?)
        })
    }

    /// Adds the gradients of a bucket of all ranks, in rank order, for the piece of this rank.
    fn add_bucket(&mut self, bucket: &Bucket, gradients: &Tensor) -> Result<()> {
        let (size, own) = (self.received.dtype().size(), self.job.own_range(bucket));
        let ranks = self.job.ranks.size();
        let send = match &self.sent {
            None => gradients.clone(),
            Some(sent) => {
                let sent = part(sent, 0..bucket.range.len())?;
                self.exchange.round(gradients, &sent)?;
                sent
            }
        };
        let received = part(&self.received, 0..own.len() * ranks)?;
        let (sent, lengths) = (bucket.lengths(size), vec![own.len() * size; ranks]);
        self.job.ranks.all_to_all_on_gpu(&self.exchange, (&send, &sent), (&received, &lengths))?;
        if own.is_empty() {
            return Ok(());
        }
        let squares = part(&self.squares, blocks(&bucket.piece(self.job.ranks.rank())))?;
        Ok(self.exchange.add(&received, &part(&self.sums, own)?, &squares)?)
    }

    /// Makes a step and returns the norm of all gradients. If it is not finite, nothing is changed.
    pub(super) fn step(
        &mut self,
        (values, gradients): (&Tensor, &Tensor),
        means: &[Tensor; 2],
        clip_norm: Option<f64>,
        parameters: &[ParameterRange],
        step_of: impl Fn(usize) -> AdamWStep,
    ) -> Result<f64> {
        // They were exchanged during backward, unless this rank had none.
        if !std::mem::take(&mut self.is_summed) {
            self.exchange.begin()?;
            for bucket in self.job.shares.buckets().rev() {
                self.add_bucket(&bucket, &part(gradients, bucket.range.clone())?)?;
            }
        }
        self.gather_squares()?;
        self.exchange.end()?;
        let step = GpuStep::new(&self.squares, clip_norm, (0..parameters.len()).map(&step_of))?;
        let [mean, square] = means;
        for bucket in self.job.shares.buckets() {
            let (piece, own) = (bucket.piece(self.job.ranks.rank()), self.job.own_range(&bucket));
            let within = |range: Range<usize>| range.start - piece.start..range.end - piece.start;
            let ranges: Vec<_> = parts(parameters, &piece).map(|(at, range)| (within(range), step_of(at))).collect();
            let of_share = |tensor: &Tensor| part(tensor, own.clone());
            let tensors = [part(values, piece.clone())?, of_share(&self.sums)?, of_share(mean)?, of_share(square)?];
            step.apply(tensors.each_ref(), &ranges)?;
        }
        self.exchange.begin()?;
        self.gather_values(values)?;
        self.exchange.end()?;
        // If another rank is lost, this is where it is missed.
        self.job.ranks.wait_until(&mut || Ok(self.exchange.is_done()?))?;
        Ok(step.norm()?)
    }

    /// Completes the sums of squares, in the order of the blocks, which does not depend on the number of ranks.
    fn gather_squares(&self) -> Result<()> {
        let count = |bucket: &Bucket, rank| blocks(&bucket.piece(rank)).len() * size_of::<f64>();
        let of_bucket = |bucket: Bucket| -> Result<_> {
            let lengths = (0..self.job.ranks.size()).map(|rank| count(&bucket, rank)).collect();
            Ok((part(&self.squares, blocks(&bucket.range))?, lengths))
        };
        let all: Vec<_> = self.job.shares.buckets().map(of_bucket).collect::<Result<_>>()?;
        self.job.ranks.all_gather_on_gpu(&self.exchange, &all)
    }

    /// Completes the flat values, of which each rank has its own share.
    fn gather_values(&self, values: &Tensor) -> Result<()> {
        let of_bucket = |bucket: Bucket| Ok((part(values, bucket.range.clone())?, bucket.lengths(4)));
        let all: Vec<_> = self.job.shares.buckets().map(of_bucket).collect::<Result<_>>()?;
        self.job.ranks.all_gather_on_gpu(&self.exchange, &all)
    }
}

/// Returns a view of elements.
fn part(tensor: &Tensor, range: Range<usize>) -> Result<Tensor> {
    Ok(tensor.narrow(0, range.start, range.len())?)
}

/// Returns the blocks of a range of the flat buffer that starts with one, or is empty.
fn blocks(range: &Range<usize>) -> Range<usize> {
    let start = range.start.div_ceil(BLOCK);
    start..start.max(range.end.div_ceil(BLOCK))
}
