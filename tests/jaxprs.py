"""The primitives of a traced program, and those that a plain program, without compiler workarounds, must not have."""

import jax

WORKAROUNDS = {"optimization_barrier", "remat2", "checkpoint", "remat", "split", "stack", "name"}


def primitives_of(jaxpr):
    """Return the names of all primitives in a jaxpr and in the programs inside it."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                names |= primitives_of(inner)
    return names
