"""Random rotations, mirrors and scales, so that a design learns from more heads than it was shown."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from acqdesign.base.checks import usage_error
from acqdesign.base.types import Array, Inexact, PRNGKey


def _rotation(angles: Array) -> Array:
    """Rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = jnp.cos(angles), jnp.sin(angles)
    one, zero = jnp.ones_like(cx), jnp.zeros_like(cx)
    about_x = jnp.array([[one, zero, zero], [zero, cx, -sx], [zero, sx, cx]])
    about_y = jnp.array([[cy, zero, sy], [zero, one, zero], [-sy, zero, cy]])
    about_z = jnp.array([[cz, -sz, zero], [sz, cz, zero], [zero, zero, one]])
    return about_z @ about_y @ about_x


def augment(
    image: Inexact[Array, "*batch nx ny nz"],
    key: PRNGKey,
    *,
    max_rotation: float = math.pi / 12,
    max_scale: float = 0.05,
    mirror: Sequence[int] = (2,),
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
) -> Inexact[Array, "*batch nx ny nz"]:
    """The image under one random rotation, scale and set of flips about the middle of its field of view.

    Linear interpolation; zeros come in from outside, and what leaves the field of view is cut off. Tissue fractions
    stay in [0, 1] and their sum at most one. A single plane (`nx = 1`) turns within itself.

    Args:
        image: real or complex image `(..., nx, ny, nz)`; leading axes, such as tissue maps, move as one.
        key: from `jax.random.key`.
        max_rotation: angles about each axis are uniform up to this size [rad].
        max_scale: the object grows or shrinks by a factor uniform in `1 ± max_scale`.
        mirror: axes that are mirrored with probability one half; 2 is left and right in the packaged brain.
        voxel_size: relative lengths of a voxel's edges, so that anisotropic voxels turn rigidly.
    """
    if image.ndim < 3 or not jnp.issubdtype(image.dtype, jnp.inexact):
        raise usage_error("image", image, "a real or complex floating array (..., nx, ny, nz)")
    if not max_rotation >= 0:
        raise usage_error("max_rotation", max_rotation, "an angle >= 0")
    if not 0 <= max_scale < 1:
        raise usage_error("max_scale", max_scale, "a number in [0, 1)")
    if set(mirror) - {0, 1, 2}:
        raise usage_error("mirror", tuple(mirror), "axes out of 0, 1 and 2")
    if len(voxel_size) != 3 or not all(v > 0 for v in voxel_size):
        raise usage_error("voxel_size", tuple(voxel_size), "three lengths > 0")
    shape = image.shape[-3:]
    real = jnp.finfo(image.dtype).dtype
    turn_key, scale_key, flip_key = jax.random.split(key, 3)
    # An axis of one voxel has no neighbours: the plane may only turn about its normal.
    turns = jnp.array([all(n > 1 for a, n in enumerate(shape) if a != axis) for axis in range(3)], real)
    angles = turns * jax.random.uniform(turn_key, (3,), real, -max_rotation, max_rotation)
    scale = jax.random.uniform(scale_key, (), real, 1 - max_scale, 1 + max_scale)
    mirrored = jax.random.bernoulli(flip_key, 0.5, (3,)) & jnp.array([a in mirror for a in range(3)])
    signs = jnp.where(mirrored, -1, 1).astype(real)

    # Output voxels look up where they came from: mirror, turn back, shrink back.
    size = jnp.array(voxel_size, real)
    lookup = (_rotation(angles).T * signs) / scale * size / size[:, None]
    lookup = jnp.where(jnp.array([n > 1 for n in shape])[:, None], lookup, 0)
    middle = ((jnp.array(shape, real) - 1) / 2)[:, None, None, None]
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=real) for n in shape), indexing="ij"))
    source = jnp.tensordot(lookup, grid - middle, axes=1) + middle
    turned = jax.vmap(lambda volume: map_coordinates(volume, list(source), order=1, mode="constant"))
    return turned(image.reshape(-1, *shape)).reshape(image.shape)


def fine_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The grid of half the voxel size on which `random_pose` turns images; a single plane stays one."""
    return tuple(n if n == 1 else 2 * n for n in shape)


def random_pose(
    fine: Inexact[Array, "*batch fx fy fz"],
    key: PRNGKey,
    shape: Sequence[int],
    *,
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
) -> Inexact[Array, "*batch nx ny nz"]:
    """The image in a random pose of `augment`, nearly as sharp as one that was never moved.

    Interpolation blurs by up to a voxel, so the image is turned on the finer grid `fine_shape(shape)` and averaged to
    its own: the packaged brain then loses a tenth of its squared differences between neighbours, rather than a third.
    """
    if fine.shape[-3:] != fine_shape(shape):
        raise usage_error("fine", fine, f"shape (..., {', '.join(map(str, fine_shape(shape)))})")
    moved = augment(fine, key, voxel_size=voxel_size)
    blocks = [size for n, f in zip(shape, fine.shape[-3:], strict=True) for size in (n, f // n)]
    return moved.reshape(*fine.shape[:-3], *blocks).mean(axis=(-5, -3, -1))
