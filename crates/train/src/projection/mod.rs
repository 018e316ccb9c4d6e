//! Projection of high-dimensional vectors to few dimensions, for plots: principal component analysis and t-SNE.

mod eigen;
mod pca;
mod tsne;

pub use pca::Pca;
pub use tsne::{Tsne, TsneMap};

use crate::{Error, Result};

/// Checks that there are vectors, all finite and of the same length, which it returns.
fn check<T: Copy + Into<f64>>(what: &'static str, vectors: &[Vec<T>]) -> Result<usize> {
    let Some(first) = vectors.first() else { return Err(Error::data(what, "no vectors")) };
    if first.is_empty() {
        return Err(Error::data(what, "the vectors have no dimensions"));
    }
    for (index, vector) in vectors.iter().enumerate() {
        if vector.len() != first.len() {
            let why = format!("vector {} has {} dimensions, the first has {}", index + 1, vector.len(), first.len());
            return Err(Error::data(what, why));
        }
        if let Some(at) = vector.iter().position(|&x| !x.into().is_finite()) {
            return Err(Error::data(what, format!("vector {}: dimension {} is not finite", index + 1, at + 1)));
        }
    }
    Ok(first.len())
}

/// Returns the dot product, summed in a fixed order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests;
