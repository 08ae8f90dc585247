"""MosaicBERT's weights, as mosaicml/examples and the hub have them."""

from __future__ import annotations

import torch

from ...errors import ConfigError
from ...weights import Weights, layout, renamed, split_rows
from ..mosaic_bert import MosaicBert

RULES = (
    (r"^(?:model\.)?(?=bert\.|cls\.)", ""),
    (r"^bert\.embeddings\.word_embeddings\.", "words."),
    (r"^bert\.embeddings\.token_type_embeddings\.", "types."),
    (r"^bert\.embeddings\.LayerNorm\.", "norm."),
    (r"^bert\.embeddings\.(?:token_type_ids|position_ids)$", ""),
    (r"^bert\.pooler\..*", ""),
    (r"^bert\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.self\.Wqkv\.", ".query_key_value."),
    (r"\.attention\.output\.dense\.", ".out."),
    (r"\.attention\.output\.LayerNorm\.", ".norm1."),
    (r"\.mlp\.wo\.", ".feed_forward.down."),
    (r"\.mlp\.layernorm\.", ".norm2."),
    (r"^cls\.predictions\.transform\.dense\.", "head."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "head_norm."),
    (r"^cls\.predictions\.(?:decoder\.)?bias$", "head_bias"),
)


@layout(MosaicBert)
def mosaic_bert(weights: Weights, model: MosaicBert) -> Weights:
    """Both sides of a gated network are one matrix there, the one with the activation first.

    Raises: ConfigError: a head whose words are not those of the embedding.
    """
    taken = renamed(weights, RULES)
    head = taken.pop("cls.predictions.decoder.weight", None)
    if head is not None and "words.weight" in taken and not torch.equal(head, taken["words.weight"]):
        raise ConfigError("the head of a MosaicBERT has the words of its embedding, and these weights have others")
    for name in [name for name in taken if name.endswith(".mlp.gated_layers.weight")]:
        place, half = name.removesuffix("mlp.gated_layers.weight") + "feed_forward.", len(taken[name]) // 2
        split_rows(taken, name, [(f"{place}gate.weight", half), (f"{place}up.weight", half)])
    return taken
