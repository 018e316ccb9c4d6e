//! Sequences of views, of indexing and of sums, against a model that keeps shape and elements in plain vectors: the same
//! operations are refused, and the others give the same elements. The backward of the whole sequence is its transpose.
#![no_main]

use cloze_fuzz::{Choices, checked, limited};
use cloze_tensor::{DType, Device, Gradients, Result, Tensor};
use libfuzzer_sys::fuzz_target;

/// The most elements of a tensor; larger ones are not made.
const MOST: usize = 1 << 11;
const MAX_RANK: usize = cloze_tensor::MAX_RANK;

/// Shape, and elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    shape: Vec<usize>,
    elements: Vec<f64>,
}

fn product(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) { Some(0) } else { shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size)) }
}

/// Returns whether a tensor of this shape is allowed: with each size counted as 1 at least, its bytes can be addressed.
fn is_shape(shape: &[usize]) -> bool {
    let places = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size.max(1)));
    shape.len() <= MAX_RANK && places.is_some_and(|places| places <= isize::MAX as usize / 8)
}

impl Plain {
    /// Makes a tensor of this shape, whose element at each index `of` returns.
    fn build(shape: Vec<usize>, of: impl Fn(&[usize]) -> f64) -> Plain {
        let mut index = vec![0; shape.len()];
        let mut elements = Vec::new();
        for _ in 0..product(&shape).expect("small") {
            elements.push(of(&index));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Plain { shape, elements }
    }

    fn at(&self, index: &[usize]) -> f64 {
        let place = index.iter().zip(&self.shape).fold(0, |place, (&i, &size)| place * size + i);
        self.elements[place]
    }

    fn reshape(&self, shape: &[usize]) -> Option<Plain> {
        let fits = is_shape(shape) && product(shape) == Some(self.elements.len());
        fits.then(|| Plain { shape: shape.to_vec(), elements: self.elements.clone() })
    }

    fn permute(&self, axes: &[usize]) -> Option<Plain> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..self.shape.len()) {
            return None;
        }
        Some(Plain::build(axes.iter().map(|&axis| self.shape[axis]).collect(), |index| {
            let mut from = vec![0; axes.len()];
            axes.iter().zip(index).for_each(|(&axis, &i)| from[axis] = i);
            self.at(&from)
        }))
    }

    fn narrow(&self, axis: usize, start: usize, length: usize) -> Option<Plain> {
        let end = start.checked_add(length)?;
        if end > *self.shape.get(axis)? {
            return None;
        }
        let mut shape = self.shape.clone();
        shape[axis] = length;
        Some(Plain::build(shape, |index| {
            let mut from = index.to_vec();
            from[axis] += start;
            self.at(&from)
        }))
    }

    fn broadcast_to(&self, shape: &[usize]) -> Option<Plain> {
        let fresh = shape.len().checked_sub(self.shape.len()).filter(|_| is_shape(shape))?;
        if !self.shape.iter().zip(&shape[fresh..]).all(|(&own, &size)| own == 1 || own == size) {
            return None;
        }
        Some(Plain::build(shape.to_vec(), |index| {
            let from: Vec<usize> =
                self.shape.iter().zip(&index[fresh..]).map(|(&own, &i)| if own == 1 { 0 } else { i }).collect();
            self.at(&from)
        }))
    }

    fn gather_rows(&self, rows: &[u32]) -> Option<Plain> {
        let &[count, width] = &self.shape[..] else { return None };
        if rows.iter().any(|&row| row as usize >= count) {
            return None;
        }
        Some(Plain::build(vec![rows.len(), width], |index| self.at(&[rows[index[0]] as usize, index[1]])))
    }

    fn scatter_rows(&self, rows: &[u32], count: usize) -> Option<Plain> {
        let &[own, width] = &self.shape[..] else { return None };
        if own != rows.len() || rows.iter().any(|&row| row as usize >= count) {
            return None;
        }
        Some(Plain::build(vec![count, width], |index| {
            let from = rows.iter().enumerate().filter(|(_, row)| **row as usize == index[0]);
            from.map(|(at, _)| self.at(&[at, index[1]])).sum()
        }))
    }

    fn sum(&self, axis: usize) -> Option<Plain> {
        let size = *self.shape.get(axis)?;
        let mut shape = self.shape.clone();
        shape.remove(axis);
        Some(Plain::build(shape, |index| {
            let mut from = index.to_vec();
            from.insert(axis, 0);
            (0..size)
                .map(|i| {
                    from[axis] = i;
                    self.at(&from)
                })
                .sum()
        }))
    }

    fn concat(parts: &[&Plain], axis: usize) -> Option<Plain> {
        let mut shape = parts[0].shape.clone();
        if axis >= shape.len() {
            return None;
        }
        let rest = |shape: &[usize]| {
            let mut rest = shape.to_vec();
            rest[axis] = 0;
            rest
        };
        if parts.iter().any(|part| part.shape.len() != shape.len() || rest(&part.shape) != rest(&shape)) {
            return None;
        }
        shape[axis] = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.shape[axis]))?;
        if !is_shape(&shape) {
            return None;
        }
        Some(Plain::build(shape, |index| {
            let mut from = index.to_vec();
            let mut part = 0;
            while from[axis] >= parts[part].shape[axis] {
                from[axis] -= parts[part].shape[axis];
                part += 1;
            }
            parts[part].at(&from)
        }))
    }
}

