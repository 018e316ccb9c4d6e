"""Packed batches, and their conversion to the padded form of transformers."""

import torch

IGNORED = -100  # the ignored label


class Batch:
    """B packed sequences with T tokens in total; S is the length of the longest.

    `target_rows` are the packed rows of the M tokens to predict, in ascending order. Id 0 is padding and does not occur
    among the ids, because PyTorch drops the gradient of its embedding (`padding_idx`).
    """

    def __init__(self, ids, token_types, lengths, target_rows=()):
        self.ids, self.token_types, self.lengths = ids, token_types, lengths
        self.target_rows = torch.tensor(target_rows)
        # [B, S]: true for tokens, false for padding. Indexing with it packs, and assigning through it pads.
        self.real = torch.arange(int(lengths.max())) < lengths[:, None]

    @staticmethod
    def draw(lengths, vocab_size, token_types, generator, target_rows=()):
        ids = torch.randint(1, vocab_size, (sum(lengths),), generator=generator)
        types = torch.randint(0, token_types, (sum(lengths),), generator=generator)
        return Batch(ids, types, torch.tensor(lengths), target_rows)

    def tensors(self):
        """The tensors as stored in a fixture."""
        return {"ids": self.ids, "token_types": self.token_types, "lengths": self.lengths}

    def pad(self, packed, filler):
        """Pads [T] to [B, S]."""
        padded = torch.full(self.real.shape, filler)
        padded[self.real] = packed
        return padded

    def spread(self, targets):
        """Spreads [M] to [T]: the labels of all tokens, ignored except at `target_rows`."""
        labels = torch.full(self.ids.shape, IGNORED)
        labels[self.target_rows] = targets
        return labels

    def inputs(self, model):
        """The padded batch as keyword arguments of a model."""
        inputs = dict(input_ids=self.pad(self.ids, 0), attention_mask=self.real.long())
        return inputs | self._types(model, self.pad(self.token_types, 0))

    def one_by_one(self, model):
        """Yields each sequence as keyword arguments: a batch of one, without padding."""
        for ids, types in zip(self.ids.split(self.lengths.tolist()), self.token_types.split(self.lengths.tolist())):
            yield dict(input_ids=ids[None], **self._types(model, types[None]))

    @staticmethod
    def _types(model, types):
        return {} if model.config.model_type == "distilbert" else dict(token_type_ids=types)
