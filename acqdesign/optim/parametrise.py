"""Schedules by fewer or freer numbers: B-spline control points, and maps of the whole line into a range."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate
import scipy.linalg
from jax import lax
from jax.nn import sigmoid
from jax.typing import ArrayLike

from acqdesign.base.checks import check_count, check_positive, is_concrete, usage_error
from acqdesign.base.types import Array, Float
from acqdesign.optim.limits import ScheduleLimits
from acqdesign.optim.projections import Projection, dykstra, project_steps

DEGREE = 3


def spline_basis(size: int, control_points: int) -> np.ndarray:
    """Values of cubic B-splines at equally spaced entries: `schedule = basis @ control`.

    Knots are uniform and clamped: the first and last control points are the first and last entries. Rows sum
    to one and no entry is negative, so that a schedule lies within the range of its control points.

    Args:
        size: entries of the schedule.
        control_points: number of control points, from 2 to `size`; with fewer than 4 the degree is lower.

    Returns:
        `(size, control_points)` float64.

    Raises:
        ValueError: too few or too many control points.

    C. de Boor, A Practical Guide to Splines, 1978.
    """
    check_count("size", size, minimum=2)
    if not 2 <= check_count("control_points", control_points) <= size:
        raise usage_error("control_points", control_points, f"2 to {size}, the length of the schedule")
    knots, degree = _knots(control_points)
    at = np.linspace(0, 1, size)
    return scipy.interpolate.BSpline.design_matrix(at, knots, degree).toarray()


def spline_fit(values: ArrayLike, control_points: int) -> Float[Array, " control"]:
    """Control points whose schedule is nearest to given values, in the least-squares sense.

    Args:
        values: `(size,)` schedule, on the host.
        control_points: as in `spline_basis`.

    Returns:
        `(control_points,)`, of the dtype of `values`.
    """
    given = np.asarray(values)
    if given.ndim != 1:
        raise usage_error("values", given, "a vector")
    basis = spline_basis(given.size, control_points)
    # Without 64-bit types a float64 schedule on the host gives float32 control points.
    dtype = jax.dtypes.canonicalize_dtype(given.dtype)
    return jnp.asarray(np.linalg.lstsq(basis, given.astype(float), rcond=None)[0], dtype)


def spline_projection(
    limits: ScheduleLimits, size: int, control_points: int
) -> Callable[[Float[Array, "*batch control"]], Float[Array, "*batch control"]]:
    """The map from control points to the nearest ones whose schedule keeps to the limits.

    The root mean square is that of the schedule itself, an ellipsoid in the control points. Range and steps
    are imposed on the control points and on their differences over the distance of their knots, which bound
    the spline and its slope: enough, and for many control points hardly more than needed. Dykstra's algorithm
    finds the nearest point; what it leaves is taken out by moving towards the constant schedule of least
    power, which keeps all other limits by convexity.

    Args:
        limits: of the schedule: `lower` and `upper` as numbers, `rms` and `step`.
        size: entries of the schedule.
        control_points: as in `spline_basis`.

    Returns:
        A function of arrays `(..., control_points)`, for `jit` and `vmap`.

    Raises:
        ValueError: other limits, or limits that no schedule meets, with the nearest value that one would.
    """
    basis = spline_basis(size, control_points)
    if limits.bend is not None or limits.symmetric or limits.rising or limits.falling:
        raise usage_error(
            "limits", "bend, symmetric, rising or falling", "only lower, upper, rms and step on a spline"
        )
    if np.ndim(limits.lower) or np.ndim(limits.upper):
        raise usage_error("limits", "a range for each entry", "one lower and one upper on a spline")
    lower, upper = float(np.asarray(limits.lower)), float(np.asarray(limits.upper))
    if not lower <= upper:
        raise usage_error("lower", lower, f"at most upper, {upper:.6g}")
    for name in ("rms", "step"):
        if getattr(limits, name) is not None:
            check_positive(name, getattr(limits, name))
    quiet = float(np.clip(0.0, lower, upper))
    if limits.rms is not None and abs(quiet) > limits.rms * (1 + 1e-6):
        raise usage_error("rms", limits.rms, f"at least {abs(quiet):.6g}", "The range alone needs as much.")
    knots, degree = _knots(control_points)
    reach = None
    if limits.step is not None:
        inner = knots[1 : control_points + degree]
        reach = limits.step * (size - 1) * (inner[degree:] - inner[:-degree]) / degree

    def within_bounds(x: Array) -> Array:
        if reach is None:
            return jnp.clip(x, lower, upper)
        return project_steps(x, -reach, reach, lower=lower, upper=upper)

    project: Projection = within_bounds
    if limits.rms is not None:
        project = _with_power(within_bounds, basis, size * limits.rms**2, quiet)

    def checked(x: Float[Array, "*batch control"]) -> Float[Array, "*batch control"]:
        if x.shape[-1:] != (control_points,):
            raise usage_error("control", x, f"a last axis of length {control_points}")
        return jnp.vectorize(project, signature="(n)->(n)")(x)

    return checked


def _knots(control_points: int) -> tuple[np.ndarray, int]:
    degree = min(DEGREE, control_points - 1)
    inner = np.linspace(0, 1, control_points - degree + 1)
    return np.concatenate([np.zeros(degree), inner, np.ones(degree)]), degree


def _with_power(
    within_bounds: Callable[[Array], Array], basis: np.ndarray, limit: float, quiet: float
) -> Callable[[Array], Array]:
    """`within_bounds` with a limit on the sum of squares of the schedule; constants at `quiet` are in the set."""
    values, vectors = scipy.linalg.eigh(basis.T @ basis)

    def nearest(x: Array) -> Array:
        """The nearest point of the ellipsoid: `(1 + λ BᵀB)⁻¹ x` with the least λ >= 0 that is enough."""
        weights, axes = jnp.asarray(values, x.dtype), jnp.asarray(vectors, x.dtype)
        modes = jnp.matmul(axes.T, x, precision="highest")
        # Newton's method on the inverse root of the power, concave in λ, climbs to the root from below.
        damping = jnp.zeros((), x.dtype)
        for _ in range(12):
            shrunk = weights * modes**2 / (1 + damping * weights) ** 2
            power = jnp.sum(shrunk)
            slope = jnp.sum(shrunk * weights / (1 + damping * weights))
            step = power / jnp.where(slope > 0, slope, 1.0) * (jnp.sqrt(power / limit) - 1)
            damping = damping + jnp.where(power > limit, step, 0.0)
        return jnp.where(
            damping > 0, jnp.matmul(axes, modes / (1 + damping * weights), precision="highest"), x
        )

    def project(x: Array) -> Array:
        z = dykstra(x, [nearest, within_bounds], iterations=500)
        # The largest t in [0, 1] at which the way from `quiet` to z is within the limit: a quadratic equation.
        flips = jnp.matmul(jnp.asarray(basis, x.dtype), z, precision="highest")
        across = flips - quiet
        square, cross = jnp.sum(across**2), quiet * jnp.sum(across)
        room = jnp.maximum(limit - flips.size * quiet**2, 0.0)
        root = (jnp.sqrt(cross**2 + square * room) - cross) / jnp.where(square > 0, square, 1.0)
        return jnp.where(jnp.sum(flips**2) > limit, quiet + jnp.minimum(root, 1.0) * (z - quiet), z)

    return project


def to_range(x: Float[Array, "..."], lower: ArrayLike, upper: ArrayLike) -> Float[Array, "..."]:
    """A smooth map of the whole line into a range: `lower + (upper - lower) / (1 + exp(-x))`.

    Args:
        x: any real array.
        lower: a number, or an array that broadcasts.
        upper: the same, greater than `lower`.
    """
    low, high = jnp.asarray(lower, x.dtype), jnp.asarray(upper, x.dtype)
    return low + (high - low) * sigmoid(x)


def from_range(
    values: Float[Array, "..."], lower: ArrayLike, upper: ArrayLike, *, margin: float = 1e-3
) -> Float[Array, "..."]:
    """What `to_range` maps to given values; those at an end are first moved inside, where the map has a slope.

    Args:
        values: in `[lower, upper]`.
        lower: a number, or an array that broadcasts.
        upper: the same, greater than `lower`.
        margin: least distance from an end, as a part of the range.

    Raises:
        ValueError: values outside the range, or an empty range.
    """
    low, high = jnp.asarray(lower, values.dtype), jnp.asarray(upper, values.dtype)
    if is_concrete(low) and is_concrete(high) and not bool(jnp.all(low < high)):
        raise usage_error("lower", "a value that is not below upper", "lower < upper")
    share = (values - low) / (high - low)
    if is_concrete(share) and not bool(jnp.all((share >= 0) & (share <= 1))):
        raise usage_error("values", "some outside the range", "values in [lower, upper]")
    share = jnp.clip(share, margin, 1 - margin)
    return jnp.log(share) - jnp.log1p(-share)


def project_mean(x: Float[Array, " n"], limit: float, *, lower: float, upper: float) -> Float[Array, " n"]:
    """The nearest sequence in a range whose mean is at most `limit`: repetition times within a scan time.

    It is `clip(x - λ, lower, upper)` with the least `λ >= 0` that is enough, found by bisection.

    Args:
        x: `(n,)`.
        limit: largest mean, at least `lower`.
        lower: least value.
        upper: largest value.
    """
    if not lower <= limit:
        raise usage_error("limit", limit, f"at least lower, {lower:.6g}")

    def too_long(shift: Array) -> Array:
        return jnp.mean(jnp.clip(x - shift, lower, upper)) > limit

    def halve(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = carry
        middle = 0.5 * (low + high)
        long = too_long(middle)
        return (jnp.where(long, middle, low), jnp.where(long, high, middle)), None

    zero = jnp.zeros((), x.dtype)
    ends = (zero, jnp.maximum(jnp.max(x) - lower, 0.0))
    shift = lax.scan(halve, ends, None, length=jnp.finfo(x.dtype).nmant + 10)[0][1]
    return jnp.clip(x - jnp.where(too_long(zero), shift, zero), lower, upper)
