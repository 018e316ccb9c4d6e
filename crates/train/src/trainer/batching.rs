//! Groups examples into batches, and batches into steps.

use super::{BatchRamp, DataSet, Size};
use crate::{Error, Result};

/// The number of batches whose examples are sorted by length together.
const POOL: usize = 50;

/// The rule by which examples become batches, and batches steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Batching {
    pub(super) limit: Limit,
    /// Whether examples of similar length come together.
    pub(super) by_length: bool,
    /// The number of batches per step.
    pub(super) accumulate: usize,
    pub(super) ramp: Option<BatchRamp>,
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
        if let Some(ramp) = self.ramp {
            ramp.check()?;
            // Groups are made of many batches of one size.
            if self.by_length {
                return Err(Error::invalid("group_by_length", "on", "off with a batch ramp"));
            }
        }
        match self.limit {
            Limit::Examples(examples) => at_least_one("batch size", examples),
            Limit::Tokens(tokens) => at_least_one("batch tokens", tokens),
        }
    }

    /// Returns the number of steps over which batches grow, in a run of `total` steps.
    pub(super) fn ramp_steps(&self, total: u32) -> u32 {
        self.ramp.map_or(0, |ramp| ramp.steps(total))
    }

    /// Returns the steps of an epoch. Its first step is `first_step` of the run, and batches grow over the first
    /// `ramp_steps` of the run.
    pub(super) fn steps<'d, D: DataSet>(
        &self,
        data: &'d D,
        epoch: u32,
        first_step: u32,
        ramp_steps: u32,
    ) -> Result<Steps<'d, D>> {
        let examples = Box::new(data.epoch(epoch)?);
        let (batching, step) = (*self, first_step);
        Ok(Steps { data, examples, batching, step, ramp_steps, ready: Vec::new(), next: None, ended: false })
    }

    /// Returns the limits of the batches of a step. Together they are the size of the step; only the last may be smaller
    /// than the limit of a full batch.
    fn limits(&self, step: u32, ramp_steps: u32) -> impl Iterator<Item = Limit> + use<> {
        let (of_batch, limit): (usize, fn(usize) -> Limit) = match self.limit {
            Limit::Examples(examples) => (examples, Limit::Examples),
            Limit::Tokens(tokens) => (tokens, Limit::Tokens),
        };
        let full = of_batch.saturating_mul(self.accumulate);
        let size = self.ramp.map_or(full, |ramp| ramp.size_within(full, step, ramp_steps));
        let left = move |batch: usize| size.saturating_sub(batch.saturating_mul(of_batch));
        (0..self.accumulate).map(move |batch| left(batch).min(of_batch)).take_while(|&size| size > 0).map(limit)
    }
}

impl Limit {
    /// Returns whether a batch of so many examples and tokens has no room for the next example.
    fn is_reached(self, examples: usize, tokens: usize, next: Size) -> bool {
        match self {
            Limit::Examples(limit) => examples >= limit,
            Limit::Tokens(limit) => examples > 0 && tokens + next.tokens > limit,
        }
    }
}

/// The steps of an epoch.
pub(super) struct Steps<'d, D: DataSet> {
    data: &'d D,
    examples: Box<dyn Iterator<Item = Result<D::Example>> + 'd>,
    batching: Batching,
    /// The number of the next step in the run.
    step: u32,
    ramp_steps: u32,
    /// Batches that are grouped by length but not returned yet, the next one last.
    ready: Vec<Vec<D::Example>>,
    /// The example that did not fit into the last batch.
    next: Option<D::Example>,
    ended: bool,
}

