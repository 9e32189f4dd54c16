"""The devices that JAX_PLATFORMS asks for, where jax cannot use them."""

import jax

NO_DEVICE = "no such device is visible"  # jax 0.10 fails an assertion without a text then


def describe_missing_backend(error: Exception) -> str | None:
    """Return one line if an error means that jax cannot start the backend that JAX_PLATFORMS names, else None."""
    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
    if not platforms or not isinstance(error, (AssertionError, RuntimeError)):
        return None
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as reason:
        text = (str(reason) or NO_DEVICE).partition(" (set JAX_PLATFORMS")[0].rstrip(".")
        return f"JAX_PLATFORMS={platforms}: {text}; unset JAX_PLATFORMS, or install jax for that device (see BUILD.md)"
    return None
