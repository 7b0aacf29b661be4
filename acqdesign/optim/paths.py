"""The nearest paths whose steps and bends keep to limits, as of machines of limited speed and acceleration."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Array, Float

from acqdesign.base.checks import check_finite, check_positive, usage_error
from acqdesign.optim.constraints import Constraint

# Iterations of a round, how many rounds there are at most, and how many of them set the weights.
_ITERATIONS, _ROUNDS, _BALANCING = 20, 24, 6
# The least weight of steps over that of bends, in the time that a path takes to gather full speed: few steps are at
# their limit, and find it slowly.
_STEPS_TO_BENDS = 0.2
# What single precision leaves free of the limits.
_SINGLE_ROOM = 5e-4
# What is left at the end: outside of the limits, and of the distance that is not the multipliers'.
_CLOSE = {"float64": (1e-9, 1e-6), "float32": (2e-4, 1e-3)}
_MOST_POINTS = 2**14

Numbers = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class PathLimits(Constraint):
    """Paths `(..., n, d)` of which each step and each bend, `x_i - x_{i-1}` and `x_{i+1} - 2x_i + x_{i-1}`, is short.

    Lengths are of vectors of `d` numbers, or of each number alone (`per_axis`). Before the first and after the last
    point a path goes on by the steps `start` and `end`: at rest where they are zero, free where they are None. The
    nearest path is that in the Euclidean norm, each of a batch by itself.

    By the alternating direction method of multipliers. Differences of paths that end at rest are diagonal in the cosine
    transform: an iteration costs two FFTs, whatever each path's weights. What it leaves, most often less than 1e-6 of
    the limits, is taken out by moving towards a path well within them, which keeps all of them by convexity. In single
    precision the limits are smaller by 5e-4, or by what rounding of such paths asks for, so that none is exceeded.

    The derivative in reverse mode is implicit: the iteration, linearised where it ended, solves for it.

    S. Boyd et al., Distributed optimization and statistical learning via the alternating direction method of
    multipliers, Found. Trends Mach. Learn. 3:1, 2011.
    """

    where: str
    step: Numbers
    """Longest step: a number, or the half axes of an ellipsoid of steps."""
    bend: Numbers
    """Longest bend, likewise."""
    start: Numbers | None = 0.0
    """Step before the first point."""
    end: Numbers | None = 0.0
    """Step after the last point."""
    held: tuple[tuple[int, Numbers], ...] = ()
    """Points that every path goes through: the index, and one number or `d`."""
    reach: float = math.inf
    """Largest absolute value of every number."""
    per_axis: bool = False
    """Whether each axis is limited by itself, rather than the length of the vector."""

    def __post_init__(self) -> None:
        for name in ("step", "bend"):
            check_positive(name, getattr(self, name))
        check_positive("reach", self.reach, allow_inf=True)
        try:
            held = [value for _, value in self.held]
        except (TypeError, ValueError):
            raise usage_error("held", self.held, "a tuple of pairs: index, and number or numbers") from None
        for name, value in [("start", self.start), ("end", self.end), *(("held", value) for value in held)]:
            try:
                numbers = np.asarray(0.0 if value is None else value, float)
            except (TypeError, ValueError):
                raise usage_error(name, value, "a number, or one for each axis") from None
            check_finite(name, numbers)

    def check(self, *values: Array) -> None:
        """Raises where no path of as many points is within the limits, saying how many points one takes."""
        n, d = self._size(*values)
        check_finite(self.where, values[0])
        if not _centre(self, n, d)[1] < 1:
            least = self.least_points(n, d)
            expected = "limits that some path can meet" if least is None else f"at least {self.lasting(least)}"
            raise usage_error(self.where, f"{self.lasting(n)} from end to end through what is held", expected)

    def lasting(self, points: int) -> str:
        """So many points, in words."""
        return f"{points} points"

    def least_points(self, n: int, d: int) -> int | None:
        """How many points paths of the limits take, those that are held of `n` moving in proportion; None for ever."""

        def part(count: int) -> float:
            places = {round(i * (count - 1) / (n - 1)): value for i, value in self.held}
            scaled = dataclasses.replace(self, held=tuple(places.items()))
            return _centre(scaled, count, d)[1] if len(places) == len(self.held) else math.inf

        low, high, taken = 1, n, part(n)
        while not taken < 1:
            low, high, before = high, 2 * high, taken
            taken = part(high)
            if high > _MOST_POINTS or (math.isfinite(before) and not taken < 0.99 * before):  # time does not help
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if part(middle) < 1 else (middle, high)
        return high

    def project(self, *values: Array) -> Float[Array, "*batch n d"]:
        """The nearest paths."""
        (x,) = values
        n, d = self._size(x)
        if not _centre(self, n, d)[1] < 1:
            self.check(jnp.zeros((n, d)))
        return jnp.swapaxes(_project(jnp.swapaxes(x.reshape(-1, n, d), 1, 2), self), 1, 2).reshape(x.shape)

    def _size(self, *values: Any) -> tuple[int, int]:
        (x,) = values
        if x.ndim < 2 or x.shape[-2] < 2:
            raise usage_error(self.where, x, "paths (..., n, d) of two points or more")
        n, d = x.shape[-2:]
        numbers = {name: getattr(self, name) for name in ("step", "bend", "start", "end")}
        for name, value in [*numbers.items(), *(("held", value) for _, value in self.held)]:
            if value is not None and np.shape(value) not in ((), (d,)):
                raise usage_error(name, value, f"one number, or {d}")
        places = [index for index, _ in self.held]
        if len(set(places)) < len(places) or not all(0 <= index < n for index in places):
            raise usage_error("held", f"points {places}", f"different ones of 0 to {n - 1}")
        return n, d


class _Rows:
    """What is limited of paths `(shots, d, n)`: `A x + o`, of shape `(blocks, shots, d, n)`, in units of the limits."""

    def __init__(self, limits: PathLimits, n: int, d: int):
        def column(value: Any) -> np.ndarray:
            return np.broadcast_to(np.asarray(0.0 if value is None else value, float), (d,))[:, None]

        self.n, self.per_axis = n, limits.per_axis
        self.scales = [column(limits.step), column(limits.bend)]
        self.scales += [column(limits.reach)] if math.isfinite(limits.reach) else []
        self.gathering = float(np.max(self.scales[0] / self.scales[1]))
        self.offset = np.zeros((d, n))
        self.offset[:, :1] -= column(limits.start)
        self.offset[:, -1:] += column(limits.end)
        index = np.arange(n)
        self.free = (limits.start is None) & (index == 0) | (limits.end is None) & (index == n - 1)
        self.held = np.array([index for index, _ in limits.held], int)
        self.values = np.concatenate([np.zeros((d, 0)), *(column(value) for _, value in limits.held)], axis=1)
        self.symbols = [2 - 2 * np.cos(np.pi * np.arange(n + 1) / n)]
        self.symbols += [self.symbols[0] ** 2, np.ones(n + 1)]

    def of(self, x: Array, *, offset: bool = True) -> Array:
        """`A x + o`, or `A x`."""
        flux = jnp.pad(jnp.diff(x), ((0, 0), (0, 0), (1, 1)))
        bends = jnp.diff(flux) + (jnp.asarray(self.offset, x.dtype) if offset else 0)
        return jnp.stack([p / s.astype(x.dtype) for p, s in zip((flux[..., 1:], bends, x), self.scales, strict=False)])

    def back(self, y: Array) -> Array:
        """`Aᵀ y`."""
        steps, bends, *rest = (part / scale.astype(y.dtype) for part, scale in zip(y, self.scales, strict=True))
        flux = jnp.pad(jnp.diff(bends) - steps[..., :-1], ((0, 0), (0, 0), (1, 1)))
        return jnp.diff(flux) + sum(rest)

    def sums(self, y: Array) -> Array:
        """Products `y` of numbers summed to those of vectors, where these are limited; zero where nothing is."""
        if not self.per_axis:
            vectors = jnp.sum(y[:2], axis=2, keepdims=True)
            y = jnp.concatenate([jnp.broadcast_to(vectors, y[:2].shape), y[2:]])
        return y.at[1].multiply(~self.free)

    def near(self, t: Array, most: Array) -> Array:
        """The nearest allowed to `t`, `most` being how much of the limits."""
        square = self.sums(t**2)
        outside = square > most**2
        return jnp.where(outside, t * most / jnp.sqrt(jnp.where(outside, square, 1)), t)

    def solver(self, weights: Array) -> Callable[[Array, Array], Array]:
        """`(r, values) -> x` of `(1 + Aᵀ ρ A) x = r` with `values` where points are held; `weights` is ρ."""
        terms = [
            weight[:, None, None] * jnp.asarray(symbol / scale**2, weights.dtype)
            for weight, symbol, scale in zip(weights, self.symbols, self.scales, strict=False)
        ]
        gain = 1 / (1 + sum(terms))

        def smooth(r: Array) -> Array:
            # The cosine transform is the FFT of a path and its mirror image.
            spectrum = jnp.fft.rfft(jnp.concatenate([r, r[..., ::-1]], axis=-1))
            return jnp.fft.irfft(gain * spectrum, n=2 * self.n)[..., : self.n]

        if not len(self.held):
            return lambda r, values: smooth(r)
        ones = jnp.zeros((len(self.held), *gain.shape[:2], self.n), gain.dtype)
        pulls = jnp.stack([smooth(one.at[..., i].set(1)) for one, i in zip(ones, self.held, strict=True)], axis=-1)

        def through(r: Array, values: Array) -> Array:
            x = smooth(r)
            pull = jnp.linalg.solve(pulls[..., self.held, :], (values - x[..., self.held])[..., None])
            return (x + jnp.matmul(pulls, pull, precision="highest")[..., 0]).at[..., self.held].set(values)

        return through


@functools.lru_cache(maxsize=64)
def _centre(limits: PathLimits, n: int, d: int) -> tuple[np.ndarray, float]:
    """A path `(d, n)` well within the limits, and the largest part of a limit that it takes.

    Zero where rest will do; else by Lawson's reweighting of least squares, which tends to the smallest such part.
    """
    rows, fixed = _Rows(limits, n, d), np.zeros(n, bool)
    fixed[[*rows.held] or [n // 2]] = True
    path = np.zeros((d, n))
    path[:, rows.held] = rows.values
    if np.abs(path).max() > limits.reach:
        return path, math.inf
    ahead: Any = scipy.sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(n - 1, n))
    system: Any = scipy.sparse.vstack([ahead, -ahead.T @ ahead, scipy.sparse.eye_array(n)]).tocsr()
    scales = [*rows.scales[:2], np.full((d, 1), limits.reach)]
    scale = np.concatenate([np.repeat(s, k, axis=1) for s, k in zip(scales, (n - 1, n, n), strict=True)], axis=1)
    offset = np.concatenate([np.zeros((d, n - 1)), rows.offset, np.zeros((d, n))], axis=1)
    limited = np.concatenate([np.ones(n - 1), ~rows.free, ~fixed])
    best, least = path, math.inf
    weights = np.ones((d, 3 * n - 1)) * limited
    for _ in range(100):
        for a, weight in enumerate(weights / scale**2):
            inner = system[:, ~fixed]
            square = (inner.T * weight) @ inner + 1e-12 * weight.max() * scipy.sparse.eye_array(inner.shape[1])
            right = -inner.T @ (weight * (offset[a] + system[:, fixed] @ path[a, fixed]))
            path[a, ~fixed] = scipy.sparse.linalg.spsolve(square.tocsc(), right)
        lengths = np.abs(((system @ path.T).T + offset) / scale) * limited
        if not limits.per_axis:
            vectors = np.linalg.norm(lengths[:, : 2 * n - 1], axis=0)
            lengths = np.concatenate([np.broadcast_to(vectors, (d, 2 * n - 1)), lengths[:, 2 * n - 1 :]], axis=1)
        part = float(lengths.max())
        if part < least:
            best, least = path.copy(), part
        if least < 0.5:
            break
        weights = weights * lengths
        weights = weights / weights.sum() + 1e-9 * limited
    return best, least


def _iterate(
    rows: _Rows, wish: Array, near: Callable[[Array], Array], weights: Array, *, linear: bool
) -> tuple[Array, Array, Array]:
    """Rounds of the method: what is to be added to the wish, the state `t = y + u`, and the weights.

    Args:
        rows: what is limited.
        wish: `(shots, d, n)`.
        near: of `t`, what is allowed.
        weights: ρ to begin with, `(blocks, shots)`.
        linear: whether `near` is a derivative, of zero offset and held values; the weights then stay.
    """
    dtype, tiny = wish.dtype, float(jnp.finfo(wish.dtype).tiny) ** 0.5
    values = jnp.asarray(rows.values * (not linear), dtype) - wish[..., rows.held]
    moves = jnp.ones(rows.n, dtype).at[rows.held].set(0)
    wanted = rows.of(wish, offset=not linear)
    tolerances = jnp.asarray(_CLOSE[dtype.name], dtype)

    def norm(x: Array) -> Array:
        return jnp.sqrt(jnp.sum(x**2, axis=(-2, -1)))

    def round_of(carry: Any) -> Any:
        t, weights, _, _, count = carry
        solve, wide = rows.solver(weights), weights[:, :, None, None]

        def once(_: Any, both: Any) -> Any:
            y = near(both[0])
            change = solve(rows.back(wide * (2 * y - both[0] - wanted)), values)
            found = wanted + rows.of(change, offset=False)
            return both[0] + 1.7 * (found - y), y, change, found

        t, before, change, found = jax.lax.fori_loop(0, _ITERATIONS, once, (t, t, wish, t))
        y = near(t)
        u, apart = t - y, norm(found - y)
        outside = jnp.max(jnp.abs(found - near(found)), axis=(0, 2, 3))
        if linear:
            outside = jnp.sum(apart, axis=0) / (jnp.sum(norm(wanted), axis=0) + tiny)
        stays = norm(moves * (change + rows.back(wide * u))) / (norm(wish if linear else change) + tiny)
        unfinished = jnp.any(jnp.stack([outside, stays], axis=-1) > tolerances)
        # Weights balance what is outside with what still moves, over what is at its limit; then they stay.
        active = jnp.sqrt(jnp.maximum(jnp.sum(u != 0, axis=(-2, -1)), 1).astype(dtype))
        factor = jnp.sqrt((apart / active + tiny) / (norm(y - before) / (norm(u) + tiny) + tiny))
        most = 1 + 100 * 0.5 ** count.astype(dtype)
        better = jnp.where(norm(u) > tiny, jnp.clip(factor, 1 / most, most), 1) * weights
        better = better.at[0].max(_STEPS_TO_BENDS * rows.gathering**2 * better[1])
        better = jnp.where((count < _BALANCING) & (not linear), better, weights)
        return y + u * (weights / better)[:, :, None, None], better, change, unfinished, count + 1

    start = (near(wanted), weights, wish, jnp.bool_(True), jnp.int32(0))
    t, weights, change, *_ = jax.lax.while_loop(lambda c: c[3] & (c[4] < _ROUNDS), round_of, start)
    return change, t, weights


def _most(wish: Array, limits: PathLimits) -> tuple[Array, Array]:
    """What part of the limits to project onto, and what part rounding may still exceed, `(shots, 1, 1)`."""
    eps = jnp.finfo(wish.dtype).eps
    rounding = 2 * eps * jnp.max(jnp.abs(wish), axis=(1, 2), keepdims=True) / float(np.min(limits.bend))
    room = jnp.maximum(2 * rounding, _SINGLE_ROOM if wish.dtype == jnp.float32 else 0)
    return 1 - jnp.minimum(room, 0.5), 1 - jnp.minimum(rounding, 0.25)


def _within(x: Array, rows: _Rows, limits: PathLimits, most: Array) -> Array:
    """`x`, moved as far as needed towards a path well within the limits."""
    centre, _ = _centre(limits, rows.n, x.shape[1])
    inside = jnp.broadcast_to(jnp.asarray(centre, x.dtype), x.shape)
    if not limits.held:  # it may lie anywhere
        least, largest = (jnp.asarray(end(centre, 1, keepdims=True), x.dtype) for end in (np.min, np.max))
        shift = jnp.mean(x - inside, axis=2, keepdims=True)
        inside = inside + jnp.clip(shift, -limits.reach - least, limits.reach - largest)
    base, across = rows.of(inside), rows.of(x - inside, offset=False)
    square, cross = rows.sums(across**2), rows.sums(base * across)
    room = jnp.maximum(most**2 - rows.sums(base**2), 0)
    # The largest part of the way on which every row of the limits is kept.
    root = (jnp.sqrt(cross**2 + square * room) - cross) / jnp.where(square > 0, square, 1)
    part = jnp.min(jnp.where(square + 2 * cross > room, root, 1), axis=(0, 2, 3))[:, None, None]
    return jnp.where(part < 1, inside + part * (x - inside), x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _project(wish: Array, limits: PathLimits) -> Array:
    return _forward(wish, limits)[0]


def _forward(wish: Array, limits: PathLimits) -> tuple[Array, Any]:
    rows = _Rows(limits, wish.shape[2], wish.shape[1])
    most, largest = _most(wish, limits)
    size = jnp.mean((wish - jnp.mean(wish, axis=2, keepdims=True)) ** 2, axis=(1, 2)) + float(np.min(limits.bend)) ** 2
    weights = jnp.broadcast_to(1e-3 * size, (len(rows.scales), len(wish)))
    change, t, weights = _iterate(rows, wish, lambda t: rows.near(t, most), weights, linear=False)
    return _within(wish + change, rows, limits, largest), (t, weights, most)


def _backward(limits: PathLimits, state: Any, slope: Array) -> tuple[Array]:
    # The derivative of a projection is symmetric: a projection is itself the slope of a convex function.
    t, weights, most = state
    rows = _Rows(limits, slope.shape[2], slope.shape[1])
    near = jax.linearize(lambda t: rows.near(t, most), t)[1]
    return (slope + _iterate(rows, slope, near, weights, linear=True)[0],)


_project.defvjp(_forward, _backward)
