"""A run's folder, read back, and its figures, drawn from what the run kept for them."""

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from acqdesign.base.checks import usage_error
from acqdesign.base.untrusted import parsing, read_npz, read_text
from acqdesign.plot.animation import animate_lines
from acqdesign.plot.bounds import plot_bound_map, plot_bounds, plot_power
from acqdesign.plot.images import plot_images, plot_psf
from acqdesign.plot.lines import plot_lines, plot_readouts
from acqdesign.plot.signals import plot_echoes, plot_fingerprints, plot_flips, plot_loss, plot_times, plot_timing
from acqdesign.plot.waveforms import plot_waveforms

_MAX_BYTES = 2**26
FIGURES = {
    "trajectory.png": ("points", "coordinates"),
    "waveforms.png": ("gradients",),
    "reconstruction.png": ("truth",),
    "psf.png": ("psf",),
    "flips.png": ("flips_rad",),
    "power.png": ("flips_rad",),
    "echoes.png": ("signals",),
    "tr.png": ("tr_s",),
    "timing.png": ("timing.readouts",),
    "bounds.png": ("bounds",),
    "bound_map.png": ("map",),
}
"""Figures of a run by their files' names, and the arrays of which each needs one; `loss.png` needs the log alone."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run wrote; see `read_run`."""

    folder: Path
    config: Mapping[str, Any]
    """`config.json`: command, options, versions."""
    summary: Mapping[str, Any]
    """`summary.json`; empty while the run goes on."""
    history: Mapping[str, np.ndarray]
    """`history.csv` by columns, NaN where a term was not looked at."""
    arrays: Mapping[str, np.ndarray]
    """What its figures show, by name: `figures.npz` or, of a run that drew none, what `design.npz` has of it."""

    @property
    def lacks(self) -> list[str]:
        """Figures that such a run may have, and that this one has not kept the arrays of."""
        if (self.folder / "figures.npz").exists():
            return []
        return ["reconstruction.png", "psf.png", "echoes.png", "bounds.png", "the start in every figure"]


def read_run(folder: Path | str) -> Run:
    """Reads the folder of a run, trusting nothing in it.

    Raises:
        UsageError: there is no run in the folder, or what is wrong with a file of it.
        OSError: a file cannot be read.
    """
    folder = Path(folder)
    for name in ("config.json", "design.npz", "history.csv"):
        if not (folder / name).is_file():
            raise usage_error("run", f"{folder} without {name}", "the folder of a run that has ended")
    with parsing("run", folder, "files that a run wrote"):
        told = [path for name in ("config.json", "summary.json") if (path := folder / name).exists()]
        config, *summary = (dict(json.loads(read_text("run", path, _MAX_BYTES))) for path in told)
        rows = list(csv.reader(read_text("run", folder / "history.csv", _MAX_BYTES).decode().splitlines()))
        numbers = np.array([[float(cell or "nan") for cell in row] for row in rows[1:]]).reshape(-1, len(rows[0]))
    kept = folder / "figures.npz"
    arrays = read_npz("figures", kept) if kept.exists() else {}
    if not arrays:
        arrays = read_npz("design", folder / "design.npz")
        arrays |= {"moves": arrays.pop("learned")} if "learned" in arrays else {}
    return Run(folder, config, summary[0] if summary else {}, dict(zip(rows[0], numbers.T, strict=True)), arrays)


def draw_run(run: Run) -> dict[str, Figure]:
    """The figures of a run by their files' names: those whose arrays it has."""
    figures = {}
    for name, needed in FIGURES.items():
        if any(key in run.arrays for key in needed):
            figures[name] = _DRAW[name](run.arrays)
    figures["loss.png"] = plot_loss(run.history, label=loss_label(run))
    return figures


