"""Packed batches, and how transformers sees them: padded, with an attention mask."""

import torch

IGNORED = -100  # the label of a token that is not asked about


class Batch:
    """B sequences, T tokens in all, one after the other; S is the length of the longest.

    Id 0 is padding and is not among the ids: PyTorch would drop the gradient of its look-up (`padding_idx`).
    """

    def __init__(self, lengths, vocab_size, token_types, generator):
        self.lengths = torch.tensor(lengths)
        self.ids = torch.randint(1, vocab_size, (sum(lengths),), generator=generator)
        self.token_types = torch.randint(0, token_types, (sum(lengths),), generator=generator)
        # [B, S]: true where the padded batch holds a token. Indexing with it packs, assigning through it pads.
        self.real = torch.arange(max(lengths)) < self.lengths[:, None]

    def pad(self, packed, filler):
        """[T] to [B, S]"""
        padded = torch.full(self.real.shape, filler)
        padded[self.real] = packed
        return padded

    def inputs(self, model):
        """The padded batch, as keyword arguments of a model."""
        inputs = dict(input_ids=self.pad(self.ids, 0), attention_mask=self.real.long())
        return inputs | self._types(model, self.pad(self.token_types, 0))

    def one_by_one(self, model):
        """Each sequence as keyword arguments, a batch of one without padding."""
        for ids, types in zip(self.ids.split(self.lengths.tolist()), self.token_types.split(self.lengths.tolist())):
            yield dict(input_ids=ids[None], **self._types(model, types[None]))

    @staticmethod
    def _types(model, types):
        return {} if model.config.model_type == "distilbert" else dict(token_type_ids=types)
