"""Pulseq files through pypulseq: a design written as a 3D fast spin echo or spoiled gradient echo."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.units import GAMMA_HZ_PER_T, ms_from_s
from acqdesign.export.formats import Format
from acqdesign.export.plan import Plan, make_plan
from acqdesign.export.pns import passing_slew, predict_pns
from acqdesign.export.pulseq_play import play
from acqdesign.export.pulseq_read import read_pulseq
from acqdesign.export.pulseq_text import read_tables
from acqdesign.export.sequence import build_sequence
from acqdesign.export.shapes import PulseqOptions
from acqdesign.export.straight import SAID
from acqdesign.export.trains import Trains
from acqdesign.export.waves import Waves
from acqdesign.scene.scanner import SystemLimits

_CELL = 1e-2  # of a k-space cell: what is played lies closer than 1e-3 for matrices up to 300, by the digits


@dataclasses.dataclass(frozen=True)
class PulseqReport:
    """What a written Pulseq file plays.

    Attributes:
        played: the design as the file plays it, from `read_pulseq`; lines in the order of playing.
        duration_s: of the scan.
        pns: largest predicted stimulation, 1 being the limit.
        advice: what would bring it under the limit, where it is over.
        max_gradient_t_per_m, max_slew_t_per_m_s, peak_b1_t: the largest, of the vector sum over axes.
        power: mean of the flips squared over π², those of the refocusing pulses of trains: a relative measure of SAR.
        limits: of the scanner.
        model: what predicted the stimulation.
        plan: what was settled to be played.
        diagram: what RF, gradients and ADC play in the first repetition, as `acqdesign.plot.plot_diagram` takes it.
    """

    played: dict[str, np.ndarray]
    duration_s: float
    pns: float
    advice: str
    max_gradient_t_per_m: float
    max_slew_t_per_m_s: float
    peak_b1_t: float
    power: float
    limits: SystemLimits
    model: str
    plan: Plan = dataclasses.field(repr=False)
    diagram: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def lines(self) -> list[str]:
        """What the file plays, for the terminal."""
        limits = self.limits
        return [
            *self.plan.told(len(self.played.get("points", self.played.get("coordinates", ()))), self.duration_s),
            f"largest gradient {self.max_gradient_t_per_m:.3g} T/m of {limits.max_gradient_t_per_m:.3g}, "
            f"slew {self.max_slew_t_per_m_s:.3g} T/m/s of {limits.max_slew_t_per_m_s:.3g}, "
            f"B1 {self.peak_b1_t:.3g} T of {limits.max_b1_t:.3g} ({limits.name})",
            f"nerve stimulation predicted at {100 * self.pns:.0f} % of the limit, by {self.model}",
        ]


def _compare(plan: Plan, path: Path, uses: str | None) -> dict[str, Any]:
    """What a file plays, unless its positions are not the plan's, to a hundredth of a cell."""
    played = read_pulseq(path, uses=uses)
    played.pop(SAID, None)
    asked = plan.asked() * np.array(plan.fov_m[1:])
    found = played["points"] * np.array(plan.matrix[1:])
    readout = (np.arange(plan.shape.samples) - plan.shape.sample_centre) * (plan.shape.step or 1 / plan.shape.samples)
    off = plan.matrix[0] * np.abs(readout - played["readout"]).max()
    _refuse_off(max(float(np.abs(asked - found).max()), float(off)), _CELL)
    return played


def _compare_waves(plan: Waves, path: Path, uses: str | None) -> dict[str, Any]:
    """The same of waveforms, which may be off by as much as the plan says."""
    _, found, _ = play(read_tables(path), uses, straight=False)
    k = (found.start[:, :, None] + found.kinds[found.kind]).swapaxes(1, 2)
    order = np.concatenate([lines[lines >= 0] for _, _, lines in plan.order()])
    off = np.abs(k - plan.samples_per_m[order]) * np.array(plan.fov_m)
    _refuse_off(float(off.max()), plan.off_cells + _CELL)
    return {"coordinates": k * np.array(plan.shape.voxel_m)}


def _refuse_off(worst: float, most: float) -> None:
    if worst > most:
        raise usage_error("played positions", f"{worst:.2g} of a k-space cell off the design's", f"at most {most:.2g}")


def _advice(pns: float, passing: tuple[float, float] | None, plan: Plan) -> str:
    text = f"Peripheral nerve stimulation is predicted at {100 * pns:.0f} % of the limit"
    if passing is None:
        return text + "; no slew rate passes: use a slower readout or smaller crushers."
    slew, seconds = passing
    what = "an echo spacing" if isinstance(plan, Trains) else "a repetition time"
    return f"{text}; a slew rate of {slew:.4g} T/m/s passes, with {what} of {ms_from_s(seconds):.4g} ms."


