"""Writes the encodings of strings by the fast tokenizer of transformers.

The folder `tokenizer` contains

    vocab.txt      a vocabulary trained on the sentences of `strings.py`, used by all variants
    strings.json   the texts: a string, or a phrase and its number of repetitions
    <variant>.json for each text `[ids, offsets]`, including special tokens; offsets are start, end, start, end, ...;
                   for a repeated phrase, those of a single copy without special tokens: the n-th copy has the same ids,
                   and its offsets are shifted by n times the length of the phrase (checked here)
    pairs.json     one or two texts with every truncation strategy: see `truncations`

`bert-base-uncased.json` uses the vocabulary of that model, which is not in the repository. It is written if the folder
of the environment variable CLOZE_DATA contains vocab/bert-base-uncased-vocab.txt.
"""

import json
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import AutoTokenizer

from strings import LONG, PAIRS, SENTENCES, STRINGS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCAB_SIZE = 800

# Fields of tokenizer_config.json.
VARIANTS = {
    "uncased": dict(do_lower_case=True),
    "cased": dict(do_lower_case=False),
    "accented": dict(do_lower_case=True, strip_accents=False, tokenize_chinese_chars=False),
}


def train():
    """Trains a WordPiece vocabulary: starts with characters and repeatedly merges the most frequent pair of pieces.

    Ties are broken by the order of code points. (The trainer of the `tokenizers` package breaks them at random.)
    """
    words = Counter()
    for lowercase in (True, False):
        normalizer = BertNormalizer(lowercase=lowercase)
        for sentence in SENTENCES:
            for word, _ in BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(sentence)):
                words[word] += 1
    spelled = {word: [word[0], *("##" + character for character in word[1:])] for word in words}
    vocabulary = SPECIAL + sorted({piece for pieces in spelled.values() for piece in pieces})
    while len(vocabulary) < VOCAB_SIZE:
        pairs = Counter()
        for word, pieces in spelled.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] += words[word]
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = left + right.removeprefix("##")
        vocabulary.append(merged)
        for pieces in spelled.values():
            for at in reversed(range(len(pieces) - 1)):
                if pieces[at : at + 2] == [left, right]:
                    pieces[at : at + 2] = [merged]
    return vocabulary


def open_tokenizer(vocab, config):
    """Opens the tokenizer of a folder with this `vocab.txt` as a user of transformers would."""
    with TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text(vocab, encoding="utf-8")
        Path(folder, "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="BertTokenizer", **config)))
        return AutoTokenizer.from_pretrained(folder)


def encode(tokenizer, text, **options):
    encoding = tokenizer(text, return_offsets_mapping=True, verbose=False, **options)
    return encoding["input_ids"], encoding["offset_mapping"]


def encode_phrase(tokenizer, phrase, times):
    """Returns ids and offsets of a phrase, after checking that its repetition is encoded as copies of them."""
    ids, offsets = encode(tokenizer, phrase, add_special_tokens=False)
    all_ids, all_offsets = encode(tokenizer, phrase * times, add_special_tokens=False)
    assert all_ids == ids * times
    length = len(phrase)
    assert all_offsets == [(length * n + a, length * n + b) for n in range(times) for a, b in offsets]
    return ids, offsets


def flat(offsets):
    return [position for pair in offsets for position in pair]


def truncations(tokenizer):
    """Truncates every pair with every strategy and several widths, with and without a stride.

    `windows` contains the encoding and its overflow, each as ids, token types and offsets. It is null if transformers
    fails because nothing would be left of the text to truncate. If the overflow is useless, only the first window is
    stored and `first_only` is true: when both texts are truncated, transformers combines all of their windows, and when
    there is no room at all, it returns the rest in one window.
    """
    cases = []
    for first, second in PAIRS:
        lengths = [len(tokenizer.tokenize(text)) for text in (first, second) if text is not None]
        special, total = 1 + len(lengths), sum(lengths)
        for which, strategy in enumerate(["only_first", "only_second", "longest_first"]):
            if strategy == "only_second" and second is None:
                continue
            both = strategy == "longest_first" and second is not None
            others = 0 if both else total - lengths[which % len(lengths)]
            own = total - others
            for width in sorted({own, own - 1, 9, 5, 1, 0} & set(range(own + 1))):
                window = max(width // 2 if both else width, 1)
                for stride in {0, 1, 3} & set(range(window)):  # the tokenizer panics if the stride exceeds the window
                    options = dict(strategy=strategy, max_length=special + others + width, stride=stride)
                    windows = truncated(tokenizer, first, second, **options)
                    case = dict(first=first, second=second, **options, first_only=False, windows=windows)
                    if windows and (others + width == 0 < total or both and cut_both(windows, lengths)):
                        case |= dict(first_only=True, windows=windows[:1])
                    cases.append(case)
    return cases


def cut_both(windows, lengths):
    """Returns whether the first window contains neither text completely. Type 0 includes [CLS] and a [SEP], type 1 a [SEP]."""
    types = windows[0][1]
    return types.count(0) - 2 < lengths[0] and types.count(1) - 1 < lengths[1]


def truncated(tokenizer, first, second, strategy, max_length, stride):
    try:
        # As a batch of one, because transformers treats a single pair with an empty second text as one text.
        encoding = tokenizer(
            [first],
            None if second is None else [second],
            truncation=strategy,
            max_length=max_length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
    except Exception as error:
        assert "Sequence to truncate too short" in str(error)
        return None
    return [
        [ids, types, flat(offsets)]
        for ids, types, offsets in zip(encoding["input_ids"], encoding["token_type_ids"], encoding["offset_mapping"])
    ]


def write_lines(path, entries):
    """Writes a JSON array with one entry per line."""
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    path.write_text(f"[\n{lines}\n]\n")


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    assert len(set(STRINGS)) == len(STRINGS)
    vocab = "".join(token + "\n" for token in train())
    (folder / "vocab.txt").write_text(vocab, encoding="utf-8")
    write_lines(folder / "strings.json", STRINGS + LONG)

    tokenizers = {name: open_tokenizer(vocab, config) for name, config in VARIANTS.items()}
    base = Path(os.environ.get("CLOZE_DATA", ""), "vocab/bert-base-uncased-vocab.txt")
    if base.exists():
        tokenizers["bert-base-uncased"] = open_tokenizer(base.read_text(encoding="utf-8"), VARIANTS["uncased"])
    else:
        print(f"SKIPPED bert-base-uncased.json: {base} is missing")
    for name, tokenizer in tokenizers.items():
        expected = [encode(tokenizer, text) for text in STRINGS]
        expected += [encode_phrase(tokenizer, *long) for long in LONG]
        write_lines(folder / f"{name}.json", [(ids, flat(offsets)) for ids, offsets in expected])
        unknown = sum(ids.count(tokenizer.unk_token_id) for ids, _ in expected)
        tokens = sum(len(ids) for ids, _ in expected)
        print(f"{name}: {len(expected)} texts, {tokens} tokens, {unknown} of them unknown")
    write_lines(folder / "pairs.json", truncations(tokenizers["uncased"]))
