//! From the command line to everything that training needs: tokenizer, model, and data to train and evaluate on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cloze::prelude::*;
use cloze::tensor::random::Stream;
use cloze::train::{Budget, CorpusFiles, PairExample, Shards, TokenizedCorpus, VocabularyTable};
use cloze_examples::{Result, built_in};

use crate::arguments::Arguments;
use crate::held_out::HeldOutText;

/// Fraction of the documents that is held out, or of the pairs with `--pairs`.
const HELD_OUT_DOCUMENTS: f64 = 0.05;
const HELD_OUT_PAIRS: f64 = 0.1;

/// Everything that training needs.
pub struct Setup<M> {
    pub tokenizer: Tokenizer,
    pub model: M,
    pub training: PreTraining,
    pub held_out: HeldOutText,
    pub budget: Budget,
}

impl<M: PreTrainedModel> Setup<M> {
    /// Reads and tokenizes the corpus, draws the data, and creates or opens the model. Prints sizes and times.
    pub fn new(arguments: &Arguments) -> Result<Setup<M>> {
        let start = Instant::now();
        let source = Source::open(arguments)?;
        let read = start.elapsed();
        let tokenizer = source.tokenizer(arguments)?;
        let trained = start.elapsed();
        let model: M = model(arguments, &tokenizer)?;
        let corpus = source.tokenized(&tokenizer)?;
        trim_cache(arguments)?;
        let [documents, sentences, tokens] = [corpus.document_count(), corpus.sentence_count(), corpus.token_count()];
        check_length(arguments, model.config())?;
        let (training, held_out) = data(arguments, corpus, &tokenizer)?;
        println!(
            "{documents} documents, {sentences} sentences, {tokens} tokens\nread in {read:.1?}, vocabulary of {} in \
             {:.1?}, tokenized and sampled in {:.1?}",
            tokenizer.vocab_size(),
            trained - read,
            start.elapsed() - trained,
        );
        Ok(Setup { tokenizer, model, training, held_out, budget: budget(arguments)? })
    }
}

/// The corpus before it is tokenized, or shards of one that is.
enum Source {
    Text(Corpus),
    /// Text that goes through the cache in this folder, and is never in memory as a whole.
    Files(CorpusFiles, PathBuf),
    Shards(Box<Shards>),
}

impl Source {
    fn open(arguments: &Arguments) -> Result<Source> {
        let Some(path) = &arguments.corpus else { return Ok(Source::Text(built_in::mini_corpus()?)) };
        match &arguments.cache {
            None if Shards::is_at(path) => {
                if let Some(name) = arguments.vocabulary.of_a_new_one() {
                    let why = "the shards have their own tokenizer: leave it out, or prepare the corpus again with it";
                    return Err(format!("{}: {name} cannot be chosen: {why}", path.display()).into());
                }
                Ok(Source::Shards(Box::new(Shards::open(path)?)))
            }
            None => Ok(Source::Text(Corpus::open(path)?)),
            Some(cache) => Ok(Source::Files(CorpusFiles::at([path])?, cache.clone())),
        }
    }

    /// Opens the tokenizer that is asked for, or that of the shards, or trains a vocabulary.
    fn tokenizer(&self, arguments: &Arguments) -> Result<Tokenizer> {
        let given = match &arguments.model {
            Some(place) => Some(Tokenizer::open(place)?),
            None => arguments.vocabulary.open()?,
        };
        let (size, options) = (arguments.vocabulary.size(), TrainOptions::from(arguments.vocabulary.options()));
        Ok(match (self, given) {
            (Source::Shards(shards), Some(tokenizer)) => {
                shards.check_tokenizer(&tokenizer)?;
                tokenizer
            }
            (_, Some(tokenizer)) => tokenizer,
            (Source::Text(text), None) => Tokenizer::train(text.sentences(), size, &options)?,
            (Source::Files(files, _), None) => files.train_tokenizer(size, &options)?,
            (Source::Shards(shards), None) => shards.tokenizer()?,
        })
    }

    fn tokenized(self, tokenizer: &Tokenizer) -> Result<TokenizedCorpus> {
        Ok(match self {
            Source::Text(text) => TokenizedCorpus::new(&text, tokenizer)?,
            Source::Files(files, cache) => files.tokenize(tokenizer, cache)?,
            Source::Shards(shards) => shards.corpus()?,
        })
    }
}

/// Applies `--cache-limit`.
fn trim_cache(arguments: &Arguments) -> Result {
    let (Some(cache), Some(limit)) = (&arguments.cache, arguments.cache_limit) else { return Ok(()) };
    if limit.is_nan() || limit < 0.0 {
        return Err(format!("--cache-limit is {limit}: must be 0 or more").into());
    }
    let trim = cloze::train::trim_cache(cache, (limit * 1e9) as u64)?;
    let (kept, megabytes, removed) = (trim.kept, trim.kept_bytes as f64 / 1e6, trim.removed);
    println!("{}: {kept} corpora of {megabytes:.1} MB kept, {removed} removed", cache.display());
    Ok(())
}

/// Opens the model of `--model`, or creates a new one.
fn model<M: PreTrainedModel>(arguments: &Arguments, tokenizer: &Tokenizer) -> Result<M> {
    let (device, seed) = (arguments.device.open()?, arguments.seed);
    if let Some(place) = &arguments.model {
        let options = OpenOptions::new().seed(seed).dropout(arguments.dropout);
        let (model, report) = M::open_reported(place, device, &options)?;
        println!("{}: {report}", arguments.name());
        tokenizer.check_vocab_size(model.config())?;
        return Ok(model);
    }
    Ok(M::new(&config(arguments, tokenizer.vocab_size())?, device, seed)?)
}

