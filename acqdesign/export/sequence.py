"""The plan of a design as a pypulseq sequence: only pypulseq's own events, so that it checks what it writes."""

import math
from typing import Any

import numpy as np

from acqdesign.base.units import GAMMA_HZ_PER_T
from acqdesign.export.formats import package
from acqdesign.export.plan import Plan
from acqdesign.export.shapes import SLAB_APODIZATION
from acqdesign.export.timeline import INVERSION_S, Item, Lobe, Timeline
from acqdesign.export.trains import Trains
from acqdesign.export.waves import Waves
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
    """A `pypulseq.Sequence` that plays a plan: noise scan, dummies, then every train or repetition in order.

    With labels LIN and PAR (nearest grid cell), SEG (echo in its train), for events REP and SET (repetition and
    acquisition), and NOISE, and the definitions that `read_pulseq` and reconstructions need.
    """
    kind: Any = {Trains: _OfTrains, Timeline: _OfEvents, Waves: _OfWaves}[type(plan)]
    parts = kind(plan)
    if plan.noise_scan:
        parts.noise()
    parts.play()
    parts.define()
    return parts.seq


class _Parts:
    """The events that repeat, registered once, and the blocks made of them."""

    def __init__(self, plan: Plan) -> None:
        self.limits, self.pp = plan.limits, package("pypulseq", "pulseq")
        self.of = plan
        self.system = _system(self.pp, plan.limits)
        self.seq = self.pp.Sequence(self.system)
        shape, timing = plan.shape, plan.timing
        self.gradient = 0.0 if isinstance(plan, Waves) else shape.readout_gradient_t_per_m * GAMMA_HZ_PER_T
        if self.gradient:
            self.read = self._register(self._along_x(np.array([0.0, timing.readout_s]), np.full(2, self.gradient)))
        delay = 0.5 * timing.readout_s - (shape.sample_centre + 0.5) * shape.dwell_s
        delay = round(round(delay / plan.limits.rf_raster_s) * plan.limits.rf_raster_s, 9)
        self.adc = self.pp.make_adc(shape.samples, delay=delay, dwell=shape.dwell_s, system=self.system)
        self.cells = plan.cells

    def play(self) -> None:
        """Dummies, then everything in order."""
        raise NotImplementedError

    def _register(self, event: Any) -> Any:
        event.id, event.shape_IDs = self.seq.register_grad_event(event)
        return event

    def _along_x(self, times: np.ndarray, amplitudes: np.ndarray) -> Any:
        return self.pp.make_extended_trapezoid("x", amplitudes=amplitudes, times=times, system=self.system)

    def _bridge(self, lobes: Lobes, *, reverse: bool) -> Any:
        """Lobes along x that end, or start, at the readout's gradient."""
        times = np.array([0.0, lobes.ramp_s, lobes.duration_s - lobes.ramp_s, lobes.duration_s])
        held, raster = lobes.x_t_per_m * GAMMA_HZ_PER_T, self.limits.gradient_raster_s
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

    def _registered(self, pulse: Any) -> Any:
        with np.errstate(invalid="ignore"):  # a flip of zero is shaped by 0/0, which pypulseq mends
            pulse.id, pulse.shape_IDs = self.seq.register_rf_event(pulse)
        return pulse

    def _hard(self, flip: float, duration: float, block: float, phase: float, use: str) -> Any:
        how = {"delay": round(0.5 * (block - duration), 9), "phase_offset": phase, "system": self.system, "use": use}
        return self._registered(self.pp.make_block_pulse(flip, duration=duration, **how))

    def _excitation(self, flip: float, phase: float, use: str) -> list[Any]:
        """A pulse's block, with the gradient that selects where there is one."""
        plan, shape = self.of, self.of.shape
        block = self.pp.make_delay(plan.timing.excitation_s)
        if shape.slab_m is None:
            return [self._hard(flip, shape.excitation_s, plan.timing.excitation_s, phase, use), block]
        pulse = self.pp.make_sinc_pulse(
            flip,
            duration=shape.excitation_s,
            delay=round(0.5 * (plan.timing.excitation_s - shape.excitation_s), 9),
            apodization=SLAB_APODIZATION,
            time_bw_product=shape.slab_bandwidth,
            phase_offset=phase,
            system=self.system,
            use=use,
        )
        select = self.pp.make_trapezoid(
            "xyz"[plan.select_axis],
            amplitude=shape.slab_gradient_t_per_m * GAMMA_HZ_PER_T,
            rise_time=plan.slab_ramp_s,
            flat_time=shape.excitation_s,
            fall_time=plan.slab_ramp_s,
            delay=max(0.0, round(pulse.delay - plan.slab_ramp_s, 9)),  # never -0, which some readers take for no number
            system=self.system,
        )
        return [self._registered(pulse), select, block]

    def _label(self, name: str, value: int) -> Any:
        return self.pp.make_label(type="SET", label=name, value=value)

    def noise(self) -> None:
        """One readout of noise, without pulse or gradient."""
        margin, readout = (self.pp.make_delay(seconds) for seconds in (1e-3, self.of.timing.readout_s))
        self.seq.add_block(margin)
        self.seq.add_block(self.adc, readout, self._label("NOISE", 1))
        self.seq.add_block(margin, self._label("NOISE", 0))

    def define(self) -> None:
        """What a reader needs to know of the whole."""
        plan = self.of
        definitions: dict[str, Any] = {
            "FOV": list(plan.fov_m),
            "ImgSize": list(plan.matrix),
            "Matrix": list(plan.matrix),
            "kSpaceCenterSample": plan.shape.sample_centre,
            "NoiseScans": int(plan.noise_scan),
            "System": plan.limits.name,
            **plan.definitions(),
        }
        if plan.shape.slab_m is not None:
            definitions["SlabThickness"] = plan.shape.slab_m
        for name, value in definitions.items():
            self.seq.set_definition(name, value)


