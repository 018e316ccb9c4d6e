//! What a tokenizer does to text before it looks words up, and how one is trained.

/// A word of more characters than this is unknown, as in every BERT.
pub(super) const MAX_CHARS: usize = 100;

/// What a tokenizer does to text before it looks words up.
///
/// The default is an uncased BERT's: lower case, no accents, blanks around Chinese characters, at most 512
/// tokens.
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
    /// An uncased BERT's.
    pub fn uncased() -> TokenizerOptions {
        TokenizerOptions::default()
    }

    /// A cased BERT's: case and accents stay.
    pub fn cased() -> TokenizerOptions {
        TokenizerOptions::default().lowercase(false)
    }

    /// Whether to lower the case. Unless [`strip_accents`](TokenizerOptions::strip_accents) says otherwise,
    /// accents go with it.
    pub fn lowercase(self, lowercase: bool) -> TokenizerOptions {
        TokenizerOptions { lowercase, ..self }
    }

    /// Whether to remove accents. In Portuguese they carry meaning: *avó* and *avô*.
    pub fn strip_accents(self, strip: bool) -> TokenizerOptions {
        TokenizerOptions { strip_accents: Some(strip), ..self }
    }

    /// Whether each Chinese character is a word.
    pub fn chinese_chars(self, split: bool) -> TokenizerOptions {
        TokenizerOptions { chinese_chars: split, ..self }
    }

    /// The most tokens of an encoding, special tokens included.
    pub fn max_length(self, tokens: usize) -> TokenizerOptions {
        TokenizerOptions { max_length: tokens, ..self }
    }
}

/// How a vocabulary is made from a corpus.
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
    /// For an uncased tokenizer.
    pub fn new() -> TrainOptions {
        TrainOptions::default()
    }

    /// What the tokenizer does to text.
    pub fn tokenizer(self, options: TokenizerOptions) -> TrainOptions {
        TrainOptions { tokenizer: options, ..self }
    }

    /// How often two neighbouring pieces must occur to become one. By default 2, or 1 for a corpus of fewer
    /// than 10,000 words.
    pub fn min_frequency(self, occurrences: u64) -> TrainOptions {
        TrainOptions { min_frequency: Some(occurrences), ..self }
    }

    /// Keeps only so many characters, the most frequent; words with others are unknown. 1000 by default.
    pub fn alphabet_limit(self, characters: usize) -> TrainOptions {
        TrainOptions { alphabet_limit: characters, ..self }
    }
}

impl From<TokenizerOptions> for TrainOptions {
    fn from(options: TokenizerOptions) -> TrainOptions {
        TrainOptions::new().tokenizer(options)
    }
}
