"""python odd_tokenizers.py DIRECTORY: writes tokenizer folders of odd kinds, with the encodings of their AutoTokenizer.

Each folder has `expected.json`: for each text and pair of texts the ids, the token types and the offsets. TEXTS is written
to `texts.json`.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer
from transformers.utils.logging import set_verbosity_error

TEXTS = [
    "the cat sat on the mat.",
    "The CAT, ação e coração!",
    "a<x> <x>b  <X> xyz XYZ xyzzy [E] [e] Cats",
    "今天 cat\u3000猫, 3.5% [MASK] [CLS] [SEP]",
    "e\u0301te\u0301 \u200dcat\u00ad \u2028 I\u0307s \ufb01n \u1e9e ǅ",
    "the\u00a0mat\tb\r\n🙂 \u0000\ufffd \ud55c\uad6d don't well-known",
    "",
    "  cat  ",
]
WORDS = "the cat sat on mat a b e c s o . , ! % 3 5 - ' ##a ##t ##s ##o ##c ##ao acao coracao ação ##ção cor The Cat CAT 今 天 猫 ete xyz is fin don well known".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = SPECIAL + WORDS
SIZE = len(VOCABULARY)


def lines(tokens, end="\n"):
    return "".join(token + end for token in tokens)


def added(content, **properties):
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=True, special=False)
    return dict(content=content) | flags | properties


def tokenizer_json(normalizer=None, added_tokens=(), max_chars=100, post_processor="bert"):
    bert = dict(type="BertNormalizer", clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
    special = [dict(id=i, **added(token, special=True, normalized=False)) for i, token in enumerate(SPECIAL)]
    layout = dict(type="BertProcessing", sep=["[SEP]", 3], cls=["[CLS]", 2]) if post_processor else None
    model = dict(type="WordPiece", unk_token="[UNK]", continuing_subword_prefix="##", max_input_chars_per_word=max_chars)
    model["vocab"] = {token: i for i, token in enumerate(VOCABULARY)}
    return dict(
        version="1.0", truncation=None, padding=None, added_tokens=special + list(added_tokens), normalizer=bert | (normalizer or {}),
        pre_tokenizer=dict(type="BertPreTokenizer"), post_processor=layout, decoder=dict(type="WordPiece", prefix="##", cleanup=True), model=model,
    )  # fmt: skip


def vocab(tokens=None, end="\n", **config):
    """The files of a folder without a tokenizer.json."""
    return {"vocab.txt": lines(tokens or VOCABULARY, end), "tokenizer_config.json": config}


def stored(config=None, **options):
    """The files of a folder with nothing but a tokenizer.json, and maybe settings."""
    return {"tokenizer.json": tokenizer_json(**options)} | ({} if config is None else {"tokenizer_config.json": config})


properties = dict(lstrip=False, rstrip=False, single_word=False, normalized=False)
FOLDERS = {
    "vocabulary-alone": {"vocab.txt": lines(VOCABULARY)},
    "json-alone": stored(),
    "cased": vocab(do_lower_case=False),
    "added-tokens": vocab() | {"added_tokens.json": {"XYZ": SIZE, "<x>": SIZE + 1}},
    "added-tokens-special": vocab() | {
        "added_tokens.json": {"<x>": SIZE + 1, "[E]": SIZE}, "special_tokens_map.json": {"additional_special_tokens": ["[E]"], "mask_token": "[MASK]"},
    },
    "decoder": vocab(added_tokens_decoder={
        **{str(i): added(token, special=True, normalized=False) for i, token in enumerate(SPECIAL)},
        str(SIZE): added("[E]", special=True, normalized=False), str(SIZE + 1): added("XYZ"),
    }),
    "additional": vocab(additional_special_tokens=["[E]", "<x>", "cat"]),
    "additional-objects": vocab(additional_special_tokens=[dict(__type="AddedToken", content="<x>", **properties | dict(lstrip=True))]),
    "named-in-order": vocab(z_token="<x>", b_token="[E]", bos_token="xyzzy", eos_token="XYZ", extra_special_tokens={"y_token": "mat.", "a_token": "🙂"}),
    "map-of-objects": vocab() | {"special_tokens_map.json": {
        "mask_token": dict(content="[MASK]", **properties | dict(lstrip=True)), "unk_token": dict(content="[UNK]", **properties), "sep_token": "[SEP]",
    }},
    "separator-lines": vocab(SPECIAL + ["\u2028"] + WORDS),
    "repeated": vocab(VOCABULARY + ["cat", "the", "b"]),
    "blank-lines": vocab(SPECIAL + ["", *WORDS[:9], "", "", *WORDS[9:]]),
    "trailing-blank-lines": vocab(VOCABULARY + ["", "", ""]),
    "carriage-returns": vocab(end="\r\n"),
    "no-final-newline": {"vocab.txt": lines(VOCABULARY).rstrip("\n"), "tokenizer_config.json": {}},
    "white-space-tokens": vocab(SPECIAL + ["\u3000", "\u00a0", "b ", "\u0085", "\x0c"] + WORDS),
    "no-mask": vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]),
    "special-at-the-end": vocab(WORDS + SPECIAL),
    "max-len": vocab(max_len=16),
    "no-limit": vocab(model_max_length=int(1e30), padding_side="left", chat_template="{{ x }}", processor_class="X", name_or_path="y"),
    "strip-accents": vocab(do_lower_case=False, strip_accents=True),
    "keep-accents": vocab(strip_accents=False),
    "chinese-words": vocab(tokenize_chinese_chars=False),
    "other-names": vocab(["<pad>", "<unk>", "<s>", "</s>", "<mask>", *WORDS], unk_token="<unk>", sep_token="</s>", cls_token="<s>",
                         pad_token="<pad>", mask_token=dict(__type="AddedToken", content="<mask>", **properties | dict(lstrip=True))),
    "strips": vocab(added_tokens_decoder={
        str(SIZE): added("<x>", lstrip=True, rstrip=True, normalized=False), str(VOCABULARY.index("xyz")): added("xyz", single_word=True),
        str(SIZE + 1): added("Cats", normalized=True), str(SIZE + 2): added("[E]", special=True, normalized=True),
    }),
    "electra": vocab(tokenizer_class="ElectraTokenizer"),
    "distilbert": vocab(tokenizer_class="DistilBertTokenizerFast", do_lower_case=False),
    "generic": stored(dict(tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False)),
    "generic-typed": stored(dict(tokenizer_class="PreTrainedTokenizerFast", model_input_names=["input_ids", "token_type_ids", "attention_mask"])),
    "generic-words": stored(dict(tokenizer_class="TokenizersBackend"), normalizer=dict(lowercase=False, handle_chinese_chars=False), max_chars=3),
    "json-and-flags": stored(dict(do_lower_case=True, tokenize_chinese_chars=False, strip_accents=False, tokenizer_class="BertTokenizer")),
    "json-added": stored({}, added_tokens=[dict(id=SIZE, **added("<x>", normalized=False)), dict(id=SIZE + 1, **added("XYZ"))]),
    "json-and-vocabulary": stored({"do_lower_case": True}) | {"vocab.txt": lines(VOCABULARY)},
    # What differs on purpose.
    "differs-json-keeps-case": stored(normalizer=dict(lowercase=False)),
    "differs-json-short-words": stored({}, max_chars=3),
    "differs-added-with-gap": vocab() | {"added_tokens.json": {"xyzzy": SIZE + 7}},
    "refused-never-split": vocab(never_split=["don't"]),
    "refused-truncation-side": vocab(truncation_side="left"),
    "refused-class": vocab(tokenizer_class="BertJapaneseTokenizer", subword_tokenizer_type="character", word_tokenizer_type="basic"),
}  # fmt: skip


def encode(tokenizer, *texts):
    found = tokenizer(*texts, return_offsets_mapping=True, verbose=False)
    ids = found["input_ids"]
    return dict(ids=ids, types=found.get("token_type_ids", [0] * len(ids)), offsets=found["offset_mapping"])


def main(root):
    set_verbosity_error()
    (root / "texts.json").write_text(json.dumps(TEXTS))
    for name, files in FOLDERS.items():
        folder = root / name
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "bert"}')
        for file, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / file).write_bytes(text.encode())
        if name.startswith("refused"):
            continue
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = [encode(tokenizer, text) for text in TEXTS]
        # An empty second text makes no pair there.
        pairs = [encode(tokenizer, *pair) for pair in zip(TEXTS, TEXTS[1:]) if all(pair)]
        length = min(tokenizer.model_max_length, 512)
        expected = dict(encodings=texts + pairs, max_length=length)
        (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
