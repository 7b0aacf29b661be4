"""Limits on a sequence of numbers, flip angles by pulse say, and the projection onto all of them at once."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from acqdesign.base.checks import check_count, check_positive, usage_error
from acqdesign.base.types import ArrayLike
from acqdesign.optim.constraints import Constraint
from acqdesign.optim.projections import (
    Projection,
    dykstra,
    furthest_within,
    project_bend,
    project_steps,
    project_symmetric,
    project_within_rms,
)

Bound = ArrayLike | Sequence[float]


@dataclasses.dataclass(frozen=True)
class Limits(Constraint):
    """Limits on an array of numbers in a row, in its own units (radians for flips); None leaves one out.

    Range, steps and segments are met exactly together by `project_steps`; the root mean square on top of them by
    `project_within_rms`. A limit on bends is brought in by Dykstra's algorithm, and what it leaves is taken out by
    moving towards an array inside every limit, which keeps all the others by convexity.
    """

    lower: Bound = -math.inf
    """Least value: a number, or one for each entry."""
    upper: Bound = math.inf
    """Largest value: a number, or one for each entry; equal to `lower` where an entry is fixed."""
    rms: float | Any | None = None
    """Largest root mean square: for flips, the square root of the mean power."""
    step: float | Any | None = None
    """Largest change from one entry to the next."""
    bend: float | Any | None = None
    """Largest root mean square of the second difference: smoothness."""
    symmetric: bool = False
    """Whether it reads the same backwards."""
    rising: tuple[tuple[int, int], ...] = ()
    """Segments `(first, last)` over which it may not fall, both ends included."""
    falling: tuple[tuple[int, int], ...] = ()
    """Segments over which it may not rise."""
    where: str = "sequence.flips"
    """Name of the array."""

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            value = np.asarray(getattr(self, name), float)
            object.__setattr__(self, name, tuple(value.tolist()) if value.ndim else float(value))
        for name in ("rms", "step", "bend"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
                object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "symmetric", bool(self.symmetric))
        for name in ("rising", "falling"):
            object.__setattr__(self, name, tuple((int(a), int(b)) for a, b in getattr(self, name)))

    def __and__(self, other: "Limits") -> "Limits":
        """Both limits in one; they must be on the same array."""
        if not isinstance(other, Limits):
            return NotImplemented
        if self.where != other.where:
            raise usage_error("where", f"{self.where} and {other.where}", "limits on one array")
        sizes = {len(b) for b in (self.lower, self.upper, other.lower, other.upper) if isinstance(b, tuple)}
        if len(sizes) > 1:
            raise usage_error("lower and upper", f"ranges for {sorted(sizes)} entries", "ranges of one length")

        given = ([v for v in (getattr(self, k), getattr(other, k)) if v is not None] for k in ("rms", "step", "bend"))
        tighter: Any = [min(values, default=None) for values in given]
        bounds = np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper)
        segments = self.rising + other.rising, self.falling + other.falling
        return Limits(*bounds, *tighter, self.symmetric or other.symmetric, *segments, self.where)

    def check(self, *values: Array) -> None:
        """Refuses limits that no array of this length meets, with the nearest value that one would."""
        _projection(self, self._size(*values))

    def project(self, *values: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """The nearest array within all limits, feasible to rounding."""
        return jnp.vectorize(_projection(self, self._size(*values)), signature="(n)->(n)")(*values)

    def _size(self, *values: Array) -> int:
        (x,) = values
        if not x.ndim:
            raise usage_error(self.where, x, "numbers in a row", "Box limits a single number.")
        return x.shape[-1]


@functools.lru_cache(maxsize=64)
@jax.ensure_compile_time_eval()
def _projection(limits: Limits, size: int) -> Projection:
    """The map from `(size,)` to the nearest array within all limits.

    What depends on the limits alone is computed once, also while something else is being traced.
    """
    check_count("size", size)
    lower, upper, down, up = _bounds(limits, size)
    _check_bounds(limits, size, lower, upper, down, up)
    stepped = bool(np.isfinite(down).any() or np.isfinite(up).any())

    def within_bounds(x: Array) -> Array:
        x = project_symmetric(x) if limits.symmetric else x
        low, high = jnp.asarray(lower, x.dtype), jnp.asarray(upper, x.dtype)
        return project_steps(x, down, up, lower=low, upper=high) if stepped else jnp.clip(x, low, high)

    # The schedule of least power: most often simply zero moved into the range.
    quiet = np.clip(0.0, lower, upper)
    if (np.diff(quiet) < down).any() or (np.diff(quiet) > up).any():
        quiet = np.asarray(jax.jit(within_bounds)(jnp.zeros(size)))

    project: Projection = within_bounds
    if limits.rms is not None:
        least = float(np.sqrt(np.mean(quiet**2)))
        if least > limits.rms * (1 + 1e-6):
            raise usage_error("rms", limits.rms, f"at least {least:.6g}", "The other limits alone need as much.")
        project = functools.partial(project_within_rms, within_bounds, rms=limits.rms)
    return project if limits.bend is None or size < 3 else _bent(project, limits.bend, quiet)


def _bounds(limits: Limits, size: int) -> tuple[np.ndarray, ...]:
    """Bounds on values and on steps, those that symmetry implies included."""
    for name in ("lower", "upper"):
        bound = getattr(limits, name)
        if isinstance(bound, tuple) and len(bound) != size:
            raise usage_error(name, f"{len(bound)} numbers", f"one, or one for each of {size} entries")
    lower, upper = (np.broadcast_to(np.asarray(b, float), (size,)).copy() for b in (limits.lower, limits.upper))
    reach = np.inf if limits.step is None else limits.step
    down, up = np.full(size - 1, -reach), np.full(size - 1, reach)
    for name, bound in (("rising", down), ("falling", up)):
        for first, last in getattr(limits, name):
            if not 0 <= first < last < size:
                raise usage_error(name, f"the segment {(first, last)}", f"0 <= first < last <= {size - 1}")
            bound[first:last] = 0
    if limits.symmetric:
        lower, upper = np.maximum(lower, lower[::-1]), np.minimum(upper, upper[::-1])
        down, up = np.maximum(down, -up[::-1]), np.minimum(up, -down[::-1])
    return lower, upper, down, up


def _conflict(lower: np.ndarray, upper: np.ndarray, down: np.ndarray, up: np.ndarray) -> int | None:
    """The first entry that no value is left for; None where the limits can be met."""
    low, high = lower[0], upper[0]
    for entry in range(len(lower)):
        if entry:
            low = max(lower[entry], low + down[entry - 1])
            high = min(upper[entry], high + up[entry - 1])
        if not low <= high:
            return entry
    return None


def _check_bounds(limits: Limits, size: int, lower: np.ndarray, upper: np.ndarray, *steps: np.ndarray) -> None:
    if (lower > upper).any() or np.isnan(lower).any() or np.isnan(upper).any():
        wrong = int(np.argmax(~(lower <= upper)))
        raise usage_error("lower", f"{lower[wrong]:.6g} at entry {wrong}", f"at most upper, {upper[wrong]:.6g}")
    entry = _conflict(lower, upper, *steps)
    if entry is None:
        return
    if limits.step is not None:
        enough = np.ptp(np.concatenate([lower[np.isfinite(lower)], upper[np.isfinite(upper)]]))
        met = lambda step: _conflict(*_bounds(dataclasses.replace(limits, step=step), size)) is None  # noqa: E731
        if met(None):
            short = 0.0
            for _ in range(60):
                middle = 0.5 * (short + enough)
                short, enough = (short, middle) if met(middle) else (middle, enough)
            raise usage_error("step", limits.step, f"at least {enough:.6g}", "The range of values needs as much.")
    raise usage_error("rising and falling", f"segments without a value for entry {entry}", "segments the range allows")


def _bent(project: Projection, limit: float, quiet: np.ndarray) -> Projection:
    """`project` with a limit on the bend as well; `quiet` is a schedule in its set."""

    def bends(x: Array) -> Array:
        return x[2:] - 2 * x[1:-1] + x[:-2]

    def nearest(x: Array, limit: float, iterations: int) -> Array:
        return dykstra(x, [lambda z: project_bend(z, limit), project], iterations=iterations)

    # A schedule well inside, so that a small move towards it is enough.
    centre = quiet
    if np.sqrt(np.mean(np.diff(quiet, 2) ** 2)) > 0.5 * limit:
        centre = np.asarray(jax.jit(nearest, static_argnums=(1, 2))(jnp.asarray(quiet), 0.5 * limit, 2000))
        reached = float(np.sqrt(np.mean(np.diff(centre, 2) ** 2)))
        if reached >= limit:
            raise usage_error("bend", limit, f"above {reached:.6g}", "The other limits need as much.")

    def bent(x: Array) -> Array:
        z, inside = nearest(x, limit, 2000), jnp.asarray(centre, x.dtype)
        return furthest_within(inside, z, bends, (x.size - 2) * limit**2)

    return bent
