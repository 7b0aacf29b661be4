"""What a scanner's gradients can play: limits on the samples of a readout."""

import dataclasses
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from acqdesign.base.checks import check_positive, usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, ms_from_s, us_from_s
from acqdesign.optim import PathLimits
from acqdesign.scene.scanner import MARGIN, SystemLimits
from acqdesign.scene.scene import Scene


@dataclasses.dataclass(frozen=True)
class Hardware(PathLimits):
    """Samples `(readouts, samples, D)` [cycles/voxel] that gradients within their limits reach, `dwell` [s] apart.

    With `k_i` in cycles/m the gradient is `(k_i - k_{i-1}) / (γ dwell)` and the slew `(k_{i+1} - 2 k_i + k_{i-1}) / (γ
    dwell²)`, both of the vector sum; before the first and after the last sample it is that of `start` and `end`.
    """

    dwell: float = dataclasses.field(kw_only=True)
    """Time between samples [s]."""
    gradient: float = dataclasses.field(kw_only=True)
    """Largest gradient [T/m], which takes `step`."""
    slew: float = dataclasses.field(kw_only=True)
    """Largest slew [T/m/s], which takes `bend`."""

    @classmethod
    def of(cls, system: SystemLimits, scene: Scene, dwell: float, *, where: str = "points", **more: Any) -> "Hardware":
        """The limits of a scanner for a scene's voxels, and for points within k-space.

        Args:
            system: the scanner's.
            scene: with a field of view.
            dwell: time between samples [s], a multiple of the scanner's gradient raster.
            where: name of the array.
            more: further fields, such as `held=((0, 0.0),)` for readouts from the centre of k-space.
        """
        check_positive("dwell", dwell)
        raster = system.gradient_raster_s
        if abs(dwell / raster - max(round(dwell / raster), 1)) > 1e-6:
            given, least = us_from_s(dwell), us_from_s(raster)
            raise usage_error("dwell", f"{given:g} us", f"a multiple of {least:g} us, {system.name}'s gradient raster")
        if scene.fov is None:
            raise usage_error("scene", "one without a field of view", "one with fov")
        voxel = [size for size, n in zip(scene.voxel_size(), scene.shape, strict=True) if n > 1]
        largest: dict[str, Any] = {
            "gradient": MARGIN * system.max_gradient_t_per_m,
            "slew": MARGIN * system.max_slew_t_per_m_s,
        }
        unit = GAMMA_HZ_PER_T * dwell * np.asarray(voxel)
        step, bend = (tuple((unit * x).tolist()) for x in (largest["gradient"], largest["slew"] * dwell))
        return cls(where, step, bend, **{"reach": 0.5} | more, dwell=float(dwell), **largest)

    def waveforms(self, points: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Gradients `(readouts, samples + 1, D)` [T/m], before, between and after samples, and their slews [T/m/s]."""
        steps = np.diff(np.asarray(points, float), axis=1) / np.asarray(self.step)
        ends = [
            np.broadcast_to(0.0 if end is None else np.asarray(end) / self.step, steps[:, :1].shape)
            for end in (self.start, self.end)
        ]
        gradient = self.gradient * np.concatenate([ends[0], steps, ends[1]], axis=1)
        slew = np.diff(gradient, axis=1) / self.dwell
        for index, end in ((0, self.start), (-1, self.end)):
            slew[:, index] *= end is not None
        return gradient, slew

    def lasting(self, points: int) -> str:
        return f"{points} samples, {ms_from_s(points * self.dwell):.4g} ms,"
