//! Vectors of many dimensions as points of few, to look at: principal components, and t-SNE.

mod eigen;
mod pca;
mod tsne;

pub use pca::Pca;
pub use tsne::{Tsne, TsneMap};

use crate::{Error, Result};

/// Checks that vectors are some, of one length and finite; gives the length.
fn check<T: Copy + Into<f64>>(what: &'static str, vectors: &[Vec<T>]) -> Result<usize> {
    let Some(first) = vectors.first() else { return Err(Error::data(what, "there is no vector")) };
    if first.is_empty() {
        return Err(Error::data(what, "vectors have no dimension"));
    }
    for (index, vector) in vectors.iter().enumerate() {
        if vector.len() != first.len() {
            let (length, expected) = (vector.len(), first.len());
            return Err(Error::data(
                what,
                format!("vector {} has {length} dimensions, the first {expected}", index + 1),
            ));
        }
        if let Some(at) = vector.iter().position(|&x| !x.into().is_finite()) {
            return Err(Error::data(what, format!("vector {}: dimension {} is not finite", index + 1, at + 1)));
        }
    }
    Ok(first.len())
}

/// The sum of the products, in a fixed order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests;
