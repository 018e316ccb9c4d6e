"""The heads on top of the encoder: their labels, and their results in transformers.

`answer` of a head returns its logits for the packed batch, and the loss. Labels are stored as follows:

    masked_lm           [M] i64     the tokens to predict at the `target_rows`
    next_sentence       [B] i64
    classes             [B] i64
    multi_label         [B, 4] f32  0 or 1
    one_value, values   [B, 1] and [B, 3] f32: regression
    token_classes       [T] i64     some of them -100, the ignored label
    question_answering  [B, 2] i64  first and last token of the answer in its sequence; -1, -1 to ignore the sequence
    multiple_choice     [B / 2] i64 which of two sequences

For `question_answering`, transformers includes padding in the softmax over positions. Here each sequence runs alone,
without padding, and the loss is the mean over the sequences that have an answer.
"""

from dataclasses import dataclass, field
from typing import Callable

import torch

from batches import IGNORED


@dataclass(frozen=True)
class Head:
    """`name` is the class in transformers without its prefix; `config` adds to the configuration of the encoder."""

    name: str
    labels: Callable  # (batch, configuration, generator) to labels
    answer: Callable  # (model, batch, labels) to (logits, loss)
    config: dict = field(default_factory=dict)


def draw_targets(batch, config, generator):
    return torch.randint(1, config.vocab_size, batch.target_rows.shape, generator=generator)


def draw_classes(batch, config, generator):
    return torch.randint(0, config.num_labels, (len(batch.lengths),), generator=generator)


def draw_flags(batch, config, generator):
    return torch.randint(0, 2, (len(batch.lengths), config.num_labels), generator=generator).float()


def draw_values(batch, config, generator):
    # Sixteenths, so that f32 holds them exactly.
    return torch.randint(-32, 33, (len(batch.lengths), config.num_labels), generator=generator).float() / 16


def draw_token_classes(batch, config, generator):
    drawn = torch.randint(0, config.num_labels, batch.ids.shape, generator=generator)
    drawn[::5] = IGNORED
    return drawn


def draw_spans(batch, config, generator):
    spans = [sorted(torch.randint(0, int(length), (2,), generator=generator).tolist()) for length in batch.lengths]
    spans[-1] = [-1, -1]
    return torch.tensor(spans)


def draw_choices(batch, config, generator):
    return torch.randint(0, 2, (len(batch.lengths) // 2,), generator=generator)


def of_sequences(model, batch, labels):
    labels = labels if labels.dtype == torch.int64 else labels.to(model.dtype)
    output = model(**batch.inputs(model), labels=labels)
    return output.logits, output.loss


def of_tokens(model, batch, labels):
    output = model(**batch.inputs(model), labels=batch.pad(labels, IGNORED))
    return output.logits[batch.real], output.loss


def of_targets(model, batch, labels):
    logits, loss = of_tokens(model, batch, batch.spread(labels))
    return logits[batch.target_rows], loss


def of_spans(model, batch, labels):
    logits, losses = [], []
    for inputs, (start, end) in zip(batch.one_by_one(model), labels.tolist()):
        asked = {} if start < 0 else dict(start_positions=torch.tensor([start]), end_positions=torch.tensor([end]))
        output = model(**inputs, **asked)
        logits.append(torch.stack([output.start_logits[0], output.end_logits[0]], dim=1))
        losses += [] if start < 0 else [output.loss]
    return torch.cat(logits), torch.stack(losses).mean()


def of_choices(model, batch, labels):
    inputs = {name: x.view(-1, 2, x.shape[-1]) for name, x in batch.inputs(model).items()}
    output = model(**inputs, labels=labels)
    return output.logits, output.loss


SEQUENCES = "ForSequenceClassification"
HEADS = {
    "masked_lm": Head("ForMaskedLM", draw_targets, of_targets),
    "next_sentence": Head("ForNextSentencePrediction", draw_classes, of_sequences),
    "classes": Head(SEQUENCES, draw_classes, of_sequences, dict(num_labels=3)),
    "multi_label": Head(
        SEQUENCES, draw_flags, of_sequences, dict(num_labels=4, problem_type="multi_label_classification")
    ),
    "one_value": Head(SEQUENCES, draw_values, of_sequences, dict(num_labels=1, problem_type="regression")),
    "values": Head(SEQUENCES, draw_values, of_sequences, dict(num_labels=3, problem_type="regression")),
    "token_classes": Head("ForTokenClassification", draw_token_classes, of_tokens, dict(num_labels=5)),
    "question_answering": Head("ForQuestionAnswering", draw_spans, of_spans),
    "multiple_choice": Head("ForMultipleChoice", draw_choices, of_choices),
}
