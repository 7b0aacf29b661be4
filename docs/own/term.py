"""How far one tissue stands out from another; less is better, so a contrast is negative."""

import jax.numpy as jnp


def contrast(scan, one="gm", other="wm"):
    image = jnp.abs(scan.image)
    first, second = (jnp.mean(image, where=scan.scene.label(name)) for name in (one, other))
    return -jnp.abs(first - second)


def lesion_contrast(scan):
    return contrast(scan, "lesion", "wm")
