//! t-SNE, which maps vectors to points of a plane such that neighbours stay neighbours.

use cloze_tensor::random::{Purpose, Stream};
use rayon::prelude::*;

use super::{Pca, check};
use crate::{Error, Result};

/// t-distributed stochastic neighbour embedding, in its exact form.
///
/// Time and memory grow with the square of the number of vectors, so it is suited to a few thousand. The same vectors
/// and settings give the same map for any number of threads.
///
/// Source: L. van der Maaten and G. Hinton, "Visualizing data using t-SNE", 2008. Starting points and learning rate
/// follow D. Kobak and P. Berens, "The art of using t-SNE for single-cell transcriptomics", 2019, and scikit-learn's
/// `TSNE`.
///
/// ```
/// use cloze_train::projection::Tsne;
/// let vectors: Vec<Vec<f32>> = (0..20).map(|n| vec![(n / 10) as f32 * 9.0, (n % 10) as f32]).collect();
/// let map = Tsne::new().perplexity(5.0).fit(&vectors)?;
/// assert_eq!(map.points.len(), 20);
/// # Ok::<(), cloze_train::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tsne {
    perplexity: f64,
    iterations: usize,
    learning_rate: Option<f64>,
    seed: Option<u64>,
}

/// A map of vectors in the plane, and its quality.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TsneMap {
    /// A point for each vector.
    pub points: Vec<[f64; 2]>,
    /// The Kullback-Leibler divergence between the neighbourhoods of the vectors and those of the points, in nats,
    /// which t-SNE minimises.
    pub kl_divergence: f64,
}

/// Number of initial iterations during which attraction is multiplied by [`EXAGGERATION`].
const EXAGGERATED_ITERATIONS: usize = 250;
const EXAGGERATION: f64 = 12.0;
/// Standard deviation of the first coordinate of the starting points.
const START: f64 = 1e-4;
const LEAST_PROBABILITY: f64 = f64::EPSILON;

impl Default for Tsne {
    fn default() -> Tsne {
        Tsne { perplexity: 30.0, iterations: 1000, learning_rate: None, seed: None }
    }
}

impl Tsne {
    /// Returns the default settings: perplexity 30 and 1000 iterations, starting from the principal components.
    pub fn new() -> Tsne {
        Tsne::default()
    }

    /// Sets the perplexity, roughly the number of neighbours of each vector. It must be at least 1 and less than the
    /// number of vectors.
    pub fn perplexity(self, neighbours: f64) -> Tsne {
        Tsne { perplexity: neighbours, ..self }
    }

    /// Sets the number of gradient descent steps. The first 250 exaggerate attraction.
    pub fn iterations(self, iterations: usize) -> Tsne {
        Tsne { iterations, ..self }
    }

    /// Sets the learning rate. The default is the number of vectors divided by 48, but at least 50.
    pub fn learning_rate(self, rate: f64) -> Tsne {
        Tsne { learning_rate: Some(rate), ..self }
    }

    /// Starts from random points instead of the principal components.
    pub fn random_start(self, seed: u64) -> Tsne {
        Tsne { seed: Some(seed), ..self }
    }

    /// Computes the map of `vectors`, which must have the same length.
    ///
    /// # Errors
    /// Returns an error if there are fewer than four vectors, their lengths differ, a value is not finite, or a setting
    /// is out of range.
    pub fn fit<T: Copy + Into<f64> + Sync>(&self, vectors: &[Vec<T>]) -> Result<TsneMap> {
        let dimensions = check("t-SNE", vectors)?;
        let count = vectors.len();
        if count < 4 {
            return Err(Error::data("t-SNE", format!("needs at least four vectors, got {count}")));
        }
        if !(1.0..count as f64).contains(&self.perplexity) {
            let limit = format!("at least 1 and less than {count}, the number of vectors");
            return Err(Error::invalid("perplexity", self.perplexity, limit));
        }
        let rate = self.learning_rate.unwrap_or((count as f64 / EXAGGERATION / 4.0).max(50.0));
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(Error::invalid("learning rate of t-SNE", rate, "greater than 0 and finite"));
        }
        let start = match self.seed {
            Some(seed) => random_start(seed, count),
            None => principal_start(vectors, dimensions)?,
        };
        let affinities = affinities(vectors, self.perplexity);
        Ok(descend(&affinities, start, self.iterations, rate))
    }
}

fn random_start(seed: u64, count: usize) -> Vec<[f64; 2]> {
    let mut stream = Stream::new(seed, Purpose::User, 0, 0, 0);
    (0..count).map(|_| stream.normal_pair().map(|x| START * x)).collect()
}

/// Returns the first two principal components, scaled to make the standard deviation of the first [`START`].
fn principal_start<T: Copy + Into<f64> + Sync>(vectors: &[Vec<T>], dimensions: usize) -> Result<Vec<[f64; 2]>> {
    let pca = Pca::fit(vectors, dimensions.min(2))?;
    let count = vectors.len() as f64;
    let deviation = pca.explained_variance().first().map_or(0.0, |variance| (variance * (count - 1.0) / count).sqrt());
    let scale = if deviation > 0.0 { START / deviation } else { 0.0 };
    let point = |at: Vec<f64>| [0, 1].map(|axis| scale * at.get(axis).copied().unwrap_or(0.0));
    Ok(pca.transform(vectors)?.into_iter().map(point).collect())
}

