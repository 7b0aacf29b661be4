"""Two or more runs side by side: what both have is compared, and what cannot be is told."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from acqdesign.base.checks import usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.units import deg_from_rad
from acqdesign.plot.images import decibels, psf_numbers, side_lobes
from acqdesign.plot.pages import curve, curve_layout, grid, page, scores, table, views, volumes
from acqdesign.plot.run import Run, read_run
from acqdesign.plot.schedule import schedule_scores
from acqdesign.plot.style import COLOURS, ERROR_MAP, MARKERS, curve_axes, new_figure, on_paper, styled

_PLACES = ("out", "config", "overwrite", "resume")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs beside each other; see `compare_runs`."""

    runs: Mapping[str, Run]
    """By names that tell them apart."""
    rows: Sequence[tuple[str, Sequence[str]]]
    """What differs in what was asked, and what came of it: a name with its unit, and a text a run."""
    apart: Sequence[str]
    """What cannot be compared, and why, a sentence each."""
    images: Sequence[str]
    """Names of the runs whose images show the same truth as the first of them."""

    def __str__(self) -> str:
        """The rows as a table for the terminal."""
        lines = [("", list(self.runs)), *self.rows]
        wide = [max(len(cells[n]) for _, cells in lines) for n in range(len(self.runs))]
        first = max(len(name) for name, _ in lines)
        return "\n".join(
            f"{name:<{first}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(cells, wide, strict=True))
            for name, cells in lines
        )


