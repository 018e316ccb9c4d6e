//! Eigenvalues and eigenvectors of symmetric matrices.

use super::dot;

/// Maximum number of sweeps per eigenvalue. Two or three are usual.
const MOST_SWEEPS: usize = 60;

/// Returns the eigenvalues of a symmetric `matrix` in descending order, each with its eigenvector of length 1.
///
/// Householder reflections make the matrix tridiagonal, then the QL algorithm with implicit shifts makes it diagonal.
///
/// Source: G. H. Golub and C. F. Van Loan, "Matrix Computations", 4th edition, sections 8.3.1 and 8.3.3.
pub(super) fn symmetric_eigen(mut matrix: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let n = matrix.len();
    let (diagonal, off_diagonal, reflections) = tridiagonal(&mut matrix);
    // Row i is eigenvector i in the basis of the tridiagonal matrix. Undoing the reflections restores the original one.
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

/// Reflects `x` in the plane perpendicular to `v`, which has length 1 (or 0, for no reflection).
fn reflect(v: &[f64], x: &mut [f64]) {
    let twice = 2.0 * dot(v, x);
    x.iter_mut().zip(v).for_each(|(x, v)| *x -= twice * v);
}

/// Reduces `a` to a tridiagonal matrix. Returns its diagonal, its off-diagonal and the reflections. Reflection k
/// applies to the coordinates after k.
fn tridiagonal(a: &mut [Vec<f64>]) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let (mut off_diagonal, mut reflections) = (vec![0.0; n], Vec::new());
    for k in 0..n.saturating_sub(1) {
        // Reflect the column below the diagonal onto the first basis vector.
        let mut v: Vec<f64> = (k + 1..n).map(|row| a[row][k]).collect();
        let norm = dot(&v, &v).sqrt();
        let target = if v[0] > 0.0 { -norm } else { norm };
        off_diagonal[k] = target;
        v[0] -= target;
        let length = dot(&v, &v).sqrt();
        v.iter_mut().for_each(|x| *x = if length > 0.0 { *x / length } else { 0.0 });
        // The rest of the matrix becomes A - v w' - w v'.
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

/// Returns the eigenvalues and, as rows, the eigenvectors of a tridiagonal matrix with the diagonal `d`, where `e[k]`
/// is between `d[k]` and `d[k + 1]`.
fn ql(mut d: Vec<f64>, mut e: Vec<f64>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = d.len();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for low in 0..n {
        for _ in 0..MOST_SWEEPS {
            // Work on the block from `low` to the first negligible off-diagonal element.
            let splits = |k: &usize| e[*k].abs() <= f64::EPSILON * (d[*k].abs() + d[*k + 1].abs());
            let high = (low..n - 1).find(splits).unwrap_or(n - 1);
            if high == low {
                break;
            }
            // Wilkinson's shift: the eigenvalue of the upper left 2 x 2 corner that is closer to its first element.
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
                    // The block splits in the middle of the sweep.
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
