"""The plan of a design as a pypulseq sequence: only pypulseq's own events, so that it checks what it writes."""

import math
from typing import Any

import numpy as np

from acqdesign.base.units import GAMMA_HZ_PER_T
from acqdesign.export.formats import package
from acqdesign.export.plan import SLAB_APODIZATION, SPOILING_RAD, Plan
from acqdesign.scene.scanner import Lobes, SystemLimits


def _system(pypulseq: Any, limits: SystemLimits) -> Any:
    """Limits as pypulseq's `Opts`."""
    return pypulseq.Opts(
        max_grad=limits.max_gradient_t_per_m * GAMMA_HZ_PER_T,
        grad_unit="Hz/m",
        max_slew=limits.max_slew_t_per_m_s * GAMMA_HZ_PER_T,
        slew_unit="Hz/m/s",
        rf_dead_time=limits.rf_dead_time_s,
        rf_ringdown_time=limits.rf_ringdown_time_s,
        adc_dead_time=limits.adc_dead_time_s,
        adc_raster_time=limits.adc_raster_s,
        rf_raster_time=limits.rf_raster_s,
        grad_raster_time=limits.gradient_raster_s,
        block_duration_raster=limits.block_raster_s,
        gamma=GAMMA_HZ_PER_T,
        B0=limits.b0_t,
    )


def build_sequence(plan: Plan) -> Any:
    """A `pypulseq.Sequence` that plays a plan: noise scan, dummies, then every train (or single echo) in order.

    With labels LIN and PAR (nearest grid cell), SEG (echo in its train) and NOISE, and the definitions that
    `read_pulseq` and reconstructions need.
    """
    parts = _Parts(plan)
    if plan.noise_scan:
        parts.noise()
    play = parts.train if plan.is_train else parts.single
    for lines in (*np.full((plan.dummies, plan.lines.shape[1]), -1), *plan.lines):
        play(lines)
    parts.define()
    return parts.seq