/// Returns the configuration of a new model.
fn config(arguments: &Arguments, vocab_size: usize) -> Result<BertConfig> {
    let is_file = arguments.config.ends_with(".json");
    let mut config = match is_file {
        true => BertConfig { vocab_size, ..BertConfig::open(&arguments.config)? },
        false => BertConfig::by_name(&arguments.config, vocab_size)?,
    };
    config.num_hidden_layers = arguments.layers.unwrap_or(config.num_hidden_layers);
    if let Some(hidden) = arguments.hidden {
        config.hidden_size = hidden;
        config.intermediate_size = 4 * hidden;
        config.num_attention_heads = (hidden / 64).max(1);
    }
    config.num_attention_heads = arguments.heads.unwrap_or(config.num_attention_heads);
    let usual = if arguments.pairs().is_some() { 0.1 } else { 0.0 };
    if let Some(dropout) = arguments.dropout.or((!is_file).then_some(usual)) {
        config.hidden_dropout_prob = dropout;
        config.attention_probs_dropout_prob = dropout;
    }
    Ok(config)
}

fn check_length(arguments: &Arguments, config: &BertConfig) -> Result {
    let (seq_len, limit) = (arguments.seq_len, config.max_position_embeddings);
    if seq_len > limit {
        return Err(
            format!("--seq-len is {seq_len}: max_position_embeddings of {} is {limit}", arguments.name()).into()
        );
    }
    Ok(())
}

/// Returns the data to train on, and the data that is held out.
fn data(arguments: &Arguments, corpus: TokenizedCorpus, tokenizer: &Tokenizer) -> Result<(PreTraining, HeldOutText)> {
    let (seq_len, seed) = (arguments.seq_len, arguments.seed);
    let vocabulary = VocabularyTable::new(tokenizer)?;
    let sampled = |corpus, sampler: PairSampler| {
        PreTraining::from_tokenized(corpus, vocabulary.clone()).pairs(sampler.seq_len(seq_len)).seed(seed)
    };
    let (training, held_out, examples) = match arguments.pairs() {
        Some(pairs) => split_pairs(sampled(corpus, PairSampler::course(pairs)))?,
        None => {
            let sampler = PairSampler::bert().next_sentence(!arguments.no_nsp);
            let (training, held_out) = match &arguments.held_out {
                Some(path) => (corpus, open_held_out(path, tokenizer, !arguments.no_nsp)?),
                None => split_documents(arguments, corpus)?,
            };
            let held_out = sampled(held_out, sampler.clone());
            let mut examples = held_out.evaluation()?;
            Stream::seeded(seed).shuffle(&mut examples);
            (sampled(training, sampler), held_out, examples)
        }
    };
    let unigram = Unigram::fit(training.corpus().ids(), tokenizer.vocab_size())?;
    Ok((training, HeldOutText::new(held_out, examples, unigram)))
}

/// Draws all pairs once, and holds out the last of them.
fn split_pairs(data: PreTraining) -> Result<(PreTraining, PreTraining, Vec<PairExample>)> {
    let mut drawn = data.epoch(0)?;
    let trained = drawn.len() - (drawn.len() as f64 * HELD_OUT_PAIRS) as usize;
    let held_out = drawn.split_off(trained);
    Ok((data.clone().examples(drawn), data, held_out))
}

/// Reads the text of `--held-out`.
fn open_held_out(path: &Path, tokenizer: &Tokenizer, next_sentence: bool) -> Result<TokenizedCorpus> {
    let corpus = TokenizedCorpus::new(&Corpus::open(path)?, tokenizer)?;
    if next_sentence && corpus.document_count() < 2 {
        let why = "has one document: a random next sentence comes from another, so it needs a second";
        return Err(format!("{}: --held-out {why}", path.display()).into());
    }
    Ok(corpus)
}

fn split_documents(arguments: &Arguments, corpus: TokenizedCorpus) -> Result<(TokenizedCorpus, TokenizedCorpus)> {
    let documents = corpus.document_count();
    // Of each part.
    let least = if arguments.no_nsp { 1 } else { 2 };
    if documents < 2 * least {
        let why = match arguments.no_nsp {
            true => "at least 2 are needed, one to train on and one to hold out: separate documents by blank lines",
            false => {
                "at least 4 are needed, 2 to train on and 2 to hold out, so that a random next sentence can come from \
                 another document; --pairs N holds out pairs instead"
            }
        };
        return Err(format!("the corpus has {documents} document(s): {why}").into());
    }
    Ok(corpus.split(HELD_OUT_DOCUMENTS.max(least as f64 / documents as f64), arguments.seed)?)
}

fn budget(arguments: &Arguments) -> Result<Budget> {
    Ok(match (arguments.steps, arguments.minutes) {
        (Some(steps), _) => Budget::Steps(steps),
        (_, Some(minutes)) => Budget::Time(
            Duration::try_from_secs_f64(minutes * 60.0)
                .map_err(|_| format!("--minutes is {minutes}: must be 0 or more, and finite"))?,
        ),
        _ => {
            let is_small = arguments.pairs().is_some() || arguments.corpus.is_none();
            Budget::Epochs(arguments.epochs.unwrap_or(if is_small { 60 } else { 1 }))
        }
    })
}