/// Returns the similarity of each pair of vectors as a probability. The matrix is symmetric and adds up to 1.
pub(super) fn affinities<T: Copy + Into<f64> + Sync>(vectors: &[Vec<T>], perplexity: f64) -> Vec<Vec<f64>> {
    let count = vectors.len();
    let squared_distance = |a: &[T], b: &[T]| -> f64 {
        let square = |(&x, &y): (&T, &T)| (x.into() - y.into()).powi(2);
        a.iter().zip(b).map(square).sum()
    };
    let conditional = |(index, vector): (usize, &Vec<T>)| {
        let distances: Vec<f64> = vectors.iter().map(|other| squared_distance(vector, other)).collect();
        neighbourhood(&distances, index, perplexity)
    };
    let conditional: Vec<Vec<f64>> = vectors.par_iter().enumerate().map(conditional).collect();
    let symmetric = |i: usize| -> Vec<f64> {
        let pair = |j: usize| match i == j {
            true => 0.0,
            false => ((conditional[i][j] + conditional[j][i]) / (2.0 * count as f64)).max(LEAST_PROBABILITY),
        };
        (0..count).map(pair).collect()
    };
    (0..count).into_par_iter().map(symmetric).collect()
}

/// Returns the probabilities of a Gaussian around vector `index` whose perplexity is the given one. Its precision is
/// found by bisection.
fn neighbourhood(distances: &[f64], index: usize, perplexity: f64) -> Vec<f64> {
    const STEPS: usize = 100;
    const TOLERANCE: f64 = 1e-5;
    let others = || distances.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, distance)| *distance);
    let nearest = others().fold(f64::INFINITY, f64::min);
    let scale = others().sum::<f64>() / (distances.len() - 1) as f64 - nearest;
    // Dividing distances by their mean makes bisection start close to the solution.
    let scale = if scale > 0.0 { scale } else { 1.0 };
    let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
    let weights = |precision: f64| -> Vec<f64> {
        let weight = |(other, distance): (usize, &f64)| match other == index {
            true => 0.0,
            false => (-precision * (distance - nearest) / scale).exp(),
        };
        distances.iter().enumerate().map(weight).collect()
    };
    let mut found = weights(precision);
    for _ in 0..STEPS {
        let total: f64 = found.iter().sum();
        let mean = found.iter().zip(distances).map(|(w, d)| if *w > 0.0 { w * (d - nearest) / scale } else { 0.0 });
        let entropy = total.ln() + precision * mean.sum::<f64>() / total;
        let difference = entropy - perplexity.ln();
        if difference.abs() <= TOLERANCE {
            break;
        }
        if difference > 0.0 {
            low = precision;
            precision = if high.is_finite() { (low + high) / 2.0 } else { precision * 2.0 };
        } else {
            high = precision;
            precision = (low + high) / 2.0;
        }
        found = weights(precision);
    }
    let total: f64 = found.iter().sum();
    found.iter_mut().for_each(|weight| *weight /= total);
    found
}

/// Minimises the divergence by gradient descent with momentum and a gain for each coordinate, as in the paper's code.
fn descend(affinities: &[Vec<f64>], start: Vec<[f64; 2]>, iterations: usize, rate: f64) -> TsneMap {
    let mut points = start;
    let mut velocity = vec![[0.0; 2]; points.len()];
    let mut gains = vec![[1.0f64; 2]; points.len()];
    for iteration in 0..iterations {
        let early = iteration < EXAGGERATED_ITERATIONS;
        let (exaggeration, momentum) = if early { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
        let gradient = gradient(affinities, &points, exaggeration);
        for (index, slope) in gradient.into_iter().enumerate() {
            for axis in 0..2 {
                let (velocity, gain) = (&mut velocity[index][axis], &mut gains[index][axis]);
                let against = *velocity * slope[axis] < 0.0;
                *gain = if against { *gain + 0.2 } else { (*gain * 0.8).max(0.01) };
                *velocity = momentum * *velocity - rate * *gain * slope[axis];
                points[index][axis] += *velocity;
            }
        }
    }
    let kl_divergence = divergence(affinities, &points);
    TsneMap { points, kl_divergence }
}

/// Returns the similarity of two points, a Student t kernel with one degree of freedom.
fn nearness(a: &[f64; 2], b: &[f64; 2]) -> f64 {
    let (x, y) = (a[0] - b[0], a[1] - b[1]);
    1.0 / (1.0 + x * x + y * y)
}

/// Returns the sum of the nearness of all pairs. It is summed row by row, so that threads do not change the result.
fn total_nearness(points: &[[f64; 2]]) -> f64 {
    let row = |a: &[f64; 2]| points.iter().map(|b| nearness(a, b)).sum::<f64>() - 1.0;
    points.par_iter().map(row).collect::<Vec<f64>>().into_iter().sum()
}

pub(super) fn gradient(affinities: &[Vec<f64>], points: &[[f64; 2]], exaggeration: f64) -> Vec<[f64; 2]> {
    let total = total_nearness(points);
    let row = |(a, probabilities): (&[f64; 2], &Vec<f64>)| {
        let mut slope = [0.0; 2];
        for (b, p) in points.iter().zip(probabilities) {
            let near = nearness(a, b);
            let force = (exaggeration * p - near / total) * near;
            slope[0] += force * (a[0] - b[0]);
            slope[1] += force * (a[1] - b[1]);
        }
        slope.map(|x| 4.0 * x)
    };
    points.par_iter().zip(affinities).map(row).collect()
}

pub(super) fn divergence(affinities: &[Vec<f64>], points: &[[f64; 2]]) -> f64 {
    let total = total_nearness(points);
    let row = |(a, probabilities): (&[f64; 2], &Vec<f64>)| -> f64 {
        let term = |(b, &p): (&[f64; 2], &f64)| match p > 0.0 {
            true => p * (p / (nearness(a, b) / total).max(LEAST_PROBABILITY)).ln(),
            false => 0.0,
        };
        points.iter().zip(probabilities).map(term).sum()
    };
    points.par_iter().zip(affinities).map(row).collect::<Vec<f64>>().into_iter().sum()
}
