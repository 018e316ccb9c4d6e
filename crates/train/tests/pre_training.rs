//! The settings of pre-training on small corpora: masked words without next sentences, spans, a masking rate that falls,
//! and batches that grow.

mod common;

use std::path::Path;

use cloze_bert::{
    BertConfig, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, Mode, PreTrainedModel, Tokenizer,
    TrainOptions,
};
use cloze_tensor::Module;
use cloze_tensor::random::{Purpose, Stream};
use cloze_train::{
    AdamW, BatchRamp, Corpus, CorpusFiles, Every, LabelledData, LengthWarmup, Masking, MaskingRate, MaskingUnit,
    PreTraining, PreTrainingEvaluation, Sequence, ShardOptions, Shards, TokenizedCorpus, Trainer, TrainingReport,
    Unigram, VocabularyTable,
};

use common::device;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn tiny(vocab_size: usize) -> BertConfig {
    BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 24,
        ..BertConfig::tiny(vocab_size)
    }
}

/// Returns single segments of random words, and a configuration for them.
fn data() -> Result<(PreTraining, BertConfig)> {
    let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
    let mut sentence = || (0..6).map(|_| format!("w{}", stream.below(12))).collect::<Vec<_>>().join(" ");
    let documents: Vec<Vec<String>> = (0..4).map(|_| (0..20).map(|_| sentence()).collect()).collect();
    let tokenizer = Tokenizer::train(documents.concat(), 80, &TrainOptions::new())?;
    let data = PreTraining::new(&Corpus::from_documents(documents)?, &tokenizer)?;
    Ok((data.next_sentence(false).seq_len(24).seed(2), tiny(tokenizer.vocab_size())))
}

fn bits(model: &impl Module) -> Result<Vec<u32>> {
    let mut bits = Vec::new();
    for (_, tensor) in model.named_parameters() {
        bits.extend(tensor.to_vec::<f32>()?.into_iter().map(f32::to_bits));
    }
    Ok(bits)
}

/// Trains with every setting and a checkpoint every third step. The callback fails after step `fails_after`.
fn run_in(
    directory: &Path,
    (data, config): (&PreTraining, &BertConfig),
    rate: MaskingRate,
    fails_after: u32,
) -> Result<(BertForMaskedLM, cloze_train::Result<TrainingReport>)> {
    let mut model = BertForMaskedLM::new(config, &device(), 1)?;
    let masking = Masking::bert().unit(MaskingUnit::Span).rate(rate);
    let data = LengthWarmup::new(data.clone().masking(masking), 20, 20);
    let report = Trainer::new(&mut model)
        .optimizer(AdamW::new(3e-3).weight_decay(0.1))
        .batch_size(4)
        .accumulate(2)
        .batch_ramp(BatchRamp { from: 0.25, over: 0.6 })
        .steps(20)
        .progress(false)
        .directory(directory)
        .checkpoint(Every::Steps(3), 2)
        .resume(true)
        .run_with(&data, |_, step| match step.step == fails_after {
            true => Err(cloze_train::Error::data("test", "killed")),
            false => Ok(()),
        });
    Ok((model, report))
}

#[test]
fn a_resumed_run_has_the_bits_of_one_never_stopped() -> Result {
    let (data, config) = data()?;
    let of = (&data, &config);
    let rate = MaskingRate::Linear { from: 0.3, to: 0.15, steps: 20 };
    let folder = tempfile::tempdir()?;
    let (whole, report) = run_in(&folder.path().join("whole"), of, rate, 0)?;
    let report = report?;
    // The first epoch has 40 places of short sequences and 28 of whole ones, the others 28.
    assert_eq!((report.losses.len(), report.epochs), (20, 3));
    for stops in [vec![1], vec![3, 4], vec![11], vec![12, 13, 19], vec![20]] {
        let directory = folder.path().join(format!("{stops:?}"));
        for &stop in &stops {
            let error = run_in(&directory, of, rate, stop)?.1.err().ok_or("not stopped")?.to_string();
            assert!(error.contains("killed"), "{error}");
        }
        let (resumed, found) = run_in(&directory, of, rate, 0)?;
        let found = found?;
        assert_eq!(bits(&resumed)?, bits(&whole)?, "stopped after {stops:?}");
        assert_eq!((found.losses, found.tokens), (report.losses.clone(), report.tokens));
    }
    // Another rate is another run.
    let other = run_in(&folder.path().join("whole"), of, MaskingRate::Constant(0.15), 0)?.1;
    let said = other.err().ok_or("resumed")?.to_string();
    assert!(said.contains("resume: data is "), "{said}");
    let (constant, _) = run_in(&folder.path().join("constant"), of, MaskingRate::Constant(0.15), 0)?;
    assert_ne!(bits(&constant)?, bits(&whole)?);
    Ok(())
}

