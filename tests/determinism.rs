//! The same seed gives the same bits: for any number of threads, and from one run to the next.

use cloze::prelude::*;
use cloze::tensor::Dropout;
use cloze::tensor::random::{Purpose, Stream};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Documents of made-up words, long enough for batches that several threads share.
fn corpus() -> Result<Corpus> {
    let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
    let mut sentence = || (0..12).map(|_| format!("w{}", stream.below(300))).collect::<Vec<_>>().join(" ");
    Ok(Corpus::from_documents((0..6).map(|_| (0..60).map(|_| sentence()).collect()).collect())?)
}

/// Trains from scratch, tokenizer included, in a pool of so many threads, or in none as users do; gives every parameter's bits.
fn weights_after(steps: u32, threads: Option<usize>, seed: u64) -> Result<Vec<u32>> {
    let train = || {
        let corpus = corpus()?;
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
    let one = weights_after(50, Some(1), 3)?;
    assert_eq!(one, weights_after(50, Some(2), 3)?, "1 and 2 threads");
    assert_eq!(one, weights_after(50, Some(5), 3)?, "1 and 5 threads");
    assert_eq!(one, weights_after(50, None, 3)?, "1 thread, and all without a pool");
    assert_ne!(one, weights_after(50, Some(1), 4)?, "another seed");
    Ok(())
}

/// A sequence's hidden states, dropout included, do not depend on what else is in the batch.
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