class _OfTrains(_Parts):
    """Trains of spin echoes."""

    def __init__(self, plan: Trains) -> None:
        super().__init__(plan)
        self.plan, shape, timing = plan, plan.shape, plan.timing
        self.before = self._register(self._bridge(plan.lobes, reverse=False))
        self.after = self._register(self._bridge(plan.lobes, reverse=True))
        self.adc.phase_offset = 0.5 * math.pi
        self.excitation = self._excitation(plan.excitation, 0.5 * math.pi, "excitation")
        self.refocusing = [
            self._hard(flip, shape.refocusing_s, timing.refocusing_s, phase, "refocusing")
            for flip, phase in zip(plan.flips, plan.phases, strict=True)
        ]

    def play(self) -> None:
        for lines in (*np.full((self.plan.dummies, self.plan.lines.shape[1]), -1), *self.plan.lines):
            self.train(lines)

    def _wind(self, bridge: Any, k: np.ndarray) -> None:
        """Takes y and z to, or back from, a position while x goes to, or comes from, the readout's gradient."""
        y, z = k / GAMMA_HZ_PER_T
        self.seq.add_block(bridge, self._lobe("y", self.plan.lobes, y), self._lobe("z", self.plan.lobes, z))

    def _acquire(self, line: int, echo: int) -> None:
        if line < 0:
            self.seq.add_block(self.read)
            return
        ky, kz = (int(n) for n in self.cells[line])
        self.seq.add_block(self.read, self.adc, *map(self._label, ("LIN", "PAR", "SEG"), (ky, kz, echo)))

    def train(self, lines: np.ndarray) -> None:
        """One echo train; an echo whose line is negative winds and acquires nothing."""
        plan = self.plan
        self.seq.add_block(*self.excitation)
        first = [self._lobe("x", plan.first, plan.first.x_t_per_m * (plan.first.duration_s - plan.first.ramp_s))]
        if plan.rephasing_area:
            first.append(self._lobe("z", plan.first, -plan.rephasing_area))
        self.seq.add_block(*first)
        for echo, (line, pulse) in enumerate(zip(lines, self.refocusing, strict=True)):
            k = plan.k_per_m[line] if line >= 0 else np.zeros(2)
            self.seq.add_block(pulse, self.pp.make_delay(plan.timing.refocusing_s))
            self._wind(self.before, k)
            self._acquire(int(line), echo)
            self._wind(self.after, -k)
        spoil = plan.spoil
        self.seq.add_block(self._lobe("x", spoil, spoil.x_t_per_m * (spoil.duration_s - spoil.ramp_s)))
        raster = self.limits.block_raster_s
        rest = round((plan.tr_s - plan.busy_s) / raster) * raster
        if rest > 0.5 * raster:
            self.seq.add_block(self.pp.make_delay(rest))


_USES = {"e": "excitation", "r": "refocusing", "i": "inversion"}