/// The evaluation of a masked-language model is its loss over all targets, at the final rate.
#[test]
fn a_masked_language_model_is_evaluated() -> Result {
    let (data, config) = data()?;
    let data = data.masking(Masking::bert().rate(MaskingRate::Linear { from: 0.9, to: 0.15, steps: 1_000 }));
    let model = BertForMaskedLM::new(&config, &device(), 1)?;
    let examples = data.evaluation()?;
    let unigram = Unigram::fit(data.corpus().ids(), config.vocab_size)?;
    let found = PreTrainingEvaluation::run(&model, &data, &examples, &unigram, 7)?;
    let batch = data.evaluation_batches(&examples, examples.len())?.next().ok_or("no batch")??;
    let targets = batch.targets();
    let loss = model.loss(batch.batch(), &targets.rows, &targets.labels, Mode::Eval)?.item()?;
    assert!((found.mlm_loss - loss).abs() < 1e-5, "{} and {loss}", found.mlm_loss);
    assert_eq!((found.targets, found.nsp_loss, found.nsp_accuracy), (targets.rows.len(), None, None));
    let ordinary: usize = examples.iter().map(|example| example.token_count() - 2).sum();
    let rate = found.targets as f64 / ordinary as f64;
    assert!((rate - 0.15).abs() < 0.02, "{rate}");
    Ok(())
}

/// Sequences of four tokens, so that the tokens of a step tell the number of its examples.
fn fours(count: u32) -> Result<LabelledData<i64>> {
    let sequences = (0..count).map(|n| Sequence { ids: vec![n % 30, 1, 2, 3], token_types: vec![0; 4] }).collect();
    Ok(LabelledData::new(sequences, (0..count).map(|n| i64::from(n % 2)).collect())?.seed(5))
}

type Classifier<'m> = Trainer<'m, BertForSequenceClassification>;

/// For each step, the number of examples and whether an epoch ended.
type Sizes = Vec<(usize, bool)>;

/// Trains a classifier, and returns its weights and the sizes of the steps.
fn sizes(
    data: &LabelledData<i64>,
    set: impl for<'m> FnOnce(Classifier<'m>) -> Classifier<'m>,
) -> Result<(Vec<u32>, Sizes)> {
    let mut model = BertForSequenceClassification::new(&tiny(40), &device(), 1)?;
    let (mut sizes, mut before) = (Vec::new(), 0);
    set(Trainer::new(&mut model).progress(false)).run_with(data, |_, step| {
        sizes.push(((step.tokens - before) / 4, step.epoch_ends));
        before = step.tokens;
        Ok(())
    })?;
    Ok((bits(&model)?, sizes))
}

/// However long the ramp, a run over some epochs ends with the last example of the last of them.
#[test]
fn epochs_with_a_ramp_are_whole() -> Result {
    let data = fours(61)?;
    for (epochs, batch, accumulate, from, over) in
        [(1, 8, 1, 0.25, 0.5), (3, 8, 1, 0.25, 0.3), (4, 3, 2, 0.1, 1.0), (2, 16, 1, 0.5, 0.0), (2, 100, 1, 0.25, 1.0)]
    {
        let ramp = BatchRamp { from, over };
        let (weights, found) =
            sizes(&data, |trainer| trainer.batch_size(batch).accumulate(accumulate).batch_ramp(ramp).epochs(epochs))?;
        let steps = found.len() as u32;
        let mut left = 0;
        for (step, &(size, ends)) in (0..).zip(&found) {
            left = if left == 0 { 61 } else { left };
            assert_eq!(size, ramp.size(batch * accumulate, step, steps).min(left), "step {step} of {steps}");
            left -= size;
            assert_eq!(ends, left == 0);
        }
        assert_eq!(left, 0, "the last epoch is whole");
        assert_eq!(found.iter().map(|(size, _)| size).sum::<usize>(), 61 * epochs as usize);
        // A run of that many steps is the same run.
        let repeated =
            sizes(&data, |trainer| trainer.batch_size(batch).accumulate(accumulate).batch_ramp(ramp).steps(steps))?;
        assert_eq!(repeated, (weights, found));
    }
    Ok(())
}

