"""python tokenize_texts.py TEXTS FOLDER...: encodes texts with the AutoTokenizer of each folder.

TEXTS is a JSON list of strings. Writes `encodings.json` into each folder, with the ids of each text, and its offsets as
start, end, start, end, ...
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer


def main(texts, *folders):
    texts = json.loads(Path(texts).read_text(encoding="utf-8"))
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encodings = []
        for text in texts:
            encoding = tokenizer(text, return_offsets_mapping=True, verbose=False)
            encodings.append([encoding["input_ids"], [x for pair in encoding["offset_mapping"] for x in pair]])
        Path(folder, "encodings.json").write_text(json.dumps(encodings))


if __name__ == "__main__":
    main(*sys.argv[1:])
