"""Writes the results of transformers for small BERT and DistilBERT models.

Everything is computed in f64 from the stored f32 weights and rounded to f32 once, so that a difference from it is an
error of the implementation under test. All weights are random, including biases and LayerNorm, so that a missing
factor or term changes the results. Dropout is 0.

The folder of each model in FIXTURES contains

    config.json           as transformers saves it, for the pre-training model (DistilBERT: the masked LM)
    model.safetensors     the weights of that model, in f32 by state-dict name, tied tensors once
    expected.safetensors  inputs, outputs, gradients and a training curve, and the weights of the other heads

The file `heads.json`, next to the folders, describes how a folder saved with each other head differs: `config` contains
fields of config.json, and `without` contains prefixes of the names of missing tensors.

A batch is packed: it contains only the real tokens of all sequences. transformers receives the same batch padded, with
an attention mask. With B sequences, T tokens, M masked-language-model targets, H hidden size, L layers, N heads, V
tokens in the vocabulary and S the length of a sequence, `expected.safetensors` contains

    ids, token_types                [T] i64
    lengths                         [B] i64
    target_rows                     [M] i64    rows of the packed batch, ascending
    embeddings                      [T, H]     after LayerNorm
    hidden.1 .. hidden.L            [T, H]     the output of each layer
    attention.<layer>.<sequence>    [N, S, S]  probabilities (head, query, key)
    pooled                          [B, H]
    <head>.labels, .logits, .loss   see `heads.py`; a loss is [1]
    <head>.weight.<parameter>       weights missing from `model.safetensors`
    <head>.grad.<parameter>         gradient of the loss, for each parameter of the head
    <head>.grads                    [P, 2]     for the P parameters of the encoder, sorted by name: see `summary`
    pre_training.mlm_logits         [M, V]     at the target rows, with the labels of `masked_lm`
    pre_training.nsp_logits         [B, 2]     with the labels of `next_sentence`
    pre_training.loss, .mlm_loss, .nsp_loss    loss = mlm_loss (mean over M) + nsp_loss (mean over B)
    pre_training.grad.<parameter>   for every parameter; tied parameters once, with the sum of both uses
    training.learning_rates, .losses, .norms   [20], see `train`
    training.final.<parameter>      after the 20 steps

Parameters of DistilBERT have the names of their counterparts in BERT, except in `model.safetensors` and `.weight.`.
Softmax ignores a constant added to all of its inputs, so some gradients are mathematically zero: those of a key bias
and of the biases of `question_answering` and `multiple_choice`. They are stored as zero, without the rounding noise of
f64; compare them on the scale of the other gradients of the layer.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from safetensors.torch import load_file, save_file

from batches import IGNORED, Batch
from heads import HEADS

# Sizes are not multiples of a vector width. A sequence of one token, which attends only to itself, is first, last and
# in between in different fixtures. `targets` are packed rows.
FIXTURES = {
    "head_size_24": dict(
        family="Bert",
        config=dict(
            vocab_size=61,
            hidden_size=48,
            num_attention_heads=2,
            num_hidden_layers=2,
            intermediate_size=80,
            hidden_act="gelu",
            max_position_embeddings=40,
        ),
        lengths=[1, 7, 33, 12],
        targets=[0, 3, 7, 8, 20, 21, 40, 52],
    ),
    "three_heads_tanh": dict(
        family="Bert",
        config=dict(
            vocab_size=53,
            hidden_size=60,
            num_attention_heads=3,
            num_hidden_layers=3,
            intermediate_size=72,
            hidden_act="gelu_new",
            max_position_embeddings=40,
        ),
        lengths=[7, 33, 2, 1],
        targets=[1, 6, 11, 25, 39, 42],
    ),
    # A single layer, which is both first and last, and a sequence that fills all positions.
    "one_token_type": dict(
        family="Bert",
        config=dict(
            vocab_size=47,
            hidden_size=30,
            num_attention_heads=5,
            num_hidden_layers=1,
            intermediate_size=44,
            hidden_act="gelu_pytorch_tanh",
            max_position_embeddings=33,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
        ),
        lengths=[33, 1, 7, 5],
        targets=[2, 3, 32, 33, 36, 41],
    ),
    "distilbert": dict(
        family="DistilBert",
        config=dict(
            vocab_size=43,
            dim=24,
            n_heads=3,
            n_layers=2,
            hidden_dim=40,
            activation="gelu",
            max_position_embeddings=40,
        ),
        lengths=[7, 1, 33, 3],
        targets=[0, 6, 7, 19, 40, 43],
    ),
}

# DistilBERT has no next-sentence prediction.
DISTILBERT_HEADS = ["masked_lm", "classes", "multi_label", "one_value", "token_classes", "question_answering"]

NO_DROPOUT = {
    "Bert": dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    "DistilBert": dict(dropout=0.0, attention_dropout=0.0, qa_dropout=0.0, seq_classif_dropout=0.0),
}

# The model stored in `model.safetensors`.
BASE = {"Bert": "ForPreTraining", "DistilBert": "ForMaskedLM"}

# Prefixes of the names of tensors that some heads lack.
PARTS = ["bert.pooler.", "cls.predictions.", "cls.seq_relationship.", "vocab_"]

# Parts of DistilBERT's names with their counterparts in BERT, in the order of replacement.
DISTILBERT_NAMES = [
    ("distilbert.transformer.", "bert.encoder."),
    ("distilbert.", "bert."),
    ("attention.q_lin", "attention.self.query"),
    ("attention.k_lin", "attention.self.key"),
    ("attention.v_lin", "attention.self.value"),
    ("attention.out_lin", "attention.output.dense"),
    ("sa_layer_norm", "attention.output.LayerNorm"),
    ("ffn.lin1", "intermediate.dense"),
    ("ffn.lin2", "output.dense"),
    ("output_layer_norm", "output.LayerNorm"),
    ("pre_classifier", "bert.pooler.dense"),
    ("vocab_transform", "cls.predictions.transform.dense"),
    ("vocab_layer_norm", "cls.predictions.transform.LayerNorm"),
    ("vocab_projector", "cls.predictions"),
]


def bert_name(name, family):
    if family == "DistilBert":
        for theirs, bert in DISTILBERT_NAMES:
            name = name.replace(theirs, bert)
    return name


def build(fixture, suffix, extra=None):
    """Builds a model of class `suffix` with the initial weights of transformers."""
    family = fixture["family"]
    config = getattr(transformers, family + "Config")(**fixture["config"], **NO_DROPOUT[family], **(extra or {}))
    config._attn_implementation = "eager"  # the only one that returns its probabilities
    return getattr(transformers, family + suffix)(config)


def randomize(model, generator):
    """Draws normal weights with mean 0, or 1 for the scales of LayerNorm, and standard deviation 0.08."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if name.lower().endswith(("layernorm.weight", "layer_norm.weight")) else 0.0
            # In f32, the numbers would depend on the vector instructions of the processor.
            normal = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(mean + 0.08 * normal)


