"""Names of the network's tensors: the published checkpoint's (Wan 2.1's with Lyra's additions) and ours (diffusers')."""

from __future__ import annotations

PREFIX = "net."
"""The published checkpoint's keys start with it."""
IGNORED_PREFIXES = ("accum_",)
IGNORED_SUFFIXES = ("._extra_state",)
"""Training counters and TransformerEngine's bookkeeping: no weights."""
_FEED_FORWARD = {"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "k_img": "add_k_proj", "v_img": "add_v_proj",
              "norm_q": "norm_q", "norm_k": "norm_k", "norm_k_img": "norm_added_k"}
_BLOCK = {
    **{f"self_attn.{a}": f"attn1.{b}" for a, b in _ATTENTION.items()},
    **{f"cross_attn.{a}": f"attn2.{b}" for a, b in _ATTENTION.items()},
    **_FEED_FORWARD,
    "norm3": "norm2",
    "modulation": "scale_shift_table",
}
_TOP = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_BLOCK_BACK = {ours: published for published, ours in _BLOCK.items()}
_TOP_BACK = {ours: published for published, ours in _TOP.items()}


def to_ours(key: str) -> str | None:
    """Return our name of a published tensor, with or without its prefix ``net.``; None for what is no weight.

    Names that are the same on both sides, and unknown ones, come back unchanged, so that a strict load lists the latter.
    """
    key = key.removeprefix(PREFIX)
    if key.startswith(IGNORED_PREFIXES) or key.endswith(IGNORED_SUFFIXES):
        return None
    return _renamed(key, _BLOCK, _TOP)


def to_published(key: str) -> str:
    """Return the published name of one of our tensors, without prefix."""
    return _renamed(key, _BLOCK_BACK, _TOP_BACK)


def _renamed(key: str, block: dict[str, str], top: dict[str, str]) -> str:
    if key.startswith("blocks."):
        _, index, rest = key.split(".", 2)
        return f"blocks.{index}.{_replaced(rest, block)}"
    return _replaced(key, top)


def _replaced(name: str, table: dict[str, str]) -> str:
    """Rename a tensor's module, which is the name itself or all of it before the last dot."""
    if name in table:
        return table[name]
    module, dot, tensor = name.rpartition(".")
    return f"{table.get(module, module)}{dot}{tensor}"