def _diagram(sequence: Any, plan: Plan) -> dict[str, np.ndarray]:
    """The events of the first repetition with readouts over time, from its start."""
    begin, length = plan.shown_s
    begin += 2e-3 + plan.timing.readout_s if plan.noise_scan else 0.0
    waves, _, _, at, _ = sequence.waveforms_and_times(append_RF=True, time_range=[begin, begin + length])

    def curve(wave: np.ndarray, unit: float) -> np.ndarray:
        inside = np.real(wave[0]) <= begin + length + 1e-7
        return np.stack([np.real(wave[0])[inside] - begin, unit * wave[1][inside].real])

    empty = np.zeros((2, 1))
    waves = [wave if np.size(wave) else empty + begin for wave in waves]
    found = {axis: curve(wave, 1 / GAMMA_HZ_PER_T) for axis, wave in zip("xyz", waves, strict=False)}
    found["rf"] = curve(np.stack([waves[3][0], np.abs(waves[3][1])]), 1 / GAMMA_HZ_PER_T)
    at = np.asarray(at, float)
    at = at[at <= begin + length] - begin
    dwell = plan.shape.dwell_s
    cut = np.flatnonzero(np.diff(at) > 1.5 * dwell)
    ends = (
        np.stack([at[np.append(0, cut + 1)], at[np.append(cut, len(at) - 1)]], axis=-1) if at.size else np.zeros((0, 2))
    )
    return found | {"adc": ends + np.array([-0.5, 0.5]) * dwell}


@dataclasses.dataclass
class Pulseq(Format):
    """Pulseq sequences: of a design's events, else a 3D fast spin echo of its trains, else a 3D spoiled gradient echo.

    Args:
        options: what the design doesn't say.
        pns_hardware: a scanner's .asc file for the prediction of nerve stimulation.
        shape: voxels along x, y and z of a file that is read and doesn't say, or says otherwise.
        fov_m: likewise its field of view [m].
        uses: likewise what its pulses are for: e excites, r refocuses, i inverts, s saturates, p prepares; one letter a
            pulse, repeated over all, so that "e" are gradient echoes and "errrr" trains of four echoes.
    """

    ending, about = "seq", 'a Pulseq sequence, ready for a scanner; needs the extra "pulseq"'
    keeps = "positions, flips, phases, TE, TR and TI as a scanner plays them"
    loses = "which lines were learned, arrays of one's own; readouts that are not straight are not read back"

    options: PulseqOptions = dataclasses.field(default_factory=PulseqOptions)
    pns_hardware: Any = None
    shape: Sequence[int] | None = None
    fov_m: Sequence[float] | None = None
    uses: str | None = None

    def write(self, design: Mapping[str, Any], path: Path) -> PulseqReport:
        """Writes a design as a Pulseq file (`.seq`), atomically; equal designs give equal bytes.

        With echo trains a 3D fast spin echo: 90° about y, refocusing about x (CPMG), every line wound and rewound
        within its echo, crushers along the readout. With events, gradient echoes at their times and with their orders
        of dephasing. Without either, a 3D spoiled gradient echo with RF spoiling. The file is read back and
        compared with the design before it takes its name; where stimulation is predicted over 100 %, the report has
        advice.
        """
        options, hardware = self.options, self.pns_hardware
        plan = make_plan(design, options)
        sequence = build_sequence(plan)
        passed, errors = sequence.check_timing()
        if not passed:
            first = errors[0]
            got = f"{len(errors)} faults, the first {first.error_type} of {first.event} in block {first.block}"
            raise usage_error("timing", got, "none", "Choose other durations.")
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "design.seq"
            sequence.write(str(draft), create_signature=True, v141_compat=options.version == "1.4")
            # Before 1.5 files do not say what pulses are for.
            uses = None if options.version == "1.5" else plan.uses()
            played = _compare_waves(plan, draft, uses) if isinstance(plan, Waves) else _compare(plan, draft, uses)
            data = draft.read_bytes()
        pns = predict_pns(plan, hardware)
        advice = _advice(pns, passing_slew(design, options, hardware=hardware), plan) if pns >= 1 else ""
        with atomic_write(path) as file:
            file.write(data)
        lobes = plan.all_lobes()
        seconds = float(sum(sequence.block_durations.values()))
        gradient = max(float(np.hypot(lobe.x_t_per_m, lobe.yz_t_per_m)) for lobe in lobes)
        slew = max(lobe.slew_t_per_m_s for lobe in lobes)
        model = "a published example of a scanner" if hardware is None else "the scanner's model"
        most = (gradient, slew, plan.peak_b1_t)
        return PulseqReport(
            played, seconds, pns, advice, *most, plan.power, options.system, model, plan, _diagram(sequence, plan)
        )

    def read(self, path: Path) -> dict[str, Any]:
        return read_pulseq(path, self.shape, self.fov_m, self.uses)
