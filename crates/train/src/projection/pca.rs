//! Principal component analysis.

use rayon::prelude::*;

use super::eigen::symmetric_eigen;
use super::{check, dot};
use crate::{Error, Result};

/// The directions in which vectors vary most.
///
/// Source: K. Pearson, "On lines and planes of closest fit to systems of points in space", 1901. Numbers and signs are
/// those of scikit-learn's `PCA`: of each direction the component that is largest by size is positive.
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
    /// The first `components` directions of vectors of one length.
    ///
    /// # Errors
    /// When vectors are fewer than two, of several lengths or not finite, or `components` is 0 or more than there are
    /// vectors or dimensions.
    pub fn fit<T: Copy + Into<f64> + Sync>(vectors: &[Vec<T>], components: usize) -> Result<Pca> {
        let dimensions = check("PCA", vectors)?;
        let count = vectors.len();
        if count < 2 {
            return Err(Error::data("PCA", "there is only one vector: it takes two or more"));
        }
        if components == 0 || components > count.min(dimensions) {
            let limit = format!("from 1 to {}, the fewer of vectors and dimensions", count.min(dimensions));
            return Err(Error::invalid("number of components", components, limit));
        }
        let mut mean = vec![0.0; dimensions];
        for vector in vectors {
            mean.iter_mut().zip(vector).for_each(|(sum, &x)| *sum += x.into());
        }
        mean.iter_mut().for_each(|sum| *sum /= count as f64);
        let centred: Vec<Vec<f64>> = vectors.iter().map(|vector| less(vector, &mean)).collect();
        let total: f64 = centred.iter().map(|vector| dot(vector, vector)).sum();

        // X'X and XX' have the same eigenvalues but for zeros: the smaller one will do.
        let by_vectors = count < dimensions;
        let rows = if by_vectors { centred.clone() } else { transposed(&centred) };
        let gram: Vec<Vec<f64>> = rows.par_iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect();
        let found = symmetric_eigen(gram).into_iter().take(components);
        let (mut directions, mut variances): (Vec<Vec<f64>>, Vec<f64>) = (Vec::new(), Vec::new());
        for (value, vector) in found {
            let mut direction = if by_vectors { combination(&centred, &vector) } else { vector };
            orthogonalise(&mut direction, &directions);
            turn(&mut direction);
            directions.push(direction);
            variances.push(value.max(0.0) / (count - 1) as f64);
        }
        let total_variance = total / (count - 1) as f64;
        Ok(Pca { mean, components: directions, explained_variance: variances, total_variance })
    }

    /// The vectors' coordinates along the directions.
    ///
    /// # Errors
    /// When vectors are none, not finite, or not of the length that was fitted.
    pub fn transform<T: Copy + Into<f64> + Sync>(&self, vectors: &[Vec<T>]) -> Result<Vec<Vec<f64>>> {
        let dimensions = check("PCA", vectors)?;
        if dimensions != self.mean.len() {
            let why = format!("vectors have {dimensions} dimensions, those that were fitted {}", self.mean.len());
            return Err(Error::data("PCA", why));
        }
        let coordinates = |vector: &Vec<T>| {
            let centred = less(vector, &self.mean);
            self.components.iter().map(|direction| dot(&centred, direction)).collect()
        };
        Ok(vectors.par_iter().map(coordinates).collect())
    }

    /// The directions: each of length 1, at right angles to the others.
    pub fn components(&self) -> &[Vec<f64>] {
        &self.components
    }

    /// The variance along each direction, in descending order.
    pub fn explained_variance(&self) -> &[f64] {
        &self.explained_variance
    }

    /// The part of all variance that is along each direction; 0 where there is no variance.
    pub fn explained_variance_ratio(&self) -> Vec<f64> {
        let part = |variance: &f64| if self.total_variance > 0.0 { variance / self.total_variance } else { 0.0 };
        self.explained_variance.iter().map(part).collect()
    }
}

fn less<T: Copy + Into<f64>>(vector: &[T], mean: &[f64]) -> Vec<f64> {
    vector.iter().zip(mean).map(|(&x, mean)| x.into() - mean).collect()
}

fn transposed(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
}

/// The sum of the rows, each times its weight.
fn combination(rows: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; rows.first().map_or(0, Vec::len)];
    for (row, weight) in rows.iter().zip(weights) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
    }
    sum
}

/// Takes from `direction` what is along the others, and makes its length 1. Where nothing is left, since there is no
/// more variance, any direction at right angles to the others is as good.
fn orthogonalise(direction: &mut Vec<f64>, others: &[Vec<f64>]) {
    let dimensions = direction.len();
    let largest = dot(direction, direction).sqrt();
    for axis in 0..=dimensions {
        // Twice is enough (W. Kahan).
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

/// Turns a direction so that what is largest in it is positive.
fn turn(direction: &mut [f64]) {
    let larger = |largest: f64, &x: &f64| if x.abs() > largest.abs() { x } else { largest };
    if direction.iter().fold(0.0, larger) < 0.0 {
        direction.iter_mut().for_each(|x| *x = -*x);
    }
}