/// Returns a shape: at random, or one that has the elements of `shape`.
fn shape(choices: &mut Choices<'_>, of: &[usize]) -> Vec<usize> {
    let mut shape = of.to_vec();
    match choices.below(4) {
        0 => (0..choices.below(8)).map(|_| choices.size()).collect(),
        // Joins two dimensions.
        1 if shape.len() > 1 => {
            let at = choices.below(shape.len() - 1);
            let size = shape.remove(at);
            shape[at] = shape[at].wrapping_mul(size);
            shape
        }
        // Divides one.
        2 if !shape.is_empty() => {
            let (at, by) = (choices.below(shape.len()), 1 + choices.below(4));
            shape[at] /= by;
            shape.insert(at, by);
            shape
        }
        _ => {
            shape.insert(choices.below(shape.len() + 1), 1 + choices.below(3));
            shape
        }
    }
}

fuzz_target!(|data: &[u8]| {
    limited(data.len(), || run(&mut Choices::new(data)));
});

fn run(choices: &mut Choices<'_>) {
    let start: Vec<usize> = (0..choices.below(5)).map(|_| choices.below(7)).collect();
    let plain = Plain::build(start, |index| index.iter().fold(1, |sum, &i| sum * 5 + i) as f64);
    let leaf = Tensor::from_slice(&plain.elements, &plain.shape, &Device::Cpu).expect("the shape fits").requires_grad();
    let mut values = vec![(leaf.clone(), plain.clone())];
    for _ in 0..12 {
        if !choices.any_left() {
            break;
        }
        let (tensor, naive) = values[choices.below(values.len())].clone();
        let (other, naive_other) = values[choices.below(values.len())].clone();
        let Some((made, expected)) = step(choices, (&tensor, &naive), (&other, &naive_other)) else { continue };
        match (checked(made), expected) {
            (Some(made), Some(expected)) => {
                assert_eq!(made.shape(), expected.shape);
                assert_eq!(made.to_vec::<f64>().expect("it is f64"), expected.elements);
                values.push((made, expected));
            }
            (None, None) => {}
            (made, expected) => panic!("{:?} instead of {expected:?}", made.map(|made| made.shape().to_vec())),
        }
    }
    let (last, naive) = values.pop().expect("there is the leaf");
    transpose(&leaf, &plain, &last, &naive);
}

type Pair<'v> = (&'v Tensor, &'v Plain);