def compare_runs(*runs: Run | Path | str) -> Comparison:
    """Compares runs, or folders of runs: of one command or of several; what they have in common is compared.

    Raises:
        UsageError: fewer than two; or what is wrong with the folder of one.
    """
    if len(runs) < 2:
        raise usage_error("runs", f"{len(runs)}", "at least two")
    read = [run if isinstance(run, Run) else read_run(run) for run in runs]
    held = dict(zip(_names([run.folder for run in read]), read, strict=True))
    options = [dict(run.config.get("options", {})) for run in read]
    rows = [("command", [str(run.config.get("command")) for run in read])]
    asked = {name for run in read for name in run.config.get("given", ())}
    for name in dict.fromkeys(name for each in options for name in each if name not in _PLACES):
        held_to = ["–" if each.get(name) is None else each[name] for each in options]
        values = [json.dumps(value, ensure_ascii=False).strip('"') for value in held_to]
        if len(set(values)) > 1 and (name in asked or all(name in each for each in options)):
            rows.append(("--" + name.replace("_", "-"), values))
    found = [
        {
            text: form.format(after)
            for text, _, after, form, _ in [*scores(run), *schedule_scores(run.summary, run.arrays)]
        }
        for run in read
    ]
    for text in dict.fromkeys(text for each in found for text in each):
        rows.append((text, [each.get(text, "–") for each in found]))
    apart = [f"{name}: no figures.npz, so not {', '.join(run.lacks)}" for name, run in held.items() if run.lacks]
    for key, what in (
        ("truth", "images"),
        ("psf", "point spread functions"),
        ("bounds", "bounds"),
        ("flips_rad", "flips"),
    ):
        having = [name for name, run in held.items() if key in run.arrays]
        if having and len(having) < len(held):
            apart.append(f"{what}: only {', '.join(having)}")
    shown = [name for name, run in held.items() if "truth" in run.arrays]
    alike = [name for name in shown if _alike(held[shown[0]], held[name])]
    for name in shown:
        if name not in alike:
            apart.append(f"images: {name} shows another truth than {shown[0]}, so no differences")
    return Comparison(held, rows, apart, alike if len(alike) > 1 else [])


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the folders' paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for deep in range(1, max(map(len, parts)) + 1):
        names = [os.sep.join(part[-deep:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise usage_error("runs", f"{folders[0]} twice", "different runs")


def _alike(one: Run, other: Run) -> bool:
    first, second = (np.asarray(run.arrays["truth"]) for run in (one, other))
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=1e-3, atol=1e-3 * float(first.max())))


def draw_comparison(comparison: Comparison) -> dict[str, Figure]:
    """Figures by their files' names: loss, point spread functions, bounds, flips and differences of images."""
    held = comparison.runs
    figures = {"loss.png": _losses(held)}
    for name, draw, key in (("psf", _lobes, "psf"), ("bounds", _bounds, "bounds"), ("flips", _flips, "flips_rad")):
        having = {n: run for n, run in held.items() if key in run.arrays}
        if having:
            figures[f"{name}.png"] = draw(having)
    if comparison.images:
        figures["images.png"] = _differences({name: held[name] for name in comparison.images})
    return figures


def _look(n: int, points: int) -> dict[str, Any]:
    return {"color": COLOURS[n % 8], "marker": MARKERS[n % 8], "ms": 4, "markevery": max(1, points // 12)}


@styled
def _losses(runs: Mapping[str, Run]) -> Figure:
    held_out = {name: run for name, run in runs.items() if "nrmse_held_out" in run.history}
    figure = new_figure(5.2 * (1 + bool(held_out)) + 0.6, 4.0)
    left, *right = figure.subplots(1, 1 + bool(held_out), squeeze=False)[0]
    for n, (name, run) in enumerate(runs.items()):
        loss = run.history["loss"] / run.history["loss"][0]
        left.plot(run.history["step"], loss, label=name, **_look(n, len(loss)))
        if name in held_out:
            error, there = run.history["nrmse_held_out"], np.isfinite(run.history["nrmse_held_out"])
            right[0].plot(run.history["step"][there], error[there], label=name, **_look(n, 12))
    curve_axes(left, xlabel="step", ylabel="loss / its first value", title="Learning")
    for axes in (left, *right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend()
    if right:
        curve_axes(right[0], xlabel="step", ylabel="NRMSE", title="Held out")
    return figure


@styled
def _lobes(runs: Mapping[str, Run]) -> Figure:
    figure = new_figure(6.8, 4.2)
    axes = figure.subplots()
    for n, (name, run) in enumerate(runs.items()):
        rings, worst = side_lobes(decibels(name, run.arrays["psf"]))
        (y, z), lobe = psf_numbers(run.arrays["psf"])
        axes.plot(rings, worst, label=f"{name}: {y:.2f} × {z:.2f} voxels, {lobe:.1f} dB", **_look(n, len(rings)))
    curve_axes(
        axes, xlabel="distance [voxels]", ylabel="largest value [dB to the peak]", title="Point spread functions"
    )
    axes.set_ylim(-50, 2)
    axes.legend()
    return figure


@styled
def _bounds(runs: Mapping[str, Run]) -> Figure:
    tissues = list(dict.fromkeys(str(t) for run in runs.values() for t in run.arrays["bound_tissues"]))
    figure = new_figure(max(4.6, 1.6 * len(tissues) + 2.2), 3.9)
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for n, (name, run) in enumerate(runs.items()):
        at = [tissues.index(str(t)) + (n - 0.5 * (len(runs) - 1)) * width for t in run.arrays["bound_tissues"]]
        bars = axes.bar(at, np.sqrt(run.arrays["bounds"]), 0.94 * width, color=COLOURS[n % 8], label=name)
        axes.bar_label(bars, fmt="%.3g", padding=3, fontsize="small")
    labels = dict.fromkeys(str(run.arrays["bound_label"]) for run in runs.values())
    axes.set_xticks(np.arange(len(tissues)), tissues)
    axes.set(ylabel="\nor ".join(labels), title="Cramér–Rao bound by tissue")
    axes.margins(y=0.2)
    axes.grid(axis="y")
    axes.legend()
    return figure


@styled
def _flips(runs: Mapping[str, Run]) -> Figure:
    figure = new_figure(6.8, 3.8)
    axes = figure.subplots()
    for n, (name, run) in enumerate(runs.items()):
        degrees = deg_from_rad(np.asarray(run.arrays["flips_rad"], float))
        text = f"{name}, RMS {np.sqrt(np.mean(degrees**2)):.0f}°"
        axes.plot(np.arange(1, len(degrees) + 1), degrees, label=text, **_look(n, len(degrees)))
    curve_axes(axes, xlabel="pulse", ylabel="flip angle [deg]", title="Flip angles", ylim=(0, None))
    axes.legend()
    return figure


@styled
def _differences(runs: Mapping[str, Run]) -> Figure:
    """Of the plane across x in the middle: images, their errors, and what differs from the first run's."""
    middle = lambda image: image if image.ndim == 2 else image[len(image) // 2]  # noqa: E731
    truth = middle(np.asarray(next(iter(runs.values())).arrays["truth"]))
    shown = {name: middle(np.asarray(run.arrays["image.learned"])) for name, run in runs.items()}
    first = next(iter(shown.values()))
    errors = {name: np.abs(image - truth) for name, image in shown.items()}
    apart = {name: image - first for name, image in shown.items()}
    worst = max(float(np.quantile(error, 0.999)) for error in errors.values()) or 1.0
    most = max(float(np.quantile(np.abs(d), 0.999)) for d in apart.values()) or 1.0
    rows: Any = (
        (shown, {"cmap": "gray", "vmin": 0, "vmax": float(truth.max()) or 1.0}, "signal"),
        (errors, {"cmap": ERROR_MAP, "vmin": 0, "vmax": worst}, "error"),
        (apart, {"cmap": "RdBu_r", "vmin": -most, "vmax": most}, f"minus {next(iter(shown))}"),
    )
    width = min(2.6 * max(0.4, truth.shape[1] / truth.shape[0]), (9.5 if on_paper() else 14.0) / len(shown))
    figure = new_figure(width * len(shown) + 1.2, 2.6 * 3)
    cells = figure.subplots(3, len(shown), squeeze=False)
    for line, (pictures, how, label) in zip(cells, rows, strict=True):
        for axes, (name, picture) in zip(line, pictures.items(), strict=True):
            seen = axes.imshow(picture, origin="lower", **how)
            axes.set_axis_off()
            if pictures is shown:
                axes.set_title(name, fontsize="medium")
        figure.colorbar(seen, ax=list(line), pad=0.01, fraction=0.05, label=label)
    return figure


def comparison_page(comparison: Comparison) -> str:
    """The page of a comparison, that needs nothing else; see `report`."""
    held = comparison.runs
    colours = {name: COLOURS[n % 8] for n, name in enumerate(held)}
    cells = [[escape(name), *map(escape, values)] for name, values in comparison.rows]
    body = [f"<h1>{escape(', '.join(held))}</h1>", table(cells, ("", *map(escape, held)), 1)]
    body += [f'<p class="quiet">Not compared: {escape("; ".join(comparison.apart))}.</p>'] if comparison.apart else []
    images = None
    if comparison.images:
        runs = {name: held[name] for name in comparison.images}
        truth = np.asarray(next(iter(runs.values())).arrays["truth"], np.float32)
        learned = {name: np.asarray(run.arrays["image.learned"], np.float32) for name, run in runs.items()}
        errors = {f"|{name} − truth|": np.abs(image - truth) for name, image in learned.items()}
        first = next(iter(learned))
        errors |= {f"|{name} − {first}|": np.abs(i - learned[first]) for name, i in learned.items() if name != first}
        images = volumes({"truth": truth, **learned}, errors, next(iter(runs.values())).arrays.get("fov_m"))
        body += ["<h2>Images, errors and differences</h2>", views(images)]
    plots: dict[str, Any] = {}

    def add(name: str, title: str, x: str, y: str, curves: Mapping[str, tuple[Any, Any]], unit: str = "") -> None:
        if curves:
            traces = [curve(*xy, who, colours[who], unit=unit) for who, xy in curves.items()]
            plots[name] = {"traces": traces, "layout": curve_layout(title, x, y)}

    add(
        "loss",
        "loss over its first value",
        "step",
        "",
        {n: (r.history["step"], r.history["loss"] / r.history["loss"][0]) for n, r in held.items()},
    )
    errors_out = {}
    for name, run in held.items():
        if "nrmse_held_out" in run.history:
            there = np.isfinite(run.history["nrmse_held_out"])
            errors_out[name] = run.history["step"][there], run.history["nrmse_held_out"][there]
    add("held-out", "held out", "step", "NRMSE", errors_out)
    lobes = {n: side_lobes(np.maximum(decibels(n, r.arrays["psf"]), -60)) for n, r in held.items() if "psf" in r.arrays}
    add(
        "side-lobes",
        "point spread function: largest value by distance",
        "distance [voxels]",
        "dB to the peak",
        lobes,
        "dB",
    )
    flips = {n: deg_from_rad(r.arrays["flips_rad"]) for n, r in held.items() if "flips_rad" in r.arrays}
    add("flips", "flip angles", "pulse", "flip [°]", {n: (np.arange(1, len(f) + 1), f) for n, f in flips.items()}, "°")
    body += ["<h2>Curves</h2>", grid(plots)]
    return page(", ".join(held), body, plots, images=images)


def write_table(path: Path | str, comparison: Comparison) -> None:
    """Writes the rows of a comparison as CSV, atomically."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["", *comparison.runs])
    lines.writerows([name, *values] for name, values in comparison.rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
