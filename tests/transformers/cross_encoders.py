"""python cross_encoders.py DIRECTORY: opens folders of cross-encoders, written by cloze, with sentence-transformers.

The folders are named after a loss, before and after training. `given.json` has pairs, and labels for each loss.
`expected.json` receives the loss of each model before training, and the scores of all models.
"""

import json
import sys
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses
from transformers.utils.logging import disable_progress_bar


def main(root):
    disable_progress_bar()
    given = json.loads((root / "given.json").read_text(encoding="utf-8"))
    pairs = list(zip(given["queries"], given["documents"]))
    expected = {"losses": {}, "scores": {}}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        model = CrossEncoder(str(folder), device="cpu").eval()
        expected["scores"][folder.name] = model.predict(pairs).flatten().tolist()
        name, when = folder.name.split("-")
        if when == "before":
            labels = torch.tensor(given["labels"][name])
            with torch.no_grad():
                loss = getattr(losses, name)(model)([given["queries"], given["documents"]], labels)
            expected["losses"][name] = loss.item()
    (root / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
