//! Softmax cross-entropy over rows of logits `[R, V]`, with class targets or soft targets.
//!
//! Forward keeps only the log-sum-exp of each row; backward recomputes the probabilities from it, so that no `[R, V]` of
//! probabilities is stored. Averaging is left to the caller: backward takes a factor for each row.

use super::lanes::{max, sum, sum2};
use super::parallel::{RowsMut, for_rows};
use super::real::Real;
use super::simd::simd;
use super::target::Target;

/// The cost per element, in the units of [`for_rows`].
const COST: usize = 4;

/// Returns `log(sum(exp(x)))`.
#[inline(always)]
fn log_sum_exp<T: Real>(x: &[T]) -> T {
    let largest = max(x);
    largest + sum(x, |x| (x - largest).exp()).ln()
}

simd! {
    fn forward_row<T: Real>(x: &[T]) -> T {
        log_sum_exp(x)
    }

    /// Returns the log-sum-exp and `-sum(p (x - lse))`, in which classes with p = 0 have no part, whatever their logit.
    fn soft_forward_row<T: Real>(x: &[T], p: &[T]) -> (T, T) {
        let lse = log_sum_exp(x);
        (lse, -sum2(x, p, |x, p| if p == T::ZERO { p } else { p * (x - lse) }))
    }

    /// Returns `sum(w (lse - x))`, in which classes with w = 0 have no part, whatever their logit.
    fn smoothed_row<T: Real>(x: &[T], w: &[T], lse: T) -> T {
        sum2(x, w, |x, w| if w == T::ZERO { w } else { w * (lse - x) })
    }

    /// Replaces the logits of a row by their gradients.
    fn backward_row<T: Real>(x: &mut [T], lse: T, target: usize, scale: T) {
        for x in x.iter_mut() {
            *x = (*x - lse).exp() * scale;
        }
        x[target] -= scale;
    }

    /// Replaces the logits of a row by `p total - w` for their probabilities p, times `scale`.
    fn smoothed_backward_row<T: Real>(x: &mut [T], w: &[T], lse: T, total: T, scale: T) {
        for (x, &w) in x.iter_mut().zip(w) {
            *x = ((*x - lse).exp() * total - w) * scale;
        }
    }

    fn soft_backward_row<T: Real>(x: &[T], lse: T, p: &[T], scale: T, dx: &mut [T], accumulate: bool) {
        let total = sum(p, |p| p);
        for ((dx, &x), &p) in dx.iter_mut().zip(x).zip(p) {
            let value = ((x - lse).exp() * total - p) * scale;
            *dx = if accumulate { *dx + value } else { value };
        }
    }

    fn targets_backward_row<T: Real>(x: &[T], lse: T, scale: T, dp: &mut [T], accumulate: bool) {
        for (dp, &x) in dp.iter_mut().zip(x) {
            let value = (lse - x) * scale;
            *dp = if accumulate { *dp + value } else { value };
        }
    }
}

/// The target of each row: a class, which may be weighted and smoothed. The caller checks that they are classes. The
/// functions panic if a target is out of range.
pub(crate) struct Labels<'a, T> {
    pub(crate) targets: &'a [i64],
    pub(crate) ignore_index: i64,
    /// The number of classes.
    pub(crate) classes: usize,
    /// The weight of each class as a target, if they are not all 1.
    pub(crate) weights: Option<&'a [T]>,
    /// What each class adds to the target of every row, if labels are smoothed.
    pub(crate) smoothed: Option<&'a [T]>,
}

impl<T: Real> Labels<'_, T> {
    /// Returns the class of a row and its weight, unless the row is ignored.
    fn of_row(&self, row: usize) -> Option<(usize, T)> {
        let target = self.targets[row];
        if target == self.ignore_index {
            return None;
        }
        let class = target as usize;
        Some((class, self.weights.map_or(T::ONE, |weights| weights[class])))
    }
}

