"""python padding.py FOLDER: opens a masked language model with transformers, and writes `expected.json`.

`given.json` has a padded batch and the size to which the vocabulary grows. The results are the hidden states of the
tokens, with positions as transformers sets them and with those of the tokens among the tokens; and the new rows.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import BertForMaskedLM
from transformers.utils.logging import disable_progress_bar


def main(folder):
    disable_progress_bar()
    given = json.loads((folder / "given.json").read_text())
    ids, mask = torch.tensor(given["ids"]), torch.tensor(given["mask"])
    model = BertForMaskedLM.from_pretrained(folder).eval()

    def hidden(**positions):
        with torch.no_grad():
            output = model.bert(input_ids=ids, attention_mask=mask, **positions)
        return output.last_hidden_state[mask.bool()].flatten().tolist()

    among_tokens = (mask.cumsum(1) - 1).clamp(min=0)
    expected = {"positions not given": hidden(), "among tokens": hidden(position_ids=among_tokens)}
    old, new = model.config.vocab_size, given["vocab_size"]
    torch.manual_seed(0)
    model.resize_token_embeddings(new)
    expected["rows"] = model.get_input_embeddings().weight[old:].flatten().tolist()
    expected["decoder"] = model.get_output_embeddings().weight[old:].flatten().tolist()
    expected["biases"] = model.get_output_embeddings().bias[old:].tolist()
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