class _OfEvents(_Parts):
    """Repetitions of a sequence's events."""

    def __init__(self, plan: Timeline) -> None:
        super().__init__(plan)
        self.plan = plan
        self.pulses: dict[tuple[Item, float], list[Any]] = {}
        self.bridges: dict[int, Any] = {}

    def play(self) -> None:
        spoilers = 0
        for number, repetition, lines in self.plan.order():
            readouts = 0
            for step in self.plan.played[number][0]:
                if isinstance(step, float):
                    self.seq.add_block(self.pp.make_delay(step))
                    continue
                line = int(lines[min(readouts, len(lines) - 1)])
                if isinstance(step, Lobe):
                    self._move(step, int(lines[readouts - 1]) if step.side == "after" else line)
                    continue
                # RF spoiling: what is spoiled stays apart from all that follows.
                spoiled = spoilers + step.spoilers
                phase = math.fmod(step.phase + self.plan.spoiling_rad * spoiled * (spoiled + 1) / 2, 2 * math.pi)
                if step.kind == "readout":
                    self._acquire(line, phase, {"SEG": readouts, "REP": max(repetition, 0), "SET": number})
                    readouts += 1
                else:
                    self.seq.add_block(*self._pulse(step, round(phase, 9)))
            spoilers += self.plan.repetitions[number].spoilers

    def _pulse(self, item: Item, phase: float) -> list[Any]:
        key = (item._replace(step=0, phase=0.0, orders=0, spoilers=0), phase)
        if key not in self.pulses:
            block, use = 2 * self.plan.sides(item)[0], _USES[item.use]
            if item.kind == "pulse":
                self.pulses[key] = self._excitation(item.angle, phase, use)
            else:
                how = {"duration": INVERSION_S, "beta": 672.0, "mu": 5.0, "phase_offset": phase, "use": use}
                delay = round(0.5 * (block - INVERSION_S), 9)
                pulse = self.pp.make_adiabatic_pulse("hypsec", delay=delay, system=self.system, **how)
                self.pulses[key] = [self._registered(pulse), self.pp.make_delay(block)]
        return self.pulses[key]

    def _move(self, lobe: Lobe, line: int) -> None:
        """The lobes of a window, with what a line asks for; none for a dummy's."""
        area, bridged, made = lobe.extra, bool(lobe.side and self.plan.read_gradient), []
        if lobe.side and line >= 0:
            area = area + self.plan.winding[lobe.side][line]
        if bridged:
            key = id(lobe)
            if key not in self.bridges:
                self.bridges[key] = self._register(self._bridge(lobe.lobes, reverse=lobe.side == "after"))
            made.append(self.bridges[key])
        for axis in range(bridged, 3):
            if area[axis]:
                made.append(self._lobe("xyz"[axis], lobe.lobes, float(area[axis])))
        self.seq.add_block(*(made or [self.pp.make_delay(lobe.lobes.duration_s)]))

    def _readout(self, line: int) -> list[Any]:
        return [self.read]

    def _acquire(self, line: int, phase: float, counters: dict[str, int]) -> None:
        if line < 0:
            self.seq.add_block(*self._readout(line))
            return
        self.adc.phase_offset = phase
        cells = dict(zip(("LIN", "PAR"), (int(n) for n in self.cells[line]), strict=True))
        labels = [self._label(*pair) for pair in (cells | counters).items()]
        self.seq.add_block(*self._readout(line), self.adc, *labels)


class _OfWaves(_OfEvents):
    """Events whose readouts are waveforms."""

    def __init__(self, plan: Waves) -> None:
        super().__init__(plan)
        self.waves, self.made = plan.waves, dict[int, list[Any]]()
        delay = plan.lead * plan.limits.gradient_raster_s - 0.5 * plan.shape.dwell_s
        how = {"delay": round(delay, 9), "dwell": plan.shape.dwell_s, "system": self.system}
        self.adc = self.pp.make_adc(plan.shape.samples, **how)

    def _readout(self, line: int) -> list[Any]:
        if line < 0:
            return [self.pp.make_delay(self.plan.timing.readout_s)]
        if line not in self.made:
            limits = {"first": 0.0, "last": 0.0, "system": self.system}
            waves = [(c, w * GAMMA_HZ_PER_T) for c, w in zip("xyz", self.waves[line], strict=True) if w.any()]
            made = [self._register(self.pp.make_arbitrary_grad(c, w, **limits)) for c, w in waves]
            self.made[line] = [*made, self.pp.make_delay(self.plan.timing.readout_s)]
        return self.made[line]