/// A step of a ramp in several batches is the step in one batch, and so is one that is limited by tokens.
#[test]
fn ramps_by_batches_and_by_tokens_are_the_same() -> Result {
    let data = fours(61)?;
    let ramp = BatchRamp { from: 0.25, over: 0.5 };
    let of_steps = |set: fn(Classifier<'_>) -> Classifier<'_>| -> Result<Sizes> {
        Ok(sizes(&data, |trainer| set(trainer.batch_ramp(ramp).steps(20)))?.1)
    };
    let whole = of_steps(|trainer| trainer.batch_size(8))?;
    assert_eq!(whole[..7].iter().map(|(size, _)| *size).collect::<Vec<_>>(), [2, 3, 3, 4, 4, 5, 6]);
    assert_eq!(of_steps(|trainer| trainer.batch_size(2).accumulate(4))?, whole);
    let tokens = of_steps(|trainer| trainer.batch_tokens(32))?;
    assert_eq!(tokens[..7].iter().map(|(size, _)| *size).collect::<Vec<_>>(), [2, 2, 3, 3, 4, 5, 5]);
    Ok(())
}

/// The same documents in shards give the same examples in the same order, so a run can begin on text and end on shards.
#[test]
fn training_on_shards_has_the_bits_of_training_on_text() -> Result {
    let folder = tempfile::tempdir()?;
    let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
    let mut sentence = || (0..6).map(|_| format!("w{}", stream.below(12))).collect::<Vec<_>>().join(" ");
    let documents: Vec<Vec<String>> = (0..24).map(|number| (0..2 + number % 7).map(|_| sentence()).collect()).collect();
    let tokenizer = Tokenizer::train(documents.concat(), 80, &TrainOptions::new())?;
    let text = folder.path().join("corpus.txt");
    std::fs::write(&text, documents.iter().map(|document| document.join("\n") + "\n\n").collect::<String>())?;
    let options = ShardOptions::new().shard_tokens(100);
    CorpusFiles::at([&text])?.progress(false).prepare(&tokenizer, folder.path().join("shards"), &options)?;
    let shards = Shards::open(folder.path().join("shards"))?;
    assert!(shards.shard_count() > 5);

    let (vocabulary, config) = (VocabularyTable::new(&tokenizer)?, tiny(tokenizer.vocab_size()));
    let on_text =
        PreTraining::from_tokenized(TokenizedCorpus::new(&Corpus::open(&text)?, &tokenizer)?, vocabulary.clone());
    let on_shards = PreTraining::from_tokenized(shards.corpus()?, vocabulary);
    // A corpus in one block, and in blocks that lie across shards.
    for buffer in [1 << 20, 320] {
        let set = |data: &PreTraining| data.clone().seq_len(24).seed(2).shuffle_buffer(buffer);
        // Each part but the last one fails after its checkpoint, and the next one resumes it.
        let run = |parts: &[&PreTraining], directory: &str| -> Result<Vec<u32>> {
            let mut model = BertForPreTraining::new(&config, &device(), 1)?;
            for (number, data) in parts.iter().enumerate() {
                model = BertForPreTraining::new(&config, &device(), 1)?;
                let trainer = Trainer::new(&mut model).optimizer(AdamW::new(3e-3)).batch_size(4).steps(8);
                let directory = folder.path().join(directory);
                let trainer = trainer.progress(false).directory(directory).checkpoint(Every::Steps(4), 1).resume(true);
                let ends = number + 1 == parts.len();
                let report = trainer.run_with(&set(data), |_, step| match ends || step.step < 6 {
                    true => Ok(()),
                    false => Err(cloze_train::Error::data("test", "killed")),
                });
                assert_eq!(report.is_ok(), ends, "{report:?}");
            }
            bits(&model)
        };
        let expected = run(&[&on_text], &format!("text-{buffer}"))?;
        assert!(run(&[&on_shards], &format!("shards-{buffer}"))? == expected);
        assert!(run(&[&on_text, &on_shards], &format!("both-{buffer}"))? == expected);
    }
    Ok(())
}
