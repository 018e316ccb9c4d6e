//! Rows of tables: gather, its transpose scatter-add, and BERT's three embeddings fused with their LayerNorm.
//!
//! Scatter-add may add several rows to one row of the table. Each thread owns a range of columns and adds all rows in
//! order, so the order of a sum does not depend on the number of threads, and a table of two rows (the token types) keeps
//! all threads busy.
//!
//! The caller checks the ids. The functions panic if an id is out of range.

use super::layer_norm::{self, NormGradients, NormOutputs, NormParameters, NormSaved, RowDropout};
use super::parallel::{Disjoint, RowsMut, for_rows, for_tasks};
use super::real::Real;
use super::simd::simd;
use super::target::Target;
use crate::memory::Scratch;

/// Columns per task of a scatter.
const COLUMNS: usize = 64;

simd! {
    fn sum_block<T: Real>(
        tables: [&[T]; 3],
        ids: [&[u32]; 3],
        norm: &NormParameters<'_, T>,
        z: &mut [T],
        outputs: NormOutputs<'_, T>,
    ) {
        let width = norm.width();
        let mut outputs = outputs;
        for (row, z) in z.chunks_exact_mut(width).enumerate() {
            let [word, position, kind] = [0, 1, 2].map(|t| &tables[t][ids[t][row] as usize * width..][..width]);
            for (((z, &a), &b), &c) in z.iter_mut().zip(word).zip(position).zip(kind) {
                *z = a + b + c;
            }
            outputs.normalise(norm, row, z);
        }
    }

    fn add_columns<T: Real>(to: &mut [T], from: &[T]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }
}

