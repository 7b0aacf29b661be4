"""Protocols by name, as sites play them: where a design starts, every part of it open to a flag."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from acqdesign.base.checks import check_choice, usage_error
from acqdesign.commands.config import flat_options, with_options

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class Preset:
    """A protocol."""

    command: str
    """That it is for."""
    about: str
    """What it is, and whose."""
    options: Mapping[str, Any]
    """Those that differ from the usual ones, by their names in `config.json`."""


PRESETS = {
    "t1w-3d-1mm": Preset(
        "learn_traj",
        "T1-weighted 3D head at 1 mm, 256 x 240 x 208 mm, of ADNI 3's accelerated MPRAGE (adni.loni.usc.edu); with"
        " four times fewer lines, as compressed sensing has, and coils compressed to 8. Of many minutes and 9 GB;"
        " --shape 32 240 208 --fov-mm 32 240 208 learns on a slab across the readout.",
        {"shape": [256, 240, 208], "fov_mm": [256.0, 240.0, 208.0], "coils": 8, "acceleration": 4.0, "samples": 256}
        | {"noise": 0.02, "contrast": "T1w", "field": "3T", "calibration": 24},
    ),
    "tse-t2-3d": Preset(
        "learn_joint",
        "T2-weighted 3D fast spin echo with variable flips at 3 T, as SPACE, CUBE and VISTA: a plane across the readout"
        " at 1 mm, trains of 128 echoes 4 ms apart, T2 weighting of 100 ms; Mugler, JMRI 39 (2014) 745.",
        {"shape": [1, 256, 208], "fov_mm": [1.0, 256.0, 208.0], "lines": 13312, "echoes": 128, "esp_ms": 4.0}
        | {"tr_ms": 3200.0, "te_eff_ms": 100.0, "rms_flip_deg": 60.0, "field": "3T", "noise": 0.03, "coils": 4},
    ),
    "mprage": Preset(
        "learn_flips",
        "MPRAGE at 3 T: 176 readouts 7.1 ms apart after an inversion, TR 2300, TI 900, TE 2.98 ms, of ADNI"
        " (adni.loni.usc.edu), at most 15 degrees where its flips are 9; for T1 of three tissues.",
        {"sequence": "mprage", "echoes": 176, "esp_ms": 7.1, "tr_ms": 2300.0, "ti_ms": 900.0, "te_ms": 2.98}
        | {"tissue": "wm,gm,csf", "field": "3T", "max_flip_deg": 15.0},
    ),
    "mrf-400": Preset(
        "learn_flips",
        "Fingerprinting of 400 spoiled pulses after an inversion: TR 12, TI 20 ms, flips of 10 to 60 degrees that"
        " change by at most 1 a pulse, for T1 and T2; Zhao et al., IEEE TMI 38 (2019) 844, and Jiang et al., MRM 74"
        " (2015) 1621.",
        {"sequence": "mrf", "echoes": 400, "tr_ms": 12.0, "ti_ms": 20.0, "te_ms": 2.0, "min_flip_deg": 10.0}
        | {"max_flip_deg": 60.0, "max_step_deg": 1.0, "tissue": "wm,gm", "field": "3T", "objective": "t1t2"},
    ),
    "t2-map-16": Preset(
        "learn_flips",
        "T2 mapping by 16 spin echoes 10 ms apart, slice-selective (time-bandwidth product 3), over transmit fields of"
        " 0.8 to 1.2, as multi-echo protocols have them; Hilbert et al., JMRI 48 (2018) 359.",
        {"sequence": "fse", "echoes": 16, "esp_ms": 10.0, "tr_ms": 3000.0, "rms_flip_deg": 120.0, "time_bandwidth": 3.0}
        | {"tissue": "wm,gm", "field": "3T", "b1": [0.8, 1.0, 1.2], "objective": "t2"},
    ),
}
"""By the names that `--preset` takes."""


# Of each of these at most one is given: one that is typed takes the place of the protocol's.
_ONE_OF = (
    {"lines", "acceleration"},
    {"rms_flip_deg", "sar_fraction", "b1rms_ut"},
    {"tissue", "t1_ms", "t2_ms"},
    {"objective", "ensemble", "term"},
)
# What a file of positions says by itself.
_OF_FILE = {"lines", "acceleration", "calibration", "shape", "fov_mm", "samples"}


def with_preset(typed: Options, name: str, command: str) -> Options:
    """The usual options of a command with those of a protocol, but for what those that were `typed` exclude.

    Raises:
        UsageError: there is no such protocol (the near ones are named), or it is another command's.
    """
    preset = PRESETS[check_choice("--preset", name, PRESETS)]
    if preset.command != command:
        own = [other for other, each in PRESETS.items() if each.command == command]
        remedy = f"Or: python -m acqdesign.{preset.command} --preset {name}."
        wanted = f"one of {command}: {', '.join(own)}" if own else f"a protocol of {command}"
        raise usage_error("--preset", f"{name}, a protocol of {preset.command}", wanted, remedy)
    usual = type(typed)()
    before, now = flat_options(usual), flat_options(typed)
    said = {option for option, value in now.items() if value != before[option]}
    apart = {option for group in _ONE_OF if group & said for option in group}
    if getattr(getattr(typed, "trajectory", None), "from_file", False):
        apart |= _OF_FILE
    kept = {option: value for option, value in preset.options.items() if option not in apart}
    return with_options(usual, kept | {"preset": name}, f"preset {name}")


def listed() -> str:
    """Every protocol with its command, what it is and its flags."""
    parts = []
    for name, preset in PRESETS.items():
        values = {n: " ".join(map(str, v)) if isinstance(v, list) else v for n, v in preset.options.items()}
        said = " ".join(f"--{n.replace('_', '-')} {value}" for n, value in values.items())
        parts.append(f"{name}: python -m acqdesign.{preset.command} --preset {name}\n  {preset.about}\n  {said}")
    return "\n\n".join(parts)
