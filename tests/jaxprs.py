"""The operations of a traced program, and those that a plain program, without compiler workarounds, must not have."""

import jax

WORKAROUNDS = {"optimization_barrier", "remat2", "checkpoint", "remat", "split", "stack", "name"}


def equations_of(jaxpr):
    """Yield all equations of a jaxpr and of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations_of(inner)


def primitives_of(jaxpr):
    """Return the names of all primitives in a jaxpr and in the programs inside it."""
    return {equation.primitive.name for equation in equations_of(jaxpr)}


def product_types(jaxpr):
    """Return the pairs of types that the matrix products of a program multiply."""
    products = [equation for equation in equations_of(jaxpr) if equation.primitive.name == "dot_general"]
    return {tuple(operand.aval.dtype.name for operand in equation.invars) for equation in products}
