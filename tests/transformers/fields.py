"""python fields.py DIRECTORY: changes each field of each settings file, and records what the Python packages then compute.

`peer_fields.py` finds the fields; VALUES has values for each, and a field without any is an error. Each variation is a
folder in DIRECTORY, where `variations.json` lists its kind, file, field and value, the numbers that the package computes
or its error, and whether the numbers are those without the change.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    pipeline,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from peer_fields import all_fields

TEXTS = ["The CAT sat, well: [MASK] [X] 今 ação!", "cat a b", "Query: the cat"]
WORDS = "the cat sat on mat well query a c o ##a ##t ##s ##ao , : ! . 今 ##c ção ação".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"

GENERATION = {
    **{name: [True] for name in ["do_sample", "early_stopping", "output_scores", "remove_invalid_values", "return_dict_in_generate"]},
    **{name: [7] for name in ["max_length", "min_length", "num_beams", "top_k", "no_repeat_ngram_size", "num_return_sequences",
                              "encoder_no_repeat_ngram_size", "num_assistant_tokens", "num_beam_groups", "assistant_lookbehind",
                              "target_lookbehind", "forced_bos_token_id", "forced_eos_token_id"]},
    **{name: [0.5] for name in ["temperature", "top_p", "typical_p", "repetition_penalty", "length_penalty", "epsilon_cutoff",
                                "eta_cutoff", "encoder_repetition_penalty", "assistant_confidence_threshold", "diversity_penalty"]},
    **{name: [[7]] for name in ["suppress_tokens", "begin_suppress_tokens"]},
    "bad_words_ids": [[[7]]],
    "exponential_decay_length_penalty": [[7, 1.5]],
    "num_assistant_tokens_schedule": ["constant"],
}
# Fields of any model, and those of earlier versions and of published models.
CONFIG = {
    **GENERATION,
    "_attn_implementation": ["eager"], "_commit_hash": ["0" * 40], "_name_or_path": ["x"], "name_or_path": ["x"],
    "_experts_implementation": ["eager"], "experts_implementation": ["eager"], "attn_implementation": ["eager"],
    "_attn_implementation_internal": ["eager"], "_attn_implementation_autoset": [True], "_experts_implementation_internal": ["eager"],
    "architectures": [["BertModel"]], "transformers_version": ["4.0.0"], "model_type": [None],
    "transformers_weights": ["other.safetensors"], "auto_map": [{"AutoModel": "own.Model"}],
    "bos_token_id": [5], "eos_token_id": [6], "sep_token_id": [7], "decoder_start_token_id": [2],
    "pad_token_id": [3, None, 999], "chunk_size_feed_forward": [1, 5], "distributed_config": [{}], "fusion_config": [{}],
    "dtype": ["float16", "float32"], "torch_dtype": ["bfloat16", "float32"], "gradient_checkpointing": [True],
    "id2label": [{"0": "x", "1": "y", "2": "z"}, {"0": 5, "1": 6, "2": 7}, {"0": "x"}, None],
    "label2id": [{"x": 0, "y": 1, "z": 2}, {"x": "0"}, None], "num_labels": [3, 2, 4],
    "initializer_range": [0.5], "initializer_factor": [3.0], "init_std": [3.0], "is_encoder_decoder": [True],
    "layer_types": [["full_attention", "full_attention"]], "max_position_embeddings": [30, 50],
    "output_attentions": [True], "output_hidden_states": [True], "output_past": [True], "return_dict": [False], "use_return_dict": [False],
    "per_layer_config": [{"1": {"chunk_size_feed_forward": 2}}, {}],
    "problem_type": ["regression", "single_label_classification", "multi_label_classification", "other"],
    "rope_scaling": [{"type": "linear", "factor": 2.0}], "rope_theta": [500.0], "sliding_window": [2],
    "tie_word_embeddings": [False, "no"], "use_cache": [False], "vocab_size": [len(VOCABULARY) - 1, len(VOCABULARY) + 1],
    "position_embedding_type": ["absolute", "relative_key"], "pruned_heads": [{"0": [1]}, {}], "quantization_config": [{}],
    "cross_attention_hidden_size": [8], "directionality": ["bidi"], "finetuning_task": ["mnli"], "prefix": ["x"],
    "pooler_fc_size": [768], "pooler_num_attention_heads": [12], "pooler_num_fc_layers": [3], "pooler_size_per_head": [128],
    "pooler_type": ["first_token_transform"], "task_specific_params": [{}], "tie_encoder_decoder": [True],
    "tie_last_hidden_states": [True], "tokenizer_class": ["BertTokenizer"], "torchscript": [True], "use_bfloat16": [True],
    "allow_global_per_layer_attribute_access": [True], "_num_labels": [5], "eos_token_ids": [0], "xla_device": [True], "tie_weights_": [True],
    "sentence_transformers": [{"activation_fn": IDENTITY, "version": "5.0.0"}], "sbert_ce_default_activation_function": [SIGMOID],
}
VALUES = {
    "config.json": {
        **CONFIG,
        "add_cross_attention": [True], "is_decoder": [True], "attention_probs_dropout_prob": [0.5], "classifier_dropout": [0.5],
        "hidden_act": ["relu", "silu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "gelu_python", "tanh", "gelu_10", "mish", "x"],
        "per_layer_config": [{"1": {"hidden_act": "relu"}}, {}], "hidden_dropout_prob": [0.5], "hidden_size": [48], "intermediate_size": [41], "layer_norm_eps": [0.1],
        "num_attention_heads": [2, 4, 5], "num_hidden_layers": [1, 3], "type_vocab_size": [1],
    },
    "distilbert:config.json": {
        **CONFIG,
        "activation": ["relu", "gelu_new"], "attention_dropout": [0.5], "dim": [48], "dropout": [0.5], "hidden_dim": [41],
        "hidden_size": [24, 48], "n_heads": [2, 4], "num_attention_heads": [2], "n_layers": [1, 3], "num_hidden_layers": [1],
        "qa_dropout": [0.5], "seq_classif_dropout": [0.5], "sinusoidal_pos_embds": [True],
        # Of BERT.
        "hidden_act": ["relu"], "intermediate_size": [40], "layer_norm_eps": [0.1], "type_vocab_size": [2],
    },
    "tokenizer_config.json": {
        **{name: ["[X]", "sat"] for name in ["bos_token", "eos_token", "cls_token", "sep_token", "unk_token", "pad_token", "mask_token", "x_token"]},
        "_json_padding": [{}], "_json_truncation": [{}], "_spm_precompiled_charsmap": ["x"], "tokenizer_object": [{}], "vocab": [{}],
        "post_processor": [{}], "tokenizer_padding": [{}], "tokenizer_truncation": [{}], "merges": [[]], "unk_id": [3], "gguf_file": ["x"],
        "tokenizer": ["x"], "fix_mistral_regex": [True], "vocab_file": ["x"], "tokenizer_file": ["x"], "files_loaded": [["x"]],
        "add_bos_token": [True], "add_eos_token": [True], "add_generation_prompt": [True], "add_prefix_space": [True],
        "added_tokens_decoder": [{"27": {"content": "[X]", "special": True, "normalized": False, "lstrip": True, "rstrip": False, "single_word": False}}],
        "additional_special_tokens": [["[X]", "sat"]], "extra_special_tokens": [["[X]"], {"b_token": "[X]", "a_token": "cat"}],
        "model_specific_special_tokens": [{"x_token": "[X]"}],
        "auto_map": [{"AutoTokenizer": ["own.Tokenizer", None]}], "backend": ["x"], "chat_control_tokens": [["x"]], "chat_template": ["x"],
        "clean_up_tokenization_spaces": [True, False], "do_lower_case": [True, False], "init_inputs": [[]], "max_len": [5], "max_length": [5],
        "model_input_names": [["input_ids"]], "model_max_length": [5, 1e30, None], "name_or_path": ["x"], "pad_to_multiple_of": [8],
        "pad_token_type_id": [1], "padding_side": ["left", "middle"], "processor_class": ["x"], "response_schema": ["x"],
        "response_template": ["x"], "split_special_tokens": [True, False], "stride": [2], "strip_accents": [True, False],
        "tokenize_chinese_chars": [True, False], "truncation_side": ["left", "middle"], "truncation_strategy": ["only_first"],
        "tokenizer_class": ["DistilBertTokenizer", "ElectraTokenizerFast", "BertJapaneseTokenizer", "GPT2Tokenizer", "Own"], "verbose": [True],
        # Of earlier versions.
        "do_basic_tokenize": [True, False], "never_split": [["cat"], []], "wordpieces_prefix": ["##", "@@"], "clean_text": [True, False],
        "special_tokens_map_file": ["x"], "full_tokenizer_file": ["x"], "use_fast": [False], "return_token_type_ids": [False],
    },
    "special_tokens_map.json": {
        "mask_token": ["[X]", {"content": "[MASK]", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}],
        "cls_token": ["sat"], "sep_token": ["cat"], "unk_token": ["sat"], "bos_token": ["[X]"], "additional_special_tokens": [["[X]"]],
        "x_token": ["[X]"],
    },
    "added_tokens.json": {"[X]": [26, 27, 30], "cat": [6, 27], "Query": [27]},
    "adapter_config.json": {
        "alora_invocation_tokens": [[3], []], "alpha_pattern": [{"query": 3}, {"layer.1.attention.self.value": 3}, {"uery": 3}, {}],
        "arrow_config": [{"top_k": 2}], "auto_mapping": [{"base_model_class": "x"}], "base_model_name_or_path": ["x"],
        "bias": ["all", "lora_only"], "corda_config": [None, {}], "ensure_weight_tying": [True], "eva_config": [None, {}],
        "exclude_modules": [["key"], ["query"], r".*layer\.1.*"], "fan_in_fan_out": [True], "inference_mode": [False],
        "init_lora_weights": [False, "gaussian", "orthogonal", "pissa", "olora", "pissa_niter_2", "loftq", "x"],
        "kasa_config": [{}], "layer_replication": [[[0, 2]]], "layers_pattern": ["layer", "h"], "layers_to_transform": [1, [0], [0, 1]],
        "loftq_config": [{"loftq_bits": 4}], "lora_alpha": [3, 0.5], "lora_bias": [True, False], "lora_dropout": [0.5], "lora_ga_config": [{}],
        "megatron_config": [{"x": 1}], "megatron_core": ["x"], "modules_to_save": [["classifier"], ["classifier", "pooler"], None],
        "monteclora_config": [{}], "peft_type": ["IA3", "x"], "peft_version": ["0.1.0"], "qalora_group_size": [2], "r": [5], "revision": ["x"],
        "rank_pattern": [{"query": 5}, {"key": 5}, {}], "runtime_config": [{"ephemeral_gpu_offload": True}],
        "target_modules": [["query"], ["query", "value", "key"], "all-linear", r".*(query|value)", r".*query", r"(?!x).*(query|value)", None, []], "target_parameters": [["x"]],
        "task_type": ["SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION"], "trainable_token_indices": [[3]], "use_bdlora": [{}],
        "use_dora": [True], "use_qalora": [True], "use_rslora": [True], "velora_config": [{}],
    },
    "modules.json": {"idx": [7], "name": ["x"], "kwargs": [["task"]], "path": ["x"], "type": ["sentence_transformers.models.Normalize", "own.Module"]},
    "1_Pooling/config.json": {
        "embedding_dimension": [24, 48], "word_embedding_dimension": [24, 48], "include_prompt": [False],
        "pooling_mode": ["cls", ["max", "cls"], "lasttoken", "weightedmean", "mean_sqrt_len_tokens", "x", None],
        **{f"pooling_mode_{name}": [True, False] for name in ["cls_token", "lasttoken", "max_tokens", "mean_sqrt_len_tokens", "mean_tokens", "weightedmean_tokens"]},
    },
    "2_Dense/config.json": {
        "activation_function": [IDENTITY, SIGMOID, "torch.nn.ReLU", "torch.nn.modules.activation.GELU", "own.F"], "bias": [False],
        "in_features": [23], "out_features": [25], "module_input_name": ["token_embeddings", "sentence_embedding"],
        "module_output_name": ["x", "sentence_embedding", None], "use_residual": [True],
    },
    "3_Normalize/config.json": {"module_input_name": ["x", "sentence_embedding"], "module_output_name": ["x", "sentence_embedding"]},
    "sentence_bert_config.json": {
        "backend": ["torch"], **{name: [{"dtype": "float32"}, {"revision": "x"}] for name in ["model_args", "model_kwargs"]},
        **{name: [{"layer_norm_eps": 0.1}] for name in ["config_args", "config_kwargs"]},
        **{name: [{"do_lower_case": False}, {"model_max_length": 4}] for name in ["tokenizer_args", "processor_kwargs"]},
        "do_lower_case": [True], "max_seq_length": [4, 20], "document_length": [4], "query_length": [4], "query_expansion": [{"length": 8}],
        "modality_config": [{"text": {"method": "forward", "method_output_name": "last_hidden_state"}}], "model_name_or_path": ["x"],
        "module_output_name": ["token_embeddings", "x"], "processing_kwargs": [{"text": {"truncation": False}}, {}], "tokenizer_name_or_path": ["x"],
        "transformer_task": ["feature-extraction", "fill-mask", "sequence-classification"], "unpad_inputs": [True, False],
    },
    "config_sentence_transformers.json": {
        "__version__": [{"sentence_transformers": "9.0.0"}], "default_prompt_name": ["query", "x"], "model_type": ["SentenceTransformer", "CrossEncoder", "SparseEncoder"],
        "prompts": [{"query": "The cat: "}, {"document": "on "}], "requirements": [{"transformers": ">=4.0"}], "similarity_fn_name": ["dot"], "truncate_dim": [7],
    },
    "cross:config_sentence_transformers.json": {
        "__version__": [{"sentence_transformers": "9.0.0"}], "activation_fn": [IDENTITY, SIGMOID, "torch.nn.modules.activation.Tanh"],
        "default_prompt_name": ["query"], "keep_in_fp32_modules": [["classifier"]], "prompts": [{"query": "the "}], "requirements": [{}], "model_type": ["CrossEncoder"],
    },
}
# The kind of folder that a file is in; by default `encoder`.
KINDS = {
    "config.json": "bert", "distilbert:config.json": "distilbert", "tokenizer_config.json": "tokenizer", "special_tokens_map.json": "tokenizer",
    "added_tokens.json": "tokenizer", "adapter_config.json": "adapter", "cross:config_sentence_transformers.json": "cross",
}  # fmt: skip


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def randomize(model):
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float(name.endswith("LayerNorm.weight")), std=0.3)
    return model.eval()


def tokenizer(folder, **fields):
    write(folder / "tokenizer_config.json", {"do_lower_case": True} | fields)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


def bases(root):
    """Writes a folder of each kind."""
    torch.manual_seed(5)
    sizes = dict(vocab_size=len(VOCABULARY), max_position_embeddings=40)
    sizes |= dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
    labels = dict(id2label={0: "no", 1: "maybe", 2: "yes"}, label2id={"no": 0, "maybe": 1, "yes": 2})
    bert = randomize(BertForSequenceClassification(BertConfig(**sizes, **labels)))
    bert.save_pretrained(root / "bert")
    distil = dict(sizes, dim=24, n_layers=2, n_heads=3, hidden_dim=40) | labels
    for name in ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]:
        del distil[name]
    randomize(DistilBertForSequenceClassification(DistilBertConfig(**distil))).save_pretrained(root / "distilbert")
    randomize(BertForSequenceClassification(BertConfig(**sizes, num_labels=1))).save_pretrained(root / "cross")
    randomize(BertModel(BertConfig(**sizes))).save_pretrained(root / "encoder")
    write(root / "tokenizer/config.json", {"model_type": "bert"})
    for kind in ["bert", "distilbert", "cross", "encoder", "tokenizer"]:
        tokenizer(root / kind)
    adapted = get_peft_model(bert, LoraConfig(r=3, lora_alpha=6, target_modules=["query", "value"], modules_to_save=["classifier"]))
    randomize(adapted).save_pretrained(root / "adapter")
    (root / "adapter/README.md").unlink(missing_ok=True)
    # A bare encoder with every module.
    listed = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    modules = [dict(idx=i, name=str(i), path=path, type=f"sentence_transformers.models.{name}") for i, (path, name) in enumerate(listed)]
    write(root / "encoder/modules.json", modules)
    write(root / "encoder/1_Pooling/config.json", {"word_embedding_dimension": 24})
    write(root / "encoder/2_Dense/config.json", dict(in_features=24, out_features=24, bias=True, activation_function="torch.nn.Tanh"))
    layer = torch.nn.Linear(24, 24)
    torch.save({f"linear.{key}": value for key, value in layer.state_dict().items()}, root / "encoder/2_Dense/pytorch_model.bin")
    write(root / "encoder/3_Normalize/config.json", {})
    write(root / "encoder/sentence_bert_config.json", {"max_seq_length": 30})
    write(root / "encoder/config_sentence_transformers.json", {"prompts": {"query": "sat on: ", "document": ""}})
    write(root / "cross/modules.json", modules[:1])
    write(root / "cross/sentence_bert_config.json", {"transformer_task": "sequence-classification"})
    write(root / "cross/config_sentence_transformers.json", {"model_type": "CrossEncoder", "prompts": {"query": "sat "}})
    return bert


def classifier(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.tensor([[2, 6, 9, 11, 3], [2, 20, 5, 8, 3]])
    with torch.no_grad():
        output = model(ids)
    numbers = (output["logits"] if isinstance(output, dict) else output[0]).flatten().tolist()
    # The pipeline cannot read a tuple.
    model.config.return_dict = True
    classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(folder), top_k=None)
    labels = [str(label) for label in model.config.id2label.values()]
    for scores in classify(TEXTS[1:]):
        by_label = {str(each["label"]): each["score"] for each in scores}
        numbers += [by_label[label] for label in labels]
    return numbers, labels


def tokens(folder):
    own = AutoTokenizer.from_pretrained(folder)
    numbers, texts = [], []
    for text in TEXTS:
        encoding = own(text, truncation=True, max_length=min(own.model_max_length, 512))
        types = encoding.get("token_type_ids", [0] * len(encoding["input_ids"]))
        numbers += encoding["input_ids"] + types
        texts.append(own.decode(encoding["input_ids"], skip_special_tokens=True))
    pair = own(*TEXTS[1:])
    return numbers + pair["input_ids"] + pair.get("token_type_ids", [0] * len(pair["input_ids"])), texts


def embeddings(folder):
    model = SentenceTransformer(str(folder), device="cpu")
    vectors = [*model.encode(TEXTS).tolist(), *model.encode_query(TEXTS).tolist(), *model.encode_document(TEXTS).tolist()]
    return sum(vectors, []), []


def scores(folder):
    model = CrossEncoder(str(folder), device="cpu")
    return model.predict([(a, b) for a in TEXTS for b in TEXTS]).flatten().tolist(), []


def adapted(root):
    def output(folder):
        model = AutoModelForSequenceClassification.from_pretrained(root / "bert")
        model = PeftModel.from_pretrained(model, folder).eval()
        with torch.no_grad():
            return model(torch.tensor([[2, 6, 9, 11, 3], [2, 20, 5, 8, 3]])).logits.flatten().tolist(), []

    return output


def link(base, folder, changed):
    """Copies a folder, except for one file."""
    for path in base.rglob("*"):
        own = folder / path.relative_to(base)
        if path.is_dir():
            own.mkdir(parents=True, exist_ok=True)
        elif path != base / changed:
            own.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, own)


def is_close(numbers, others):
    return len(numbers) == len(others) and all(abs(a - b) < 1e-6 for a, b in zip(numbers, others))


def change(content, field, value):
    if isinstance(content, list):
        # The module whose path or class is changed is the last one.
        content[-1][field] = value
    else:
        content[field] = value
    return content


def variations(root):
    outputs = dict(bert=classifier, distilbert=classifier, tokenizer=tokens, encoder=embeddings, cross=scores, adapter=adapted(root))
    unchanged = {kind: output(root / kind) for kind, output in outputs.items()}
    number = 0
    for key, values in VALUES.items():
        kind, file = KINDS.get(key, "encoder"), key.split(":")[-1]
        for field, value in [(field, value) for field, values in values.items() for value in values]:
            folder = root / f"v{number}"
            number += 1
            base = root / kind / file
            link(root / kind, folder, file)
            content = json.loads(base.read_text(encoding="utf-8")) if base.exists() else {}
            write(folder / file, change(content, field, value))
            numbers, texts, error = [], [], None
            try:
                numbers, texts = outputs[kind](folder)
            except Exception as exception:  # noqa: BLE001
                error = f"{type(exception).__name__}: {exception}"[:200]
            same = texts == unchanged[kind][1] and is_close(numbers, unchanged[kind][0])
            yield dict(folder=folder.name, kind=kind, file=file, field=field, value=value, numbers=numbers, texts=texts, error=error, same=same)


def main(root):
    disable_progress_bar()
    set_verbosity_error()
    warnings.simplefilter("ignore")
    for file, found in all_fields().items():
        new = found - VALUES[file].keys()
        assert not new, f"{file}: fields without values in fields.py: {sorted(new)}"
    bases(root)
    write(root / "variations.json", list(variations(root)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
