//! Options of a tokenizer and of its training.

/// The maximum number of characters of a word; longer words are unknown. The same as in every published BERT.
pub(super) const MAX_CHARS: usize = 100;

/// Options for the normalization of text.
///
/// The default is an uncased BERT: lower case, accents removed, Chinese characters split, at most 512 tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenizerOptions {
    pub(super) lowercase: bool,
    pub(super) strip_accents: Option<bool>,
    pub(super) chinese_chars: bool,
    pub(super) max_length: usize,
}

impl Default for TokenizerOptions {
    fn default() -> TokenizerOptions {
        TokenizerOptions { lowercase: true, strip_accents: None, chinese_chars: true, max_length: 512 }
    }
}

impl TokenizerOptions {
    /// Returns the options of an uncased BERT.
    pub fn uncased() -> TokenizerOptions {
        TokenizerOptions::default()
    }

    /// Returns the options of a cased BERT, which keeps case and accents.
    pub fn cased() -> TokenizerOptions {
        TokenizerOptions::default().lowercase(false)
    }

    /// Sets whether text is converted to lower case. This also removes accents, unless
    /// [`strip_accents`](TokenizerOptions::strip_accents) is set.
    pub fn lowercase(self, lowercase: bool) -> TokenizerOptions {
        TokenizerOptions { lowercase, ..self }
    }

    /// Sets whether accents are removed. In Portuguese, for example, they carry meaning: *avó* and *avô*.
    pub fn strip_accents(self, strip: bool) -> TokenizerOptions {
        TokenizerOptions { strip_accents: Some(strip), ..self }
    }

    /// Sets whether each Chinese character is a word.
    pub fn chinese_chars(self, split: bool) -> TokenizerOptions {
        TokenizerOptions { chinese_chars: split, ..self }
    }

    /// Sets the maximum number of tokens of an encoding, special tokens included.
    pub fn max_length(self, tokens: usize) -> TokenizerOptions {
        TokenizerOptions { max_length: tokens, ..self }
    }
}

/// Options for training a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainOptions {
    pub(super) tokenizer: TokenizerOptions,
    pub(super) min_frequency: Option<u64>,
    pub(super) alphabet_limit: usize,
}

impl Default for TrainOptions {
    fn default() -> TrainOptions {
        TrainOptions { tokenizer: TokenizerOptions::default(), min_frequency: None, alphabet_limit: 1000 }
    }
}

impl TrainOptions {
    /// Creates options for an uncased tokenizer.
    pub fn new() -> TrainOptions {
        TrainOptions::default()
    }

    /// Sets the options of the tokenizer.
    pub fn tokenizer(self, options: TokenizerOptions) -> TrainOptions {
        TrainOptions { tokenizer: options, ..self }
    }

    /// Sets how often a pair of pieces must occur to be merged: by default 2, or 1 for a corpus of fewer than 10,000
    /// words.
    pub fn min_frequency(self, occurrences: u64) -> TrainOptions {
        TrainOptions { min_frequency: Some(occurrences), ..self }
    }

    /// Sets the number of characters in the vocabulary, 1000 by default. The most frequent are kept; words with others
    /// are unknown.
    pub fn alphabet_limit(self, characters: usize) -> TrainOptions {
        TrainOptions { alphabet_limit: characters, ..self }
    }
}

impl From<TokenizerOptions> for TrainOptions {
    fn from(options: TokenizerOptions) -> TrainOptions {
        TrainOptions::new().tokenizer(options)
    }
}