class _Parts:
    """The events that repeat, registered once, and the blocks made of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.pp = plan, package("pypulseq", "pulseq")
        self.system = _system(self.pp, plan.limits)
        self.seq = self.pp.Sequence(self.system)
        self.played = 0
        shape, timing = plan.shape, plan.timing
        self.gradient = shape.readout_gradient_t_per_m * GAMMA_HZ_PER_T
        self.read = self._along_x(np.array([0.0, timing.readout_s]), np.full(2, self.gradient))
        self.before = self._bridge(plan.lobes, reverse=False)
        self.after = self._bridge(plan.lobes if plan.is_train else plan.spoil, reverse=True)
        for event in (self.read, self.before, self.after):
            event.id, event.shape_IDs = self.seq.register_grad_event(event)
        delay = 0.5 * timing.readout_s - (shape.sample_centre + 0.5) * shape.dwell_s
        delay = round(round(delay / plan.limits.rf_raster_s) * plan.limits.rf_raster_s, 9)
        self.adc = self.pp.make_adc(shape.samples, delay=delay, dwell=shape.dwell_s, system=self.system)
        self.adc.phase_offset = 0.5 * math.pi
        self.refocusing = [
            self._hard(flip, shape.refocusing_s, timing.refocusing_s, phase, "refocusing")
            for flip, phase in zip(plan.flips, plan.phases, strict=True)
        ]
        cells, most = np.round(plan.k_per_m * np.array(plan.fov_m[1:])).astype(int), np.array(plan.matrix[1:])
        self.cells = np.clip(cells + most // 2, 0, most - 1)

    def _along_x(self, times: np.ndarray, amplitudes: np.ndarray) -> Any:
        return self.pp.make_extended_trapezoid("x", amplitudes=amplitudes, times=times, system=self.system)

    def _bridge(self, lobes: Lobes, *, reverse: bool) -> Any:
        """Lobes along x that end, or start, at the readout's gradient."""
        times = np.array([0.0, lobes.ramp_s, lobes.duration_s - lobes.ramp_s, lobes.duration_s])
        held, raster = lobes.x_t_per_m * GAMMA_HZ_PER_T, self.plan.limits.gradient_raster_s
        steps, kept = np.unique(np.round(times / raster), return_index=True)
        amplitudes = np.array([0.0, held, held, self.gradient])[kept]
        if reverse:
            steps, amplitudes = (steps[-1] - steps)[::-1], amplitudes[::-1]
        return self._along_x(steps * raster, amplitudes)

    def _lobe(self, channel: str, lobes: Lobes, area: float) -> Any:
        """A trapezoid of an area [T s/m], with the times of `lobes`."""
        return self.pp.make_trapezoid(
            channel,
            amplitude=area / (lobes.duration_s - lobes.ramp_s) * GAMMA_HZ_PER_T,
            rise_time=lobes.ramp_s,
            flat_time=max(round(lobes.duration_s - 2 * lobes.ramp_s, 9), 0.0),
            fall_time=lobes.ramp_s,
            system=self.system,
        )

    def _hard(self, flip: float, duration: float, block: float, phase: float, use: str) -> Any:
        how = {"delay": round(0.5 * (block - duration), 9), "phase_offset": phase, "system": self.system, "use": use}
        pulse = self.pp.make_block_pulse(flip, duration=duration, **how)
        with np.errstate(invalid="ignore"):  # a flip of zero is shaped by 0/0, which pypulseq mends
            pulse.id, pulse.shape_IDs = self.seq.register_rf_event(pulse)
        return pulse

    def _excite(self, phase: float) -> None:
        """The excitation's block, with the slab's gradient where there is one."""
        plan, shape = self.plan, self.plan.shape
        block = self.pp.make_delay(plan.timing.excitation_s)
        if shape.slab_m is None:
            pulse = self._hard(plan.excitation, shape.excitation_s, plan.timing.excitation_s, phase, "excitation")
            self.seq.add_block(pulse, block)
            return
        pulse = self.pp.make_sinc_pulse(
            plan.excitation,
            duration=shape.excitation_s,
            delay=round(0.5 * (plan.timing.excitation_s - shape.excitation_s), 9),
            apodization=SLAB_APODIZATION,
            time_bw_product=shape.slab_bandwidth,
            phase_offset=phase,
            system=self.system,
            use="excitation",
        )
        select = self.pp.make_trapezoid(
            "z",
            amplitude=shape.slab_gradient_t_per_m * GAMMA_HZ_PER_T,
            rise_time=plan.slab_ramp_s,
            flat_time=shape.excitation_s,
            fall_time=plan.slab_ramp_s,
            delay=round(pulse.delay - plan.slab_ramp_s, 9),
            system=self.system,
        )
        self.seq.add_block(pulse, select, block)

    def _wind(self, lobes: Lobes, bridge: Any, k: np.ndarray, z_area: float = 0.0) -> None:
        """Takes y and z to, or back from, a position while x goes to, or comes from, the readout's gradient."""
        y, z = k / GAMMA_HZ_PER_T
        self.seq.add_block(bridge, self._lobe("y", lobes, y), self._lobe("z", lobes, z + z_area))

    def _acquire(self, line: int, echo: int) -> None:
        if line < 0:
            self.seq.add_block(self.read)
            return
        ky, kz = (int(n) for n in self.cells[line])
        self.seq.add_block(self.read, self.adc, *map(self._label, ("LIN", "PAR", "SEG"), (ky, kz, echo)))

    def _label(self, name: str, value: int) -> Any:
        return self.pp.make_label(type="SET", label=name, value=value)

    def _wait(self) -> None:
        raster = self.plan.limits.block_raster_s
        rest = round((self.plan.tr_s - self.plan.busy_s) / raster) * raster
        if rest > 0.5 * raster:
            self.seq.add_block(self.pp.make_delay(rest))

    def noise(self) -> None:
        """One readout of noise, without pulse or gradient."""
        margin, readout = (self.pp.make_delay(seconds) for seconds in (1e-3, self.plan.timing.readout_s))
        self.seq.add_block(margin)
        self.seq.add_block(self.adc, readout, self._label("NOISE", 1))
        self.seq.add_block(margin, self._label("NOISE", 0))

    def train(self, lines: np.ndarray) -> None:
        """One echo train; an echo whose line is negative winds and acquires nothing."""
        plan = self.plan
        assert plan.first is not None
        self._excite(0.5 * math.pi)
        first = [self._lobe("x", plan.first, plan.first.x_t_per_m * (plan.first.duration_s - plan.first.ramp_s))]
        if plan.rephasing_area:
            first.append(self._lobe("z", plan.first, -plan.rephasing_area))
        self.seq.add_block(*first)
        for echo, (line, pulse) in enumerate(zip(lines, self.refocusing, strict=True)):
            k = plan.k_per_m[line] if line >= 0 else np.zeros(2)
            self.seq.add_block(pulse, self.pp.make_delay(plan.timing.refocusing_s))
            self._wind(plan.lobes, self.before, k)
            self._acquire(int(line), echo)
            self._wind(plan.lobes, self.after, -k)
        spoil = plan.spoil
        self.seq.add_block(self._lobe("x", spoil, spoil.x_t_per_m * (spoil.duration_s - spoil.ramp_s)))
        self._wait()

    def single(self, lines: np.ndarray) -> None:
        """One spoiled gradient echo, with RF spoiling."""
        plan, line = self.plan, int(lines[0])
        k = plan.k_per_m[line] if line >= 0 else np.zeros(2)
        phase = math.fmod(SPOILING_RAD * self.played * (self.played + 1) / 2, 2 * math.pi)
        self.played += 1
        self.adc.phase_offset = phase
        self._excite(phase)
        self._wind(plan.lobes, self.before, k, -plan.rephasing_area)
        self._acquire(line, 0)
        self._wind(plan.spoil, self.after, -k)
        self._wait()

    def define(self) -> None:
        """What a reader needs to know of the whole."""
        plan = self.plan
        definitions: dict[str, Any] = {
            "Name": "acqdesign_fse3d" if plan.is_train else "acqdesign_spgr3d",
            "FOV": list(plan.fov_m),
            "ImgSize": list(plan.matrix),
            "Matrix": list(plan.matrix),
            "TE": plan.te_s,
            "TR": plan.tr_s,
            "kSpaceCenterSample": plan.shape.sample_centre,
            "DummyTrains" if plan.is_train else "DummyEchoes": plan.dummies,
            "NoiseScans": int(plan.noise_scan),
            "System": plan.limits.name,
        }
        if plan.is_train:
            definitions |= {"EchoSpacing": plan.esp_s, "TurboFactor": len(plan.flips), "Trains": len(plan.lines)}
        if plan.shape.slab_m is not None:
            definitions["SlabThickness"] = plan.shape.slab_m
        for name, value in definitions.items():
            self.seq.set_definition(name, value)
