//! Texts through WordPiece: offsets within the text and in order, the fast path gives the same ids, decoding encodes to the
//! same again, and truncation keeps a prefix and counts what it cuts.
#![no_main]

use std::sync::LazyLock;

use cloze_bert::{EncodeOptions, Tokenizer, TokenizerOptions, TrainOptions, Truncation};
use cloze_fuzz::{checked, limited};
use libfuzzer_sys::fuzz_target;

const LINES: [&str; 4] =
    ["the cat sat on the mat; the dog ran, and ran!", "new york is a city", "ação é útil à noite", "中文 σς ﬁ ß I İ ı"];

const ADDED: [&str; 3] = ["new york", "[E]", "ção"];

static TOKENIZERS: LazyLock<[Tokenizer; 4]> = LazyLock::new(|| {
    let train = |options| Tokenizer::train(LINES, 200, &TrainOptions::from(options)).unwrap();
    let uncased = train(TokenizerOptions::uncased());
    let added = uncased.add_tokens(ADDED).unwrap();
    let accents = TokenizerOptions::uncased().strip_accents(false).chinese_chars(false);
    [uncased, train(TokenizerOptions::cased()), added, train(accents)]
});

fuzz_target!(|data: &[u8]| {
    let [kind, cut, rest @ ..] = data else { return };
    let Ok(text) = str::from_utf8(rest) else { return };
    let tokenizer = &TOKENIZERS[usize::from(kind % 4)];
    limited(data.len(), || match kind / 4 % 3 {
        0 => whole(tokenizer, text),
        1 => truncated(tokenizer, text, usize::from(*cut)),
        // Long enough that only its start is encoded in full.
        _ => truncated(tokenizer, &long(text), usize::from(*cut)),
    });
});

/// From this length on, in bytes, the start of a text is encoded on its own. The library has a smaller one under fuzzing.
const LONG: usize = 1 << 6;

fn long(text: &str) -> String {
    text.repeat(LONG / text.len().max(1) + 2)
}

fn whole(tokenizer: &Tokenizer, text: &str) {
    let encoding = checked(tokenizer.encode_with(text, None, &EncodeOptions::new().max_length(usize::MAX))).unwrap();
    let (length, mut end) = (text.chars().count(), 0);
    for (at, &(from, to)) in encoding.offsets.iter().enumerate().filter(|(at, _)| !encoding.special_tokens_mask[*at]) {
        assert!(from <= to && to <= length, "{:?} at {from}..{to} of {length}", encoding.tokens[at]);
        assert!(end <= from || at == 0 || from >= encoding.offsets[at - 1].0, "offsets go back at token {at}");
        end = to;
    }
    let inner = &encoding.ids[1..encoding.ids.len() - 1];
    assert_eq!(tokenizer.ids(text).unwrap(), inner, "the fast path differs");
    let words: Vec<u32> = encoding.word_ids.iter().flatten().copied().collect();
    assert!(words.is_sorted() && encoding.sequence_ids.iter().flatten().all(|&sequence| sequence == 0));
    for (&id, token) in encoding.ids.iter().zip(&encoding.tokens) {
        // An added token is shown as the text has it: `[e]` for `[E]`.
        let stored = tokenizer.token(id).unwrap();
        assert!(ADDED.contains(&stored) || stored == token);
    }
    let decoded = tokenizer.decode(&encoding.ids, true).unwrap();
    // What was decoded is normalized, so decoding and encoding once more changes nothing.
    let again = tokenizer.decode(&tokenizer.ids(&decoded).unwrap(), true).unwrap();
    let third = tokenizer.decode(&tokenizer.ids(&again).unwrap(), true).unwrap();
    assert_eq!(again, third, "decoding is not stable");
}

fn truncated(tokenizer: &Tokenizer, text: &str, most: usize) {
    let options = EncodeOptions::new().max_length(most).truncation(Truncation::LongestFirst);
    let Some(cut) = checked(tokenizer.encode_with(text, None, &options)) else {
        assert!(most < 2);
        return;
    };
    let ids = tokenizer.ids(text).unwrap();
    let kept = ids.len().min(most - 2);
    assert_eq!((cut.len(), cut.truncated), (kept + 2, ids.len() - kept));
    assert_eq!(cut.ids[1..=kept], ids[..kept]);
    let whole = tokenizer.encode_with(text, None, &EncodeOptions::new().max_length(usize::MAX)).unwrap();
    assert_eq!(cut.offsets[1..=kept], whole.offsets[1..=kept]);
    if most < 3 {
        return;
    }
    // Windows cover all tokens, each with one of the previous.
    let windows = options.stride(usize::from(most > 3));
    let Some(first) = checked(tokenizer.encode_with(text, None, &windows)) else { return };
    let stride = usize::from(most > 3);
    let mut all = first.ids[1..first.len() - 1].to_vec();
    for window in &first.overflowing {
        assert!(window.len() <= most);
        all.extend(&window.ids[1 + stride..window.len() - 1]);
    }
    assert_eq!(all, ids, "windows lose tokens");
    let half = EncodeOptions::new().max_length(most).truncation(Truncation::LongestFirst);
    if let Some(pair) = checked(tokenizer.encode_with(text, Some(text), &half)) {
        assert!(pair.len() <= most && pair.sequence_ids.iter().flatten().all(|&sequence| sequence < 2));
    }
}
