"""Readouts along any path as a scanner plays them: gradients on their raster, from rest to rest."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.linalg

from acqdesign.base.checks import usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, ms_from_s, us_from_s
from acqdesign.export.shapes import ADC_DIVISOR, PulseqOptions, excitation_duration
from acqdesign.export.straight import trajectory
from acqdesign.export.timeline import Timeline, largest_flip, timed
from acqdesign.scene import scanner
from acqdesign.scene.scanner import EchoShape, EchoTiming, Lobes

LONG_S = 5e-3
"""Readouts that last longer are told to be modelled without off-resonance."""


@dataclasses.dataclass(frozen=True)
class Waves(Timeline):
    """Events whose readouts are waveforms `(lines, 3, steps)` [T/m], at the middles of steps of the gradient raster.

    The samples lie at the edges of the steps, the first after `lead` steps at rest.
    """

    waves: np.ndarray
    samples_per_m: np.ndarray
    lead: int
    select_axis: int
    spoil_axis: int

    name = "acqdesign_waveforms"
    read_gradient = 0.0

    @functools.cached_property
    def _moments(self) -> np.ndarray:
        """k-space at the edges of the steps less that at the first, `(lines, 3, steps + 1)` [1/m]."""
        return _integrals(self.waves, self.limits.gradient_raster_s) * GAMMA_HZ_PER_T

    @property
    def _at_samples(self) -> np.ndarray:
        step = round(self.shape.dwell_s / self.limits.gradient_raster_s)
        return self._moments[..., self.lead :: step][..., : self.samples_per_m.shape[1]].swapaxes(1, 2)

    @functools.cached_property
    def start(self) -> np.ndarray:
        # Where samples are off, as little as can be: not the first alone is on its place.
        missed = self.samples_per_m - self._at_samples
        return 0.5 * (missed.min(1) + missed.max(1))

    @functools.cached_property
    def end(self) -> np.ndarray:
        return self.start + self._moments[..., -1]

    @property
    def read_sides(self) -> tuple[float, float]:
        raster, block = self.limits.gradient_raster_s, self.limits.block_raster_s
        before = round((self.lead * raster + self.shape.sample_centre * self.shape.dwell_s) / block) * block
        return before, self.waves.shape[-1] * raster - before

    @property
    def order_area(self) -> float:
        return self.shape.crusher / (GAMMA_HZ_PER_T * self.shape.voxel_m[self.spoil_axis])

    @property
    def cells(self) -> np.ndarray:
        return np.column_stack([np.arange(len(self.waves)), np.zeros(len(self.waves), int)])

    def hard_lines(self) -> list[int]:
        slew = np.abs(np.diff(self.waves, axis=-1)).max(-1)
        return sorted({int(np.argmax(m)) for m in (*slew.T, np.linalg.norm(slew, axis=1))})

    def all_lobes(self) -> list[Lobes]:
        gradient, slew = _extremes(self.waves, self.limits.gradient_raster_s)
        whole = self.waves.shape[-1] * self.limits.gradient_raster_s
        return [*super().all_lobes(), Lobes(whole, 0.0, gradient, 0.0, slew)]

    @property
    def off_cells(self) -> float:
        """How far what is played lies from the design, at most, in cells of k-space."""
        off = self._at_samples + self.start[:, None] - self.samples_per_m
        return float(np.abs(off * np.array(self.fov_m)).max())

    def told(self, lines: int, seconds: float) -> list[str]:
        flat = 1 in self.matrix
        shots = (
            f"{'2D slice' if flat else '3D'} of gradient waveforms: {lines} readouts of {self.shape.samples} samples"
        )
        lasting = ms_from_s(self.shape.samples * self.shape.dwell_s)
        found = [f"{shots}, {lasting:.4g} ms each, TE {ms_from_s(self.te_s):.4g} ms; {seconds:.0f} s"]
        if self.off_cells > 1e-3:
            found.append(
                f"positions up to {self.off_cells:.2g} of a cell off the design, whose bends are at the slew limit"
            )
        if lasting > ms_from_s(LONG_S):
            found.append(f"readouts of {lasting:.3g} ms: off-resonance and decay during them are not modelled")
        return found


def make_waves(design: Mapping[str, Any], options: PulseqOptions) -> Waves:
    """Settles what is played of a design's coordinates, and checks that the scanner can.

    A plane is excited as a slice of its thickness; a volume as a whole, or as a slab.

    Raises:
        UsageError: waveforms beyond the limits, by how much; a dwell time off the gradient raster.
    """
    limits = options.system
    matrix = tuple(int(n) for n in np.asarray(design["shape"]))
    fov = tuple(round(float(f), 9) for f in np.asarray(design["fov_m"]))
    voxel = tuple(f / n for f, n in zip(fov, matrix, strict=True))
    k = trajectory(design) / np.array(voxel)
    count = k.shape[1]
    raster = limits.gradient_raster_s
    dwell = raster if options.dwell_s is None else round(options.dwell_s, 9)
    step = round(dwell / raster)
    if step < 1 or abs(dwell / raster - step) > 1e-4:
        raise usage_error(
            "dwell_s", dwell, f"a multiple of {us_from_s(raster):g} us, the gradient raster of {limits.name}"
        )
    if count % ADC_DIVISOR:
        low = count // ADC_DIVISOR * ADC_DIVISOR
        remedy = f"Learn with {low} or {low + ADC_DIVISOR} samples."
        raise usage_error(
            "coordinates", f"{count} samples", f"a multiple of {ADC_DIVISOR}, as scanners decimate", remedy
        )
    thin = [axis for axis, n in enumerate(matrix) if n == 1]
    select, slab = (thin[0], options.slab_m or fov[thin[0]]) if thin else (2, options.slab_m)
    selective = dataclasses.replace(options, slab_m=slab)
    flip = largest_flip(design, options)
    echo = float(np.argmin(np.linalg.norm(k[0], axis=-1)))
    shape = EchoShape(
        count,
        dwell,
        voxel,
        excitation_s=excitation_duration(selective, flip),
        crusher=options.crusher,
        slab_m=slab,
        centre=echo,
    )
    if shape.slab_gradient_t_per_m > limits.max_gradient_t_per_m * scanner.MARGIN:
        got = f"{slab:.4g} m, which takes a gradient of {shape.slab_gradient_t_per_m:.3g} T/m"
        raise usage_error("slab_m", got, f"at most {limits.max_gradient_t_per_m:.3g} T/m", "Or a longer excitation.")
    lead = math.ceil((limits.adc_dead_time_s + 0.5 * dwell) / raster - 1e-6)
    waves = _waveforms(k.swapaxes(1, 2), dwell, step, limits, lead)
    timing = scanner.echo_timing(limits, shape, 1.0)
    timing = EchoTiming(0.0, 0.0, waves.shape[-1] * raster, timing.excitation_s, 0.0)
    common = {
        "limits": limits, "shape": shape, "timing": timing, "excitation": flip, "k_per_m": np.zeros((len(k), 2)),
        "matrix": matrix, "fov_m": fov, "noise_scan": options.noise_scan, "waves": waves, "samples_per_m": k,
        "lead": lead, "select_axis": select, "spoil_axis": thin[0] if thin else 0,
    }  # fmt: skip
    found = timed(design, options, common, Waves)
    assert isinstance(found, Waves)
    return found


def _waveforms(k: np.ndarray, dwell: float, step: int, limits: Any, lead: int) -> np.ndarray:
    """Gradients `(lines, 3, steps)` [T/m] through positions `(lines, 3, samples)` [1/m], within the limits.

    They run straight between the middles of steps. Where the limits leave room, those whose integrals are exactly
    the design's; elsewhere the design's mean gradients themselves, of which samples are off by an eighth of a bend.
    """
    raster, ramp = limits.gradient_raster_s, round(limits.block_raster_s / limits.gradient_raster_s)
    mean = np.diff(k, axis=-1) / (GAMMA_HZ_PER_T * dwell)
    # At rest for as long as before, and up to a whole block.
    tail = -(lead + mean.shape[-1] * step) % ramp + ramp * math.ceil(lead / ramp)
    worst = (math.inf, math.inf)
    for exact in (True, False):
        nodes = _exact(mean) if exact else mean
        if step > 1:
            at = np.concatenate([np.zeros_like(nodes[..., :1]), nodes, np.zeros_like(nodes[..., :1])], axis=-1)
            fine = (np.arange((at.shape[-1] - 1) * step * 2) + 0.5) / (2 * step)  # quarters of steps, from node to node
            low = np.floor(fine).astype(int)
            between = at[..., low] + (fine - low) * (at[..., low + 1] - at[..., low])
            # From middle to middle of a dwell time; steps begin half of one later.
            whole = between[..., step : -step or None] if step % 2 == 0 else between[..., step:-step]
            nodes = whole.reshape(*whole.shape[:-1], -1, 2).mean(-1)
            nodes = _exact(nodes) if exact else nodes
        waves = np.pad(nodes, ((0, 0), (0, 0), (lead, tail)))
        worst = _extremes(waves, raster)
        if worst[0] <= limits.max_gradient_t_per_m and worst[1] <= limits.max_slew_t_per_m_s:
            return waves
    gradient, slew = worst
    got = f"readouts of {gradient:.3g} T/m and {slew:.4g} T/m/s at {us_from_s(dwell):g} us a sample"
    expected = (
        f"at most {limits.max_gradient_t_per_m:.3g} T/m and {limits.max_slew_t_per_m_s:.4g} T/m/s ({limits.name})"
    )
    longer = dwell * max(gradient / limits.max_gradient_t_per_m, math.sqrt(slew / limits.max_slew_t_per_m_s))
    longer = us_from_s(math.ceil(longer / raster - 1e-6) * raster)
    raise usage_error(
        "coordinates", got, expected, f"Learn with --system {limits.name}, or sample every {longer:g} us."
    )


def _exact(mean: np.ndarray) -> np.ndarray:
    """Values at the middles of steps such that lines between them have these means over the steps."""
    count = mean.shape[-1]
    bands = np.array([np.full(count, 0.125), np.full(count, 0.75), np.full(count, 0.125)])
    solved = scipy.linalg.solve_banded((1, 1), bands, mean.reshape(-1, count).T)
    return solved.T.reshape(mean.shape)


def _integrals(waves: np.ndarray, raster: float) -> np.ndarray:
    """Integrals up to the edges of steps of what runs straight between their middles, and is zero beyond both ends."""
    at = np.pad(waves, ((0, 0), (0, 0), (1, 1)))
    each = raster * (at[..., :-2] + 6 * at[..., 1:-1] + at[..., 2:]) / 8
    return np.concatenate([np.zeros_like(each[..., :1]), np.cumsum(each, axis=-1)], axis=-1)


def _extremes(waves: np.ndarray, raster: float) -> tuple[float, float]:
    """The largest gradient and slew, of the vector sum."""
    size = np.linalg.norm(waves, axis=1).max(initial=0.0)
    return float(size), float(np.linalg.norm(np.diff(waves, axis=-1), axis=1).max(initial=0.0) / raster)
