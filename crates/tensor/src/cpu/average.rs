//! The exponential moving average of parameters.

use super::parallel::for_rows;

/// Computes `average = decay * average + (1 - decay) * values`, with the rounding of PyTorch's `lerp`.
pub(crate) fn move_to(average: &mut [f32], values: &[f32], decay: f64) {
    let weight = (1.0 - decay) as f32;
    for_rows(values.len(), 2, average, |range, average| {
        for (average, value) in average.iter_mut().zip(&values[range]) {
            // The second form is exact for a weight of 1, where the first may round.
            *average = if weight < 0.5 {
                *average + weight * (value - *average)
            } else {
                value - (value - *average) * (1.0 - weight)
            };
        }
    });
}
