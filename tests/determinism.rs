//! The same seed gives the same bits for any number of threads.

use cloze::prelude::*;
use cloze::tensor::Dropout;
use cloze_examples::built_in::random_corpus;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Trains a tokenizer and a model from scratch, in a pool of this many threads or in the global pool, and returns the
/// bits of all parameters.
fn weights_after(steps: u32, threads: Option<usize>, seed: u64) -> Result<Vec<u32>> {
    let train = || {
        let corpus = random_corpus()?;
        let tokenizer = Tokenizer::train(corpus.sentences(), 1000, &TrainOptions::new())?;
        let mut model = BertForPreTraining::new(&BertConfig::tiny(tokenizer.vocab_size()), &Device::Cpu, seed)?;
        let data = PreTraining::new(&corpus, &tokenizer)?.seq_len(64).seed(seed);
        let trainer = Trainer::new(&mut model).optimizer(AdamW::new(1e-3)).batch_size(16).steps(steps).seed(seed);
        trainer.progress(false).run(&data)?;
        let mut bits = Vec::new();
        for (_, parameter) in model.named_parameters() {
            bits.extend(parameter.to_vec::<f32>()?.into_iter().map(f32::to_bits));
        }
        Ok(bits)
    };
    match threads {
        Some(threads) => rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(train),
        None => train(),
    }
}

#[test]
fn weights_do_not_depend_on_the_number_of_threads() -> Result {
    // Two epochs and more, so that the order of the next one counts too.
    const STEPS: u32 = 15;
    let one = weights_after(STEPS, Some(1), 3)?;
    assert_eq!(one, weights_after(STEPS, Some(2), 3)?, "1 and 2 threads");
    assert_eq!(one, weights_after(STEPS, Some(5), 3)?, "1 and 5 threads");
    assert_eq!(one, weights_after(STEPS, None, 3)?, "1 thread and the global pool");
    assert_ne!(weights_after(1, None, 3)?, weights_after(1, None, 4)?, "seeds 3 and 4");
    Ok(())
}

/// The hidden states of a sequence, including dropout, do not depend on the other sequences in the batch.
#[test]
fn sequences_do_not_see_their_batch() -> Result {
    let model = BertForPreTraining::new(&BertConfig::tiny(40), &Device::Cpu, 1)?;
    let lengths = [5, 1, 9];
    let ids: Vec<u32> = (0..15).map(|i| i * 7 % 40).collect();
    let sequences = cloze::tensor::Sequences::numbered(&lengths, &[4, 0, 7])?;
    let batch = Batch::packed(ids.clone(), vec![0; 15], sequences)?;
    let alone = Batch::packed(ids[6..].to_vec(), vec![0; 9], cloze::tensor::Sequences::numbered(&[9], &[7])?)?;
    for mode in [Mode::Eval, Mode::Train { seed: 2, step: 3 }] {
        let together = model.bert.forward(&batch, mode)?.narrow(0, 6, 9)?.to_vec::<f32>()?;
        let alone = model.bert.forward(&alone, mode)?.to_vec::<f32>()?;
        for (a, b) in together.iter().zip(&alone) {
            assert!((a - b).abs() < 1e-5, "{a} against {b} in {mode:?}");
        }
    }
    let dropped = model.bert.forward(&batch, Mode::Train { seed: 2, step: 3 })?.to_vec::<f32>()?;
    assert_ne!(dropped, model.bert.forward(&batch, Mode::Eval)?.to_vec::<f32>()?);
    assert!(Dropout::new(0.1, 0, 0, 0)?.scale() > 1.0);
    Ok(())
}
