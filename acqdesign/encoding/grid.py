"""Straight lines that end in cells of the grid: the mask that a Cartesian reconstruction needs."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_shape, usage_error
from acqdesign.base.types import Array, ArrayLike, LinePoints
from acqdesign.encoding.straight import Lines
from acqdesign.optim import Constraint
from acqdesign.scene.scene import Scene

_PULL, _CAUGHT = 0.2, 0.1  # of the way to its cell that a line is moved each step, and cells within which it is there


def nearest_cells(points: LinePoints, grid: tuple[int, int]) -> LinePoints:
    """For each point a cell `(n - N//2) / N` of its own: the nearest left, those closest to one first."""
    sizes, far = jnp.asarray(grid, points.dtype), points * jnp.asarray(grid, points.dtype)
    index = jnp.stack(jnp.meshgrid(*map(jnp.arange, grid), indexing="ij"), axis=-1).reshape(-1, 2)
    cells = (index - np.array(grid) // 2).astype(points.dtype)
    order = jnp.argsort(jnp.abs(far - jnp.round(far)).max(axis=1))

    def take(free: Array, point: Array) -> tuple[Array, Array]:
        away = jnp.sum((cells - point[None]) ** 2, axis=1)
        cell = jnp.argmin(jnp.where(free, away, jnp.inf))
        return free.at[cell].set(False), cell

    _, found = jax.lax.scan(take, jnp.ones(len(cells), bool), far[order])
    return (cells[jnp.zeros_like(found).at[order].set(found)] / sizes[None]).astype(points.dtype)


@dataclasses.dataclass(frozen=True)
class ToGrid(Constraint):
    """Points within ±`half_width`, drawn to distinct cells of a grid: part of the way each step, the rest once near.

    While steps are long points cross from cell to cell; as they get shorter, each stays in one.
    """

    where: str
    grid: tuple[int, int]
    half_width: float = 0.5
    separable = True

    def project(self, *values: Array) -> Array:
        points = jnp.clip(values[0], -self.half_width, self.half_width)
        way = nearest_cells(points, self.grid) - points
        near = jnp.abs(way * jnp.asarray(self.grid, points.dtype)[None]).max(axis=1, keepdims=True) <= _CAUGHT
        return points + jnp.where(near, way, _PULL * way)


class GridLines(Lines):
    """Straight lines along x that learning leaves in distinct cells of the grid of phase encodes, `(n - N//2) / N`.

    The loss of the last step is that before the lines are put into their cells; errors of images are of the cells.

    Args:
        points: as of `Lines`; so are `moves` and whatever else is given.
        grid: cells `(ny, nz)` along y and z.
    """

    grid: tuple[int, int] = eqx.field(static=True)

    def __init__(self, points: ArrayLike, moves: ArrayLike | None = None, *, grid: tuple[int, int], **more: Any):
        super().__init__(points, moves, **more)
        ny, nz = check_shape("grid", grid, dims=(2,))
        self.grid = (ny, nz)
        if len(self.points) > ny * nz:
            raise usage_error(
                "points", f"{len(self.points)} lines", f"at most {ny * nz}, one for each cell of the grid"
            )

    def limits(self) -> tuple[Constraint, ...]:
        return (ToGrid("points", self.grid, self.half_width),)

    def finished(self) -> "GridLines":
        """The lines in their cells, where steps to the end were too long for that."""
        return eqx.tree_at(lambda lines: lines.points, self, nearest_cells(self.points, self.grid))

    @classmethod
    def _of_scene(cls, scene: Scene) -> dict[str, Any]:
        return {"grid": scene.shape[1:]}
