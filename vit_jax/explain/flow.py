"""Attention flow (Abnar and Zuidema, ACL 2020, https://arxiv.org/abs/2005.00928, section 3): a maximum flow.

The tokens of all layers are the nodes of a network. Edges lead from the tokens of layer l down to those of the layer
below, with capacities (A_l + I) / 2, A_l fused over heads. The flow of an input token is the maximum flow from the
output token to it. Each input token is the sink of its own problem; the N problems are solved as one batch.

The solver is synchronous push-relabel (Goldberg and Tarjan, JACM 35(4), 1988): in every pulse all nodes with excess
push at the same time. A global relabelling with exact distances follows every few pulses. Excess that can no longer
reach the sink is dropped, since only the value of the flow is needed; this keeps the number of pulses low.

Letters: L layers, B batch, H heads, N tokens. Nodes are [M, N], M = L + 1, the inputs first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vit_jax.attention import fuse_heads
from vit_jax.errors import InputError
from vit_jax.explain.gradients import Targets, check_targets
from vit_jax.explain.rollout import check_attention_shape, readout
from vit_jax.model import Images, VisionTransformer, forward_with_attention

MAX_TOKENS = 256  # the cost of one image grows at least as N^4: a minute or more beyond this
PULSES = 6  # between two global relabellings


class _State(NamedTuple):
    """Residual capacities of the edges, [L, N, N] (from, to), forward (down) and backward (up); nodes' state [M, N]."""

    down: Float[Array, "l n n"]
    up: Float[Array, "l n n"]
    excess: Float[Array, "m n"]
    label: Int[Array, "m n"]


def _lowest_reachable(
    state: _State, usable_down: Bool[Array, "l n n"], usable_up: Bool[Array, "l n n"]
) -> Int[Array, "m n"]:
    """Return 1 + the lowest label among each node's neighbours over residual edges."""
    unreachable = jnp.asarray(state.label.size, jnp.int32)
    below = jnp.where(usable_down, state.label[:-1, None, :], unreachable).min(axis=2)
    above = jnp.where(usable_up, state.label[1:, :, None], unreachable).min(axis=1)
    none = jnp.full((1, state.label.shape[1]), unreachable)
    return 1 + jnp.minimum(jnp.concatenate([none, below]), jnp.concatenate([above, none]))


