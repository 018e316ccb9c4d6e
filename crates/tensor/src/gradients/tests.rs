//! Backward passes into gradients of both kinds, and the arenas that they mirror.

use super::*;
use crate::device::Device;
use crate::error::Error;
use crate::module;
use crate::module::Module;
use crate::parameters::ParameterArena;

fn leaf(values: &[f32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, &[values.len()], &Device::Cpu)?.requires_grad())
}

#[test]
fn contributions_do_not_write_into_each_other() -> Result<()> {
    let (a, b) = (leaf(&[1.0, 2.0])?, leaf(&[3.0, 4.0])?);
    let three = a.mul_scalar(3.0)?;
    let gradients = a.add(&b)?.add(&three)?.sum_all()?.backward()?;
    assert_eq!(gradients.get(&a).expect("wanted").to_vec::<f32>()?, [4.0, 4.0]);
    assert_eq!(gradients.get(&b).expect("wanted").to_vec::<f32>()?, [1.0, 1.0]);
    Ok(())
}

/// The first contribution is a view of no elements, which starts past the end of what it views.
#[test]
fn an_empty_view_is_a_gradient_like_any_other() -> Result<()> {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let x = zeros(&[0, 0])?.requires_grad();
    let picked = x.gather_rows(&[])?.reshape(&[0, 3])?;
    let below = Tensor::concat(&[&zeros(&[0, 3])?, &x], 1)?;
    let all = Tensor::concat(&[&zeros(&[2, 3])?, &picked, &below], 0)?;
    assert!(all.mul_scalar(2.0)?.sum_all()?.backward()?.get(&x).expect("wanted").shape() == [0, 0]);
    let inner = x.mul_scalar(1.0)?;
    let picked = inner.gather_rows(&[])?.reshape(&[0, 3])?;
    let below = Tensor::concat(&[&zeros(&[0, 3])?, &inner], 1)?;
    let all = Tensor::concat(&[&zeros(&[2, 3])?, &picked, &below], 0)?;
    assert!(all.mul_scalar(2.0)?.sum_all()?.backward()?.get(&x).expect("wanted").shape() == [0, 0]);
    Ok(())
}

#[test]
fn what_a_user_holds_does_not_change() -> Result<()> {
    let x = leaf(&[1.0, 2.0])?;
    let mut gradients = x.mul_scalar(2.0)?.sum_all()?.backward()?;
    let held = gradients.get(&x).expect("wanted");
    x.mul_scalar(5.0)?.sum_all()?.backward_into(&mut gradients)?;
    assert_eq!(held.to_vec::<f32>()?, [2.0, 2.0]);
    assert_eq!(gradients.get(&x).expect("wanted").to_vec::<f32>()?, [7.0, 7.0]);

    let one = Tensor::new([1f32, 1.0], &Device::Cpu)?;
    let mut gradients = Gradients::new();
    for _ in 0..3 {
        x.backward_with(&one, &mut gradients)?;
    }
    assert_eq!(one.to_vec::<f32>()?, [1.0, 1.0]);
    assert_eq!(gradients.get(&x).expect("wanted").to_vec::<f32>()?, [3.0, 3.0]);
    Ok(())
}

#[test]
fn a_walk_that_fails_leaves_nothing() -> Result<()> {
    let x = leaf(&[1.0, 2.0])?;
    let loss = x.exp()?.sum_all()?;
    let mut gradients = loss.backward()?;
    let again = loss.add(&x.sum_all()?)?;
    assert!(again.backward_into(&mut gradients).is_err());
    assert!(!gradients.contains(&x));
    Ok(())
}

/// Several steps with different look-ups, one of them accumulated in two parts, against sums computed here.
#[test]
fn rows_that_were_looked_up_are_all_that_is_written() -> Result<()> {
    struct Table {
        table: Tensor,
    }
    module!(Table { table });
    let numbers: Vec<f32> = (0..15).map(|i| i as f32).collect();
    let mut model = Table { table: Tensor::from_vec(numbers, &[5, 3], &Device::Cpu)? };
    let arena = ParameterArena::gather(&mut model, |_| true)?;
    let mut gradients = arena.gradients()?;
    for parts in [vec![vec![1u32, 3, 1]], vec![vec![0, 3], vec![3]], vec![vec![]], vec![vec![4]]] {
        let mut want = vec![0f32; 15];
        for ids in &parts {
            model.table.embedding(ids)?.mul_scalar(2.0)?.sum_all()?.backward_into(&mut gradients)?;
            ids.iter().for_each(|&id| want[id as usize * 3..][..3].iter_mut().for_each(|x| *x += 2.0));
        }
        assert_eq!(gradients.get(&model.table).expect("wanted").to_vec::<f32>()?, want);
        let norm = want.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        assert!((gradients.norm()? - norm).abs() < 1e-12);
        let touched = parts.concat().len();
        assert!(gradients.written(32).len() <= touched, "rows that were not looked up count as written");
        gradients.clear();
    }
    // A dense contribution makes it dense.
    model.table.embedding(&[2])?.sum_all()?.add(&model.table.sum_all()?)?.backward_into(&mut gradients)?;
    let mut want = vec![1f32; 15];
    want[6..9].fill(2.0);
    assert_eq!(gradients.get(&model.table).expect("wanted").to_vec::<f32>()?, want);
    gradients.clear();
    model.table.embedding(&[0])?.sum_all()?.backward_into(&mut gradients)?;
    assert!((gradients.norm()? - 3f64.sqrt()).abs() < 1e-12);
    Ok(())
}

