//! Principal component analysis.

use rayon::prelude::*;

use super::eigen::symmetric_eigen;
use super::{check, dot};
use crate::{Error, Result};

/// Principal component analysis: the directions in which vectors vary most.
///
/// Values and signs equal those of scikit-learn's `PCA`, where the component of each direction that is largest in
/// absolute value is positive.
///
/// Source: K. Pearson, "On lines and planes of closest fit to systems of points in space", 1901.
///
/// ```
/// let vectors = vec![vec![0.0f32, 0.0], vec![1.0, 1.0], vec![2.0, 2.0]];
/// let pca = cloze_train::projection::Pca::fit(&vectors, 1)?;
/// assert!((pca.transform(&vectors)?[2][0] - 2f64.sqrt()).abs() < 1e-12);
/// # Ok::<(), cloze_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    mean: Vec<f64>,
    components: Vec<Vec<f64>>,
    explained_variance: Vec<f64>,
    total_variance: f64,
}

impl Pca {
    /// Finds the first `components` directions of `vectors`, which must have the same length.
    ///
    /// # Errors
    /// Returns an error if there are fewer than two vectors, their lengths differ, a value is not finite, or
    /// `components` is 0 or greater than the number of vectors or dimensions.
    pub fn fit<T: Copy + Into<f64> + Sync>(vectors: &[Vec<T>], components: usize) -> Result<Pca> {
        let dimensions = check("PCA", vectors)?;
        let count = vectors.len();
        if count < 2 {
            return Err(Error::data("PCA", "needs at least two vectors, got one"));
        }
        if components == 0 || components > count.min(dimensions) {
            let limit = format!("from 1 to {}, the smaller number of vectors and dimensions", count.min(dimensions));
            return Err(Error::invalid("number of components", components, limit));
        }
        let mut mean = vec![0.0; dimensions];
        for vector in vectors {
            mean.iter_mut().zip(vector).for_each(|(sum, &x)| *sum += x.into());
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let centred: Vec<Vec<f64>> = vectors.iter().map(|vector| subtract(vector, &mean)).collect();
        let total: f64 = centred.iter().map(|vector| dot(vector, vector)).sum();

        // X'X and XX' have the same non-zero eigenvalues, so use the smaller matrix.
        let by_vectors = count < dimensions;
        let rows = if by_vectors { centred.clone() } else { transposed(&centred) };
        let gram: Vec<Vec<f64>> = rows.par_iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect();
        let found = symmetric_eigen(gram).into_iter().take(components);
        let (mut directions, mut variances): (Vec<Vec<f64>>, Vec<f64>) = (Vec::new(), Vec::new());
        for (value, vector) in found {
            let mut direction = if by_vectors { combination(&centred, &vector) } else { vector };
            orthogonalise(&mut direction, &directions);
            fix_sign(&mut direction);
            directions.push(direction);
            variances.push(value.max(0.0) / (count - 1) as f64);
        }
        let total_variance = total / (count - 1) as f64;
        Ok(Pca { mean, components: directions, explained_variance: variances, total_variance })
    }

    /// Returns the coordinates of `vectors` along the directions.
    ///
    /// # Errors
    /// Returns an error if there are no vectors, a value is not finite, or their length differs from that of the fitted
    /// vectors.
    pub fn transform<T: Copy + Into<f64> + Sync>(&self, vectors: &[Vec<T>]) -> Result<Vec<Vec<f64>>> {
        let dimensions = check("PCA", vectors)?;
        if dimensions != self.mean.len() {
            let why = format!("the vectors have {dimensions} dimensions, the fitted ones have {}", self.mean.len());
            return Err(Error::data("PCA", why));
        }
        let coordinates = |vector: &Vec<T>| {
            let centred = subtract(vector, &self.mean);
            self.components.iter().map(|direction| dot(&centred, direction)).collect()
        };
        Ok(vectors.par_iter().map(coordinates).collect())
    }

    /// Returns the directions, which are orthogonal and have length 1.
    pub fn components(&self) -> &[Vec<f64>] {
        &self.components
    }

    /// Returns the variance along each direction, in descending order.
    pub fn explained_variance(&self) -> &[f64] {
        &self.explained_variance
    }

    /// Returns the fraction of the total variance along each direction, or 0 if there is no variance.
    pub fn explained_variance_ratio(&self) -> Vec<f64> {
        let part = |variance: &f64| if self.total_variance > 0.0 { variance / self.total_variance } else { 0.0 };
        self.explained_variance.iter().map(part).collect()
    }
}

fn subtract<T: Copy + Into<f64>>(vector: &[T], mean: &[f64]) -> Vec<f64> {
    vector.iter().zip(mean).map(|(&x, mean)| x.into() - mean).collect()
}

fn transposed(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
}

/// Returns the weighted sum of the rows.
fn combination(rows: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; rows.first().map_or(0, Vec::len)];
    for (row, weight) in rows.iter().zip(weights) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
    }
    sum
}

/// Makes `direction` orthogonal to the others and of length 1. If nothing is left of it, because no variance remains,
/// any direction orthogonal to the others takes its place.
fn orthogonalise(direction: &mut Vec<f64>, others: &[Vec<f64>]) {
    let dimensions = direction.len();
    let largest = dot(direction, direction).sqrt();
    for axis in 0..=dimensions {
        // Orthogonalising twice removes the rounding errors of the first time ("twice is enough", W. Kahan).
        for other in others.iter().chain(others) {
            let along = dot(direction, other);
            direction.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
        }
        let length = dot(direction, direction).sqrt();
        if length > 1e-8 * if axis == 0 { largest.max(f64::MIN_POSITIVE) } else { 1.0 } {
            direction.iter_mut().for_each(|x| *x /= length);
            return;
        }
        *direction = (0..dimensions).map(|other| f64::from(u8::from(other == axis))).collect();
    }
}

/// Flips the sign of a direction if its component of largest absolute value is negative.
fn fix_sign(direction: &mut [f64]) {
    let larger = |largest: f64, &x: &f64| if x.abs() > largest.abs() { x } else { largest };
    if direction.iter().fold(0.0, larger) < 0.0 {
        direction.iter_mut().for_each(|x| *x = -*x);
    }
}
