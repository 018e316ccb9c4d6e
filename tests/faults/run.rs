//! A run of the library that writes everything it can: a cached corpus, checkpoints of steps with accumulated gradients, the
//! best parameters, an average of the parameters, a log, a report, and the model in several files.

use std::path::Path;

use cloze::prelude::*;
use cloze::train::{CorpusFiles, VocabularyTable};
use cloze_examples::Result;

/// The variable with the folder, in the process that runs there.
pub const FOLDER: &str = "CLOZE_FAULTS_RUN";
pub const STEPS: u32 = 9;

/// The folder has `input/corpus.txt` and `input/model`, and receives `cache` and `out`.
pub fn run(folder: &Path) -> Result {
    let (input, out) = (folder.join("input"), folder.join("out"));
    let tokenizer = Tokenizer::open(input.join("model"))?;
    let corpus = CorpusFiles::at([input.join("corpus.txt")])?.tokenize(&tokenizer, folder.join("cache"))?;
    let unigram = Unigram::fit(corpus.ids(), tokenizer.vocab_size())?;
    let data = |corpus| -> Result<PreTraining> {
        let sampler = PairSampler::bert().seq_len(16);
        Ok(PreTraining::from_tokenized(corpus, VocabularyTable::new(&tokenizer)?).pairs(sampler).seed(3))
    };
    let (training, held_out) = corpus.split(0.4, 3)?;
    let (training, held_out) = (data(training)?, data(held_out)?);
    let examples = held_out.evaluation()?;
    let mut model = BertForPreTraining::open(input.join("model"), &Device::Cpu)?;
    Trainer::new(&mut model)
        .optimizer(AdamW::new(0.03))
        .batch_size(2)
        .accumulate(2)
        .average(0.5)
        .steps(STEPS)
        .evaluate(Every::Steps(1), |model| {
            let found = PreTrainingEvaluation::run(model, &held_out, &examples, &unigram, 8)?;
            Ok(Evaluation::minimize("loss", found.mlm_loss))
        })
        .keep_best()
        .directory(&out)
        .checkpoint(Every::Steps(2), 2)
        .resume(true)
        .run(&training)?;
    model.save_with(out.join("model"), &SaveOptions::new().max_shard_bytes(4096))?;
    tokenizer.save(out.join("model"))?;
    Ok(())
}
