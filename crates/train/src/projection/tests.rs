use proptest::prelude::*;

use super::eigen::symmetric_eigen;
use super::*;

/// Returns vectors in three clusters, with values that Python computes to the bit.
fn clusters(count: usize, dimensions: usize) -> Vec<Vec<f64>> {
    let number = |i: usize, j: usize| {
        let fraction = ((i * 7919 + j * 104_729 + i * j * 31) % 1000) as f64 / 1000.0;
        fraction + if i % 3 == j % 3 { 2.0 } else { 0.0 }
    };
    (0..count).map(|i| (0..dimensions).map(|j| number(i, j)).collect()).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (x, y) in found.iter().zip(expected) {
        assert!((x - y).abs() < 1e-9, "{found:?}, not {expected:?}");
    }
}

/// Computes scikit-learn's `trustworthiness(x, y, n_neighbors=k)`, which is 1 if all neighbours on the map are
/// neighbours in the original space.
///
/// Source: J. Venna and S. Kaski, "Neighborhood preservation in nonlinear projection methods", 2001.
fn trustworthiness(vectors: &[Vec<f64>], points: &[[f64; 2]], k: usize) -> f64 {
    let count = vectors.len();
    let order = |distance: &dyn Fn(usize) -> f64, index: usize| {
        let mut order: Vec<usize> = (0..count).filter(|&other| other != index).collect();
        order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        order
    };
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
    let mut penalty = 0.0;
    for index in 0..count {
        let were = order(&|other| square(&vectors[index], &vectors[other]), index);
        let are = order(&|other| square(&points[index], &points[other]), index);
        for neighbour in &are[..k] {
            let rank = 1 + were.iter().position(|other| other == neighbour).unwrap();
            penalty += rank.saturating_sub(k) as f64;
        }
    }
    1.0 - penalty * 2.0 / (count * k * (2 * count - 3 * k - 1)) as f64
}

/// Expected values from scikit-learn 1.9.1: `PCA(n_components=3, svd_solver='full').fit(x)`.
#[test]
fn principal_components_as_scikit_learn() {
    let pca = Pca::fit(&clusters(60, 10), 3).unwrap();
    assert_close(pca.explained_variance(), &[4.790454896256367, 4.230131245572787, 0.12861576786986748]);
    let ratios = [0.49680022446102423, 0.43869114683502214, 0.013338261966918988];
    assert_close(&pca.explained_variance_ratio(), &ratios);
    assert_close(&pca.components()[1][..3], &[-0.09849817277278552, -0.3386890778817838, 0.44688758937013057]);
    let second = pca.transform(&clusters(60, 10)).unwrap().swap_remove(1);
    assert_close(&second, &[-2.1633381973890655, -1.8415411315630374, -0.4204347702727791]);
    // Fewer vectors than dimensions.
    let pca = Pca::fit(&clusters(8, 20), 3).unwrap();
    assert_close(pca.explained_variance(), &[11.486711283932433, 8.52787442063035, 0.37396215535841776]);
    assert_close(&pca.components()[2][..3], &[0.1495242925257309, -0.1139976637216768, -0.05980991351696873]);
    let second = pca.transform(&clusters(8, 20)).unwrap().swap_remove(1);
    assert_close(&second, &[3.91141018919142, -1.0401137201109083, -0.33107519252365913]);
}

/// Directions without variance still have length 1 and are orthogonal.
#[test]
fn directions_are_orthonormal_without_variance() {
    for vectors in
        [vec![vec![1.0; 4]; 5], vec![vec![0.0, 1.0, 2.0, 3.0], vec![0.0, 2.0, 4.0, 6.0], vec![0.0, 3.0, 6.0, 9.0]]]
    {
        let pca = Pca::fit(&vectors, 3).unwrap();
        for (i, a) in pca.components().iter().enumerate() {
            for (j, b) in pca.components().iter().enumerate() {
                assert!((dot(a, b) - f64::from(u8::from(i == j))).abs() < 1e-9, "{pca:?}");
            }
        }
        assert!(pca.explained_variance()[1].abs() < 1e-9);
    }
}

/// Expected values from scikit-learn 1.9.1: `TSNE(perplexity=p, method='exact', init='pca').fit(x).kl_divergence_` and
/// `trustworthiness(x, y, n_neighbors=5)`. The tolerance is the spread that its random starts show.
#[test]
fn maps_are_as_good_as_scikit_learns() {
    let vectors = clusters(60, 10);
    for (perplexity, divergence, trust) in
        [(5.0, 0.40436834308853264, 0.9646153846153847), (10.0, 0.26196845613608083, 0.9712820512820513)]
    {
        for tsne in [Tsne::new(), Tsne::new().random_start(3)] {
            let map = tsne.perplexity(perplexity).fit(&vectors).unwrap();
            let found = trustworthiness(&vectors, &map.points, 5);
            println!("{perplexity}: {} and {found}", map.kl_divergence);
            assert!((map.kl_divergence / divergence - 1.0).abs() < 0.1, "{} for {divergence}", map.kl_divergence);
            assert!((found - trust).abs() < 0.01, "{found} for {trust}");
        }
    }
}

