//! Groups examples into batches, and batches into steps.

use super::{DataSet, Size};
use crate::{Error, Result};

/// The number of batches whose examples are sorted by length together.
const POOL: usize = 50;

/// The rule by which examples become batches, and batches steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batching {
    pub(super) limit: Limit,
    /// Whether examples of similar length come together.
    pub(super) by_length: bool,
    /// The number of batches per step.
    pub(super) accumulate: usize,
}

/// The limit at which a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Examples(usize),
    Tokens(usize),
}

impl Batching {
    pub(super) fn check(&self) -> Result<()> {
        let at_least_one = |setting, value: usize| match value {
            0 => Err(Error::invalid(setting, 0, "at least 1")),
            _ => Ok(()),
        };
        at_least_one("accumulate", self.accumulate)?;
        match self.limit {
            Limit::Examples(examples) => at_least_one("batch size", examples),
            Limit::Tokens(tokens) => at_least_one("batch tokens", tokens),
        }
    }

    /// Returns the steps of an epoch.
    pub(super) fn steps<'d, D: DataSet>(&self, data: &'d D, epoch: u32) -> Result<Steps<'d, D>> {
        let examples = data.epoch(epoch)?;
        Ok(Steps { data, examples: Box::new(examples), batching: *self, ready: Vec::new(), next: None, ended: false })
    }

    fn is_full(&self, batch: usize, tokens: usize, next: Size) -> bool {
        match self.limit {
            Limit::Examples(examples) => batch >= examples,
            Limit::Tokens(limit) => batch > 0 && tokens + next.tokens > limit,
        }
    }
}

/// The steps of an epoch.
pub(super) struct Steps<'d, D: DataSet> {
    data: &'d D,
    examples: Box<dyn Iterator<Item = Result<D::Example>> + 'd>,
    batching: Batching,
    /// Batches that are made but not returned yet, the next one last.
    ready: Vec<Vec<D::Example>>,
    /// The example that did not fit into the last batch.
    next: Option<D::Example>,
    ended: bool,
}