impl<D: DataSet> Steps<'_, D> {
    /// Returns the batches of the next step; the result is empty at the end of the epoch.
    pub(super) fn next(&mut self) -> Result<Vec<Vec<D::Example>>> {
        let mut step = Vec::new();
        for limit in self.batching.limits(self.step, self.ramp_steps) {
            match self.next_batch(limit)? {
                Some(batch) => step.push(batch),
                None => break,
            }
        }
        self.step += 1;
        Ok(step)
    }

    /// Returns whether no step is left.
    pub(super) fn is_at_end(&mut self) -> Result<bool> {
        self.next = self.next_example()?;
        Ok(self.ready.is_empty() && self.next.is_none())
    }

    /// Skips steps.
    pub(super) fn skip(&mut self, steps: u32) -> Result<()> {
        for _ in 0..steps {
            self.next()?;
        }
        Ok(())
    }

    fn next_batch(&mut self, limit: Limit) -> Result<Option<Vec<D::Example>>> {
        if !self.batching.by_length {
            return self.read_batch(limit);
        }
        if self.ready.is_empty() {
            self.fill()?;
        }
        Ok(self.ready.pop())
    }

    /// Makes the batches of the next pool, grouped by length.
    fn fill(&mut self) -> Result<()> {
        let limit = self.batching.limit;
        let mut pool = Vec::new();
        let mut batches = 0;
        while batches < POOL
            && let Some(batch) = self.read_batch(limit)?
        {
            batches += 1;
            pool.extend(batch);
        }
        // The sort is stable, so the result only depends on the order of the epoch.
        pool.sort_by_key(|example| std::cmp::Reverse(self.data.size(example).tokens));
        let (mut sorted, mut batch, mut tokens) = (Vec::new(), Vec::new(), 0);
        for example in pool {
            let size = self.data.size(&example);
            if limit.is_reached(batch.len(), tokens, size) {
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
    fn read_batch(&mut self, limit: Limit) -> Result<Option<Vec<D::Example>>> {
        let (mut batch, mut tokens) = (Vec::new(), 0);
        while let Some(example) = self.next_example()? {
            let size = self.data.size(&example);
            if limit.is_reached(batch.len(), tokens, size) {
                self.next = Some(example);
                break;
            }
            tokens += size.tokens;
            batch.push(example);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Takes the next example in the order of the epoch.
    fn next_example(&mut self) -> Result<Option<D::Example>> {
        if self.next.is_none() && !self.ended {
            self.next = self.examples.next().transpose()?;
            self.ended = self.next.is_none();
        }
        Ok(self.next.take())
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
        all(lengths, Batching { limit, by_length, accumulate, ramp: None }, 0)
    }

    fn all(lengths: &[usize], batching: Batching, ramp_steps: u32) -> Vec<Vec<Vec<usize>>> {
        let data = Lengths(lengths.to_vec());
        let mut steps = batching.steps(&data, 0, 0, ramp_steps).unwrap();
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
        let batching = Batching { limit: Limit::Tokens(40), by_length: true, accumulate: 3, ramp: None };
        let ramp = Batching { by_length: false, ramp: Some(RAMP), ..batching };
        for (batching, all) in [(batching, all), (ramp, self::all(&lengths, ramp, 10))] {
            for skipped in [0, 1, 7, all.len() as u32 - 1] {
                let mut steps = batching.steps(&data, 0, 0, 10).unwrap();
                steps.skip(skipped).unwrap();
                assert_eq!(steps.next().unwrap(), all[skipped as usize]);
            }
        }
    }

    const RAMP: BatchRamp = BatchRamp { from: 0.25, over: 0.5 };

    #[test]
    fn steps_grow_over_the_ramp() {
        let batching = |limit, accumulate| Batching { limit, by_length: false, accumulate, ramp: Some(RAMP) };
        let sizes = |batching, ramp_steps| -> Vec<Vec<usize>> {
            let steps = all(&[5; 60], batching, ramp_steps);
            steps[..7].iter().map(|step| step.iter().map(Vec::len).collect()).collect()
        };
        // Steps of 2, 3.5, 5 and 6.5 examples, then of 8: the full batches of a step come first.
        let growing = [vec![2], vec![4], vec![5], vec![7], vec![8], vec![8], vec![8]];
        assert_eq!(sizes(batching(Limit::Examples(8), 1), 4), growing);
        let split = [vec![2], vec![2, 2], vec![2, 2, 1], vec![2, 2, 2, 1], vec![2; 4], vec![2; 4], vec![2; 4]];
        assert_eq!(sizes(batching(Limit::Examples(2), 4), 4), split);
        // Examples of 5 tokens: steps of 10, 17.5, 25 and 32.5 tokens, then of 40, in batches of at most 20.
        let tokens = [vec![2], vec![3], vec![4, 1], vec![4, 2], vec![4, 4], vec![4, 4], vec![4, 4]];
        assert_eq!(sizes(batching(Limit::Tokens(20), 2), 4), tokens);
        assert_eq!(sizes(batching(Limit::Examples(8), 1), 0), vec![vec![8]; 7]);
        // An epoch that begins after step 2 of the run.
        let data = Lengths(vec![1; 30]);
        let mut steps = batching(Limit::Examples(8), 1).steps(&data, 1, 2, 4).unwrap();
        let of_epoch: Vec<usize> = (0..5).map(|_| steps.next().unwrap().concat().len()).collect();
        assert_eq!(of_epoch, [5, 7, 8, 8, 2]);
        assert!(steps.is_at_end().unwrap());
    }

    #[test]
    fn zero_limits_are_refused() {
        let batching = |limit, accumulate| Batching { limit, by_length: false, accumulate, ramp: None };
        let error = |limit, accumulate| batching(limit, accumulate).check().unwrap_err().to_string();
        assert_eq!(error(Limit::Examples(0), 1), "batch size is 0, must be at least 1");
        assert_eq!(error(Limit::Tokens(0), 1), "batch tokens is 0, must be at least 1");
        assert_eq!(error(Limit::Examples(1), 0), "accumulate is 0, must be at least 1");
        let grouped = Batching { by_length: true, ramp: Some(RAMP), ..batching(Limit::Examples(1), 1) };
        assert_eq!(grouped.check().unwrap_err().to_string(), "group_by_length is on, must be off with a batch ramp");
    }
}
