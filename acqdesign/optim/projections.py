"""Projections onto convex sets, as pure functions: boxes, power, steps, bends, symmetry, intersections.

What comes back has the shape, dtype and units of `x`, which may be any; so have limits and bounds the units of `x`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy
from jaxtyping import Array, Float

from acqdesign.base.checks import check_count
from acqdesign.base.types import ArrayLike, PyTree

Projection = Callable[[Any], Any]


def project_symmetric(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """The nearest sequence that reads the same backwards."""
    return 0.5 * (x + x[::-1])


def project_steps(
    x: Float[Array, " n"],
    step_lower: ArrayLike,
    step_upper: ArrayLike,
    *,
    lower: ArrayLike = -np.inf,
    upper: ArrayLike = np.inf,
) -> Float[Array, " n"]:
    """The nearest sequence whose steps and values keep to bounds, exactly.

    Minimises `Σ (z_i - x_i)²` subject to `step_lower_i <= z_{i+1} - z_i <= step_upper_i` and
    `lower_i <= z_i <= upper_i`: with `(-d, d)` a limited change, with `(0, inf)` isotonic regression, and any
    mixture along the sequence. Dynamic programming on the derivative of the partial minimum
    `f_{i+1}(z) = (z - x_{i+1})²/2 + min_w f_i(w)`, which is piecewise linear: left of its zero it moves by
    `step_lower`, right of it by `step_upper`.

    Args:
        x: `(n,)` sequence.
        step_lower: `(n-1,)` or a number; -inf where free.
        step_upper: `(n-1,)` or a number; inf where free.
        lower: `(n,)` or a number; the bounds must leave something (see `Limits`).
        upper: `(n,)` or a number.

    Reference:
        N. Johnson, A dynamic programming algorithm for the fused lasso, J. Comput. Graph. Stat. 22:246, 2013,
        whose recursion this is with the roles of the derivative and its argument exchanged.
    """
    n, dtype = x.shape[0], x.dtype
    down, up = (jnp.broadcast_to(jnp.asarray(b, dtype), (n - 1,)) for b in (step_lower, step_upper))
    low, high = (jnp.broadcast_to(jnp.asarray(b, dtype), (n,)) for b in (lower, upper))
    # A free step may be any finite length that no solution reaches.
    finite = [jnp.where(jnp.isfinite(b), jnp.abs(b), 0) for b in (x, low, high)]
    reach = 2 * sum(jnp.max(b) for b in finite) + 1
    for bound in (down, up):
        reach = reach + jnp.sum(jnp.where(jnp.isfinite(bound), jnp.abs(bound), 0))
    down, up = jnp.maximum(down, -reach), jnp.minimum(up, reach)

    # Breakpoints of the derivative, ascending, and its values there; unused ones lie at infinity.
    size = 4 * n
    index = jnp.arange(size)
    places = jnp.full(size, jnp.inf, dtype).at[0].set(x[0])
    slopes = jnp.where(index == 0, jnp.zeros((), dtype), jnp.inf)

    def value(z: Any, below: Any, line: Any) -> Any:
        """The derivative at `z`, between the breakpoint numbered `below` and the one before it."""
        places, slopes, used, terms = line
        a, b = jnp.maximum(below - 1, 0), jnp.minimum(below, used - 1)
        gap = places[b] - places[a]
        inner = slopes[a] + (z - places[a]) * (slopes[b] - slopes[a]) / jnp.where(gap > 0, gap, 1)
        return jnp.where(a < b, inner, slopes[a] + (z - places[a]) * terms)

    def root(line: Any) -> Any:
        places, slopes, used, terms = line
        below = jnp.sum(slopes < 0)
        a, b = jnp.maximum(below - 1, 0), jnp.minimum(below, used - 1)
        rise = slopes[b] - slopes[a]
        inner = places[a] - slopes[a] * (places[b] - places[a]) / jnp.where(rise > 0, rise, 1)
        return jnp.where(a < b, inner, places[a] - slopes[a] / terms)

    def forward(carry: Any, bounds: Any) -> tuple[Any, Any]:
        line, first, last = carry
        places, slopes, used, terms = line
        target, down, up, low, high = bounds
        best = jnp.clip(root(line), first, last)
        below, through = jnp.sum(places < best), jnp.sum(places <= best)
        before, after = jnp.minimum(value(best, below, line), 0), jnp.maximum(value(best, through, line), 0)
        # Left of the minimum moves by `down`, right of it by `up`; four breakpoints open the flat part
        # between, with jumps at its ends where the minimum lay on one or at the end of the allowed values.
        left, right = index < below, index >= below + 4
        shifted = jnp.where(left, places + down, jnp.where(right, jnp.roll(places, 4) + up, best + up))
        shifted = jnp.where((index == below) | (index == below + 1), best + down, shifted)
        clipped = jnp.where(left, jnp.minimum(slopes, 0), jnp.where(right, jnp.maximum(jnp.roll(slopes, 4), 0), 0))
        clipped = jnp.where(index == below, before, jnp.where(index == below + 3, after, clipped))
        grown = clipped + (shifted - target)
        first, last = jnp.maximum(low, first + down), jnp.minimum(high, last + up)
        return ((shifted, grown, used + 4, terms + 1), first, last), best

    start = ((places, slopes, jnp.int32(1), jnp.ones((), dtype)), low[0], high[0])
    (line, first, last), found = jax.lax.scan(forward, start, (x[1:], down, up, low[1:], high[1:]))
    final = jnp.clip(root(line), first, last)

    def backward(after: Any, bounds: Any) -> tuple[Any, Any]:
        best, down, up = bounds
        before = jnp.clip(best, after - up, after - down)
        return before, before

    _, rest = jax.lax.scan(backward, final, (found, down, up), reverse=True)
    return jnp.append(rest, final)


def project_bend(x: Float[Array, " n"], rms: float) -> Float[Array, " n"]:
    """The nearest sequence whose second differences have a root mean square of at most `rms`.

    `z = (1 + λ DᵀD)⁻¹ x` with `D` the second difference and the least `λ >= 0` that is enough.

    Args:
        x: `(n,)` sequence; one of fewer than 3 comes back as it is.
        rms: largest root mean square of `x_{i-1} - 2 x_i + x_{i+1}`.
    """
    if x.shape[0] < 3:
        return x
    return project_ellipsoid(x, *_bend_modes(x.shape[0]), (x.shape[0] - 2) * rms**2, 30)


@functools.lru_cache(maxsize=16)
def _bend_modes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and vectors of `DᵀD` for the second difference `D` of n points."""
    difference = np.diff(np.eye(n), 2, axis=0)
    values, vectors = scipy.linalg.eigh(difference.T @ difference)
    return np.maximum(values, 0) * (np.arange(n) >= 2), vectors