struct Two {
    a: Tensor,
    b: Tensor,
}
module!(Two { a, b });

fn two() -> Result<Two> {
    Ok(Two { a: leaf(&[3.0, 4.0])?, b: leaf(&[12.0])? })
}

fn arena(model: &mut Two) -> Result<ParameterArena> {
    ParameterArena::gather(model, |_| true)
}

#[test]
fn frozen_parameters_stay_out_of_the_arena() -> Result<()> {
    let mut model = two()?;
    model.a = model.a.freeze();
    let arena = arena(&mut model)?;
    assert_eq!(arena.parameters().iter().map(|parameter| parameter.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(model.a.is_frozen() && !model.a.tracks_grad() && model.b.tracks_grad());
    model.a = model.a.requires_grad();
    assert!(!model.a.is_frozen() && model.a.tracks_grad());
    Ok(())
}

#[test]
fn the_norm_counts_what_was_written() -> Result<()> {
    let mut model = two()?;
    let arena = arena(&mut model)?;
    let mut gradients = arena.gradients()?;
    let halves = |tensor: &Tensor| tensor.mul(tensor)?.sum_all()?.mul_scalar(0.5);
    halves(&model.a)?.add(&halves(&model.b)?)?.backward_into(&mut gradients)?;
    assert_eq!(gradients.norm()?, 13.0);
    gradients.clear();
    assert_eq!(gradients.norm()?, 0.0);
    halves(&model.a)?.backward_into(&mut gradients)?;
    assert_eq!(gradients.norm()?, 5.0);
    Ok(())
}

/// A chain of parameters of which one is used twice, and one not at all.
#[test]
fn final_gradients_come_from_the_end() -> Result<()> {
    let three = || (0..3).map(|n| leaf(&[n as f32 + 1.0, 2.0])).collect::<Result<Vec<Tensor>>>();
    let mut model = three()?;
    let arena = ParameterArena::gather(&mut model, |_| true)?;
    let loss = || -> Result<Tensor> {
        let hidden = model[0].mul(&model[1])?.exp()?;
        hidden.add(&model[1])?.mul(&model[2])?.sum_all()
    };
    let mut whole = arena.gradients()?;
    loss()?.backward_into(&mut whole)?;
    let mut gradients = arena.gradients()?;
    let mut seen = Vec::new();
    loss()?.backward_streaming(&mut gradients, |last| seen.push((last.start(), last.values().to_vec())))?;
    let starts: Vec<usize> = seen.iter().map(|(start, _)| *start).collect();
    assert_eq!(starts, [64, 0, 0], "the last parameter is final before the other two, which end together");
    let of = |at: usize| whole.get(&model[at]).expect("wanted").to_vec::<f32>();
    assert_eq!(seen[0].1[..2], of(2)?);
    for (start, values) in &seen[1..] {
        assert_eq!(
            (*start, &values[..2], &values[32..34], &values[64..66]),
            (0, &of(0)?[..], &of(1)?[..], &of(2)?[..])
        );
    }
    let unused = three()?;
    let mut seen = Vec::new();
    gradients.clear();
    model[2].sum_all()?.backward_streaming(&mut gradients, |last| seen.push(last.start()))?;
    assert_eq!(seen, [64, 0], "a parameter without a gradient is not waited for");
    let refused = unused[0].sum_all()?.backward_streaming(&mut Gradients::new(), |_| ());
    self::refused(refused, "do not mirror an arena of f32 parameters");
    Ok(())
}

#[test]
fn missing_gradients_become_zeros() -> Result<()> {
    let mut model = two()?;
    let mut gradients = arena(&mut model)?.gradients()?;
    assert!(gradients.is_empty());
    model.a.mul(&model.a)?.sum_all()?.backward_into(&mut gradients)?;
    gradients.clear();
    assert!(gradients.is_empty());
    model.b.mul(&model.b)?.sum_all()?.backward_into(&mut gradients)?;
    gradients.fill_with_zeros()?;
    assert_eq!(gradients.get(&model.a).expect("filled").to_vec::<f32>()?, [0.0, 0.0]);
    assert_eq!(gradients.get(&model.b).expect("wanted").to_vec::<f32>()?, [24.0]);
    Ok(())
}

#[test]
fn flat_gradients_forget_strangers() -> Result<()> {
    let mut model = two()?;
    let mut gradients = arena(&mut model)?.gradients()?;
    let stranger = leaf(&[1.0])?;
    stranger.mul(&model.b)?.sum_all()?.backward_into(&mut gradients)?;
    assert!(gradients.contains(&stranger));
    gradients.clear();
    assert_eq!(gradients.entries.len(), 2);
    Ok(())
}

fn refused(result: Result<()>, part: &str) {
    let Err(error) = result else { panic!("accepted; expected: {part}") };
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn gradients_of_another_arena_are_refused() -> Result<()> {
    let (mut one, mut other) = (two()?, two()?);
    let (arena_one, arena_other) = (arena(&mut one)?, arena(&mut other)?);
    let mut gradients = arena_other.gradients()?;
    one.a.sum_all()?.add(&one.b.sum_all()?)?.backward_into(&mut gradients)?;
    refused(arena_one.update(&mut one, &gradients, |_: &mut [f32], _, _| {}), "do not mirror this arena");
    Ok(())
}

#[test]
fn tied_and_exchanged_parameters_are_refused() -> Result<()> {
    let a = leaf(&[1.0])?;
    let mut tied = Two { a: a.clone(), b: a };
    refused(arena(&mut tied).map(drop), "b and a are one tensor");

    let mut model = Two { a: leaf(&[1.0])?, b: leaf(&[2.0])? };
    let arena = arena(&mut model)?;
    let mut gradients = arena.gradients()?;
    model.a.mul(&model.b)?.sum_all()?.backward_into(&mut gradients)?;
    let Two { a, b } = &mut model;
    std::mem::swap(a, b);
    refused(arena.update(&mut model, &gradients, |_: &mut [f32], _, _| {}), "a is not the parameter");
    Ok(())
}

/// A module whose `visit_mut` yields other tensors than `visit`.
struct Crooked(Two);

impl Module for Crooked {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        self.0.visit(name, visitor);
    }

    fn visit_mut(&mut self, _: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        visitor("b", &mut self.0.b);
        visitor("a", &mut self.0.a);
    }
}

#[test]
fn visits_that_disagree_are_refused() -> Result<()> {
    refused(ParameterArena::gather(&mut Crooked(two()?), |_| true).map(drop), "disagree at b");
    Ok::<(), Error>(())
}

/// A model that shares its parameter with others, behind a lock.
struct Shared(std::sync::Arc<std::sync::Mutex<Tensor>>);

impl Module for Shared {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        visitor(name, &self.0.lock().expect("no panic"));
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        visitor(name, &mut self.0.lock().expect("no panic"));
    }
}

/// While a step writes the parameters, neither the model nor the arena gives access to them.
#[test]
fn parameters_cannot_be_read_while_they_are_written() -> Result<()> {
    let mut model = Shared(std::sync::Arc::new(std::sync::Mutex::new(leaf(&[1.0, 2.0])?)));
    let arena = ParameterArena::gather(&mut model, |_| true)?;
    let mut gradients = arena.gradients()?;
    let weights = model.0.clone();
    let held = || weights.lock().expect("no panic").clone();
    held().mul_scalar(3.0)?.sum_all()?.backward_into(&mut gradients)?;
    arena.update(&mut model, &gradients, |values: &mut [f32], gradients, _| {
        assert_eq!(held().elements(), 0);
        let refused = arena.values().expect_err("they are being written").to_string();
        assert!(refused.contains("being changed"), "{refused}");
        values.iter_mut().zip(gradients).for_each(|(value, gradient)| *value += gradient);
        assert_eq!(held().elements(), 0);
    })?;
    assert_eq!(held().to_vec::<f32>()?, [4.0, 5.0]);
    assert!(held().tracks_grad());

    // A panic puts them back too.
    let step = |values: &mut [f32], _: &[f32], _: &[crate::parameters::ParameterRange]| {
        values[0] = 7.0;
        panic!("spoilt");
    };
    let panics = std::panic::AssertUnwindSafe(|| arena.update(&mut model, &gradients, step));
    assert!(std::panic::catch_unwind(panics).is_err());
    assert_eq!(held().to_vec::<f32>()?, [7.0, 5.0]);
    assert_eq!(arena.values()?.to_vec::<f32>()?[..2], [7.0, 5.0]);
    arena.update(&mut model, &gradients, |values: &mut [f32], _, _| values[0] = 8.0)?;
    assert_eq!(held().to_vec::<f32>()?, [8.0, 5.0]);
    Ok(())
}