def animate_run(run: Run, path: Path | str) -> bool:
    """Writes the animation of lines that moved, and says whether there was one."""
    arrays = run.arrays
    if "frames" not in arrays:
        return False
    log: dict[str, Any] = {"losses": run.history["loss"], "loss_steps": run.history["step"], "label": loss_label(run)}
    animate_lines(path, arrays["frames"], steps=arrays["frame_steps"], echo=arrays.get("echo"), **log)
    return True


def loss_label(run: Run) -> str:
    """What the loss in a run's log is."""
    if "loss_on_all" in run.history:
        return "loss of each step's part of the scene"
    return "loss" if {"truth", "points", "coordinates"} & set(run.arrays) else "relative bound"


def images_of(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reconstructions by the names of their designs: start, learned, others."""
    return {name.removeprefix("image."): image for name, image in arrays.items() if name.startswith("image.")}


def _trajectory(arrays: Mapping[str, Any]) -> Figure:
    if "points" not in arrays:
        return plot_readouts(arrays["coordinates"], start=arrays.get("start.coordinates"))
    more: dict[str, Any] = {"learned": arrays.get("moves"), "echo": arrays.get("echo")}
    return plot_lines(arrays["points"], start=arrays.get("start.points"), **more)


def _images(arrays: Mapping[str, Any]) -> Figure:
    images = images_of(arrays)
    captions = {name: f"NRMSE {arrays[f'nrmse.{name}']:.3f}" for name in images if f"nrmse.{name}" in arrays}
    return plot_images(arrays["truth"], images, captions=captions)


def _flips(arrays: Mapping[str, Any]) -> Figure:
    ends = "beside.", ".flips_rad"
    others = {n.removeprefix(ends[0]).removesuffix(ends[1]): a for n, a in arrays.items() if n.startswith(ends[0])}
    return plot_flips(arrays["flips_rad"], arrays.get("start.flips_rad"), beside=others)


def _signals(arrays: Mapping[str, Any]) -> Figure:
    how: dict[str, Any] = {"names": [str(name) for name in arrays["tissues"]], "start": arrays.get("start.signals")}
    if "esp_s" in arrays:
        return plot_echoes(arrays["signals"], esp_s=float(arrays["esp_s"]), **how)
    return plot_fingerprints(arrays["signals"], **how)


def _map(arrays: Mapping[str, Any]) -> Figure:
    names, times = arrays.get("map.tissues", ()), arrays.get("map.tissues_s", ())
    marked = {str(name): (float(t1), float(t2)) for name, (t1, t2) in zip(names, times, strict=True)}
    axes = [arrays[name] for name in ("map.t1_s", "map.t2_s", "map.b1", "map", "start.map")]
    return plot_bound_map(*axes, tissues=marked, label=str(arrays["bound_label"]))


_DRAW: dict[str, Any] = {
    "trajectory.png": _trajectory,
    "waveforms.png": lambda a: plot_waveforms(
        a["gradients"],
        a["slews"],
        dwell=float(a["hardware.dwell_s"]),
        gradient_limit=float(a["hardware.gradient_t_per_m"]),
        slew_limit=float(a["hardware.slew_t_per_m_s"]),
    ),
    "reconstruction.png": _images,
    "psf.png": lambda arrays: plot_psf(arrays["psf"], start=arrays.get("start.psf")),
    "flips.png": _flips,
    "power.png": lambda a: plot_power(
        a["flips_rad"], start=a.get("start.flips_rad"), limit=float(a["rms_rad"]) if "rms_rad" in a else None
    ),
    "echoes.png": _signals,
    "tr.png": lambda arrays: plot_times(arrays["tr_s"]),
    "timing.png": lambda arrays: plot_timing(
        {name.removeprefix("timing."): times for name, times in arrays.items() if name.startswith("timing.")}
    ),
    "bounds.png": lambda a: plot_bounds(
        a["bounds"], names=[str(n) for n in a["bound_tissues"]], start=a["start.bounds"], label=str(a["bound_label"])
    ),
    "bound_map.png": _map,
}
