"""Straight readout lines as a trajectory: where they lie in the plane of the phase encodes is learned."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from acqdesign.base.checks import as_real, check_number, usage_error
from acqdesign.base.types import Array, ArrayLike, Float, LinePoints, PRNGKey
from acqdesign.encoding.hardware import Hardware
from acqdesign.encoding.lines import StraightLineEncoding, check_readout, uniform_readout
from acqdesign.encoding.nufft import check_cycles, check_options, check_points
from acqdesign.encoding.patterns import usual_pattern
from acqdesign.encoding.trajectory import Trajectory
from acqdesign.optim import Box, Constraint, held, learned_mask
from acqdesign.scene.scene import Scene


class Lines(Trajectory):
    """Straight readout lines along x, with their factored operator.

    Args:
        points: `(S, 2)` phase encodes `(ky, kz)` in cycles per voxel.
        moves: `(S,)` boolean, which lines learning may move; all unless given.
        samples: of a line, placed by `uniform_readout`; as many as the scene has voxels along x unless given.
        readout: `(samples,)` explicit kx positions in cycles per voxel, instead.
        half_width: half the side of the box that the lines keep to [cycles/voxel].
        eps: accuracy of `finufft`, as in `nufft_forward`.
        backend: `finufft`, `dft` or `auto`, likewise.
    """

    points: LinePoints
    moves: Bool[Array, " lines"]
    readout: Float[Array, " samples"] | None = held()
    samples: int | None = eqx.field(static=True)
    half_width: float = eqx.field(static=True)
    eps: float | None = eqx.field(static=True)
    backend: str = eqx.field(static=True)

    def __init__(
        self,
        points: ArrayLike,
        moves: ArrayLike | None = None,
        *,
        samples: int | None = None,
        readout: ArrayLike | None = None,
        half_width: float = 0.5,
        eps: float | None = None,
        backend: str = "auto",
    ):
        self.points = as_real("points", points)
        check_points(self.points, 2)
        if self.points.ndim != 2:
            raise usage_error("points", self.points, "shape (lines, 2)")
        check_cycles("points", self.points)
        lines = len(self.points)
        self.moves = jnp.ones(lines, bool) if moves is None else jnp.asarray(moves)
        if self.moves.shape != (lines,) or self.moves.dtype != bool:
            raise usage_error("moves", self.moves, f"booleans of shape ({lines},), one for each line")
        self.readout = None if readout is None else jnp.asarray(readout)
        self.samples = None if samples is None and readout is None else check_readout(samples, self.readout)
        check_number("half_width", half_width)
        if not 0 < half_width <= 0.5:
            raise usage_error("half_width", half_width, "a number above 0 and at most 0.5 cycles/voxel")
        check_options(eps, backend, self.points.dtype)
        self.half_width, self.eps, self.backend = float(half_width), eps, backend

    def operator(self, scene: Scene) -> StraightLineEncoding:
        nx = scene.shape[0] if scene.planes is None else scene.planes[1]
        return StraightLineEncoding(
            self.points, scene.shape, self.samples or nx, readout=self.readout, eps=self.eps, backend=self.backend,
            planes=scene.planes,
        )  # fmt: skip

    def _along(self) -> Float[Array, " samples"] | None:
        """Positions of the samples of a line, None where their number goes by the scene."""
        if self.samples is None or self.readout is not None:
            return self.readout
        return uniform_readout(self.samples, self.points.dtype)

    def coordinates(self) -> Float[Array, "lines samples 3"]:
        readout = self._along()
        if readout is None:
            raise usage_error("samples", None, "the number of samples of a line", "Or readout positions.")
        shape = (len(self.points), len(readout))
        along = jnp.broadcast_to(readout[None, :, None], (*shape, 1))
        return jnp.concatenate([along, jnp.broadcast_to(self.points[:, None], (*shape, 2))], axis=-1)

    def learned(self) -> Any:
        return eqx.tree_at(lambda lines: lines.points, learned_mask(self), self.moves[:, None])

    def limits(self) -> tuple[Constraint, ...]:
        return (Box("points", -self.half_width, self.half_width),)

    def readouts(self) -> int:
        return self.points.shape[0]

    def planes_apart(self, scene: Scene) -> bool:
        return self.readout is None and (self.samples or scene.shape[0]) >= scene.shape[0]

    def positions(self) -> LinePoints:
        return self.points

    def permuted(self, source: np.ndarray | Array) -> "Lines":
        order = jnp.asarray(source)
        moved = tuple(jnp.take(array, order, axis=0) for array in (self.points, self.moves))
        return eqx.tree_at(lambda x: (x.points, x.moves), self, moved)

    def within(self, hardware: Hardware) -> "Lines":
        remedy = "Their prewinders depend on the echo spacing: learn_joint --system, or half_width."
        raise usage_error("trajectory", "straight lines", "readouts whose samples are learned", remedy)

    def design(self) -> Mapping[str, Any]:
        own = {"points": self.points, "learned": self.moves}
        return own if self.samples is None else {**own, "samples_per_line": self.samples, "readout": self._along()}

    @classmethod
    def start(
        cls,
        scene: Scene,
        key: PRNGKey,
        *,
        init: str = "poisson",
        lines: int | None = None,
        acceleration: float | None = None,
        calibration: int | None = None,
        samples: int | None = None,
        **more: Any,
    ) -> "Lines":
        """A pattern to start from; see `usual_pattern`.

        Args:
            scene: to be imaged.
            key: for random patterns.
            init: the pattern's name.
            lines: how many.
            acceleration: instead of `lines`: phase encodes of the full grid over lines; 4 where neither is given.
            calibration: side of the fully sampled block in the centre, which is held; 0 for none.
            samples: of a line.
            more: further arguments of the class.
        """
        pattern = usual_pattern(init, scene.shape, key, lines=lines, acceleration=acceleration, calibration=calibration)
        real = jnp.float32 if scene.support is None else scene.support.dtype
        more = {"samples": samples or scene.shape[0], **cls._of_scene(scene), **more}
        made: Any = cls(pattern.points.astype(real), pattern.learned, **more)
        return made.finished()

    @classmethod
    def _of_scene(cls, scene: Scene) -> dict[str, Any]:
        """Arguments of the class that a scene settles."""
        return {}

    @classmethod
    def poisson(cls, scene: Scene, *, key: PRNGKey | int = 0, **options: Any) -> "Lines":
        """A variable-density Poisson disc around a held block; options as of `start`."""
        return cls.start(scene, _typed(key), init="poisson", **options)

    @classmethod
    def caipi(cls, scene: Scene, *, key: PRNGKey | int = 0, **options: Any) -> "Lines":
        """A sheared lattice on the grid (2D CAIPIRINHA); options as of `start`."""
        return cls.start(scene, _typed(key), init="caipi", **options)

    @classmethod
    def full(cls, scene: Scene, **options: Any) -> "Lines":
        """Every line of the grid; options as of `start`."""
        return cls.start(scene, _typed(0), init="full", **options)


def _typed(key: Any) -> PRNGKey:
    return jax.random.key(key) if isinstance(key, int) else key
