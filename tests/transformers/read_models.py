"""python read_models.py DIRECTORY: opens all model folders in it, written by cloze, and compares their outputs.

`outputs.safetensors` in DIRECTORY contains the batch, and the outputs of the model in each folder by the name of the
folder.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import transformers
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

from outputs import outputs, read_batch

TOLERANCE = 1e-5


def load(architecture, folder):
    model, info = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    return model, {what: sorted(map(str, names)) for what, names in info.items()}


def main(root):
    disable_progress_bar()
    stored = load_file(root / "outputs.safetensors")
    batch = read_batch(stored)
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    assert {folder.name for folder in folders} == stored.keys() - batch.tensors().keys()
    for folder in folders:
        (architecture,) = json.loads((folder / "config.json").read_text())["architectures"]
        model, info = load(architecture, folder)
        # transformers also reports keys for folders that it wrote itself, so these are compared.
        with TemporaryDirectory() as own:
            model.save_pretrained(own)
            assert info == load(architecture, own)[1], f"{folder.name}: {info}"
        largest = float((outputs(model.float(), batch) - stored[folder.name]).abs().max())
        print(f"{folder.name}: {architecture}, {largest:.1e}")
        assert largest <= TOLERANCE, f"{folder.name}: outputs differ by {largest:.1e}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