def project_ellipsoid(
    x: Float[Array, " n"], values: np.ndarray, vectors: np.ndarray, limit: float, rounds: int
) -> Float[Array, " n"]:
    """The nearest `z` with `zᵀ M z <= limit`: `(1 + λ M)⁻¹ x` with the least `λ >= 0` that is enough.

    By Newton's method on the secular equation in the eigenvectors of `M`, for so many rounds; an `x` inside comes back
    as it is, to the bit.
    """
    weights, axes = jnp.asarray(values, x.dtype), jnp.asarray(vectors, x.dtype)
    modes = jnp.matmul(axes.T, x, precision="highest")

    def newton(_: Any, damping: Any) -> Any:
        # On the energy's inverse root, nearly linear in λ and concave, so that it climbs to the root from below.
        terms = weights * (modes / (1 + damping * weights)) ** 2
        energy, slope = jnp.sum(terms), jnp.sum(terms * weights / (1 + damping * weights))
        step = energy / jnp.where(slope > 0, slope, 1) * (jnp.sqrt(energy / limit) - 1)
        return damping + jnp.where((energy > limit) & (slope > 0), step, 0)

    damping = jax.lax.fori_loop(0, rounds, newton, jnp.zeros((), x.dtype))
    return jnp.where(damping > 0, jnp.matmul(axes, modes / (1 + damping * weights), precision="highest"), x)


