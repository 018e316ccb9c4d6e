//! Eigenvalues and eigenvectors of symmetric matrices.

use super::dot;

/// Sweeps after which an eigenvalue is taken as it is; two or three are usual.
const MOST_SWEEPS: usize = 60;

/// Eigenvalues in descending order, each with its eigenvector of length 1, of a symmetric `matrix`: tridiagonal by
/// Householder's reflections, then diagonal by QL with implicit shifts.
///
/// Source: G. H. Golub and C. F. Van Loan, "Matrix Computations", 4th edition, sections 8.3.1 and 8.3.3.
pub(super) fn symmetric_eigen(mut matrix: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let n = matrix.len();
    let (diagonal, off_diagonal, reflections) = tridiagonal(&mut matrix);
    // Row i is the ith eigenvector, as yet in the basis of the reflections.
    let (values, mut vectors) = ql(diagonal, off_diagonal);
    for vector in &mut vectors {
        for (k, v) in reflections.iter().enumerate().rev() {
            reflect(v, &mut vector[k + 1..]);
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.into_iter().map(|index| (values[index], std::mem::take(&mut vectors[index]))).collect()
}

/// `x` less twice its part along `v`, whose length is 1 (or 0, for no reflection).
fn reflect(v: &[f64], x: &mut [f64]) {
    let twice = 2.0 * dot(v, x);
    x.iter_mut().zip(v).for_each(|(x, v)| *x -= twice * v);
}

/// The diagonal and the one beside it of the tridiagonal matrix that is `a` between reflections; and these: the kth is of
/// the coordinates after the kth.
fn tridiagonal(a: &mut [Vec<f64>]) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let (mut off_diagonal, mut reflections) = (vec![0.0; n], Vec::new());
    for k in 0..n.saturating_sub(1) {
        // The column below the diagonal becomes a multiple of the first basis vector.
        let mut v: Vec<f64> = (k + 1..n).map(|row| a[row][k]).collect();
        let norm = dot(&v, &v).sqrt();
        let target = if v[0] > 0.0 { -norm } else { norm };
        off_diagonal[k] = target;
        v[0] -= target;
        let length = dot(&v, &v).sqrt();
        v.iter_mut().for_each(|x| *x = if length > 0.0 { *x / length } else { 0.0 });
        // A - v w' - w v', of the rest of the matrix.
        let p: Vec<f64> = (k + 1..n).map(|row| 2.0 * dot(&a[row][k + 1..], &v)).collect();
        let along = dot(&p, &v);
        let w: Vec<f64> = p.iter().zip(&v).map(|(p, v)| p - along * v).collect();
        for (row, (v_row, w_row)) in (k + 1..n).zip(v.iter().zip(&w)) {
            let columns = a[row][k + 1..].iter_mut().zip(v.iter().zip(&w));
            columns.for_each(|(x, (v, w))| *x -= v_row * w + w_row * v);
        }
        reflections.push(v);
    }
    ((0..n).map(|index| a[index][index]).collect(), off_diagonal, reflections)
}

/// Eigenvalues and, row by row, eigenvectors of a tridiagonal matrix: `e[k]` stands between `d[k]` and `d[k + 1]`.
fn ql(mut d: Vec<f64>, mut e: Vec<f64>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = d.len();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for low in 0..n {
        for _ in 0..MOST_SWEEPS {
            // The block from `low` to where the matrix falls apart.
            let splits = |k: &usize| e[*k].abs() <= f64::EPSILON * (d[*k].abs() + d[*k + 1].abs());
            let high = (low..n - 1).find(splits).unwrap_or(n - 1);
            if high == low {
                break;
            }
            // Wilkinson's shift: the eigenvalue of the corner that is nearer to its first entry.
            let half = (d[low + 1] - d[low]) / (2.0 * e[low]);
            let shift = d[low] - e[low] / (half + half.hypot(1.0).copysign(half));
            let (mut sine, mut cosine, mut moved) = (1.0, 1.0, 0.0);
            let mut g = d[high] - shift;
            let mut at = high;
            while at > low {
                at -= 1;
                let (f, b) = (sine * e[at], cosine * e[at]);
                let length = f.hypot(g);
                e[at + 1] = length;
                if length == 0.0 {
                    // The block falls apart in the midst of the sweep.
                    d[at + 1] -= moved;
                    break;
                }
                (sine, cosine) = (f / length, g / length);
                g = d[at + 1] - moved;
                let r = (d[at] - g) * sine + 2.0 * cosine * b;
                moved = sine * r;
                d[at + 1] = g + moved;
                g = cosine * r - b;
                let (first, second) = vectors.split_at_mut(at + 1);
                for (x, y) in first[at].iter_mut().zip(&mut second[0]) {
                    (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
                }
                if at == low {
                    d[low] -= moved;
                    e[low] = g;
                }
            }
            e[high] = 0.0;
        }
    }
    (d, vectors)
}
