//! Training on several ranks, which are threads here. `tests/mpi/run.sh` tests processes.

mod common;

use std::sync::Arc;

use cloze_tensor::{DType, Module, Tensor, module};
use cloze_train::communicator::{Communicator, Threads};
use cloze_train::{AdamW, Optimizer, ParameterGroup};

use common::device;

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
                Tensor::from_vec(values, shape, &device()).unwrap()
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
            norms.push(optimizer.step_at(&mut model, 0.01, Some(0.5)).unwrap());
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

    /// A model of several buckets, whose last ones are exchanged before backward has come to the first.
    #[test]
    fn gradients_are_exchanged_during_backward() {
        struct Wide {
            first: Tensor,
            table: Tensor,
        }
        module!(Wide { first, table });
        let found = Threads::run(2, |ranks| {
            let values = |count: usize| (0..count).map(|i| (i % 101) as f32 / 101.0 - 0.5).collect::<Vec<f32>>();
            let tensor = |rows: usize| Tensor::from_vec(values(rows * 64), &[rows, 64], &device()).unwrap();
            let run = |last: bool| {
                let mut model = Wide { first: tensor(64), table: tensor(150_000) };
                let optimizer = Optimizer::new(AdamW::new(0.0), &mut model, |_| true).unwrap();
                let mut optimizer = optimizer.with_communicator(ranks.clone(), DType::F32).unwrap();
                for step in 0..2 {
                    let rows: Vec<u32> =
                        (0..40).map(|row| (row * 3700 + step + ranks.rank() as u32) % 150_000).collect();
                    let looked_up = model.first.embedding(&[1, 2, 3, 4]).unwrap().sum_all().unwrap();
                    let loss = model.table.embedding(&rows).unwrap().exp().unwrap().sum_all().unwrap();
                    let loss = loss.mul(&looked_up).unwrap();
                    if last { optimizer.backward_last(&loss) } else { optimizer.backward(&loss) }.unwrap();
                    drop(loss);
                    optimizer.step_at(&mut model, 0.01, Some(1.0)).unwrap();
                }
                [&model.first, &model.table].map(|tensor| tensor.to_vec::<f32>().unwrap())
            };
            (run(false), run(true))
        });
        assert!(found.iter().all(|(after, during)| after == during && after == &found[0].0));
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
            let error = optimizer.step_at(&mut model, 0.1, None).unwrap_err().to_string();
            (before, model.values(), error)
        }) {
            assert_eq!(before, after);
            assert!(error.contains("their norm is NaN in optimizer step 1"), "{error}");
        }
    }
}

mod trainer {
    use std::path::Path;

    use cloze_bert::{BertConfig, BertForPreTraining, Mode, PreTrainedModel, Tokenizer, TrainOptions};
    use cloze_tensor::random::{Purpose, Stream};
    use cloze_train::communicator::Alone;
    use cloze_train::{
        Corpus, Evaluation, Every, Learn, LengthWarmup, LossTerm, PreTraining, PreTrainingBatch, Trainer,
        TrainingReport,
    };

    use super::*;

    fn data() -> (LengthWarmup, BertConfig) {
        let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
        let mut sentence = || {
            let first = stream.below(12);
            (0..2 + stream.below(8)).map(|i| format!("w{}", (first + i) % 12)).collect::<Vec<_>>().join(" ")
        };
        let documents: Vec<Vec<String>> = (0..6).map(|_| (0..20).map(|_| sentence()).collect()).collect();
        let tokenizer = Tokenizer::train(documents.concat(), 80, &TrainOptions::new()).unwrap();
        let corpus = Corpus::from_documents(documents).unwrap();
        let data = PreTraining::new(&corpus, &tokenizer).unwrap().seq_len(24).seed(2);
        let config = BertConfig {
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 24,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            ..BertConfig::tiny(tokenizer.vocab_size())
        };
        (LengthWarmup::new(data, 6, 8), config)
    }

