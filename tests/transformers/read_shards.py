"""python read_shards.py SHARDS TEXT: reads shards with safetensors, and compares their ids with those of the tokenizer in
their folder.

TEXT has a sentence per line and a blank line between documents.
"""

import json
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import AutoTokenizer


def main(folder, text):
    folder, text = Path(folder), Path(text)
    index = json.loads((folder / "index.json").read_text())
    found = []
    for shard in index["shards"]:
        path = folder / shard["name"]
        tensors = load_file(path)
        assert path.stat().st_size == shard["bytes"], path
        with safe_open(path, "numpy") as opened:
            assert opened.metadata()["tokenizer"] == index["tokenizer"]["xxh128"], path
        sentences, start = [], 0
        for end in tensors["sentence_ends"]:
            sentences.append(tensors["ids"][start:end].tolist())
            start = int(end)
        start = 0
        for end in tensors["document_ends"]:
            found.append(sentences[start:end])
            start = int(end)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == index["tokenizer"]["vocab_size"]
    expected = []
    for document in text.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in document.split("\n") if line.strip()]
        ids = [tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines]
        expected.append([sentence for sentence in ids if sentence])
    expected = [document for document in expected if document]
    assert found == expected, "the ids differ"
    tokens = sum(len(sentence) for document in found for sentence in document)
    assert tokens == index["statistics"]["tokens"]
    unknown = sum(sentence.count(tokenizer.unk_token_id) for document in found for sentence in document)
    assert unknown == index["statistics"]["unknown_tokens"]
    print(f"{len(index['shards'])} shards, {len(found)} documents, {tokens} tokens, {unknown} unknown: the same ids")


if __name__ == "__main__":
    main(*sys.argv[1:])