def _relabel_globally(state: _State, sink: Int[Array, ""]) -> _State:
    """Set every label to the exact distance to the sink over residual edges; the number of nodes if unreachable."""
    usable = state.down > 0, state.up > 0
    initial = jnp.full_like(state.label, state.label.size).at[0, sink].set(0)

    def relax(labels: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, label = labels
        relaxed = jnp.minimum(label, _lowest_reachable(state._replace(label=label), *usable))
        return label, relaxed.at[0, sink].set(0)

    first = relax((initial, initial))
    _, label = jax.lax.while_loop(lambda labels: jnp.any(labels[0] != labels[1]), relax, first)
    return state._replace(label=label)


def _is_active(state: _State, sink: Int[Array, ""]) -> Bool[Array, "m n"]:
    """Return which nodes have excess that can still reach the sink."""
    tolerance = jnp.finfo(state.excess.dtype).eps
    return ((state.excess > tolerance) & (state.label < state.label.size)).at[0, sink].set(False)


def _pulse(state: _State, sink: Int[Array, ""]) -> _State:
    """Push from every active node to nodes one label lower; relabel the active nodes that cannot push."""
    label = state.label
    active = _is_active(state, sink)
    lower_down = (label[1:, :, None] == label[:-1, None, :] + 1) & active[1:, :, None]
    lower_up = (label[:-1, None, :] == label[1:, :, None] + 1) & active[:-1, None, :]
    admissible_down = jnp.where(lower_down, state.down, 0)
    admissible_up = jnp.where(lower_up, state.up, 0)
    # Each node fills its edges in order, first those down, then those up. The exclusive prefix sums are matrix
    # products, because XLA's cumsum is several times slower.
    earlier = jnp.triu(jnp.ones((label.shape[1],) * 2, admissible_down.dtype), 1)
    before_down = jnp.einsum("lij,jk->lik", admissible_down, earlier, precision="highest")
    push_down = jnp.clip(state.excess[1:, :, None] - before_down, 0, admissible_down)
    left = state.excess.at[1:].add(-push_down.sum(axis=2))
    before_up = jnp.einsum("lij,ik->lkj", admissible_up, earlier, precision="highest")
    push_up = jnp.clip(jnp.maximum(left[:-1, None, :], 0) - before_up, 0, admissible_up)
    excess = left.at[:-1].add(push_down.sum(axis=1) - push_up.sum(axis=1)).at[1:].add(push_up.sum(axis=2))
    down, up = state.down - push_down + push_up, state.up + push_down - push_up
    stuck = active.at[1:].min(~(admissible_down > 0).any(axis=2)).at[:-1].min(~(admissible_up > 0).any(axis=1))
    pushed = _State(down, up, excess, label)
    return pushed._replace(label=jnp.where(stuck, _lowest_reachable(pushed, down > 0, up > 0), label))


def _max_flow(capacity: Float[Array, "l n n"], source: Float[Array, " n"], sink: Int[Array, ""]) -> Float[Array, ""]:
    """Return the maximum flow into input token `sink` when output token i supplies source[i]."""
    layers, n, _ = capacity.shape
    excess = jnp.zeros((layers + 1, n), capacity.dtype).at[-1].set(source)
    initial = _State(capacity, jnp.zeros_like(capacity), excess, jnp.zeros((layers + 1, n), jnp.int32))

    def run_pulses(state: _State) -> _State:
        return _relabel_globally(jax.lax.fori_loop(0, PULSES, lambda _, s: _pulse(s, sink), state), sink)

    start = _relabel_globally(initial, sink)
    final = jax.lax.while_loop(lambda state: jnp.any(_is_active(state, sink)), run_pulses, start)
    return final.excess[0, sink]


def _check_num_tokens(tokens: int) -> None:
    if tokens > MAX_TOKENS:
        raise InputError(f"attention flow supports at most {MAX_TOKENS} tokens, not {tokens}; use a rollout")


def flow_from_attention(
    attention: Float[Array, "..."],
    *,
    head_fusion: str = "mean",
    query: int | Float[Array | np.ndarray, " n"] = 0,
) -> Float[Array, "b n"]:
    """Return the attention flow from an output token, or weights [N] over them, to every input token: [B, N] in [0, 1].

    attention: [L, B, H, N, N] from forward_with_attention, or [L, B, N, N] with fused heads.
    Exact up to rounding; not differentiable. For small N: the cost grows at least as N^4.
    Raises InputError for more than 256 tokens, a wrong shape, and an unknown head_fusion or token.
    """
    check_attention_shape(attention)
    n = attention.shape[-1]
    _check_num_tokens(n)
    if isinstance(query, int) and not -n <= query < n:
        raise InputError(f"no token {query}: there are {n}")
    fused = fuse_heads(attention, head_fusion) if attention.ndim == 5 else attention
    capacity = jnp.moveaxis((fused + jnp.eye(n, dtype=fused.dtype).reshape(1, 1, n, n)) / 2, 1, 0)
    weights: Any = jnp.zeros(n).at[query].set(1.0) if isinstance(query, int) else jnp.asarray(query)
    source = weights.astype(capacity.dtype)
    sinks = jnp.arange(n)
    return jax.lax.map(lambda c: jax.vmap(lambda sink: _max_flow(c, source, sink))(sinks), capacity)


def attention_flow(
    model: VisionTransformer, images: Images, targets: Targets | None = None, *, head_fusion: str = "mean"
) -> Float[Array, "..."]:
    """Return the attention flow from the token that the head reads to every patch: [B, n] in [0, 1].

    The flow does not depend on a class. Targets [B, K] repeat it for all K, [B, K, n], so that all methods can be
    called alike. Raises InputError as flow_from_attention and the model do.
    """
    config = model.config
    tokens = config.num_prefix + int(np.prod(config.grid_for(images.shape[1:3])))
    _check_num_tokens(tokens)
    attention = forward_with_attention(model, images, head_fusion=head_fusion).attention
    flows = flow_from_attention(attention, query=readout(model, tokens))[:, config.num_prefix :]
    if targets is None or targets.ndim == 1:
        return flows
    classes = check_targets(targets, images.shape[0], config.num_outputs)
    return jnp.broadcast_to(flows[:, None], (*classes.shape, flows.shape[-1]))