    /// A model whose loss is NaN if it is told so.
    struct Watched {
        model: BertForPreTraining,
        is_broken: bool,
    }
    module!(Watched { model });

    impl Learn<PreTrainingBatch> for Watched {
        fn total_weights(&self, batch: &PreTrainingBatch) -> Vec<f64> {
            self.model.total_weights(batch)
        }

        fn loss_terms(&self, batch: &PreTrainingBatch, mode: Mode) -> cloze_train::Result<Vec<LossTerm>> {
            let mut terms = self.model.loss_terms(batch, mode)?;
            if let (LossTerm::CrossEntropy { logits, .. }, true) = (&mut terms[0], self.is_broken) {
                *logits = logits.mul_scalar(f64::NAN)?;
            }
            Ok(terms)
        }
    }

    type Found = cloze_train::Result<(TrainingReport, Vec<f32>)>;

    /// What differs between the runs of these tests.
    #[derive(Clone, Copy, Default)]
    struct Settings<'f> {
        seed: u64,
        by_tokens: bool,
        folder: Option<&'f Path>,
        /// The step after which the callback fails.
        fails_after: Option<u32>,
    }

    /// Trains for two epochs with an evaluation that depends on all weights.
    fn train(ranks: Arc<dyn Communicator>, settings: Settings) -> Found {
        let (data, config) = data();
        let model = BertForPreTraining::new(&config, &device(), 1).unwrap();
        let mut model = Watched { model, is_broken: false };
        // Adam's usual eps would amplify the rounding of gradients that are zero by mathematics.
        let mut trainer = Trainer::new(&mut model)
            .optimizer(AdamW::new(3e-3).eps(1e-4).layer_decay(0.9))
            .batch_size(6)
            .accumulate(2)
            .epochs(2)
            .seed(settings.seed)
            .average(0.9)
            .progress(false)
            .evaluate(Every::Steps(3), |model| {
                let mut sum = 0.0;
                model.visit("", &mut |_, tensor| {
                    sum += tensor.to_vec::<f32>().unwrap().iter().map(|x| x.abs()).sum::<f32>()
                });
                Ok(Evaluation::minimize("size", f64::from(sum)))
            })
            .keep_best()
            .communicator(ranks);
        if settings.by_tokens {
            trainer = trainer.batch_tokens(100).group_by_length();
        }
        if let Some(folder) = settings.folder {
            trainer = trainer.directory(folder).resume(true).checkpoint(Every::Steps(2), 2);
        }
        let report = trainer.run_with(&data, |_, step| match settings.fails_after == Some(step.step) {
            true => Err(cloze_train::Error::data("test", "stopped")),
            false => Ok(()),
        })?;
        let mut values = Vec::new();
        model.visit("", &mut |_, tensor| values.extend(tensor.to_vec::<f32>().unwrap()));
        Ok((report, values))
    }

    fn same_bits(a: &(TrainingReport, Vec<f32>), b: &(TrainingReport, Vec<f32>)) -> bool {
        a.0.losses == b.0.losses && a.0.best == b.0.best && a.1 == b.1
    }

    fn assert_close(a: &(TrainingReport, Vec<f32>), b: &(TrainingReport, Vec<f32>)) {
        assert_eq!((a.0.losses.len(), a.0.tokens, a.0.epochs), (b.0.losses.len(), b.0.tokens, b.0.epochs));
        for (step, (a, b)) in a.0.losses.iter().zip(&b.0.losses).enumerate() {
            assert!((a - b).abs() < 1e-5, "step {step}: {a} and {b}");
        }
        let farthest = a.1.iter().zip(&b.1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(farthest < 1e-4, "{farthest}");
    }

    #[test]
    fn ranks_train_as_one_process() {
        let one = train(Arc::new(Alone), Settings::default()).unwrap();
        assert!(one.0.losses.len() > 8 && one.0.best.is_some());
        // A step of twelve sequences, so seven ranks have one or two.
        for size in [2, 3, 7] {
            let found = Threads::run(size, |ranks| train(ranks, Settings::default()).unwrap());
            assert_close(&one, &found[0]);
            let again = Threads::run(size, |ranks| train(ranks, Settings::default()).unwrap());
            assert!(found.iter().chain(&again).all(|other| same_bits(other, &found[0])), "{size} ranks");
        }
        let by_tokens = Settings { by_tokens: true, ..Settings::default() };
        let one = train(Arc::new(Alone), by_tokens).unwrap();
        assert_close(&one, &Threads::run(3, |ranks| train(ranks, by_tokens).unwrap())[0]);
    }

    /// Runs in a folder that all ranks have or, with `is_shared` false, in one that only rank 0 has.
    fn run_in(folder: &Path, is_shared: bool, size: usize, fails_after: Option<u32>) -> Vec<Found> {
        Threads::run(size, |ranks| {
            let own = if is_shared || ranks.rank() == 0 { folder.join("run") } else { folder.join("elsewhere") };
            train(ranks, Settings { folder: Some(&own), fails_after, ..Settings::default() })
        })
    }

    fn stop_in(folder: &Path, is_shared: bool, size: usize, fails_after: u32) {
        for error in run_in(folder, is_shared, size, Some(fails_after)) {
            assert!(error.unwrap_err().to_string().contains("stopped"));
        }
    }

    #[test]
    fn runs_resume_on_any_number_of_ranks() {
        let whole = [1, 2, 3].map(|size| {
            let folder = tempfile::tempdir().unwrap();
            run_in(folder.path(), true, size, None).into_iter().map(Result::unwrap).collect::<Vec<_>>()
        });
        for (from, to, fails_after) in [(3, 3, 3), (3, 3, 6), (3, 2, 6), (3, 1, 6), (2, 3, 6), (2, 1, 3), (1, 2, 6)] {
            for is_shared in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                stop_in(folder.path(), is_shared, from, fails_after);
                for resumed in run_in(folder.path(), is_shared, to, None) {
                    let resumed = resumed.unwrap();
                    assert_close(&whole[from - 1][0], &resumed);
                    assert!(
                        from != to || same_bits(&whole[from - 1][0], &resumed),
                        "{from} ranks, after {fails_after}"
                    );
                }
                assert!(!folder.path().join("elsewhere").exists(), "only rank 0 needs the folder");
            }
        }
    }

    /// Every rank writes its share, or rank 0 for those that do not see its folder.
    #[test]
    fn checkpoints_have_a_file_for_each_rank() {
        let files = [true, false].map(|is_shared| {
            let folder = tempfile::tempdir().unwrap();
            stop_in(folder.path(), is_shared, 3, 5);
            let entries = std::fs::read_dir(folder.path().join("run/checkpoint-00000004")).unwrap();
            let mut files: Vec<(String, Vec<u8>)> = entries
                .map(|entry| {
                    let path = entry.unwrap().path();
                    (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
                })
                // It says how long the run took.
                .filter(|(name, _)| name != "state.json" && name != "checksums.xxh128")
                .collect();
            files.sort();
            files
        });
        assert!(files[0] == files[1]);
        let names: Vec<&str> = files[0].iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(
            names,
            [
                "best.safetensors",
                "optimizer-00001-of-00003.safetensors",
                "optimizer-00002-of-00003.safetensors",
                "optimizer-00003-of-00003.safetensors",
                "state.safetensors"
            ]
        );
    }

    #[test]
    fn a_damaged_share_is_named() {
        let folder = tempfile::tempdir().unwrap();
        stop_in(folder.path(), true, 2, 5);
        let file = "checkpoint-00000004/optimizer-00002-of-00002.safetensors";
        std::fs::remove_file(folder.path().join("run").join(file)).unwrap();
        let resumed = run_in(folder.path(), true, 2, None).remove(0).unwrap().0.resumed.unwrap();
        assert_eq!(resumed.step, 2);
        assert!(
            resumed.damages[0].contains("lists optimizer-00002-of-00002.safetensors, which is missing"),
            "{resumed}"
        );
    }

    #[test]
    fn a_rank_with_a_nan_is_named_by_all() {
        let results = Threads::run(3, |ranks| {
            let (data, config) = data();
            let model = BertForPreTraining::new(&config, &device(), 1).unwrap();
            let mut model = Watched { model, is_broken: ranks.rank() == 1 };
            Trainer::new(&mut model).batch_size(6).progress(false).communicator(ranks).run(&data).map(|_| ())
        });
        for result in results {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("ranks: rank 1: loss: it is NaN in optimizer step 1"), "{error}");
        }
    }

    #[test]
    fn ranks_that_differ_are_refused() {
        let results = Threads::run(2, |ranks| {
            let seed = ranks.rank() as u64;
            train(ranks, Settings { seed, ..Settings::default() }).map(|_| ())
        });
        for result in results {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("ranks: seed is 1 on rank 1 but 0 on rank 0"), "{error}");
        }
    }

    #[test]
    fn more_ranks_than_examples_are_refused() {
        let results = Threads::run(13, |ranks| train(ranks, Settings::default()).map(|_| ()));
        for result in results {
            let error = result.unwrap_err().to_string();
            assert_eq!(error, "ranks: there are 13, but 12 examples in a step: use fewer ranks or larger steps");
        }
    }

    /// An error that only one rank knows ends the others, too.
    #[test]
    fn a_rank_that_fails_ends_the_job() {
        let results = Threads::run(2, |ranks| {
            let fails_after = (ranks.rank() == 1).then_some(4);
            train(ranks, Settings { fails_after, ..Settings::default() }).map(|_| ())
        });
        assert_eq!(results[1].as_ref().unwrap_err().to_string(), "test: stopped");
        assert_eq!(results[0].as_ref().unwrap_err().to_string(), "communicator: rank 1: test: stopped");
    }
}

