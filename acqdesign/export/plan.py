"""What a scanner will play for a design: trains of spin echoes, or a sequence's events."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.export.shapes import PulseqOptions
from acqdesign.export.straight import need
from acqdesign.export.timeline import Timeline, make_timeline
from acqdesign.export.trains import Trains, make_trains
from acqdesign.export.waves import make_waves

Plan = Trains | Timeline


def make_plan(design: Mapping[str, Any], options: PulseqOptions | None = None) -> Plan:
    """Settles what is played for a design, and checks that the scanner can.

    Args:
        design: arrays by the names of `design.npz`; with `events` what they say, else with `echo` a fast spin echo,
            else a spoiled gradient echo.
        options: what the design doesn't say.
    """
    anywhere = design.get("points") is None and design.get("coordinates") is not None
    need(design, "coordinates" if anywhere else "points", "shape", "fov_m")
    options = options or PulseqOptions()
    known = {name: design.get(name) for name in ("dwell_s", "tr_s") if getattr(options, name) is None}
    if design.get("events") is not None:
        known.pop("tr_s", None)
    known = {name: float(np.ravel(value)[0]) for name, value in known.items() if value is not None}
    options = dataclasses.replace(options, **known)  # type: ignore[arg-type]
    of_trains = design.get("events") is None and design.get("echo") is not None
    if of_trains and anywhere:
        expected = "straight lines, as of --trajectory lines, for trains of spin echoes"
        raise usage_error("design", "readouts that are not straight lines", expected, "bin and cfl take any.")
    make: Callable[..., Plan] = make_trains if of_trains else make_waves if anywhere else make_timeline
    return make(design, options)
