"""Peripheral nerve stimulation of a plan, predicted by pypulseq's SAFE model (Hebrank & Gebhardt, ISMRM 2000)."""

import bisect
import contextlib
import dataclasses
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import UsageError, usage_error
from acqdesign.base.untrusted import read_text
from acqdesign.export.plan import Plan, make_plan
from acqdesign.export.sequence import build_sequence
from acqdesign.export.shapes import PulseqOptions
from acqdesign.export.trains import Trains, shortest_spacing

_MAX_BYTES = 2**22


def predict_pns(plan: Plan, hardware: Any = None) -> float:
    """The largest predicted stimulation while a plan plays, as a norm over axes, 1 being the limit.

    Played and predicted are the stretches with most encoding: where y, z or both wind farthest, within one line
    and from one to the next.

    Args:
        plan: from `make_plan`.
        hardware: what pypulseq's `calculate_pns` takes: a Siemens `.asc` file's path or the model's parameters;
            unless given, those of the model's published example, which is no real scanner.
    """
    if hardware is None:
        hardware = importlib.import_module("pypulseq.utils.safe_pns_prediction").safe_example_hw()
    elif isinstance(hardware, (str, Path)):
        hardware = read_hardware(hardware)
    return max(_pns(part, hardware) for part in plan.hardest())


def read_hardware(path: Path | str) -> Any:
    """The model's parameters from a Siemens `.asc` file, for pypulseq's `calculate_pns`, trusting nothing in it."""
    read_text("asc", Path(path), _MAX_BYTES)  # for its checks: pypulseq opens the file itself
    siemens = [importlib.import_module(f"pypulseq.utils.siemens.{name}") for name in ("readasc", "asc_to_hw")]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a warning of scale factors, told by the numbers
            hardware = siemens[1].asc_to_hw(siemens[0].readasc(str(path))[0])
        axes = [vars(getattr(hardware, axis)) for axis in "xyz"]
        numbers = np.array([list(axis.values()) for axis in axes], float)
    except Exception as error:  # pypulseq's parser raises many kinds on a damaged file
        raise usage_error("asc", f"{path} ({type(error).__name__}: {error})", "a scanner's .asc file") from error
    if not (np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise usage_error("asc", f"{path}: parameters {numbers.tolist()}", "finite numbers >= 0")
    return hardware


def passing_slew(
    design: Mapping[str, Any], options: PulseqOptions, *, hardware: Any = None
) -> tuple[float, float] | None:
    """The largest slew limit that keeps the predicted stimulation under 1, and what time that takes.

    Returns:
        Slew [T/m/s], to a hundredth of the system's, and the echo spacing, or the repetition time of single
        echoes, that it needs [s]; None if not even a twentieth of the system's slew passes.
    """

    def at(percent: int) -> Plan:
        slew = options.system.max_slew_t_per_m_s * percent / 100
        system = dataclasses.replace(options.system, max_slew_t_per_m_s=slew)
        return _replan(design, dataclasses.replace(options, system=system, te_s=None, tr_s=None))

    def stimulates(percent: int) -> bool:
        try:
            return predict_pns(at(percent), hardware) >= 1
        except UsageError:  # times that are fixed, and too short at this slew
            return False

    percents = range(5, 100)
    passing = bisect.bisect_left(percents, True, key=stimulates)
    if not passing:
        return None
    try:
        plan = at(percents[passing - 1])
    except UsageError:
        return None
    return plan.limits.max_slew_t_per_m_s, plan.esp_s if isinstance(plan, Trains) else plan.played[0][1]


def _replan(design: Mapping[str, Any], options: PulseqOptions) -> Plan:
    """The plan at the design's echo spacing, or at the shortest longer one that the limits allow."""
    relaxed = {**design, "tr_s": None}
    if design.get("echo") is None or design.get("events") is not None:
        return make_plan(relaxed, options)
    unlimited = dataclasses.replace(options.system, max_slew_t_per_m_s=1e6, max_gradient_t_per_m=1e3)
    plan = make_plan(relaxed, dataclasses.replace(options, system=unlimited))
    assert isinstance(plan, Trains)
    shortest = shortest_spacing(options.system, plan.shape, plan.k_per_m)
    options = dataclasses.replace(options, dwell_s=plan.shape.dwell_s)
    return make_plan({**relaxed, "esp_s": max(plan.esp_s, shortest)}, options)


def _pns(plan: Plan, hardware: Any) -> float:
    seq = build_sequence(plan)
    total = sum(seq.block_durations.values())
    try:
        _, norm, _, _ = seq.calculate_pns(hardware, time_range=[0.0, plan.stretch_s(total)], do_plots=False)
    except Exception as error:  # whatever a model that is none leads to
        got = f"{hardware!r} ({type(error).__name__}: {error})"
        raise usage_error("pns_hardware", got, "a scanner's .asc file, or the model's parameters") from error
    return float(norm.max())