mod sentences {
    use cloze_bert::{BertConfig, PreTrainedModel, SentenceEncoder, Tokenizer, TrainOptions};
    use cloze_train::communicator::Alone;
    use cloze_train::{LabelledData, Trainer};

    use super::*;

    const FIRST: [&str; 8] = ["a cat", "the dog ran", "so it", "blue", "the sea", "a b", "cat dog", "ran it"];
    const SECOND: [&str; 8] = ["it sat", "dog", "the sea ran", "so blue", "a sea", "b", "dog cat so", "it ran"];

    fn train(ranks: Arc<dyn Communicator>, accumulate: usize) -> cloze_train::Result<Vec<f64>> {
        let tokenizer = Tokenizer::train(FIRST.iter().chain(&SECOND), 60, &TrainOptions::new()).unwrap();
        let config = BertConfig {
            hidden_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 32,
            ..BertConfig::tiny(tokenizer.vocab_size())
        };
        let (data, _) = LabelledData::of_sentences(&FIRST, &SECOND, vec![(); 8], &tokenizer, 16).unwrap();
        let mut model = SentenceEncoder::new(&config, &device(), 1).unwrap();
        let trainer = Trainer::new(&mut model).optimizer(AdamW::new(1e-3).eps(1e-4)).progress(false);
        Ok(trainer.batch_size(2).accumulate(accumulate).epochs(3).communicator(ranks).run(&data)?.losses)
    }

    /// The other pairs of a batch are the negative examples, so batches must not be cut.
    #[test]
    fn losses_that_compare_examples_keep_their_batches() {
        let one = train(Arc::new(Alone), 4).unwrap();
        for losses in Threads::run(3, |ranks| train(ranks, 4).unwrap()) {
            assert!(losses.iter().zip(&one).all(|(a, b)| (a - b).abs() < 1e-5), "{losses:?} {one:?}");
        }
        let error = Threads::run(3, |ranks| train(ranks, 2).unwrap_err().to_string()).remove(0);
        assert!(error.starts_with("ranks: there are 3, but 2 batches in a step"), "{error}");
    }
}