def furthest_within(
    inside: Float[Array, " n"], z: Float[Array, " n"], of: Callable[[Array], Array], limit: float
) -> Float[Array, " n"]:
    """The point nearest to `z` on the way from `inside` whose `of`, a linear map, has a square of at most `limit`.

    The largest `t` in [0, 1] with `|of(inside + t (z - inside))|² <= limit` solves a quadratic equation.
    """
    base = of(inside)
    across = of(z) - base
    square, cross = jnp.sum(across**2), jnp.sum(base * across)
    room = jnp.maximum(limit - jnp.sum(base**2), 0)
    root = (jnp.sqrt(cross**2 + square * room) - cross) / jnp.where(square > 0, square, 1)
    return jnp.where(square + 2 * cross > room, inside + jnp.minimum(root, 1) * (z - inside), z)


def project_within_rms(project: Projection, x: Float[Array, " n"], rms: float) -> Float[Array, " n"]:
    """The nearest array in the set of `project` whose root mean square is at most `rms`, exactly.

    By Lagrange's condition it is `P(s x)` for the largest `s` in (0, 1] that is short enough; `s` by
    bracketed interpolation, ending on the feasible side.

    Args:
        project: projection onto a closed convex set.
        x: `(n,)` sequence.
        rms: limit, no less than the root mean square of the set's element nearest to zero.
    """
    norm = float(rms) * math.sqrt(x.size)
    close = -8 * float(jnp.finfo(x.dtype).eps) * norm

    def unfinished(carry: Any) -> Any:
        _, below, _, _, above, _, count = carry
        return (count < 2) | ((above > 0) & (below < close) & (count < 60))

    def search(carry: Any) -> Any:
        low, below, held, high, above, side, count = carry
        # First the ends, 1 and (if that is too long) 0; then regula falsi with the Illinois rule, and a
        # bisection now and then against slow ends.
        inner = low - below * (high - low) / jnp.where(above > below, above - below, 1)
        inner = jnp.where(count % 5 == 4, 0.5 * (low + high), inner)
        guess = jnp.where(count == 0, high, jnp.where(count == 1, jnp.where(above > 0, low, high), inner))
        z = project(guess * x)
        found = jnp.sqrt(jnp.sum(z**2)) - norm
        short = (found <= 0) | (guess == 0)
        above = jnp.where(short, jnp.where(side > 0, 0.5 * above, above), found)
        below = jnp.where(short, found, jnp.where(side < 0, 0.5 * below, below))
        held = jnp.where(short, z, held)
        low, high = jnp.where(short, guess, low), jnp.where(short, high, guess)
        side = jnp.where(count < 2, 0, jnp.where(short, jnp.int32(1), -1))
        return low, below, held, high, above, side, count + 1

    zero = jnp.zeros((), x.dtype)
    start = (zero, zero, x, jnp.ones((), x.dtype), zero, jnp.int32(0), jnp.int32(0))
    return jax.lax.while_loop(unfinished, search, start)[2]


def dykstra(tree: PyTree, projections: Sequence[Projection], *, iterations: int = 500) -> PyTree:
    """The point nearest to `tree` in the intersection of convex sets, by Dykstra's algorithm.

    Unlike projections in sequence it tends to the nearest point, not to just any common one. What comes back
    lies in the last set; how far it is outside the others shrinks with the iterations, which end early once a
    round changes nothing.

    Args:
        tree: pytree of real arrays.
        projections: projection onto each set, tree to tree.
        iterations: rounds at most.

    Reference:
        J. Boyle, R. Dykstra, A method for finding projections onto the intersection of convex sets in Hilbert
        spaces, Lect. Notes Stat. 37:28, 1986.
    """
    check_count("iterations", iterations)
    zeros = optax.tree.zeros_like(tree)
    tolerance = min(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(tree))

    def unfinished(carry: Any) -> Any:
        point, corrections, moved, count = carry
        # Of both: the corrections are rounded too, and may go round in their last digits for ever.
        size = optax.tree.norm((point, corrections))
        return (moved > tolerance * (1 + size)) & (count < iterations)

    def around(carry: Any) -> Any:
        point, corrections, _, count = carry
        before, kept = (point, corrections), []
        for project, correction in zip(projections, corrections, strict=True):
            shifted = optax.tree.add(point, correction)
            point = project(shifted)
            kept.append(optax.tree.sub(shifted, point))
        return point, tuple(kept), optax.tree.norm(optax.tree.sub((point, tuple(kept)), before)), count + 1

    start = (tree, (zeros,) * len(projections), jnp.full_like(optax.tree.norm(tree), jnp.inf), jnp.int32(0))
    return jax.lax.while_loop(unfinished, around, start)[0]
