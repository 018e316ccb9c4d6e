//! Training on several ranks, which are threads here. `tests/mpi/run.sh` tests processes.

use std::sync::Arc;

use cloze_tensor::{DType, Device, Module, Tensor, module};
use cloze_train::communicator::{Communicator, Threads};
use cloze_train::{AdamW, Optimizer, ParameterGroup};

mod optimizer {
    use super::*;

    /// A table of which each rank looks up some rows, a weight longer than a block of the norm, and a bias.
    struct Model {
        table: Tensor,
        weight: Tensor,
        bias: Tensor,
    }
    module!(Model { table, weight, bias });

    const WIDTH: usize = 50;

    impl Model {
        fn new() -> Model {
            let values = |count: usize, shape: &[usize]| {
                let values = (0..count).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 500.0).collect();
                Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
            };
            Model {
                table: values(300 * WIDTH, &[300, WIDTH]),
                weight: values(WIDTH * WIDTH, &[WIDTH, WIDTH]),
                bias: values(WIDTH, &[WIDTH]),
            }
        }

        /// The sum over some rows, divided by the number of rows of the step.
        fn loss(&self, rows: &[u32], of_step: usize) -> Tensor {
            let hidden = self.table.embedding(rows).unwrap();
            let out = hidden.linear(&self.weight, &self.bias).unwrap().tanh().unwrap();
            out.mul(&out).unwrap().sum_all().unwrap().mul_scalar(1.0 / of_step as f64).unwrap()
        }

        fn values(&self) -> Vec<f32> {
            let mut values = Vec::new();
            self.visit("", &mut |_, tensor| values.extend(tensor.to_vec::<f32>().unwrap()));
            values
        }
    }

    fn optimizer(model: &mut Model) -> Optimizer {
        let adamw = AdamW::new(0.0).group(ParameterGroup::of("weight").learning_rate_factor(0.3).weight_decay(0.2));
        Optimizer::new(adamw, model, |_| true).unwrap()
    }

    fn rows(step: u32) -> Vec<u32> {
        (0..12).map(|row| (row * 37 + step * 11) % 300).collect()
    }

    /// Makes five steps in which rank r has every row whose number is r modulo the number of ranks; the last step has fewer
    /// rows than ranks.
    fn train(ranks: Arc<dyn Communicator>, dtype: DType) -> (Vec<f64>, Vec<f32>) {
        let mut model = Model::new();
        let mut optimizer = optimizer(&mut model).with_communicator(ranks.clone(), dtype).unwrap();
        let mut norms = Vec::new();
        for step in 0..5 {
            let rows = &rows(step)[..if step == 4 { 1 } else { 12 }];
            let own: Vec<u32> = rows.iter().copied().skip(ranks.rank()).step_by(ranks.size()).collect();
            if !own.is_empty() {
                optimizer.backward(&model.loss(&own, rows.len())).unwrap();
            }
            norms.push(optimizer.step(&mut model, 0.01, Some(0.5)).unwrap());
        }
        (norms, model.values())
    }

    fn farthest(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn ranks_make_the_steps_of_one_process() {
        let (norms, values) = train(Arc::new(cloze_train::communicator::Alone), DType::F32);
        for size in [2, 3, 4] {
            let mut first = None;
            for (found, of_rank) in Threads::run(size, |ranks| train(ranks, DType::F32)) {
                assert!(farthest(&of_rank, &values) < 2e-6, "{size} ranks: {}", farthest(&of_rank, &values));
                assert!(norms.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5 * a), "{norms:?} {found:?}");
                // All ranks have the same bits.
                let first = first.get_or_insert((found.clone(), of_rank.clone()));
                assert!(first.0 == found && first.1 == of_rank);
            }
            let again = Threads::run(size, |ranks| train(ranks, DType::F32));
            assert_eq!(again[0].1, first.unwrap().1, "{size} ranks differ from run to run");
        }
    }

    #[test]
    fn gradients_may_travel_as_bf16() {
        let (norms, values) = train(Arc::new(cloze_train::communicator::Alone), DType::F32);
        for (found, of_rank) in Threads::run(3, |ranks| train(ranks, DType::BF16)) {
            assert!(norms.iter().zip(&found).all(|(a, b)| a != b && (a - b).abs() < 5e-3 * a), "{norms:?} {found:?}");
            let distance = farthest(&of_rank, &values);
            assert!(distance > 1e-6 && distance < 0.05, "{distance}");
        }
        let error = Threads::run(2, |ranks| {
            optimizer(&mut Model::new()).with_communicator(ranks, DType::F16).err().unwrap().to_string()
        });
        assert_eq!(error[0], "type of exchanged gradients is f16, must be f32 or bf16");
    }

    #[test]
    fn gradients_that_are_not_finite_change_no_rank() {
        for (before, after, error) in Threads::run(2, |ranks| {
            let mut model = Model::new();
            let before = model.values();
            let mut optimizer = optimizer(&mut model).with_communicator(ranks.clone(), DType::F32).unwrap();
            let factor = if ranks.rank() == 1 { f64::NAN } else { 1.0 };
            optimizer.backward(&model.loss(&[1], 2).mul_scalar(factor).unwrap()).unwrap();
            let error = optimizer.step(&mut model, 0.1, None).unwrap_err().to_string();
            (before, model.values(), error)
        }) {
            assert_eq!(before, after);
            assert!(error.contains("their norm is NaN in optimizer step 1"), "{error}");
        }
    }
}