/// Does one operation. Returns `None` for those that would make large tensors.
fn step(
    choices: &mut Choices<'_>,
    (x, plain): Pair<'_>,
    (y, other): Pair<'_>,
) -> Option<(Result<Tensor>, Option<Plain>)> {
    let rank = plain.shape.len();
    let small = |shape: &[usize]| product(shape).is_none_or(|elements| elements <= MOST);
    Some(match choices.below(14) {
        0 => {
            let shape = shape(choices, &plain.shape);
            (x.reshape(&shape), plain.reshape(&shape))
        }
        1 => {
            let axes: Vec<usize> = match choices.below(4) {
                0 => (0..rank).map(|_| choices.size()).collect(),
                by => (0..rank).map(|axis| (axis + by) % rank).collect(),
            };
            (x.permute(&axes), plain.permute(&axes))
        }
        2 => {
            let (a, b) = (choices.below(rank + 1), choices.below(rank.max(1)));
            let mut axes: Vec<usize> = (0..rank).collect();
            let exists = a < rank && b < rank;
            if exists {
                axes.swap(a, b);
            }
            (x.transpose(a, b), exists.then(|| plain.permute(&axes)).flatten())
        }
        3 | 4 => {
            let axis = choices.below(rank + 1);
            let (start, length) = (choices.size(), choices.size());
            let size = plain.shape.get(axis).copied().unwrap_or(0);
            // Most ranges should be valid.
            let (start, length) = if choices.byte() < 200 {
                let start = start % (size + 1);
                (start, length % (size - start + 1))
            } else {
                (start, length)
            };
            (x.narrow(axis, start, length), plain.narrow(axis, start, length))
        }
        5 => {
            let mut shape = plain.shape.clone();
            shape.iter_mut().filter(|size| **size == 1).for_each(|size| *size = choices.size());
            (0..choices.below(3)).for_each(|_| shape.insert(0, choices.size()));
            if is_shape(&shape) && !small(&shape) {
                return None;
            }
            (x.broadcast_to(&shape), plain.broadcast_to(&shape))
        }
        6 => {
            let axis = choices.below(rank + 2);
            let shape = (axis <= rank).then(|| {
                let mut shape = plain.shape.clone();
                shape.insert(axis, 1);
                shape
            });
            (x.unsqueeze(axis), shape.and_then(|shape| plain.reshape(&shape)))
        }
        7 => {
            let axis = choices.below(rank + 1);
            let shape = (plain.shape.get(axis) == Some(&1)).then(|| {
                let mut shape = plain.shape.clone();
                shape.remove(axis);
                shape
            });
            (x.squeeze(axis), shape.and_then(|shape| plain.reshape(&shape)))
        }
        8 => (x.contiguous(), Some(plain.clone())),
        9 => {
            let rows: Vec<u32> = (0..choices.below(9)).map(|_| choices.size() as u32).collect();
            (x.gather_rows(&rows), plain.gather_rows(&rows))
        }
        10 => {
            let count = choices.below(20);
            let rows: Vec<u32> =
                (0..plain.shape.first().copied().unwrap_or(0).min(MOST)).map(|_| choices.below(20) as u32).collect();
            if !plain.shape.get(1).is_none_or(|&width| small(&[count, width])) {
                return None;
            }
            (x.scatter_rows(&rows, count), plain.scatter_rows(&rows, count))
        }
        11 => {
            let axis = choices.below(rank + 1);
            let mut shape = plain.shape.clone();
            if axis < rank {
                shape.remove(axis);
            }
            if !small(&shape) {
                return None;
            }
            (x.sum(axis), plain.sum(axis))
        }
        12 => {
            let axis = choices.below(rank + 1);
            if plain.elements.len() + other.elements.len() > MOST {
                return None;
            }
            (Tensor::concat(&[x, y], axis), Plain::concat(&[plain, other], axis))
        }
        _ => {
            // Addition broadcasts both.
            let rank = rank.max(other.shape.len());
            let pad = |shape: &[usize]| [vec![1; rank - shape.len()], shape.to_vec()].concat();
            let (a, b) = (pad(&plain.shape), pad(&other.shape));
            let both = a.iter().zip(&b).map(|(&a, &b)| if a == 1 { b } else { a }).collect::<Vec<_>>();
            if !small(&both) {
                return None;
            }
            let sum = || {
                let (a, b) = (plain.broadcast_to(&both)?, other.broadcast_to(&both)?);
                let elements = a.elements.iter().zip(&b.elements).map(|(a, b)| a + b).collect();
                Some(Plain { shape: both.clone(), elements })
            };
            (x.add(y), sum())
        }
    })
}

/// Checks that ⟨A x, w⟩ = ⟨x, Aᵀ w⟩ for the linear map A of the whole sequence. All numbers are integers, so both are exact.
fn transpose(leaf: &Tensor, x: &Plain, last: &Tensor, y: &Plain) {
    if !last.tracks_grad() {
        return;
    }
    let w: Vec<f64> = (0..y.elements.len()).map(|i| (i * 7 % 5) as f64 - 2.0).collect();
    let mut gradients = Gradients::new();
    let tensor = Tensor::from_slice(&w, &y.shape, &Device::Cpu).expect("the shape fits");
    last.backward_with(&tensor, &mut gradients).expect("the gradient has the shape of the result");
    let dx = gradients.get(leaf).expect("the leaf requires a gradient");
    assert_eq!((dx.shape(), dx.dtype()), (&x.shape[..], DType::F64));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (left, right) = (dot(&y.elements, &w), dot(&x.elements, &dx.to_vec::<f64>().expect("it is f64")));
    assert_eq!(left, right, "the backward is not the transpose");
}
