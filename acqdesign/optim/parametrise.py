"""Arrays made of fewer numbers: the control points of B-splines."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy

from acqdesign.base.checks import check_count, usage_error
from acqdesign.base.types import Array, ArrayLike, Float
from acqdesign.optim.limits import Limits
from acqdesign.optim.parts import Parametrised, held
from acqdesign.optim.projections import Projection, dykstra, furthest_within, project_ellipsoid, project_steps

DEGREE = 3


class Spline(Parametrised):
    """Cubic B-splines at `size` equally spaced entries, by control points in the array's units; see `spline_basis`."""

    control: Float[Array, " control"]
    basis: Float[Array, "size control"] = held()

    def __init__(self, control: ArrayLike, size: int):
        self.control = jnp.asarray(control)
        self.basis = jnp.asarray(spline_basis(size, self.control.shape[0]), self.control.dtype)

    @classmethod
    def near(cls, values: ArrayLike, control_points: int) -> "Spline":
        """The spline nearest to given values, `(size,)` on the host, in the least-squares sense."""
        given = np.asarray(values)
        if given.ndim != 1:
            raise usage_error("values", given, "a vector")
        basis = spline_basis(given.size, control_points)
        # Without 64-bit types a float64 array on the host gives float32 control points.
        dtype = jax.dtypes.canonicalize_dtype(given.dtype)
        return cls(jnp.asarray(np.linalg.lstsq(basis, given.astype(float), rcond=None)[0], dtype), given.size)

    def value(self) -> Float[Array, " size"]:
        return jnp.matmul(self.basis, self.control, precision="highest")

    def projected(self, constraint: Any) -> "Spline":
        """Within `Limits` of range, root mean square and steps; others have no projection here."""
        if not isinstance(constraint, Limits):
            got = f"{type(constraint).__name__} on a spline"
            raise usage_error("limits", got, "Limits alone", "Give free values in place of a spline.")
        project = _projection(constraint, self.basis.shape[0], self.control.shape[0])
        return eqx.tree_at(lambda s: s.control, self, project(self.control))


def spline_basis(size: int | np.ndarray, control_points: int, degree: int = DEGREE) -> np.ndarray:
    """Values of B-splines at equally spaced entries: `schedule = basis @ control`.

    Knots are uniform and clamped: the first and last control points are the first and last entries. Rows sum
    to one and no entry is negative, so that a schedule lies within the range of its control points.

    Args:
        size: entries of the schedule, or where each lies in [0, 1].
        control_points: number of control points, from 2 to `size`.
        degree: 3 for cubic splines, 2 for quadratic ones; lower where there are fewer control points.

    C. de Boor, A Practical Guide to Splines, 1978.
    """
    at = np.asarray(size, float) if np.ndim(size) else np.linspace(0, 1, check_count("size", size, minimum=2))
    if not 2 <= check_count("control_points", control_points) <= at.size:
        raise usage_error("control_points", control_points, f"2 to {at.size}, the length of the schedule")
    knots, degree = _knots(control_points, check_count("degree", degree))
    return scipy.interpolate.BSpline.design_matrix(at, knots, degree).toarray()


@functools.lru_cache(maxsize=16)
def _projection(limits: Limits, size: int, control_points: int) -> Projection:
    """The map from control points to the nearest ones whose schedule keeps to the limits.

    The root mean square is that of the schedule itself, an ellipsoid in the control points. Range and steps
    are imposed on the control points and on their differences over the distance of their knots, which bound
    the spline and its slope: enough, and for many control points hardly more than needed. Dykstra's algorithm
    finds the nearest point; what it leaves is taken out by moving towards the constant schedule of least
    power, which keeps all other limits by convexity.
    """
    basis = spline_basis(size, control_points)
    if limits.bend is not None or limits.symmetric or limits.rising or limits.falling:
        raise usage_error("limits", "bend, symmetric, rising or falling", "only lower, upper, rms and step on a spline")
    lower, upper = limits.lower, limits.upper
    if not (isinstance(lower, float) and isinstance(upper, float)):
        raise usage_error("limits", "a range for each entry", "one lower and one upper on a spline")
    if not lower <= upper:
        raise usage_error("lower", lower, f"at most upper, {upper:.6g}")
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

    if limits.rms is None:
        return within_bounds
    limit, modes = size * limits.rms**2, scipy.linalg.eigh(basis.T @ basis)

    def project(x: Array) -> Array:
        z = dykstra(x, [lambda x: project_ellipsoid(x, *modes, limit, 12), within_bounds], iterations=500)
        values = functools.partial(jnp.matmul, jnp.asarray(basis, x.dtype), precision="highest")
        return furthest_within(jnp.full_like(z, quiet), z, values, limit)

    return project


def _knots(control_points: int, degree: int = DEGREE) -> tuple[np.ndarray, int]:
    degree = min(degree, control_points - 1)
    inner = np.linspace(0, 1, control_points - degree + 1)
    return np.concatenate([np.zeros(degree), inner, np.ones(degree)]), degree
