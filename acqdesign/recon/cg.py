"""Conjugate gradients for regularised least squares, with an exact gradient through its iterations.

x = argmin ‖A x - y‖² + ridge ‖x‖²,    (Aᴴ A + ridge) x = Aᴴ y
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from acqdesign.base.checks import as_array, check_at_least_zero, check_count, check_kind, usage_error
from acqdesign.base.sharding import alike, total, vary, varying
from acqdesign.base.types import Array, Image, Samples
from acqdesign.encoding import Encoding, Gram

_KEPT_BYTES = 2**29  # iterations are all kept for the gradient while they take no more


def _inner(a: Array, b: Array, axes: tuple[int, ...]) -> Array:
    here = jnp.sum((jnp.conj(a) * b).real, axis=axes, keepdims=True)
    return vary(total(here, "planes"), varying(here)) if -3 in axes else here


def _quotient(a: Array, b: Array, wanted: Array) -> Array:
    """`a / b` where wanted, elsewhere zero with a zero gradient."""
    return jnp.where(wanted, a / jnp.where(wanted, b, 1), 0)


def cg(
    gram: Callable[[Image], Image],
    rhs: Image,
    *,
    iterations: int,
    dims: int | None = None,
    planes_apart: bool | None = None,
) -> Image:
    """Solves `gram x = rhs` by conjugate gradients from zero, each image by itself, or each plane of it.

    The gradient is that of the iterations as computed, converged or not.

    Args:
        gram: a Hermitian positive semi-definite map of images, such as `encoding.normal() + 1e-3`.
        rhs: `(..., *shape)` complex right-hand sides, images such as `Aᴴ y`.
        iterations: fixed number of them; more regularise less.
        dims: how many trailing axes are one image; those of a `Gram`'s shape, or 3, unless given.
        planes_apart: whether planes across the readout, the third axis from the end, are problems of their own; as a
            `Gram` says, or False, unless given.

    Hestenes & Stiefel, J. Res. Natl. Bur. Stand. 49 (1952).
    """
    iterations = check_count("iterations", iterations)
    check_kind("gram", gram, Callable, "a map of images")  # type: ignore[arg-type]
    dims = (len(gram.shape) if isinstance(gram, Gram) else 3) if dims is None else check_count("dims", dims)
    rhs = as_array("rhs", rhs)
    if rhs.ndim < dims:
        raise usage_error("rhs", rhs, f"at least the {dims} axes of an image")
    if planes_apart is None:
        planes_apart = isinstance(gram, Gram) and gram.planes_apart
    axes = tuple(axis for axis in range(-dims, 0) if axis != -3 or not planes_apart)
    # At unit norm, so that squares of residuals keep away from the smallest numbers.
    norm = jax.lax.stop_gradient(jnp.sqrt(_inner(rhs, rhs, axes)))
    norm = jnp.where(norm == 0, 1, norm)
    # An image stops where rounding leaves nothing to gain: further on the gradient would divide by zero.
    least = jnp.finfo(norm.dtype).eps ** 2

    def step(state: tuple, _: Any) -> tuple[tuple, None]:
        x, residual, direction, power = state
        moved = gram(direction)
        curvature = _inner(direction, moved, axes)
        going = (power > least) & (curvature > 0)
        length = _quotient(power, curvature, going)
        x, residual = x + length * direction, residual - length * moved
        new = _inner(residual, residual, axes)
        return (x, residual, residual + _quotient(new, power, going) * direction, new), None

    b = rhs / norm
    state = (alike(jnp.zeros_like(b), b)[0], b, b, _inner(b, b, axes))
    # The backward pass needs three images of every iteration. Where those are too many only the first states of
    # segments of about sqrt(n) iterations are kept, and the others made again.
    segment = iterations if 3 * iterations * b.nbytes <= _KEPT_BYTES else math.isqrt(iterations)
    whole, rest = divmod(iterations, segment)

    def advance(state: tuple, _: Any) -> tuple[tuple, None]:
        return jax.lax.scan(step, state, length=segment)

    if whole > 1:
        state, _ = jax.lax.scan(jax.checkpoint(advance), state, length=whole)
    else:
        state, _ = advance(state, None)
    if rest:  # `disable_jit` has no scans of no length
        state, _ = jax.lax.scan(step, state, length=rest)
    return norm * state[0]


def cg_sense(encoding: Encoding, kspace: Samples, *, ridge: float = 1e-3, iterations: int = 10) -> Image:
    """Images `(..., *shape)` by iterative SENSE: `argmin ‖A x - y‖² + ridge ‖x‖²`.

    k-space is what `encoding.forward` returns, the ridge a finite number >= 0; a full Cartesian scan's eigenvalues are
    one. Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", Magn. Reson. Med. 46
    (2001).
    """
    check_at_least_zero("ridge", ridge)
    check_kind("encoding", encoding, Encoding, "an Encoding")
    return cg(encoding.normal() + ridge, encoding.adjoint(kspace), iterations=iterations)