/// Copies rows of a table: `out[i] = table[ids[i]]`, for rows of `width`.
pub(crate) fn gather<T: Real>(table: &[T], width: usize, ids: &[u32], out: &mut [T]) {
    assert_eq!(out.len(), ids.len() * width);
    if width == 0 {
        return;
    }
    for_rows(ids.len(), width, RowsMut::new(out, width), |range, out| {
        for (out, &id) in out.data.chunks_exact_mut(width).zip(&ids[range]) {
            out.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
}

/// Adds rows to a table: `table[ids[i]] += rows[i]`, for rows of `width`. Unless the target accumulates, the table is zeroed
/// first.
pub(crate) fn scatter_add<T: Real>(table: Target<T>, width: usize, ids: &[u32], rows: &[T]) {
    assert_eq!(rows.len(), ids.len() * width);
    if !table.accumulate {
        for_rows(table.data.len(), 1, &mut *table.data, |_, part| part.fill(T::ZERO));
    }
    // A table without rows can have any width, so there could be tasks without end that add nothing.
    if rows.is_empty() {
        return;
    }
    assert_eq!(table.data.len() % width, 0);
    let table = Disjoint::new(table.data);
    for_tasks(
        width.div_ceil(COLUMNS),
        rows.len(),
        || (),
        |(), task| {
            let columns = task * COLUMNS..((task + 1) * COLUMNS).min(width);
            for (row, &id) in rows.chunks_exact(width).zip(ids) {
                let start = id as usize * width;
                // SAFETY: tasks have disjoint columns, and this task has one slice at a time.
                let to = unsafe { table.slice(start + columns.start..start + columns.end) };
                add_columns(to, &row[columns.clone()]);
            }
        },
    );
}

/// Computes the sum `z = word[ids] + position[positions] + kind[types]` and `y = LN(z) gamma + beta`, both `[T, W]`.
/// `tables` and `ids` are in the order word, position, token type.
pub(crate) fn embed_forward<T: Real>(
    tables: [&[T]; 3],
    ids: [&[u32]; 3],
    norm: NormParameters<'_, T>,
    z: &mut [T],
    outputs: NormOutputs<'_, T>,
) {
    let (count, width) = (outputs.mean.len(), norm.width());
    outputs.check(count, &norm);
    assert!(ids.iter().all(|ids| ids.len() == count) && z.len() == count * width);
    if width == 0 {
        return;
    }
    for_rows(count, 3 * width, (RowsMut::new(z, width), outputs), |range, (z, outputs)| {
        sum_block(tables, ids.map(|ids| &ids[range.clone()]), &norm, z.data, outputs);
    });
}

/// Computes the gradients of [`embed_forward`]. `dtables` are the gradients of the tables; any gradient may be left out.
pub(crate) fn embed_backward<T: Real>(
    dy: &[T],
    saved: NormSaved<'_, T>,
    ids: [&[u32]; 3],
    dtables: [Option<Target<T>>; 3],
    dgamma: Option<Target<T>>,
    dbeta: Option<Target<T>>,
) {
    let wanted = dtables.iter().any(Option::is_some);
    let mut scratch = Scratch::new(if wanted { size_of_val(dy) } else { 0 });
    let sums = scratch.slice_mut::<T>();
    let dz = wanted.then(|| Target::new(&mut *sums, false));
    layer_norm::backward(dy, saved, RowDropout::NONE, NormGradients { dz, dx: None, dgamma, dbeta });
    for (dtable, ids) in dtables.into_iter().zip(ids) {
        if let Some(dtable) = dtable {
            scatter_add(dtable, saved.gamma.len(), ids, sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::testing::with_threads;
    use crate::cpu::simd::testing::{at_each_level, steady_level};
    use crate::cpu::testing::{SIZES, close, dot, numeric_gradient, random, random_in, small_for_miri, wide};
    use crate::random::{Purpose, Stream};

    fn random_ids(n: usize, below: usize, seed: u64) -> Vec<u32> {
        let mut stream = Stream::new(seed, Purpose::User, 0, 0, 0);
        (0..n).map(|_| stream.below(below) as u32).collect()
    }

    #[test]
    fn gather_and_scatter() {
        at_each_level(|_| {
            for width in SIZES {
                let (vocabulary, count) = (7, 30);
                let ids = random_ids(count, vocabulary, 1);
                let table = random_in::<f32>(vocabulary * width, 2);
                let mut out = vec![f32::NAN; count * width];
                gather(&table, width, &ids, &mut out);
                for (i, &id) in ids.iter().enumerate() {
                    assert_eq!(out[i * width..][..width], table[id as usize * width..][..width]);
                }
                let mut want = vec![0.0f64; table.len()];
                for (i, &id) in ids.iter().enumerate() {
                    (0..width).for_each(|c| want[id as usize * width + c] += out[i * width + c] as f64);
                }
                let mut got = vec![f32::NAN; table.len()];
                scatter_add(Target::new(&mut got, false), width, &ids, &out);
                close(&got, &want, 1e-6, "scatter");
                scatter_add(Target::new(&mut got, true), width, &ids, &out);
                close(&got, &want.iter().map(|w| 2.0 * w).collect::<Vec<_>>(), 1e-6, "scatter accumulated");
            }
        });
    }

    #[test]
    fn no_rows_of_any_width_are_scattered() {
        scatter_add::<f32>(Target::new(&mut [], false), 1 << 50, &[], &[]);
        let mut table = [1.0f32; 6];
        scatter_add(Target::new(&mut table, true), 3, &[], &[]);
        assert_eq!(table, [1.0; 6]);
        scatter_add(Target::new(&mut table, false), 3, &[], &[]);
        assert_eq!(table, [0.0; 6]);
    }

    #[test]
    fn scatter_does_not_depend_on_the_number_of_threads() {
        let _steady = steady_level();
        let (width, count) = (small_for_miri(768, 130), small_for_miri(500, 20));
        let (ids, rows) = (random_ids(count, 11, 1), random_in::<f32>(count * width, 2));
        let [one, two, five, team] = with_threads(|| {
            let mut table = vec![f32::NAN; 11 * width];
            scatter_add(Target::new(&mut table, false), width, &ids, &rows);
            table
        });
        assert!(one == two && one == five && one == team);
    }

    #[test]
    #[should_panic]
    fn an_id_out_of_range_panics() {
        gather(&[0.0f32; 6], 2, &[3], &mut [0.0; 2]);
    }

    #[test]
    fn fused_embedding() {
        at_each_level(|_| {
            let (count, width, sizes) = (6, 17, [5, 4, 2]);
            let tables: Vec<Vec<f64>> = (0..3).map(|t| random(sizes[t] * width, t as u64)).collect();
            let ids: Vec<Vec<u32>> = (0..3).map(|t| random_ids(count, sizes[t], 9 + t as u64)).collect();
            let ids = [&ids[0][..], &ids[1], &ids[2]];
            let (gamma, beta, dy) = (random(width, 4), random(width, 5), random(count * width, 6));
            let norm = NormParameters { gamma: &gamma, beta: &beta, eps: 1e-12 };
            // The same by its parts.
            let forward = |tables: [&[f64]; 3]| {
                let row = |i: usize, c: usize| (0..3).map(|t| tables[t][ids[t][i] as usize * width + c]).sum::<f64>();
                let z: Vec<f64> = (0..count * width).map(|j| row(j / width, j % width)).collect();
                let (mut y, mut mean, mut rstd) = (vec![0.0; z.len()], vec![0.0; count], vec![0.0; count]);
                layer_norm::forward(&z, norm, NormOutputs { y: &mut y, mean: &mut mean, rstd: &mut rstd });
                (z, y)
            };
            let all = [&tables[0][..], &tables[1], &tables[2]];
            let n = count * width;
            let (mut z, mut y, mut mean, mut rstd) = (vec![0.0; n], vec![0.0; n], vec![0.0; count], vec![0.0; count]);
            let outputs = NormOutputs { y: &mut y, mean: &mut mean, rstd: &mut rstd };
            embed_forward(all, ids, norm, &mut z, outputs);
            close(&z, &forward(all).0, 1e-14, "z");
            close(&y, &forward(all).1, 1e-12, "y");
            let mut got = [0, 1, 2].map(|t| vec![f64::NAN; tables[t].len()]);
            let slots = got.each_mut().map(|data| Some(Target { data, accumulate: false }));
            let mut dbeta = vec![0.0; width];
            let dbeta_slot = Some(Target::new(&mut dbeta[..], false));
            let saved = NormSaved { z: &z, gamma: &gamma, mean: &mean, rstd: &rstd };
            embed_backward(&dy, saved, ids, slots, None, dbeta_slot);
            for t in 0..3 {
                let want = numeric_gradient(&tables[t], |table| {
                    let mut changed = all;
                    changed[t] = table;
                    dot(&forward(changed).1, &dy)
                });
                close(&got[t], &want, 1e-6, "table gradient");
            }
            let column = |c: usize| (0..count).map(|i| dy[i * width + c]).sum::<f64>();
            close(&dbeta, &(0..width).map(column).collect::<Vec<_>>(), 1e-12, "beta");
            assert_eq!(wide(&z), z);
        });
    }
}