/// Computes `loss[r] = w (lse[r] - logits[r][target])`, where w is the weight of the target, plus
/// `sum(smoothed (lse[r] - logits[r]))`, or 0 if the row is ignored; and `lse [R]` for backward.
pub(crate) fn forward<T: Real>(logits: &[T], labels: &Labels<'_, T>, loss: &mut [T], lse: &mut [T]) {
    let (count, classes) = (labels.targets.len(), labels.classes);
    assert!(logits.len() == count * classes && loss.len() == count && lse.len() == count);
    for_rows(count, COST * classes, (loss, lse), |range, (loss, lse)| {
        for (i, row) in range.enumerate() {
            let x = &logits[row * classes..][..classes];
            (lse[i], loss[i]) = (T::ZERO, T::ZERO);
            let Some((target, weight)) = labels.of_row(row) else { continue };
            lse[i] = forward_row(x);
            loss[i] = weight * (lse[i] - x[target]);
            if let Some(smoothed) = labels.smoothed {
                loss[i] += smoothed_row(x, smoothed, lse[i]);
            }
        }
    });
}

/// Replaces the logits by their gradients: `(softmax(logits[r]) - onehot(target)) w scale(r)`, plus
/// `(softmax(logits[r]) sum(smoothed) - smoothed) scale(r)`, or 0 if the row is ignored. In place, because logits over a
/// vocabulary are large and not needed afterwards.
pub(crate) fn backward<T: Real>(
    logits: &mut [T],
    labels: &Labels<'_, T>,
    lse: &[T],
    scale: impl Fn(usize) -> T + Sync,
) {
    let (count, classes) = (labels.targets.len(), labels.classes);
    assert!(logits.len() == count * classes && lse.len() == count);
    let smoothed = labels.smoothed.map(|smoothed| (smoothed, sum(smoothed, |w| w)));
    for_rows(count, COST * classes, RowsMut::new(logits, classes), |range, logits| {
        for (i, row) in range.enumerate() {
            let x = &mut logits.data[i * classes..][..classes];
            match (labels.of_row(row), smoothed) {
                (None, _) => x.fill(T::ZERO),
                (Some((target, weight)), None) => backward_row(x, lse[row], target, weight * scale(row)),
                (Some((target, weight)), Some((smoothed, total))) => {
                    smoothed_backward_row(x, smoothed, lse[row], total + weight, scale(row));
                    x[target] -= weight * scale(row);
                }
            }
        }
    });
}

/// Computes `loss[r] = -sum(targets[r] log softmax(logits[r]))`, and `lse [R]` for backward. Targets need not sum to 1.
pub(crate) fn soft_forward<T: Real>(logits: &[T], targets: &[T], classes: usize, loss: &mut [T], lse: &mut [T]) {
    let count = loss.len();
    assert!(logits.len() == count * classes && targets.len() == logits.len() && lse.len() == count);
    for_rows(count, COST * classes, (loss, lse), |range, (loss, lse)| {
        for (i, row) in range.enumerate() {
            let at = row * classes..(row + 1) * classes;
            (lse[i], loss[i]) = soft_forward_row(&logits[at.clone()], &targets[at]);
        }
    });
}

