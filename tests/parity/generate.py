"""Writes the fixtures of the parity tests: results of PyTorch, transformers and tokenizers.

    pip install -r requirements.txt
    python generate.py            # rewrites the folder `fixtures` beside this file, byte for byte
    python generate.py DIRECTORY  # writes it elsewhere, to compare

`models.py` describes the files of the models, and `wordpiece.py` those of the tokenizer.
"""

import sys
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

import models
import wordpiece


def main():
    disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "fixtures"
    models.write(root)
    wordpiece.write(root / "tokenizer")


if __name__ == "__main__":
    main()
