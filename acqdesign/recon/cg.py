"""Conjugate gradients for regularised least squares, with an exact gradient through its iterations.

x = argmin ‖A x - y‖² + ridge ‖x‖²,    (Aᴴ A + ridge) x = Aᴴ y
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from acqdesign.base.checks import check_choice, check_count, check_positive, is_concrete, usage_error
from acqdesign.base.sharding import alike, total, vary, varying
from acqdesign.base.types import Array, Image, Samples
from acqdesign.encoding import Encoding


def _inner(a: Array, b: Array, dims: int) -> Array:
    axes = tuple(range(-dims, 0))
    here = jnp.sum((jnp.conj(a) * b).real, axis=axes, keepdims=True)
    return vary(total(here, "planes"), varying(here))


def _quotient(a: Array, b: Array, wanted: Array) -> Array:
    """`a / b` where wanted, elsewhere zero with a zero gradient."""
    return jnp.where(wanted, a / jnp.where(wanted, b, 1), 0)


def conjugate_gradients(
    gram: Callable[[Image], Image],
    rhs: Image,
    *,
    ridge: ArrayLike,
    iterations: int,
    dims: int = 3,
    gradient: Literal["unrolled", "implicit"] = "unrolled",
) -> Image:
    """Solves `(gram + ridge) x = rhs` by conjugate gradients from zero, each image by itself.

    Args:
        gram: a Hermitian positive semi-definite map of images, `LineGram` or an operator's `gram`.
        rhs: `(..., *shape)` complex right-hand sides, images such as `Aᴴ y`.
        ridge: Tikhonov weight, a number in units of `gram`'s eigenvalues.
        iterations: fixed number of them; more regularise less.
        dims: how many trailing axes are one image.
        gradient: `unrolled` differentiates the iterations as computed, converged or not, and keeps
            `2 sqrt(iterations)` of them; `implicit` solves for the gradient, right only once converged.

    Returns:
        The images, like `rhs`.

    Raises:
        ValueError: on a ridge that is negative (or zero, for `implicit`) or not finite, fewer than one
            iteration, an unknown `gradient`, or fewer axes than an image has.

    References:
        Hestenes & Stiefel, J. Res. Natl. Bur. Stand. 49 (1952).
    """
    iterations = check_count("iterations", iterations)
    check_choice("gradient", gradient, ("unrolled", "implicit"))
    if gradient == "implicit":
        check_positive("ridge", ridge)
    elif is_concrete(ridge) and not 0 <= np.asarray(ridge) < math.inf:
        raise usage_error("ridge", ridge, "a finite number >= 0")
    if rhs.ndim < dims:
        raise usage_error("rhs", rhs, f"at least the {dims} axes of an image")

    def matrix(x: Array) -> Array:
        return gram(x) + ridge * x

    def solve(matvec: Callable[[Array], Array], b: Array) -> Array:
        # At unit norm, so that squares of residuals keep away from the smallest numbers.
        norm = jax.lax.stop_gradient(jnp.sqrt(_inner(b, b, dims)))
        norm = jnp.where(norm == 0, 1, norm)
        # An image stops where rounding leaves nothing to gain: further on the gradient would divide by zero.
        least = jnp.finfo(norm.dtype).eps ** 2

        def step(state: tuple, _: Any) -> tuple[tuple, None]:
            x, residual, direction, power = state
            moved = matvec(direction)
            curvature = _inner(direction, moved, dims)
            going = (power > least) & (curvature > 0)
            length = _quotient(power, curvature, going)
            x, residual = x + length * direction, residual - length * moved
            new = _inner(residual, residual, dims)
            return (x, residual, residual + _quotient(new, power, going) * direction, new), None

        # Segments of about sqrt(n) iterations: only their first states are kept for the backward pass.
        segment = max(1, math.isqrt(iterations))
        whole, rest = divmod(iterations, segment)

        @jax.checkpoint
        def advance(state: tuple, _: Any) -> tuple[tuple, None]:
            return jax.lax.scan(step, state, length=segment)

        b = b / norm
        state = (alike(jnp.zeros_like(b), b)[0], b, b, _inner(b, b, dims))
        state, _ = jax.lax.scan(advance, state, length=whole)
        state, _ = jax.lax.scan(step, state, length=rest)
        return norm * state[0]

    if gradient == "unrolled":
        return solve(matrix, rhs)
    # Hermitian is not symmetric: JAX's cotangents ask for the transpose, the conjugate of `matrix`.
    return jax.lax.custom_linear_solve(matrix, rhs, solve, transpose_solve=solve)


def cg_sense(
    encoding: Encoding,
    kspace: Samples,
    *,
    ridge: float,
    iterations: int,
    gradient: Literal["unrolled", "implicit"] = "unrolled",
) -> Image:
    """Image from k-space by iterative SENSE: `argmin ‖A x - y‖² + ridge ‖x‖²`.

    Args:
        encoding: operator, with its coils.
        kspace: samples `(..., S, R)` of k-space, as `encoding.forward` returns them.
        ridge: Tikhonov weight; a full Cartesian scan's eigenvalues are one.
        iterations: of conjugate gradients.
        gradient: as in `conjugate_gradients`.

    Returns:
        Images `(..., *shape)`, complex.

    Raises:
        ValueError: as `conjugate_gradients`.

    References:
        Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", Magn. Reson.
        Med. 46 (2001).
    """
    # An operator with a cheaper form of its Gram for repeated use offers it as `normal`.
    gram = encoding.normal() if hasattr(encoding, "normal") else encoding.gram
    rhs = encoding.adjoint(kspace)
    dims = len(encoding.shape)
    return conjugate_gradients(gram, rhs, ridge=ridge, iterations=iterations, dims=dims, gradient=gradient)
