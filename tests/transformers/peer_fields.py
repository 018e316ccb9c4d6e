"""The fields that the Python packages read or write in each settings file, found in their own classes and sources.

A field that a later version adds is found here, and `fields.py` then asks for values of it.
"""

import inspect
import re
from dataclasses import fields

import sentence_transformers
from peft import LoraConfig
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.sentence_transformer.modules import Pooling, pooling
from sentence_transformers.util import decorators
from transformers import BertConfig, BertTokenizer, DistilBertConfig, PreTrainedTokenizerBase, modeling_utils
from transformers.configuration_utils import PreTrainedConfig
from transformers.generation.configuration_utils import GenerationConfig
from transformers.models.bert import modeling_bert
from transformers.models.distilbert import modeling_distilbert
from transformers.tokenization_utils_tokenizers import TokenizersBackend


def names(pattern, *sources):
    """The names that a pattern finds in the source of objects."""
    return {name for source in sources for name in re.findall(pattern, inspect.getsource(source))}


def parameters(function):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name for name, it in inspect.signature(function).parameters.items() if it.kind not in kinds} - {"self"}


def of_config(config_class, modeling):
    read = names(r"kwargs\.(?:pop|get)\(\"(\w+)\"", PreTrainedConfig.__post_init__)
    attributes = names(r"config\.(\w+)", modeling) | names(r"getattr\((?:self\.)?config, \"(\w+)\"", modeling_utils, modeling)
    methods = {name for name in dir(config_class) if callable(getattr(config_class, name, None))}
    generation = set(GenerationConfig._get_default_generation_params())
    written = set(config_class().to_dict())
    own = {field.name for field in fields(config_class)} | set(config_class.attribute_map)
    return (own | read | attributes | generation | written | {"output_attentions", "num_labels", "name_or_path"}) - methods


def of_tokenizer():
    init = r"kwargs\.(?:pop|get|setdefault)\(\"(\w+)\""
    read = names(init, PreTrainedTokenizerBase.__init__, TokenizersBackend.__init__, PreTrainedTokenizerBase._from_pretrained)
    mentioned = names(r"\"(\w+)\" in (?:init_)?kwargs", PreTrainedTokenizerBase, TokenizersBackend)
    return parameters(BertTokenizer.__init__) | read | mentioned | set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)


def of_adapter():
    return {field.name for field in fields(LoraConfig)} | set(LoraConfig().to_dict())


def of_sentence_files():
    renamed = names(r"\"(\w+_args)\":", decorators.transformer_kwargs_decorator)
    of_model = names(r"model_config(?:\.get\(|\[)\"(\w+)\"", BaseModel, sentence_transformers.SentenceTransformer)
    of_cross_encoder = names(r"model_config(?:\.get\(|\[)\"(\w+)\"", BaseModel, sentence_transformers.CrossEncoder)
    legacy = pooling._LEGACY_POOLING_MODE_KWARGS
    return {
        "modules.json": names(r"module_config(?:\.get\(|\[)\"(\w+)\"", BaseModel) | {"idx"},
        "1_Pooling/config.json": set(Pooling.config_keys) | set(Pooling.config_key_renames) | set(legacy),
        "2_Dense/config.json": set(Dense.config_keys),
        "3_Normalize/config.json": set(Normalize.config_keys),
        "sentence_bert_config.json": set(Transformer.config_keys) | parameters(Transformer.__init__) | renamed,
        "config_sentence_transformers.json": of_model | set(written_by_model()),
        "cross:config_sentence_transformers.json": of_cross_encoder,
    }


def written_by_model():
    source = inspect.getsource(BaseModel._get_model_config)
    return re.findall(r"^            \"(\w+)\":", source, re.M) + ["similarity_fn_name", "truncate_dim"]


def all_fields():
    return {
        "config.json": of_config(BertConfig, modeling_bert),
        "distilbert:config.json": of_config(DistilBertConfig, modeling_distilbert),
        "tokenizer_config.json": of_tokenizer(),
        "adapter_config.json": of_adapter(),
        **of_sentence_files(),
    }


if __name__ == "__main__":
    for file, found in all_fields().items():
        print(file, sorted(found))
