"""All outputs of a model for a packed batch in one flat vector, in the order of the Rust tests."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "parity"))
from batches import Batch  # noqa: E402

CHOICES = 2


def read_batch(tensors):
    return Batch(tensors["ids"], tensors["token_types"], tensors["lengths"])


def outputs(model, batch):
    inputs = batch.inputs(model)
    if type(model).__name__.endswith("ForMultipleChoice"):
        inputs = {name: x.view(-1, CHOICES, x.shape[-1]) for name, x in inputs.items()}
    with torch.no_grad():
        output = model.eval()(**inputs)

    def of_tokens(padded):
        return padded[batch.real].flatten()

    if "start_logits" in output:
        return of_tokens(torch.stack([output.start_logits, output.end_logits], dim=-1))
    if "prediction_logits" in output:
        return torch.cat([of_tokens(output.prediction_logits), output.seq_relationship_logits.flatten()])
    if "last_hidden_state" in output:
        pooled = [output.pooler_output.flatten()] if "pooler_output" in output else []
        return torch.cat([of_tokens(output.last_hidden_state), *pooled])
    per_token = type(model).__name__.endswith(("ForMaskedLM", "ForTokenClassification"))
    return of_tokens(output.logits) if per_token else output.logits.flatten()
