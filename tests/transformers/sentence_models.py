"""python sentence_models.py TEXTS FOLDER...: embeds texts by the model in each folder with sentence-transformers.

TEXTS is a JSON list of strings. Writes `embeddings.safetensors` into each folder, and a copy of the model into `again`.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer


def main(texts, *folders):
    texts = json.loads(Path(texts).read_text(encoding="utf-8"))
    for folder in folders:
        model = SentenceTransformer(folder, device="cpu")
        embeddings = model.encode(texts, convert_to_tensor=True)
        model.save(str(Path(folder, "again")))
        save_file({"embeddings": embeddings.contiguous()}, Path(folder, "embeddings.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