impl<D: DataSet> Steps<'_, D> {
    /// Returns the batches of the next step; the result is empty at the end of the epoch.
    pub(super) fn next(&mut self) -> Result<Vec<Vec<D::Example>>> {
        let mut step = Vec::new();
        while step.len() < self.batching.accumulate
            && let Some(batch) = self.next_batch()?
        {
            step.push(batch);
        }
        Ok(step)
    }

    /// Returns whether no step is left.
    pub(super) fn is_at_end(&mut self) -> Result<bool> {
        if self.ready.is_empty() {
            self.fill()?;
        }
        Ok(self.ready.is_empty())
    }

    /// Skips steps.
    pub(super) fn skip(&mut self, steps: u32) -> Result<()> {
        for _ in 0..steps {
            self.next()?;
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<Vec<D::Example>>> {
        if self.ready.is_empty() {
            self.fill()?;
        }
        Ok(self.ready.pop())
    }

    /// Makes the next batch or, when grouping by length, the batches of the next pool.
    fn fill(&mut self) -> Result<()> {
        if !self.batching.by_length {
            let batch = self.read_batch()?;
            self.ready.extend(batch);
            return Ok(());
        }
        let mut pool = Vec::new();
        let mut batches = 0;
        while batches < POOL
            && let Some(batch) = self.read_batch()?
        {
            batches += 1;
            pool.extend(batch);
        }
        // The sort is stable, so the result only depends on the order of the epoch.
        pool.sort_by_key(|example| std::cmp::Reverse(self.data.size(example).tokens));
        let (mut sorted, mut batch, mut tokens) = (Vec::new(), Vec::new(), 0);
        for example in pool {
            let size = self.data.size(&example);
            if self.batching.is_full(batch.len(), tokens, size) {
                sorted.push(std::mem::take(&mut batch));
                tokens = 0;
            }
            tokens += size.tokens;
            batch.push(example);
        }
        sorted.extend((!batch.is_empty()).then_some(batch));
        // Alternates between the longest and the shortest batches, so that neighbouring steps differ in length.
        let mut order: Vec<Vec<D::Example>> = Vec::with_capacity(sorted.len());
        let mut sorted = std::collections::VecDeque::from(sorted);
        while let Some(longest) = sorted.pop_front() {
            order.push(longest);
            order.extend(sorted.pop_back());
        }
        order.reverse();
        self.ready = order;
        Ok(())
    }

    /// Returns the next batch in the order of the epoch.
    fn read_batch(&mut self) -> Result<Option<Vec<D::Example>>> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        loop {
            let next = match self.next.take() {
                Some(example) => Some(example),
                None if self.ended => None,
                None => self.examples.next().transpose()?,
            };
            let Some(example) = next else {
                self.ended = true;
                break;
            };
            let size = self.data.size(&example);
            if self.batching.is_full(batch.len(), tokens, size) {
                self.next = Some(example);
                break;
            }
            tokens += size.tokens;
            batch.push(example);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Example n of epoch e has `lengths[n]` tokens.
    struct Lengths(Vec<usize>);

    impl DataSet for Lengths {
        type Example = usize;
        type Batch = ();

        fn epoch(&self, _epoch: u32) -> Result<impl Iterator<Item = Result<usize>> + '_> {
            Ok((0..self.0.len()).map(Ok))
        }

        fn batch(&self, _examples: &[usize], _step: u32, _sequences: &[u32]) -> Result<()> {
            Ok(())
        }

        fn size(&self, example: &usize) -> Size {
            Size { sequences: 1, tokens: self.0[*example] }
        }
    }

    fn steps(lengths: &[usize], limit: Limit, by_length: bool, accumulate: usize) -> Vec<Vec<Vec<usize>>> {
        let data = Lengths(lengths.to_vec());
        let mut steps = Batching { limit, by_length, accumulate }.steps(&data, 0).unwrap();
        let mut all = Vec::new();
        loop {
            let step = steps.next().unwrap();
            if step.is_empty() {
                assert!(steps.is_at_end().unwrap());
                return all;
            }
            all.push(step);
        }
    }

    #[test]
    fn batches_of_examples_and_of_tokens() {
        let lengths = [3, 5, 2, 9, 1, 1, 1];
        assert_eq!(steps(&lengths, Limit::Examples(3), false, 1), [[vec![0, 1, 2]], [vec![3, 4, 5]], [vec![6]]]);
        // An example above the limit is a batch alone.
        let by_tokens = [vec![vec![0, 1]], vec![vec![2]], vec![vec![3]], vec![vec![4, 5, 6]]];
        assert_eq!(steps(&lengths, Limit::Tokens(8), false, 1), by_tokens);
        let two = [vec![vec![0, 1, 2], vec![3, 4, 5]], vec![vec![6]]];
        assert_eq!(steps(&lengths, Limit::Examples(3), false, 2), two);
    }

    #[test]
    fn lengths_come_together_and_nothing_is_lost() {
        let lengths: Vec<usize> = (0..1000).map(|n| 1 + n * 7919 % 97).collect();
        for limit in [Limit::Examples(8), Limit::Tokens(200)] {
            let batches = steps(&lengths, limit, true, 1).concat();
            let spread = |batch: &Vec<usize>| {
                let lengths = batch.iter().map(|&n| lengths[n]);
                lengths.clone().max().unwrap_or(0) - lengths.min().unwrap_or(0)
            };
            let mean = batches.iter().map(spread).sum::<usize>() as f64 / batches.len() as f64;
            assert!(mean < 10.0, "batches spread over {mean} tokens");
            let mut seen = batches.concat();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..1000));
            if let Limit::Tokens(most) = limit {
                assert!(batches.iter().all(|batch| batch.iter().map(|&n| lengths[n]).sum::<usize>() <= most));
            }
        }
    }

    #[test]
    fn skipping_equals_taking() {
        let lengths: Vec<usize> = (0..300).map(|n| 1 + n % 13).collect();
        let data = Lengths(lengths.clone());
        let all = steps(&lengths, Limit::Tokens(40), true, 3);
        let batching = Batching { limit: Limit::Tokens(40), by_length: true, accumulate: 3 };
        for skipped in [0, 1, 7, all.len() as u32 - 1] {
            let mut steps = batching.steps(&data, 0).unwrap();
            steps.skip(skipped).unwrap();
            assert_eq!(steps.next().unwrap(), all[skipped as usize]);
        }
    }

    #[test]
    fn zero_limits_are_refused() {
        let error =
            |limit, accumulate| Batching { limit, by_length: false, accumulate }.check().unwrap_err().to_string();
        assert_eq!(error(Limit::Examples(0), 1), "batch size is 0, must be at least 1");
        assert_eq!(error(Limit::Tokens(0), 1), "batch tokens is 0, must be at least 1");
        assert_eq!(error(Limit::Examples(1), 0), "accumulate is 0, must be at least 1");
    }
}