/// Computes the gradients of [`soft_forward`]: `dlogits[r] (+)= (softmax(logits[r]) sum(targets[r]) - targets[r]) scale(r)`
/// and `dtargets[r] (+)= -log softmax(logits[r]) scale(r)`. Either may be left out.
pub(crate) fn soft_backward<T: Real>(
    logits: &[T],
    targets: &[T],
    classes: usize,
    lse: &[T],
    scale: impl Fn(usize) -> T + Sync,
    dlogits: Option<Target<T>>,
    dtargets: Option<Target<T>>,
) {
    let count = lse.len();
    assert!(logits.len() == count * classes && targets.len() == logits.len());
    assert!([&dlogits, &dtargets].into_iter().flatten().all(|slot| slot.data.len() == logits.len()));
    let flags = [&dlogits, &dtargets].map(|slot| slot.as_ref().is_some_and(|slot| slot.accumulate));
    let outputs =
        (dlogits.map(|slot| RowsMut::new(slot.data, classes)), dtargets.map(|slot| RowsMut::new(slot.data, classes)));
    for_rows(count, COST * classes, outputs, |range, (mut dlogits, mut dtargets)| {
        for (i, row) in range.enumerate() {
            let at = row * classes..(row + 1) * classes;
            let (x, p) = (&logits[at.clone()], &targets[at]);
            let here = i * classes..(i + 1) * classes;
            if let Some(dlogits) = &mut dlogits {
                soft_backward_row(x, lse[row], p, scale(row), &mut dlogits.data[here.clone()], flags[0]);
            }
            if let Some(dtargets) = &mut dtargets {
                targets_backward_row(x, lse[row], scale(row), &mut dtargets.data[here], flags[1]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::testing::at_each_level;
    use crate::cpu::testing::{close, numeric_gradient, random, random_in, small_for_miri, wide};

    const CLASSES: [usize; 8] = [1, 2, 15, 16, 17, 33, small_for_miri(768, 48), small_for_miri(3000, 70)];

    fn log_softmax(x: &[f64]) -> Vec<f64> {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log = x.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        x.iter().map(|x| x - largest - log).collect()
    }

    fn twice(x: &[f64]) -> Vec<f64> {
        x.iter().map(|x| 2.0 * x).collect()
    }

    fn check<T: Real>(tolerance: f64) {
        for classes in CLASSES {
            let targets: Vec<i64> = vec![0, -100, classes as i64 - 1, classes as i64 / 2];
            let count = targets.len();
            let x = random_in::<T>(count * classes, 1);
            let scale = |row: usize| 0.5 + row as f64;
            let (mut loss, mut lse) = (vec![T::from_f64(f64::NAN); count], vec![T::from_f64(f64::NAN); count]);
            let labels = Labels { targets: &targets, ignore_index: -100, classes, weights: None, smoothed: None };
            forward(&x, &labels, &mut loss, &mut lse);
            let logs: Vec<Vec<f64>> = wide(&x).chunks(classes).map(log_softmax).collect();
            let want: Vec<f64> =
                (0..count).map(|r| if targets[r] < 0 { 0.0 } else { -logs[r][targets[r] as usize] }).collect();
            close(&loss, &want, tolerance, "loss");
            let mut want = vec![0.0; x.len()];
            for r in (0..count).filter(|&r| targets[r] >= 0) {
                for c in 0..classes {
                    let hot = if targets[r] == c as i64 { 1.0 } else { 0.0 };
                    want[r * classes + c] = (logs[r][c].exp() - hot) * scale(r);
                }
            }
            let mut dx = x.clone();
            let scale_t = |row: usize| T::from_f64(scale(row));
            backward(&mut dx, &labels, &lse, scale_t);
            close(&dx, &want, tolerance, "gradient");

            // Weighted and smoothed labels are soft targets.
            let [weights, smoothed] = [3, 4].map(|seed| random_in::<T>(classes, seed));
            let labels = Labels { weights: Some(&weights), smoothed: Some(&smoothed), ..labels };
            let soft = |r: usize, c: usize| {
                let hot = if targets[r] == c as i64 { weights[c].to_f64() } else { 0.0 };
                hot + smoothed[c].to_f64()
            };
            let of_row = |r: usize| (0..classes).map(|c| -soft(r, c) * logs[r][c]).sum::<f64>();
            forward(&x, &labels, &mut loss, &mut lse);
            let want: Vec<f64> = (0..count).map(|r| if targets[r] < 0 { 0.0 } else { of_row(r) }).collect();
            close(&loss, &want, tolerance, "smoothed loss");
            let mut want = vec![0.0; x.len()];
            for r in (0..count).filter(|&r| targets[r] >= 0) {
                let total: f64 = (0..classes).map(|c| soft(r, c)).sum();
                for c in 0..classes {
                    want[r * classes + c] = (logs[r][c].exp() * total - soft(r, c)) * scale(r);
                }
            }
            let mut dx = x.clone();
            backward(&mut dx, &labels, &lse, scale_t);
            close(&dx, &want, tolerance, "smoothed gradient");

            // Soft targets that do not sum to 1.
            let p: Vec<T> = random(x.len(), 2).iter().map(|p| T::from_f64(p.abs() / classes as f64)).collect();
            soft_forward(&x, &p, classes, &mut loss, &mut lse);
            let product = |r: usize| -> f64 { (0..classes).map(|c| -p[r * classes + c].to_f64() * logs[r][c]).sum() };
            close(&loss, &(0..count).map(product).collect::<Vec<_>>(), tolerance, "soft loss");
            let total = |r: usize| wide(&p[r * classes..][..classes]).iter().sum::<f64>();
            let dlogit = |i: usize| {
                let (r, c) = (i / classes, i % classes);
                (logs[r][c].exp() * total(r) - p[i].to_f64()) * scale(r)
            };
            let want = [
                (0..x.len()).map(dlogit).collect::<Vec<_>>(),
                (0..x.len()).map(|i| -logs[i / classes][i % classes] * scale(i / classes)).collect(),
            ];
            let mut got = [vec![T::from_f64(f64::NAN); x.len()], vec![T::from_f64(f64::NAN); x.len()]];
            for accumulate in [false, true] {
                let [a, b] = got.each_mut().map(|data| Some(Target { data, accumulate }));
                soft_backward(&x, &p, classes, &lse, scale_t, a, b);
                for (got, want) in got.iter().zip(&want) {
                    close(got, &if accumulate { twice(want) } else { want.clone() }, tolerance, "soft gradient");
                }
            }
        }
    }

    #[test]
    fn losses_and_gradients() {
        at_each_level(|_| {
            check::<f32>(2e-6);
            check::<f64>(1e-13);
        });
    }

    #[test]
    fn gradient_equals_finite_differences() {
        let (x, p) = (random(7, 1), [0.1, 0.2, 0.0, 0.3, 0.05, 0.4, 0.2]);
        let value = |x: &[f64], p: &[f64]| {
            let (mut loss, mut lse) = ([0.0], [0.0]);
            soft_forward(x, p, 7, &mut loss, &mut lse);
            (loss[0], lse)
        };
        let (mut dx, mut dp) = ([0.0; 7], [0.0; 7]);
        let slots = (Some(Target::new(&mut dx[..], false)), Some(Target::new(&mut dp[..], false)));
        soft_backward(&x, &p, 7, &value(&x, &p).1, |_| 1.0, slots.0, slots.1);
        close(&dx, &numeric_gradient(&x, |x| value(x, &p).0), 1e-8, "logits");
        close(&dp, &numeric_gradient(&p, |p| value(&x, p).0), 1e-8, "targets");
    }

    #[test]
    fn extremes_are_finite() {
        at_each_level(|_| {
            let (mut loss, mut lse) = ([0f32; 2], [0f32; 2]);
            let mut x = [1e4, -1e4, 0.0, -1e4, -1e4, -1e4];
            let labels = Labels { targets: &[1, 2], ignore_index: -100, classes: 3, weights: None, smoothed: None };
            forward(&x, &labels, &mut loss, &mut lse);
            close(&loss, &[2e4, 3f64.ln()], 1e-6, "loss");
            backward(&mut x, &labels, &lse, |_| 1.0);
            let third = 1.0 / 3.0;
            close(&x, &[1.0, -1.0, 0.0, third, third, third - 1.0], 2e-3, "gradient");
        });
    }
}