/// The analytical gradient agrees with finite differences of the divergence.
#[test]
fn the_gradient_is_that_of_the_divergence() {
    let affinities = tsne::affinities(&clusters(12, 4), 3.0);
    let total: f64 = affinities.iter().flatten().sum();
    assert!((total - 1.0).abs() < 1e-12);
    let points: Vec<[f64; 2]> = clusters(12, 2).into_iter().map(|p| [p[0], p[1]]).collect();
    let slopes = tsne::gradient(&affinities, &points, 1.0);
    for (index, slope) in slopes.iter().enumerate() {
        for axis in 0..2 {
            let at = |step: f64| {
                let mut moved = points.clone();
                moved[index][axis] += step;
                tsne::divergence(&affinities, &moved)
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope[axis] - expected).abs() < 1e-8, "{} for {expected}", slope[axis]);
        }
    }
}

#[test]
fn maps_do_not_depend_on_the_number_of_threads() {
    let map = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Tsne::new().perplexity(5.0).iterations(300).fit(&clusters(40, 6)).unwrap())
    };
    assert_eq!(map(1), map(3));
    let other = Tsne::new().perplexity(5.0).iterations(300).random_start(1).fit(&clusters(40, 6)).unwrap();
    assert_ne!(other.points, map(1).points);
}

#[test]
fn vectors_that_are_the_same_have_a_map() {
    let map = Tsne::new().perplexity(2.0).iterations(100).fit(&vec![vec![1.0f32; 3]; 6]).unwrap();
    assert!(map.points.iter().flatten().all(|x| x.is_finite()) && map.kl_divergence.is_finite());
}

#[test]
fn bad_input_is_one_line() {
    let said = |vectors: &[Vec<f32>]| Pca::fit(vectors, 1).unwrap_err().to_string();
    assert_eq!(said(&[]), "PCA: no vectors");
    assert_eq!(said(&[vec![]]), "PCA: the vectors have no dimensions");
    assert_eq!(said(&[vec![1.0, 2.0], vec![1.0]]), "PCA: vector 2 has 1 dimensions, the first has 2");
    assert_eq!(said(&[vec![1.0], vec![f32::NAN]]), "PCA: vector 2: dimension 1 is not finite");
    assert_eq!(said(&[vec![1.0]]), "PCA: needs at least two vectors, got one");
    let three = clusters(5, 3);
    let error = Pca::fit(&three, 4).unwrap_err().to_string();
    assert_eq!(error, "number of components is 4, must be from 1 to 3, the smaller number of vectors and dimensions");
    let error = Pca::fit(&three, 1).unwrap().transform(&clusters(2, 4)).unwrap_err().to_string();
    assert_eq!(error, "PCA: the vectors have 4 dimensions, the fitted ones have 3");
    let said = |tsne: Tsne| tsne.fit(&three).unwrap_err().to_string();
    assert_eq!(said(Tsne::new()), "perplexity is 30, must be at least 1 and less than 5, the number of vectors");
    assert_eq!(
        said(Tsne::new().perplexity(f64::NAN)),
        "perplexity is NaN, must be at least 1 and less than 5, the number of vectors"
    );
    let error = said(Tsne::new().perplexity(2.0).learning_rate(0.0));
    assert_eq!(error, "learning rate of t-SNE is 0, must be greater than 0 and finite");
    assert!(Tsne::new().fit(&three[..3]).unwrap_err().to_string().contains("needs at least four vectors, got 3"));
}

proptest! {
    #[test]
    fn eigenvectors_are_those_of_the_matrix(
        size in 0usize..9,
        numbers in prop::collection::vec(prop_oneof![Just(0.0), Just(1.0), -5.0..5.0f64], 81),
    ) {
        let number = |i: usize, j: usize| numbers[i.max(j) * 9 + i.min(j)];
        let matrix: Vec<Vec<f64>> = (0..size).map(|i| (0..size).map(|j| number(i, j)).collect()).collect();
        let found = symmetric_eigen(matrix.clone());
        prop_assert!(found.is_sorted_by(|a, b| a.0 >= b.0));
        for (i, (value, vector)) in found.iter().enumerate() {
            for (row, x) in matrix.iter().zip(vector) {
                prop_assert!((dot(row, vector) - value * x).abs() < 1e-11, "{value} {vector:?} of {matrix:?}");
            }
            for (j, (_, other)) in found.iter().enumerate() {
                prop_assert!((dot(vector, other) - f64::from(u8::from(i == j))).abs() < 1e-11);
            }
        }
    }
}