def saved(model):
    """Returns the configuration and the tensors, by name, that transformers saves for a model."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads(Path(folder, "config.json").read_text())
        return config, load_file(Path(folder, "model.safetensors"))


def gradients(model, loss, family):
    """Returns the gradients of all parameters by name."""
    model.zero_grad()
    loss.backward()
    grads = {bert_name(name, family): parameter.grad.clone() for name, parameter in model.named_parameters()}
    for grad in grads.values():
        if grad.abs().max() < 1e-12:
            grad.zero_()
    return grads


def summary(grad):
    """Returns the norm of a gradient, and its dot product with a fixed vector without an obvious pattern."""
    flat = grad.flatten()
    fixed = torch.arange(len(flat)) * 40503 % 65536 / 32768 - 1
    return torch.stack([flat.norm(), flat @ fixed.to(flat.dtype)])


def of_encoder(model, batch):
    """Returns embeddings, hidden states, attention probabilities and, if there is a pooler, its output."""
    output = model(**batch.inputs(model), output_hidden_states=True, output_attentions=True)
    result = {"embeddings": output.hidden_states[0][batch.real]}
    for layer, hidden in enumerate(output.hidden_states[1:], start=1):
        result[f"hidden.{layer}"] = hidden[batch.real]
    for layer, attention in enumerate(output.attentions):
        for sequence, length in enumerate(batch.lengths.tolist()):
            result[f"attention.{layer}.{sequence}"] = attention[sequence, :, :length, :length]
    if hasattr(model, "bert"):
        result["pooled"] = model.bert.pooler(output.hidden_states[-1])
    return result


def pre_training_inputs(model, batch, labels):
    words = batch.pad(batch.spread(labels["masked_lm"]), IGNORED)
    return batch.inputs(model) | dict(labels=words, next_sentence_label=labels["next_sentence"])


def of_pre_training(model, batch, labels):
    output = model(**pre_training_inputs(model, batch, labels))
    mlm_logits = output.prediction_logits[batch.real][batch.target_rows]
    nsp_logits = output.seq_relationship_logits
    cross_entropy = torch.nn.functional.cross_entropy
    result = {
        "mlm_logits": mlm_logits,
        "nsp_logits": nsp_logits,
        "loss": output.loss[None],
        "mlm_loss": cross_entropy(mlm_logits, labels["masked_lm"])[None],
        "nsp_loss": cross_entropy(nsp_logits, labels["next_sentence"])[None],
    }
    torch.testing.assert_close(result["mlm_loss"] + result["nsp_loss"], result["loss"])
    for name, grad in gradients(model, output.loss, "Bert").items():
        result[f"grad.{name}"] = grad
    return {f"pre_training.{name}": tensor for name, tensor in result.items()}


def train(model, batch, labels):
    """Runs 20 steps of AdamW on one batch, in place.

    Step i uses learning_rates[i]: 0.001 * i / 5 while i < 5, then 0.001 * (25 - i) / 20. losses[i] and norms[i]
    are the loss and the global gradient norm before that step and before clipping. Clipping multiplies by
    min(1, 1 / (norm + 1e-6)). Weight decay 0.01 is decoupled, and does not apply to biases and LayerNorm.
    """
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, num_warmup_steps=5, num_training_steps=25)

    inputs = pre_training_inputs(model, batch, labels)
    learning_rates, losses, norms = [], [], []
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        losses.append(loss.detach())
        learning_rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()

    last = model.config.num_hidden_layers - 1
    kept = [
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.token_type_embeddings.weight",
        "bert.embeddings.LayerNorm.weight",
        "bert.encoder.layer.0.attention.self.query.bias",
        "bert.encoder.layer.0.intermediate.dense.bias",
        f"bert.encoder.layer.{last}.output.LayerNorm.bias",
        "bert.pooler.dense.bias",
        "cls.predictions.bias",
        "cls.seq_relationship.weight",
    ]
    parameters = dict(model.named_parameters())
    return {
        "training.learning_rates": torch.tensor(learning_rates, dtype=torch.float64),
        "training.losses": torch.stack(losses),
        "training.norms": torch.stack(norms),
        **{f"training.final.{name}": parameters[name] for name in kept},
    }


def of_head(model, head, family, batch, labels, name):
    logits, loss = head.answer(model, batch, labels[name])
    result = {f"{name}.logits": logits, f"{name}.loss": loss[None]}
    grads = gradients(model, loss, family)
    encoder = sorted(parameter for parameter in grads if parameter.startswith("bert."))
    result[f"{name}.grads"] = torch.stack([summary(grads.pop(parameter)) for parameter in encoder])
    return result | {f"{name}.grad.{parameter}": grad for parameter, grad in grads.items()}


def print_noise(single, double):
    """Prints the distance of transformers in f32 from the fixture: the noise to expect from any f32 implementation."""
    worst = {}
    for name, expected in double.items():
        group = ".".join(part for part in name.split(".")[:2] if not part.isdigit())
        if expected.any():
            relative = float((single[name].double() - expected).abs().max() / expected.abs().max())
            worst[group] = max(worst.get(group, (0.0, "")), (relative, name))
    for group, (relative, name) in worst.items():
        print(f"  {relative:.1e}  {group}: {name}")


def write(root):
    """Writes the folders of all models, and `heads.json`."""
    instead = {}
    for seed, (name, fixture) in enumerate(FIXTURES.items(), start=1):
        print(f"{name}: transformers in f32 against f64, relative to the largest value")
        instead[fixture["family"].lower()] = write_fixture(root / name, fixture, seed)
    (root / "heads.json").write_text(json.dumps(instead, indent=1) + "\n")


def write_fixture(folder, fixture, seed):
    """Writes the folder of a model. Returns how the folders of the other heads differ."""
    family = fixture["family"]
    generator = torch.Generator().manual_seed(seed)
    base = build(fixture, BASE[family])
    randomize(base, generator)
    base.save_pretrained(folder)
    base_config, base_weights = saved(base)
    token_types = base_config.get("type_vocab_size", 1)
    batch = Batch.draw(fixture["lengths"], base.config.vocab_size, token_types, generator, fixture["targets"])

    stored = batch.tensors() | {"target_rows": batch.target_rows}
    labels, instead, models = {}, {}, {}
    for name in HEADS if family == "Bert" else DISTILBERT_HEADS:
        head = HEADS[name]
        models[name] = model = build(fixture, head.name, head.config)
        randomize(model, generator)
        known = model.state_dict().keys() & base_weights.keys()
        model.load_state_dict({key: base_weights[key] for key in known}, strict=False)
        stored[f"{name}.labels"] = labels[name] = head.labels(batch, model.config, generator)
        config, weights = saved(model)
        stored |= {f"{name}.weight.{key}": weights[key] for key in weights if key not in base_weights}
        missing = [key for key in base_weights if key not in weights]
        without = [part for part in PARTS if any(key.startswith(part) for key in missing)]
        assert missing == [key for key in base_weights if key.startswith(tuple(without))]
        changed = {key: value for key, value in config.items() if base_config.get(key) != value}
        assert base_config | changed == config
        instead[name] = dict(config=changed, without=without)

    def expect(dtype):
        base.load_state_dict(base_weights, strict=False)
        base.to(dtype)
        result = of_encoder(base, batch)
        if family == "Bert":
            result |= of_pre_training(base, batch, labels)
        for name, model in models.items():
            result |= of_head(model.to(dtype), HEADS[name], family, batch, labels, name)
        if family == "Bert":
            result |= train(base, batch, labels)
        return {name: tensor.detach().clone() for name, tensor in result.items()}

    single, double = expect(torch.float32), expect(torch.float64)
    stored |= {name: tensor.float() for name, tensor in double.items()}
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "expected.safetensors")
    print_noise(single, double)
    return instead
