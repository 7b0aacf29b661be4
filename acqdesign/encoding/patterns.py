"""Starting positions for the phase encodes of straight readout lines.

Every pattern is made on the host, once, and comes as `(points, learned)`: positions `(S, 2)` in cycles per
voxel within [-0.5, 0.5], the calibration centre first, and which of them learning may move.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Bool

from acqdesign.base.checks import check_choice, check_count, check_key, check_positive, check_shape, usage_error
from acqdesign.base.types import Array, LinePoints, PRNGKey

INITIALISERS = ("reference", "poisson", "caipi", "spiral", "full")
"""The names that `initial_lines` knows."""

# Random sequential packings of discs of diameter r end near this many points per r².
_PACKING = 0.7

MAX_CAIPI = 64  # sparsest lattice that is searched for: one point in so many
_DARTS = 30  # candidates thrown for each line


class Pattern(NamedTuple):
    """Phase encodes `(ky, kz)` of readout lines in cycles per voxel, float32, and whether learning may move each."""

    points: LinePoints
    learned: Bool[Array, " lines"]


class _Plane(NamedTuple):
    """The phase-encode plane: its grid, its shutter, and the calibration block taken out of it."""

    grid: tuple[int, int]
    shutter: bool
    block: tuple[int, int]

    def radius(self, index: np.ndarray) -> np.ndarray:
        """Distance from the centre, one being half the side of k-space, of points in grid units."""
        return np.hypot(*(2 * index / np.array(self.grid)).T)

    def holds(self, index: np.ndarray) -> np.ndarray:
        """Which points, in grid units, lie in the box and the shutter, but not in the block."""
        low = np.array([-(b // 2) for b in self.block]) - 0.5
        in_block = ((index > low) & (index < low + self.block)).all(axis=-1)
        in_box = (np.abs(index) <= np.array(self.grid) / 2).all(axis=-1)
        return in_box & ~in_block & (not self.shutter or self.radius(index) <= 1 + 1e-9)


def _mesh(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(y, z, indexing="ij"), axis=-1).reshape(-1, 2)


def _grid_points(plane: _Plane) -> np.ndarray:
    """Grid units of every line of the full grid outside the block."""
    index = _mesh(*(np.arange(n) - n // 2 for n in plane.grid)).astype(np.float64)
    return index[plane.holds(index)]


def _finished(plane: _Plane, others: np.ndarray) -> Pattern:
    centre = _mesh(*(np.arange(-(b // 2), b - b // 2) for b in plane.block)).astype(np.float64)
    points = np.concatenate([centre, others]) / np.array(plane.grid)
    learned = jnp.arange(len(points)) >= len(centre)
    return Pattern(jnp.asarray(np.clip(points, -0.5, 0.5), jnp.float32), learned)


def _density(plane: _Plane, count: int, decay: float) -> Callable[[np.ndarray], np.ndarray]:
    """Lines per grid cell `min(cap, c |k|^-decay)` as a function of radius, with `count` lines in all."""
    cells = _mesh(*((np.arange(256) + 0.5) / 256 * n - n / 2 for n in plane.grid))
    radii = plane.radius(cells[plane.holds(cells)])
    if not len(radii):
        raise usage_error("calibration", plane.block, "a block that leaves room for other lines")
    area = math.prod(plane.grid) / len(cells)
    # Beyond one line a cell nothing new is measured, unless there are more lines than cells.
    cap = max(1.0, count / (len(radii) * area))
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        total = np.minimum(cap, math.exp(middle) * radii**-decay).sum() * area
        low, high = (middle, high) if total < count else (low, middle)
    return lambda radius: np.minimum(cap, math.exp(high) * np.maximum(radius, 1e-6) ** -decay)


def _reference(grid: tuple[int, ...], lines: int, key: PRNGKey) -> Pattern:
    """The straight-line example's start: a fixed square centre, the others uniform at random.

    `c = round(sqrt(0.3 · lines))` points a side, evenly from `-c / (2 nx)` to `c / (2 nx)` with both ends, make the
    centre (`ny` for `nx` in a single plane): its spacing is a little wider than the grid's; it is held. As in mri-nufft
    1.5.1's `example_learn_straight_line_readouts`.
    """
    side, width = round(math.sqrt(0.3 * lines)), grid[0] if grid[0] > 1 else grid[1]
    if side > width:
        raise usage_error("lines", lines, f"at most {width} points along a side of the fixed centre, not {side}")
    steps = np.linspace(-side / (2 * width), side / (2 * width), side, dtype=np.float32)
    others = jax.random.uniform(key, (lines - side**2, 2), jnp.float32, -0.5, 0.5)
    return Pattern(jnp.concatenate([_mesh(steps, steps), others]), jnp.arange(lines) >= side**2)


def _poisson(plane: _Plane, count: int, decay: float, key: PRNGKey) -> np.ndarray:
    """Dart throwing with a disc that follows the density, scaled until just enough darts stick."""
    rng, density = np.random.default_rng(np.asarray(jax.random.key_data(key))), _density(plane, count, decay)
    # Candidates follow the density too, so that no part of the plane runs out of darts first.
    cell = np.array(plane.grid) / 256
    corners = _mesh(np.arange(256), np.arange(256)) * cell - np.array(plane.grid) / 2
    corners = corners[plane.holds(corners + cell / 2)]
    weights = density(plane.radius(corners + cell / 2))
    chosen = rng.choice(len(corners), size=_DARTS * count, p=weights / weights.sum())
    darts = corners[chosen] + rng.random((len(chosen), 2)) * cell
    # Without a block that holds it, the centre of k-space is the first dart.
    darts = np.concatenate([np.zeros((1, 2)), darts])
    darts = darts[plane.holds(darts)]
    tree = scipy.spatial.cKDTree(darts)
    diameters = np.sqrt(_PACKING / density(plane.radius(darts)))

    def stuck(scale: float) -> np.ndarray:
        free = np.ones(len(darts), bool)
        kept = []
        for i in range(len(darts)):
            if free[i]:
                kept.append(i)
                free[tree.query_ball_point(darts[i], scale * diameters[i])] = False
        return darts[kept]

    best, scale = np.empty((0, 2)), 1.0
    for _ in range(20):
        points = stuck(scale)
        if len(points) >= count and (len(best) < count or len(points) < len(best)):
            best = points
        if 0 <= len(best) - count <= count // 200:
            break
        # The number goes with the inverse area; a little more than needed, as darts can only be left out.
        scale *= math.sqrt(len(points) / (count * 1.001 + 0.3))
    if len(best) < count:
        raise usage_error("lines", count, f"about {len(best)} beside the calibration block", "Change either.")
    return best[:count]


def _spiral(plane: _Plane, count: int, decay: float, key: PRNGKey) -> np.ndarray:
    """Points at golden angles whose radii follow the density, stretched until `count` lie in the plane."""
    density = _density(plane, count, decay)
    edges = np.linspace(0, 1 if plane.shutter else math.sqrt(2), 8193)
    middles = (edges[:-1] + edges[1:]) / 2
    rings = density(middles) * math.pi * np.diff(edges**2) * math.prod(plane.grid) / 4
    inside = np.r_[0.0, np.cumsum(rings)]

    def pattern(step: float) -> np.ndarray:
        turn = np.arange(int(inside[-1] / step) + 1)
        radius = np.interp(turn * step, inside, edges) / 2
        angle = turn * math.pi * (3 - math.sqrt(5))
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1) * plane.grid
        return points[plane.holds(points)]

    low, high = 0.1, 10.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if len(pattern(middle)) >= count else (low, middle)
    return pattern(low)[:count]


def _caipi(plane: _Plane, index: int) -> np.ndarray:
    """The sheared lattice with one grid point in `index` whose aliases lie farthest apart.

    Lattices are `{(y, z): y = a i, z = b i + d j}` with `a d = index`, `0 <= b < d`. Their aliases are the
    points of the dual lattice in the field of view; the best has the largest distance to the nearest one, in
    voxels. F. A. Breuer et al., Magn. Reson. Med. 55:549 (2006).
    """
    best, found = np.zeros(0), (1, 0, index)
    for a in (a for a in range(1, index + 1) if index % a == 0):
        d = index // a
        for b in range(d):
            m1, m2 = _mesh(np.arange(a), np.arange(d))[1:].T
            alias = np.stack([(m1 - b * m2 / d) / a, m2 / d], axis=-1)
            alias = (alias - np.rint(alias)) * plane.grid
            # Where the nearest are equally far, the next nearest decide: that is what shears 2 x 2.
            distances = np.sort(np.hypot(*alias.T)).round(9)
            if tuple(distances) > tuple(best):
                best, found = distances, (a, b, d)
    a, b, d = found
    points = _grid_points(plane)
    y, z = points.astype(int).T
    return points[(y % a == 0) & ((z - b * (y // a)) % d == 0)]


def _caipi_of_size(plane: _Plane, count: int, decay: float, key: PRNGKey) -> np.ndarray:
    """The sparsest lattice with enough points, without its outermost ones."""
    for index in range(min(math.prod(plane.grid) // count + 1, MAX_CAIPI), 0, -1):
        points = _caipi(plane, index)
        if len(points) >= count:
            return points[np.argsort(plane.radius(points), kind="stable")[:count]]
    fixed = math.prod(plane.block)
    raise usage_error("lines", count + fixed, f"at most the {len(points) + fixed} of the grid", "Or use init poisson.")


def initial_lines(
    name: str,
    shape: Sequence[int],
    *,
    key: PRNGKey,
    lines: int | None = None,
    acceleration: float | int | None = None,
    shutter: bool = False,
    calibration: int | Sequence[int] = 0,
    decay: float | int = 2.0,
) -> Pattern:
    """A starting pattern by name.

        reference  the straight-line example's of mri-nufft; takes neither shutter nor calibration
        poisson    variable-density Poisson disc, off the grid: neighbours keep a distance that follows the
                   density. R. Bridson, SIGGRAPH sketches 22 (2007); S. S. Vasanawala et al., ISBI (2011)
        caipi      the sheared lattice with the farthest aliases, on the grid (2D CAIPIRINHA)
        spiral     golden-angle phyllotaxis, off the grid. H. Vogel, Math. Biosci. 44:179 (1979)
        full       every line of the grid

    The density of `poisson` and `spiral` is `min(1, c |k|^-decay)` lines a grid cell, `|k|` being one at half
    the side of k-space, and `c` such that the number of lines is met exactly.

    Args:
        name: one of `INITIALISERS`.
        shape: of the image, `(nx, ny, nz)`.
        key: from `jax.random.key`; the same key gives the same pattern.
        lines: number of lines, calibration included. `caipi` leaves out the outermost ones of the sparsest lattice that
            has as many.
        acceleration: instead of `lines`: `ny · nz / lines`; for `caipi` a whole number, the lattice's own, calibration
            coming on top.
        shutter: only positions within the ellipse `(2 ky)² + (2 kz)² <= 1`.
        calibration: side of the fully sampled block of grid lines in the centre, which is held; or its two sides, or 0.
        decay: how fast the density falls off; 0 is uniform.

    Returns:
        Positions, with exactly `lines` of them where a number was given; grid positions are `(n − N//2) / N`.
    """
    check_choice("init", name, INITIALISERS)
    check_key("key", key)
    grid = check_shape("shape", shape, dims=(3,))
    plane = _Plane((grid[1], grid[2]), bool(shutter), _block(calibration, (grid[1], grid[2])))
    fixed = math.prod(plane.block)
    if not (math.isfinite(decay) and decay >= 0):
        raise usage_error("decay", decay, "a finite number >= 0")
    if name == "full":
        full = _finished(plane, _grid_points(plane))
        if lines not in (None, len(full.points)):
            raise usage_error("lines", lines, f"none, or the full grid's {len(full.points)}", "Or use init caipi.")
        if acceleration not in (None, 1):
            raise usage_error("acceleration", acceleration, "none, or 1, for a full grid", "Or use init caipi.")
        return full
    if (lines is None) == (acceleration is None):
        raise usage_error("lines", f"lines = {lines} and acceleration = {acceleration}", "one of the two")
    if name == "caipi" and acceleration is not None:
        if not (1 <= acceleration <= MAX_CAIPI and acceleration == round(acceleration)):
            raise usage_error("acceleration", acceleration, f"a whole number from 1 to {MAX_CAIPI} for caipi")
        return _finished(plane, _caipi(plane, round(acceleration)))
    if acceleration is not None:
        if not 1 <= acceleration <= math.prod(plane.grid):
            raise usage_error("acceleration", acceleration, f"between 1 and ny · nz = {math.prod(plane.grid)}")
        lines = round(math.prod(plane.grid) / acceleration)
    lines = check_count("lines", lines)
    if name == "reference":
        if shutter or fixed:
            raise usage_error("init", "reference with a shutter or a calibration", "neither, as its recipe is fixed")
        return _reference(grid, lines, key)
    if fixed > lines:
        raise usage_error("calibration", plane.block, f"at most lines = {lines} lines in the fixed centre, not {fixed}")
    if name != "caipi" and min(plane.grid) < 2:
        raise usage_error("shape", grid, "ny and nz of at least 2 for positions off the grid")
    count = lines - fixed
    make = {"poisson": _poisson, "spiral": _spiral, "caipi": _caipi_of_size}[name]
    others = make(plane, count, decay, key) if count else np.empty((0, 2))
    return _finished(plane, others)


def usual_pattern(
    name: str,
    shape: Sequence[int],
    key: PRNGKey,
    *,
    lines: int | None = None,
    acceleration: float | int | None = None,
    calibration: int | None = None,
) -> Pattern:
    """A pattern of `initial_lines` as commands make it, of a quarter of the lines unless told how many.

    `poisson` and `spiral` have a calibration block of nearly a third of the lines unless told otherwise and, where the
    lines fit, `poisson` keeps to the ellipse inside k-space.
    """
    check_choice("init", name, INITIALISERS)
    _, ny, nz = check_shape("shape", shape, dims=(3,))
    if lines is None and acceleration is None and name != "full":
        acceleration = 4.0
    if lines is not None:
        check_count("lines", lines)
    if acceleration is not None:
        check_positive("acceleration", acceleration)
    shutter = False
    if name in ("poisson", "spiral"):
        count = lines if lines is not None else ny * nz / (acceleration or 1.0)
        if calibration is None:
            calibration = min(round(math.sqrt(0.3 * count)), ny, nz)
        shutter = name == "poisson" and count <= 0.75 * ny * nz
    more: dict[str, Any] = {"shutter": shutter, "calibration": 0 if calibration is None else calibration}
    return initial_lines(name, shape, key=key, lines=lines, acceleration=acceleration, **more)


def _block(calibration: int | Sequence[int], grid: tuple[int, int]) -> tuple[int, int]:
    """Sides of the calibration block."""
    sides = np.broadcast_to(np.atleast_1d(calibration), 2) if np.size(calibration) in (1, 2) else np.array("wrong")
    if sides.dtype.kind not in "iuf" or not ((sides == np.round(sides)) & (sides >= 0) & (sides <= grid)).all():
        raise usage_error("calibration", repr(calibration), f"one or two whole numbers from 0 to {grid}")
    return (0, 0) if 0 in sides else (int(sides[0]), int(sides[1]))
