"""Attention flow (Abnar and Zuidema, ACL 2020, https://arxiv.org/abs/2005.00928, section 3): a maximum flow.

Tokens of all layers are the nodes of a network, and (A_l + I) / 2 holds the capacities from layer l's tokens down to
those of the layer below, A_l fused over heads. The flow of an input token is the most that can go from the output token
to it. Each input token is a sink of its own, so N problems are solved side by side.

The solver is push-relabel (Goldberg and Tarjan, JACM 35(4), 1988) in its synchronous form: in every pulse all nodes
that hold excess push it at once. Exact distances are worked out anew before every few pulses, and excess that has no
way to the sink left is given up (only the value of the flow is wanted), which is what keeps the pulses few.

Letters: L layers, B batch, H heads, N tokens. Nodes are [L + 1, N], the inputs first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vit_jax.attention import fuse_heads
from vit_jax.errors import InputError
from vit_jax.explain.gradients import Targets, check_targets
from vit_jax.explain.rollout import readout
from vit_jax.model import Images, VisionTransformer, forward_with_attention

MOST_TOKENS = 256  # the cost of one image grows as N^4 at least: a minute and more beyond this
PULSES = 6  # between two exact relabellings


class _State(NamedTuple):
    """down: what each edge can still carry; up: what it carries and could take back, both [L, N, N] (from, to)."""

    down: Float[Array, "l n n"]
    up: Float[Array, "l n n"]
    excess: Float[Array, "m n"]
    label: Int[Array, "m n"]


def _nearest(state: _State, usable_down: Bool[Array, "l n n"], usable_up: Bool[Array, "l n n"]) -> Int[Array, "m n"]:
    """One more than the least label that each node has a residual edge to."""
    far = jnp.asarray(state.label.size, jnp.int32)
    below = jnp.where(usable_down, state.label[:-1, None, :], far).min(axis=2)
    above = jnp.where(usable_up, state.label[1:, :, None], far).min(axis=1)
    none = jnp.full((1, state.label.shape[1]), far)
    return 1 + jnp.minimum(jnp.concatenate([none, below]), jnp.concatenate([above, none]))


def _relabelled(state: _State, sink: Int[Array, ""]) -> _State:
    """The exact distance of every node to the sink over residual edges; the number of nodes where there is no way."""
    usable = state.down > 0, state.up > 0
    far = state.label.size
    unknown = jnp.full_like(state.label, far).at[0, sink].set(0)

    def closer(labels: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        _, label = labels
        return label, jnp.minimum(label, _nearest(state._replace(label=label), *usable)).at[0, sink].set(0)

    first = closer((unknown, unknown))
    _, label = jax.lax.while_loop(lambda labels: jnp.any(labels[0] != labels[1]), closer, first)
    return state._replace(label=label)


def _active(state: _State, sink: Int[Array, ""]) -> Bool[Array, "m n"]:
    least = jnp.finfo(state.excess.dtype).eps
    return ((state.excess > least) & (state.label < state.label.size)).at[0, sink].set(False)


def _pulse(state: _State, sink: Int[Array, ""]) -> _State:
    """Every active node pushes what it can to nodes one label lower; those that can't are relabelled."""
    label = state.label
    active = _active(state, sink)
    lower_down = (label[1:, :, None] == label[:-1, None, :] + 1) & active[1:, :, None]
    lower_up = (label[:-1, None, :] == label[1:, :, None] + 1) & active[:-1, None, :]
    room_down = jnp.where(lower_down, state.down, 0)
    room_up = jnp.where(lower_up, state.up, 0)
    # Each node fills its edges in order: first those down, then those back up.
    earlier = jnp.triu(jnp.ones((label.shape[1],) * 2, room_down.dtype), 1)  # sums of what comes before: XLA's cumsum
    before_down = jnp.einsum("lij,jk->lik", room_down, earlier, precision="highest")  # is several times slower
    push_down = jnp.clip(state.excess[1:, :, None] - before_down, 0, room_down)
    left = state.excess.at[1:].add(-push_down.sum(axis=2))
    before_up = jnp.einsum("lij,ik->lkj", room_up, earlier, precision="highest")
    push_up = jnp.clip(jnp.maximum(left[:-1, None, :], 0) - before_up, 0, room_up)
    excess = left.at[:-1].add(push_down.sum(axis=1) - push_up.sum(axis=1)).at[1:].add(push_up.sum(axis=2))
    down, up = state.down - push_down + push_up, state.up + push_down - push_up
    stuck = active.at[1:].min(~(room_down > 0).any(axis=2)).at[:-1].min(~(room_up > 0).any(axis=1))
    moved = _State(down, up, excess, label)
    return moved._replace(label=jnp.where(stuck, _nearest(moved, down > 0, up > 0), label))


def _max_flow(capacity: Float[Array, "l n n"], source: Float[Array, " n"], sink: Int[Array, ""]) -> Float[Array, ""]:
    """The most that reaches input token `sink` when output token i may send source[i]."""
    layers, n, _ = capacity.shape
    excess = jnp.zeros((layers + 1, n), capacity.dtype).at[-1].set(source)
    state = _State(capacity, jnp.zeros_like(capacity), excess, jnp.zeros((layers + 1, n), jnp.int32))

    def pulses(state: _State) -> _State:
        return _relabelled(jax.lax.fori_loop(0, PULSES, lambda _, s: _pulse(s, sink), state), sink)

    done = jax.lax.while_loop(lambda s: jnp.any(_active(s, sink)), pulses, _relabelled(state, sink))
    return done.excess[0, sink]


def flow_from_attention(
    attention: Float[Array, "..."],
    *,
    head_fusion: str = "mean",
    query: int | Float[Array | np.ndarray, " n"] = 0,
) -> Float[Array, "b n"]:
    """The attention flow from one output token, or from weights over them [N], to every input token: [B, N] in [0, 1].

    attention: [L, B, H, N, N] from forward_with_attention, or [L, B, N, N] with its heads fused already.
    Exact but for rounding; for small N, since its cost grows as N^4 at least. Differentiable it is not.
    Raises InputError for more than 256 tokens, another shape, and a fusion or token that there is not.
    """
    if attention.ndim not in (4, 5) or attention.shape[-1] != attention.shape[-2]:
        raise InputError(f"attention is [L, B, H, N, N] or, fused, [L, B, N, N], not {attention.shape}")
    n = attention.shape[-1]
    if n > MOST_TOKENS:
        raise InputError(f"attention flow is for at most {MOST_TOKENS} tokens, not {n}; take a rollout")
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
    """The attention flow from the token that the head reads to every patch: [B, n] in [0, 1].

    No class enters into it: with targets [B, K] the answer is the same for all K, [B, K, n], so that the methods can be
    exchanged for one another. Raises InputError as flow_from_attention and the model do.
    """
    config = model.config
    tokens = config.num_prefix + int(np.prod(config.grid_for(images.shape[1:3])))
    if tokens > MOST_TOKENS:
        raise InputError(f"attention flow is for at most {MOST_TOKENS} tokens, not {tokens}; take a rollout")
    attention = forward_with_attention(model, images, head_fusion=head_fusion).attention
    flows = flow_from_attention(attention, query=readout(model, tokens))[:, config.num_prefix :]
    if targets is None or targets.ndim == 1:
        return flows
    classes = check_targets(targets, images.shape[0], config.num_outputs)
    return jnp.broadcast_to(flows[:, None], (*classes.shape, flows.shape[-1]))
