//! The exponential moving average of parameters.

use rayon::prelude::*;

/// Elements per task.
const CHUNK: usize = 1 << 16;

/// Computes `average = decay * average + (1 - decay) * values`, with the rounding of PyTorch's `lerp`.
pub(crate) fn move_to(average: &mut [f32], values: &[f32], decay: f64) {
    let weight = (1.0 - decay) as f32;
    let chunks = average.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(average, values)| {
        for (average, value) in average.iter_mut().zip(values) {
            // The second form is exact for a weight of 1, where the first may round.
            *average = if weight < 0.5 {
                *average + weight * (value - *average)
            } else {
                value - (value - *average) * (1.0 - weight)
            };
        }
    });
}
