"""Interventions in a forward pass: ablate or replace heads, branches and tokens.

At each place a value v becomes scale * v + shift. An Edit is a pytree of arrays, so a vmap over it runs one model with
many edits.

Letters: L layers, B batch, N tokens, H heads, K size of a head, D width.
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from vit_jax.config import ViTConfig
from vit_jax.errors import InputError


class Edit(NamedTuple):
    """Scales and shifts of every layer; None leaves a place as it is. A scale of 0 ablates, with a shift it replaces.

    head_scale, head_shift:   [L, H] and [L, H, K], of each head's output, before the attention's output layer
    branch_scale:             [L, 2], of what the attention and the MLP add to the tokens; 0 and 0 skip a block
    token_scale, token_shift: [L + 1, N] and [L + 1, B or 1, N, D], of the tokens that enter the first block and that
                              leave each block; all tokens together are the block's output
    """

    head_scale: Float[Array, "..."] | None = None
    head_shift: Float[Array, "..."] | None = None
    branch_scale: Float[Array, "..."] | None = None
    token_scale: Float[Array, "..."] | None = None
    token_shift: Float[Array, "..."] | None = None

    def of_block(self, layer: int) -> "Edit":
        """Return the edit of one block, without the layers' axis: its heads, its branches, the tokens that leave it."""
        rows = [None if value is None else value[layer] for value in self[:3]]
        return Edit(*rows, *(None if value is None else value[layer + 1] for value in self[3:]))

    def of_embedding(self) -> "Edit":
        """Return the edit of the tokens that enter the first block."""
        return Edit(None, None, None, *(None if value is None else value[0] for value in self[3:]))


NO_EDIT = Edit()


def check_edit(edit: Edit, config: ViTConfig, tokens: Float[Array, "b n d"]) -> None:
    """Raise InputError unless an edit fits a model and its tokens."""
    layers, heads, (b, n, d) = config.depth, config.num_heads, tokens.shape
    shapes: dict[str, list[tuple]] = {
        "head_scale": [(layers, heads)],
        "head_shift": [(layers, heads, config.head_size)],
        "branch_scale": [(layers, 2)],
        "token_scale": [(layers + 1, n)],
        "token_shift": [(layers + 1, size, n, d) for size in (b, 1)],
    }
    for name, value in edit._asdict().items():
        if value is not None and tuple(value.shape) not in shapes[name]:
            raise InputError(f"{name} must be {list(shapes[name][0])} for this model, not {list(value.shape)}")


def edit_heads(heads: Float[Array, "b n h k"], edit: Edit) -> Float[Array, "b n h k"]:
    """Return the heads' outputs after a block's edit."""
    if edit.head_scale is not None:
        heads = heads * edit.head_scale.astype(heads.dtype).reshape(1, 1, -1, 1)
    return heads if edit.head_shift is None else heads + edit.head_shift.astype(heads.dtype)[None, None]


def scale_branch(branch: Float[Array, "b n d"], edit: Edit, which: int) -> Float[Array, "b n d"]:
    """Return what the attention (which 0) or the MLP (1) adds to the tokens, after a block's edit."""
    return branch if edit.branch_scale is None else branch * edit.branch_scale[which].astype(branch.dtype)


def edit_tokens(tokens: Float[Array, "b n d"], edit: Edit) -> Float[Array, "b n d"]:
    """Return tokens after a block's edit, or the embedding's."""
    if edit.token_scale is not None:
        tokens = tokens * edit.token_scale.astype(tokens.dtype).reshape(1, -1, 1)
    return tokens if edit.token_shift is None else tokens + edit.token_shift.astype(tokens.dtype)
