//! Attention of BERT-base (12 heads of 64) over about 4096 tokens, by the length of the longest sequence: packed as it is,
//! and padded, with every sequence as long as the longest. Both are measured by what the real tokens need.

mod common;

use std::time::Duration;

use cloze::tensor::{Dropout, Gradients, Sequences};
use common::{Peak, Result, Suite, Work, leaf, lengths, noise, testing, timed};

const HIDDEN: usize = 768;
const HEADS: usize = 12;
const LENGTHS: [usize; 6] = [16, 32, 64, 128, 256, 512];

fn main() -> Result {
    let mut suite = Suite::new("attention")?;
    let tokens = if testing() { 512 } else { 4096 };
    for longest in LENGTHS {
        let packed = lengths(longest, tokens);
        let padded = vec![longest; packed.len()];
        let (forward_work, backward_work) = work(Peak::F32, &packed);
        for (form, lengths) in [("packed", &packed), ("padded", &padded)] {
            let name = |what: &str| format!("{longest}/{form}/{what}");
            suite.bench(name("forward/f32"), forward_work.clone(), || forward(lengths, Dropout::NONE));
            suite.bench(name("backward/f32"), backward_work.clone(), || backward(lengths, Dropout::NONE));
        }
        let dropout = || Ok::<_, cloze::tensor::Error>(Dropout::new(0.1, 7, 0, 0)?);
        let name = |what: &str| format!("{longest}/packed with dropout/{what}");
        suite.bench(name("forward/f32"), forward_work.clone(), || forward(&packed, dropout()?));
        suite.bench(name("backward/f32"), backward_work.clone(), || backward(&packed, dropout()?));
    }
    suite.finish();
    Ok(())
}

/// Forward: two products of L x L x D for each head. Backward: five, of which one computes the scores again, since they
/// are not kept (T. Dao et al., 2022).
fn work(peak: Peak, lengths: &[usize]) -> (Work, Work) {
    let tokens: usize = lengths.iter().sum();
    let squares: usize = lengths.iter().map(|length| length * length).sum();
    let (product, hidden) = ((2 * squares * HIDDEN) as f64, (4 * tokens * HIDDEN) as f64);
    // Forward: queries, keys, values and what comes out. Backward: these and their gradients.
    (Work::new(peak, 2.0 * product, 4.0 * hidden), Work::new(peak, 5.0 * product, 8.0 * hidden))
}

fn forward(lengths: &[usize], dropout: Dropout) -> Result<impl FnMut() -> Result<Duration>> {
    let sequences = Sequences::new(lengths)?;
    let qkv = leaf(&[sequences.tokens(), 3 * HIDDEN], 1.0)?;
    Ok(move || timed(|| qkv.attention(&sequences, HEADS, &dropout)))
}

fn backward(lengths: &[usize], dropout: Dropout) -> Result<impl FnMut() -> Result<Duration>> {
    let sequences = Sequences::new(lengths)?;
    let qkv = leaf(&[sequences.tokens(), 3 * HIDDEN], 1.0)?;
    let dy = noise(&[sequences.tokens(), HIDDEN], 1.0)?;
    Ok(move || {
        let (y, mut gradients) = (qkv.attention(&sequences, HEADS, &dropout)?, Gradients::new());
        timed(|| y.backward_with(&dy, &mut gradients))
    })
}
