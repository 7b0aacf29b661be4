"""What a scanner's gradients can play: limits on the samples of a readout."""

import dataclasses
from typing import Any

import numpy as np

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

    dwell: float = dataclasses.field(default=0.0, kw_only=True)
    """Time between samples [s]."""

    @classmethod
    def of(
        cls, system: SystemLimits, scene: Scene, dwell: float, *, where: str = "points", **more: Any
    ) -> "Hardware":
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
            given, step = us_from_s(dwell), us_from_s(raster)
            raise usage_error("dwell", f"{given:g} us", f"a multiple of {step:g} us, {system.name}'s gradient raster")
        if scene.fov is None:
            raise usage_error("scene", "one without a field of view", "one with fov")
        voxel = [size for size, n in zip(scene.voxel_size(), scene.shape, strict=True) if n > 1]
        unit = GAMMA_HZ_PER_T * dwell * MARGIN * np.asarray(voxel)
        step, bend = unit * system.max_gradient_t_per_m, unit * dwell * system.max_slew_t_per_m_s
        return cls(where, tuple(step.tolist()), tuple(bend.tolist()), **{"reach": 0.5} | more, dwell=float(dwell))

    def lasting(self, points: int) -> str:
        return f"{points} samples, {ms_from_s(points * self.dwell):.4g} ms,"
