"""A run on one page of HTML that needs nothing else: to look at, to turn and zoom, and to send."""

import base64
import functools
import gzip
import json
import math
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import matplotlib
import numpy as np

from acqdesign.base.units import deg_from_rad, mm_from_m, ms_from_s
from acqdesign.plot.images import decibels, psf_numbers, side_lobes
from acqdesign.plot.run import Run, images_of, loss_label
from acqdesign.plot.schedule import Score, bound_unit, map_plots, schedule_scores
from acqdesign.plot.style import COLOURS, ERROR_MAP, MUTED, looks

VOXELS = 2_500_000
"""Of all images together that a page has at most; of larger ones it has every other plane, or fewer."""
POINTS = 40_000
"""Of k-space that a view has at most: readouts of many samples are drawn by some of them."""
NEAR = 32
"""Voxels about the peak of a point spread function that are shown."""

_SCENE = {
    "phantom": "phantom",
    "tissue": "tissues",
    "field": "field strength",
    "coils": "coils",
    "smaps": "coil maps",
    "b1_map": "transmit field",
    "sequence": "sequence",
}
_SCENE |= {"noise": "noise, σ of each part of a sample", "tr_ms": "TR [ms]", "te_eff_ms": "effective TE [ms]"}
_UNITS = {"ms": "ms", "us": "µs", "mm": "mm", "deg": "°", "ut": "µT"}
# Name in the summary, what it is called, its format, and which sign of a change is good.
_SCORES = (
    ("nrmse", "error (NRMSE), learned on", "{:.4f}", -1),
    ("nrmse_held_out", "error (NRMSE), held out", "{:.4f}", -1),
    ("psnr", "PSNR, learned on [dB]", "{:.2f}", 1),
    ("ssim", "SSIM, learned on", "{:.3f}", 1),
    ("noise", "noise of the image over its root mean square", "{:.4f}", -1),
    ("deviation_t1", "σ(T1) / T1 by the bound, over tissues", "{:.3g}", -1),
    ("deviation_t2", "σ(T2) / T2 by the bound, over tissues", "{:.3g}", -1),
)


def report(run: Run) -> str:
    """The page of a run."""
    plots, kspace, seen = dict[str, Any](), _kspace(run.arrays), run.arrays
    body = [_head(run), _glance(run)]
    images = _images(seen) if "truth" in seen else None
    if images:
        body += ["<h2>Images and their errors</h2>", views(images)]
        if run.config.get("options", {}).get("noise"):
            body.append('<p class="quiet">Errors above images are of the noise shown, those of the table means.</p>')
    if kspace:
        slider = 'readouts in the order played: <input type="range" id="played" min="1"> <span id="count"></span>'
        plots |= {view["id"]: view["plot"] for view in kspace}
        body += ["<h2>Where k-space is sampled</h2>", f"<p><label>{slider}</label></p>", grid(plots, square=True)]
    for title, found in (("Flips and signals", _signals(seen)), ("Bounds over T1, T2 and B1", map_plots(seen))):
        if found:
            plots |= found
            body += [f"<h2>{title}</h2>", grid(found)]
    found = _psf(seen)
    if found:
        plots |= found
        body += ["<h2>Point spread function</h2>", grid(found)]
    found = {"loss": _loss(run)}
    plots |= found
    body += ["<h2>How the loss went</h2>", grid(found), _asked(run), _repeated(run)]
    return page(run.folder.name, body, plots, [view["slider"] for view in kspace], images)


def page(title: str, body: Sequence[str], plots: Any, kspace: Any = (), images: Any = None) -> str:
    """The HTML of a page: its parts, and what is drawn into them in the browser."""
    data = json.dumps({"plots": plots, "kspace": list(kspace), "images": images}, allow_nan=False).encode()
    filled = {"title": escape(title), "body": "\n".join(body), "library": _library(), "data": _packed(data)}
    whole = resources.files("acqdesign.plot").joinpath("report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda name: filled[name[1]], whole)


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()


@functools.cache
def _library() -> str:
    """The library that draws in the browser."""
    from plotly.offline import get_plotlyjs  # here, so that no command that writes no page waits for it

    return _packed(get_plotlyjs().encode())


def _listed(values: Any, digits: int = 5) -> list[Any]:
    """Numbers for JSON, with so many significant digits; None for those that are none."""
    return [None if not math.isfinite(v) else float(f"{v:.{digits}g}") for v in np.ravel(values).tolist()]


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), numbers: int = 99) -> str:
    """A table of cells that are HTML already; those from column `numbers` on stand to the right."""
    kind = [' class="n"' if n >= numbers else "" for n in range(12)]
    lines = ["".join(f"<th{k}>{cell}</th>" for k, cell in zip(kind, head, strict=False))] * bool(head)
    lines += ["".join(f"<td{k}>{cell}</td>" for k, cell in zip(kind, row, strict=False)) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def grid(plots: Iterable[str], *, square: bool = False) -> str:
    """Room for plots of these names, two abreast where they fit."""
    kind = "plot square" if square else "plot"
    return '<div class="two">' + "".join(f'<div class="{kind}" id="{name}"></div>' for name in plots) + "</div>"


def _head(run: Run) -> str:
    summary, command = run.summary, run.config.get("command") or "a problem in Python"
    when = time.strftime("%d %B %Y, %H:%M", time.localtime((run.folder / "config.json").stat().st_mtime))
    version = run.config.get("versions", {}).get("acqdesign", "")
    cards = []
    for name, text in (("nrmse", "error, learned on"), ("nrmse_held_out", "error, held out")):
        if _number(summary, name) is not None and _number(summary, f"initial_{name}") is not None:
            cards.append((f"{summary[f'initial_{name}']:.3f} → {summary[name]:.3f}", text))
    cards += [(f"÷ {gain:.2f}", "mean bound, in variance") for gain in [_number(summary, "gain")] if gain]
    if not cards and _number(summary, "final_loss") is not None:
        cards.append((f"{summary['initial_loss']:.4g} → {summary['final_loss']:.4g}", "loss"))
    said = [f"{summary['steps']} steps"] if "steps" in summary else ["still running, or broken off"]
    each = _number(summary, "seconds_per_step")
    if each is not None:
        said.append(f"{ms_from_s(each):.3g} ms each after {summary['compile_seconds']:.3g} s of compilation")
    said += [f"{key}: {summary[key]}" for key in ("stopped", "verdict") if key in summary]
    if "peak_memory_bytes" in summary:
        said.append(f"{summary['peak_memory_bytes'] / 1e9:.2g} GB of memory")
    big = "".join(f"<div><b>{escape(number)}</b>{escape(text)}</div>" for number, text in cards)
    line = f"{command}, {when}, acqdesign {version}"
    lacks = ""
    if run.lacks:
        lacks = f'<p class="bad">Of this run no figures.npz was kept; not shown: {escape(", ".join(run.lacks))}.</p>'
    return (
        f'<h1>{escape(run.folder.name)}</h1><p class="quiet">{escape(line)}</p>{lacks}<div class="big">{big}</div>'
        f'<p class="quiet">{escape("; ".join(said))}.</p>'
    )


def _number(summary: Mapping[str, Any], name: str) -> float | None:
    value = summary.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _row(text: str, before: float, after: float, form: str, good: int) -> list[str]:
    """Before, after, and the change, in colour where it is good or bad; in dB where the unit is."""
    unit, change = (
        ("dB", after - before) if "[dB]" in text else ("%", 100 * (after / before - 1) if before else math.nan)
    )
    moved = round(change, 1) if math.isfinite(change) else 0.0
    kind, said = int(good * np.sign(moved)), f"{moved:+.1f} {unit}" if moved else "" if before != after else "="
    mark = f'<span class="{("bad", "", "good")[kind + 1]}">{said}</span>'
    return [escape(text), form.format(before), form.format(after), mark]


def scores(run: Run) -> list[Score]:
    """What the images of a run are judged by."""
    found: list[Score] = []
    for name, text, form, good in _SCORES:
        after = _number(run.summary, name)
        if after is not None:
            found.append((text, _number(run.summary, f"initial_{name}"), after, form, good))
    arrays = run.arrays
    if {"psf", "start.psf"} <= set(arrays):
        first, last = (psf_numbers(arrays[name]) for name in ("start.psf", "psf"))
        for axis, one, other in zip("yz", first[0], last[0], strict=True):
            if math.isfinite(one + other):
                found.append((f"PSF, full width at half maximum along {axis} [voxels]", one, other, "{:.2f}", -1))
        found.append(("PSF, largest side lobe [dB]", first[1], last[1], "{:.1f}", -1))
    return found


def _glance(run: Run) -> str:
    head = ("", "start", "learned", "change")
    rows, schedule = (
        [_row(text, before, *more) for text, before, *more in found if before is not None]  # type: ignore[arg-type]
        for found in (scores(run), schedule_scores(run.summary, run.arrays))
    )
    parts = ["<h2>Before and after</h2>"] if rows or schedule else []
    parts += [table(part, head, 1) for part in (rows, schedule) if part]
    compare = run.summary.get("compare")
    if isinstance(compare, Mapping):
        columns = ("nrmse", "nrmse_held_out", "psnr", "ssim")
        cells = [[escape(n)] + [f"{_number(s, c) or math.nan:.4g}" for c in columns] for n, s in compare.items()]
        named = ("learned", "NRMSE, learned on", "NRMSE, held out", "PSNR [dB]", "SSIM")
        parts += ["<p>With one budget from the same start:</p>", table(cells, named, 1)]
    if any("side lobe" in row[0] and "bad" in row[3] for row in rows):
        why = "Side lobes rose: what is learned is the image's error, and readouts go where images have power."
        parts.append(f'<p class="quiet">{why} Where they matter, add <code>--term nrmse side_lobes=0.1</code>.</p>')
    return "".join(parts)


def _kspace(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Views of k-space, and what of each the slider cuts: entries in the order in which they are played."""
    echo = arrays.get("echo")
    if "points" in arrays:
        return _lines(arrays, echo)
    if "coordinates" not in arrays:
        return []
    paths = np.asarray(arrays["coordinates"], float)
    paths = paths[:, :: max(1, math.ceil(paths.shape[0] * paths.shape[1] / POINTS))]
    readouts, samples, dims = paths.shape
    gaps = np.concatenate([paths, np.full((readouts, 1, dims), np.nan)], axis=1).reshape(-1, dims)
    number = np.repeat(np.arange(1, readouts + 1) if echo is None else np.asarray(echo) + 1, samples + 1)
    word = "readout" if echo is None else "echo"
    title = f"{readouts} readouts, coloured by {word}"
    return [_view("kspace", [_listed(axis, 4) for axis in gaps.T], number.tolist(), samples + 1, readouts, title, word)]


def _view(
    name: str, axes: list[list[Any]], number: list[Any], per: int, readouts: int, title: str, word: str
) -> dict[str, Any]:
    """One view of paths through two or three axes of k-space."""
    colour = {"color": number, "colorscale": "Viridis", "cmin": 1, "cmax": max(number), "colorbar": {"title": word}}
    held = dict(zip("xyz", axes, strict=False))
    labels = ("kx", "ky", "kz") if len(axes) == 3 else ("k, first axis", "k, second axis")
    axis = {a: {"title": f"{label} [cycles/voxel]"} for a, label in zip("xyz", labels, strict=False)}
    if len(axes) == 3:
        trace = {"type": "scatter3d", "mode": "lines", "line": {"width": 3, **colour}, **held, "hoverinfo": "x+y+z"}
        scene: dict[str, Any] = {f"{a}axis": each for a, each in axis.items()}
        eye = {"x": 1.7, "y": 1.7, "z": 1.2}  # from where no label is cut
        layout: dict[str, Any] = {"scene": scene | {"aspectmode": "data", "bgcolor": "white", "camera": {"eye": eye}}}
        key = "line.color"
    else:
        trace = {"type": "scattergl", "mode": "lines+markers", "line": {"width": 0.6, "color": MUTED}, **held}
        trace["marker"] = {"size": 3, **colour}
        layout = {"xaxis": axis["x"], "yaxis": axis["y"] | {"scaleanchor": "x"}}
        key = "marker.color"
    slider = {"id": name, "trace": 0, "per": per, "readouts": readouts, "colour": [key, number], **held}
    return {"id": name, "plot": {"traces": [trace], "layout": layout | {"title": title}}, "slider": slider}


def _lines(arrays: Mapping[str, Any], echo: Any) -> list[dict[str, Any]]:
    points = np.asarray(arrays["points"], float)
    ky, kz = (_listed(axis, 4) for axis in points.T)
    number = (np.arange(len(points)) if echo is None else np.asarray(echo)) + 1
    trains = np.zeros(len(points), int) if echo is None else np.arange(len(points)) // number.max()
    moves = np.asarray(arrays.get("moves", np.ones(len(points), bool)))
    word = "order" if echo is None else "echo"
    told = [
        f"line {n + 1}" + ("" if echo is None else f", train {train + 1}, echo {e}") + ("" if free else ", held fixed")
        for n, (train, e, free) in enumerate(zip(trains, number, moves, strict=True))
    ]
    traces: list[dict[str, Any]] = []
    if "start.points" in arrays:
        begin = np.asarray(arrays["start.points"], float)
        apart = np.stack([begin, points, np.full_like(points, np.nan)], axis=1).reshape(-1, 2)
        x, y = (_listed(axis, 4) for axis in apart.T)
        quiet: dict[str, Any] = {"visible": True if len(points) <= 2000 else "legendonly", "hoverinfo": "skip"}
        traces.append(
            {"x": x, "y": y, "mode": "lines", "line": {"color": MUTED, "width": 0.7}, "name": "moved", **quiet}
        )
        x, y = (_listed(axis, 4) for axis in begin.T)
        open_ = {"size": 5, "color": "white", "line": {"color": MUTED, "width": 1}}
        traces.append({"x": x, "y": y, "mode": "markers", "marker": open_, "name": "start", **quiet})
    marker = {
        "size": 7 if len(points) <= 1500 else 5,
        "symbol": np.where(moves, "circle", "square").tolist(),
        "color": number.tolist(), "colorscale": "Viridis", "colorbar": {"title": word}, "cmin": 1,
        "cmax": int(number.max()), "line": {"color": "white", "width": 0.5},
    }  # fmt: skip
    shape = "%{text}<br>ky %{x}, kz %{y}<extra></extra>"
    traces.append({"x": ky, "y": kz, "mode": "markers", "marker": marker, "text": told, "hovertemplate": shape})
    traces[-1]["name"] = "learned (squares: held fixed)" if not moves.all() else "learned"
    kind = "scattergl" if len(points) > 3000 else "scatter"
    axis = {"range": [-0.52, 0.52]}
    layout: dict[str, Any] = {"xaxis": axis | {"title": "ky [cycles/voxel]", "constrain": "domain"}}
    layout |= {"title": f"{len(points)} lines, coloured by {word}"}
    layout["yaxis"] = axis | {"title": "kz [cycles/voxel]", "scaleanchor": "x", "constrain": "domain"}
    slider = {"id": "plane-of-lines", "trace": len(traces) - 1, "per": 1, "readouts": len(points), "x": ky, "y": kz}
    slider["colour"] = ["marker.color", number.tolist()]
    views = [{"id": "plane-of-lines", "plot": {"traces": [t | {"type": kind} for t in traces], "layout": layout}}]
    views[0]["slider"] = slider
    if int(np.ravel(arrays.get("shape", [1]))[0]) > 1:
        paths = np.full((len(points), 3, 3), np.nan)
        paths[:, :2, 0], paths[:, :2, 1:] = (-0.5, 0.5), points[:, None]
        axes = [_listed(a, 4) for a in paths.reshape(-1, 3).T]
        title = "the same in three dimensions: drag to turn"
        views.append(_view("space", axes, np.repeat(number, 3).tolist(), 3, len(points), title, word))
    return views


def curve(x: Any, y: Any, name: str, colour: str, *, unit: str, dash: str = "solid", **more: Any) -> dict[str, Any]:
    """A curve, whose values are told under the cursor."""
    hover = f"{escape(name)}: %{{y:.4g}} {unit}<extra></extra>"
    line = {"color": colour, "dash": dash, "width": 1.4 if dash != "solid" else 2.2}
    how = {"mode": "lines", "type": "scatter", "hovertemplate": hover}
    return {"x": _listed(x), "y": _listed(y), "name": name, "line": line} | how | more


def curve_layout(title: str, x: str, y: str, **more: Any) -> dict[str, Any]:
    """A plot of curves: its title, and what its axes are, with units."""
    return {"title": title, "xaxis": {"title": x}, "yaxis": {"title": y} | more, "hovermode": "x unified"}


def _signals(arrays: Mapping[str, Any]) -> dict[str, Any]:
    plots: dict[str, Any] = {}
    if "flips_rad" in arrays:
        pulses = np.arange(1, len(arrays["flips_rad"]) + 1)
        others = [n for n in arrays if n.startswith("beside.") and n.endswith(".flips_rad")]
        given = [("start.flips_rad", "start", MUTED, "dash")]
        given += [(n, n.split(".")[1], COLOURS[1 + i % 7], "dot") for i, n in enumerate(others)]
        given += [("flips_rad", "learned", COLOURS[0], "solid")]
        traces = [
            curve(pulses, deg_from_rad(arrays[key]), name, colour, unit="°", dash=dash)
            for key, name, colour, dash in given
            if key in arrays
        ]
        plots["flips"] = {
            "traces": traces,
            "layout": curve_layout("flip angles", "pulse", "flip [°]", rangemode="tozero"),
        }
    if "signals" in arrays:
        train = "esp_s" in arrays
        names = [str(name) for name in arrays["tissues"]]
        steps = np.arange(1, np.shape(arrays["signals"])[1] + 1)
        x = ms_from_s(float(arrays["esp_s"])) * steps if train else steps
        traces = []
        for key, dash in (("start.signals", "dash"), ("signals", "solid")):
            values = np.asarray(arrays[key])
            values = np.abs(values) if train or np.iscomplexobj(values) else values
            for name, look, row in zip(names, looks(names), values, strict=True):
                what = name if dash == "solid" else f"{name}, start"
                traces.append(curve(x, row, what, COLOURS[look], unit="M0", dash=dash, legendgroup=name))
                traces[-1]["showlegend"] = dash == "solid"
        title = "signal of each tissue (dashed: start)"
        plots["signals"] = {"traces": traces}
        plots["signals"]["layout"] = curve_layout(title, "echo time [ms]" if train else "pulse", "signal / M0")
    if "tr_s" in arrays:
        times = ms_from_s(np.asarray(arrays["tr_s"], float))
        trace = curve(np.arange(1, len(times) + 1), times, "TR", COLOURS[0], unit="ms")
        plots["tr"] = {"traces": [trace], "layout": curve_layout("repetition times", "pulse", "TR [ms]")}
    if "bounds" in arrays:
        names = [str(name) for name in arrays["bound_tissues"]]
        pairs = (("start.bounds", "start", MUTED), ("bounds", "learned", COLOURS[0]))
        traces = [
            {"type": "bar", "x": names, "y": _listed(np.sqrt(arrays[key])), "name": name, "marker": {"color": colour}}
            for key, name, colour in pairs
        ]
        plots["bounds"] = {"traces": traces, "layout": curve_layout(bound_unit(arrays), "", "bound [%]")}
    return plots


def _psf(arrays: Mapping[str, Any]) -> dict[str, Any]:
    plots: dict[str, Any] = {}
    curves = []
    for key, name, colour in (("start.psf", "start", MUTED), ("psf", "learned", COLOURS[0])):
        if key not in arrays:
            continue
        level = np.maximum(decibels(key, arrays[key]), -60)
        middle = [n // 2 for n in level.shape]
        near = level[tuple(slice(max(0, m - NEAR), m + NEAR) for m in middle)]
        x, y = ((np.arange(n) - min(m, NEAR)).tolist() for n, m in zip(near.shape, middle, strict=True))
        widths, lobe = psf_numbers(arrays[key])
        width = " × ".join("whole field" if math.isnan(w) else f"{w:.2f}" for w in widths)
        rows = [_listed(row, 3) for row in near.T]
        hover = "y %{x}, z %{y}: %{z:.1f} dB<extra></extra>"
        heat = {"type": "heatmap", "x": x, "y": y, "z": rows, "zmin": -50, "zmax": 0, "colorscale": "Viridis"}
        heat |= {"hovertemplate": hover, "colorbar": {"title": "dB"}}
        title = f"{name}: FWHM {width} voxels, side lobe {lobe:.1f} dB"
        layout = {"title": title, "xaxis": {"title": "y [voxels]", "constrain": "domain"}}
        layout["yaxis"] = {"title": "z [voxels]", "scaleanchor": "x"}
        plots[f"psf-{name}"] = {"traces": [heat], "layout": layout}
        rings, worst = side_lobes(level)
        curves.append(curve(rings, worst, name, colour, unit="dB"))
    if curves:
        layout = curve_layout("largest side lobe by distance", "distance [voxels]", "dB to the peak", range=[-50, 2])
        plots["side-lobes"] = {"traces": curves, "layout": layout}
    return plots


def _loss(run: Run) -> dict[str, Any]:
    history, label = dict(run.history), loss_label(run)
    step, loss = history.pop("step"), history.pop("loss")
    traces = [curve(step, loss, label, COLOURS[0], unit="")]
    columns = {n.replace("_", " "): c for n, c in history.items() if not np.array_equal(c, loss)}
    for (name, column), look in zip(columns.items(), looks(["loss", *columns])[1:], strict=True):
        there = np.isfinite(column)
        traces.append(curve(step[there], column[there], name, COLOURS[look], unit="", mode="lines+markers"))
    every = np.concatenate([loss, *columns.values()])
    every = every[np.isfinite(every)]
    wide = every.size and every.min() > 0 and every.max() > 4 * every.min()
    return {
        "traces": traces,
        "layout": curve_layout("", "step", label, **({"type": "log", "dtick": "D2"} if wide else {})),
    }


def _images(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Images and errors of the first anatomy, each kind on one scale."""
    truth = np.abs(np.asarray(arrays["truth"], np.float32))
    images = {name: np.abs(image) for name, image in images_of(arrays).items()}
    captions = {n: f"{n}, NRMSE {arrays[f'nrmse.{n}']:.3f}" if f"nrmse.{n}" in arrays else n for n in images}
    errors = {f"|{name} − truth|": np.abs(image - truth) for name, image in images.items()}
    shown = {"truth": truth} | {captions[name]: image for name, image in images.items()}
    return volumes(shown, errors, arrays.get("fov_m"))


def volumes(shown: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray], fov: Any = None) -> dict[str, Any]:
    """Images and errors by their captions, in eight bits, each kind on one scale; larger ones with fewer planes."""
    first = next(iter(shown.values()))
    shape = (1,) * (3 - first.ndim) + first.shape
    every = math.ceil((len(shown) + len(errors)) * first.size / VOXELS)
    top = float(max(*(image.max() for image in shown.values()), 1e-30))
    worst = max((float(np.quantile(error, 0.999)) for error in errors.values()), default=top) or top

    def volume(values: np.ndarray, scale: float, caption: str, error: bool) -> dict[str, Any]:
        eight = np.clip(np.rint(values.reshape(shape)[::every] * (255 / scale)), 0, 255).astype(np.uint8)
        return {"caption": caption, "error": error, "top": scale, "values": _packed(eight.tobytes())}

    held = [volume(image, top, caption, False) for caption, image in shown.items()]
    held += [volume(error, worst, f"{name}, to {worst:.3g}", True) for name, error in errors.items()]
    size = (np.ones(3) if fov is None else np.ravel(fov) / np.array(shape)) * (every, 1, 1)
    lut = (255 * matplotlib.colormaps[ERROR_MAP](np.linspace(0, 1, 256))[:, :3]).round().astype(int).tolist()
    kept = [math.ceil(shape[0] / every), *shape[1:]]
    return {"shape": kept, "voxel": size.tolist(), "every": every, "lut": lut, "volumes": held}


def views(images: Mapping[str, Any]) -> str:
    """Room for images and errors, with a slider over their planes."""
    plane = images["shape"][0] == 1
    choice = "".join(f'<option value="{n}">{axis}</option>' for n, axis in enumerate("xyz"))
    hidden = ' style="display:none"' if plane else ""
    some = f" (every {images['every']}. plane across x is kept here)" if images["every"] > 1 else ""
    return (
        f'<p{hidden}><label>plane across <select id="axis">{choice}</select></label>'
        f'<label><input type="range" id="plane" min="0"> <span id="which"></span>{some}</label></p>'
        '<div class="views" id="images"></div><div class="views" id="errors"></div>'
        '<p class="quiet" id="value">Move over an image to read its value.</p>'
    )


def _asked(run: Run) -> str:
    """What was asked for, in which units, and what was read."""
    arrays, options = run.arrays, run.config.get("options", {})
    facts: list[tuple[str, str]] = []
    if "shape" in arrays:
        shape = np.ravel(arrays["shape"])
        facts.append(("matrix x, y, z", " × ".join(str(n) for n in shape.tolist())))
        if "fov_m" in arrays:
            fov = mm_from_m(np.ravel(arrays["fov_m"]).astype(float))
            facts.append(("field of view", " × ".join(f"{f:.4g}" for f in fov) + " mm"))
            facts.append(("voxel", " × ".join(f"{f:.3g}" for f in fov / shape) + " mm"))
        if "points" in arrays:
            lines = len(arrays["points"])
            facts.append(("lines", f"{lines}, of {shape[1:].prod()} phase encodes: R = {shape[1:].prod() / lines:.3g}"))
    if "echo" in arrays:
        echoes = int(np.max(arrays["echo"])) + 1
        facts.append(("trains", f"{len(arrays['echo']) // echoes} of {echoes} echoes"))
    if "esp_s" in arrays:
        facts.append(("echo spacing", f"{ms_from_s(float(arrays['esp_s'])):.4g} ms"))
    for name in ("tissues", "bound_tissues")[: 1 if "tissues" in arrays else 2]:
        if name in arrays:
            facts.append(("tissues", ", ".join(map(str, arrays[name]))))
    for name, text in _SCENE.items():
        if options.get(name) not in (None, [], 0.0) and not (name == "coils" and options.get("smaps")):
            facts.append((text, " ".join(map(str, np.ravel(options[name]).tolist()))))
    facts += [("read", text) for text in run.summary.get("files", ())]
    given = run.config.get("given")
    parts = ["<h2>What was asked, and what was read</h2>", table([[escape(a), escape(b)] for a, b in facts])]
    told = given if isinstance(given, Mapping) else options
    if told:
        head = "Options other than usual:" if told is given else "Options:"
        parts += [f"<p>{head}</p>", _options(told)]
    if told is given and options:
        parts.append(f"<details><summary>every option</summary>{_options(options)}</details>")
    return "".join(parts)


def _options(options: Mapping[str, Any]) -> str:
    rows = []
    for name, value in options.items():
        *words, last = name.split("_")
        unit = _UNITS.get(last, "") if words else ""
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append([f"<code>--{escape(name.replace('_', '-'))}</code>", escape(f"{text} {unit}".strip())])
    return table(rows)


def command_line(config: Mapping[str, Any]) -> str | None:
    """The command line that asks for a run again; None where it was none, or an earlier version's."""
    given, command = config.get("given"), config.get("command")
    if not command or not isinstance(given, Mapping):
        return None
    words = ["python", "-m", f"acqdesign.{command}"]
    for name, value in given.items():
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words += [str(v) for v in np.ravel(np.array(value, object) if isinstance(value, list) else value).tolist()]
    return shlex.join(words)


def _repeated(run: Run) -> str:
    folder, command = shlex.quote(str(run.folder)), run.config.get("command")
    said: list[tuple[str, str]] = []
    line = command_line(run.config)
    if line:
        said.append(("the same again", line))
    if command:
        again = f"python -m acqdesign.{command} --config {folder}/config.json --seed 1"
        said.append(("from its options, with another seed", again))
    if line and "points" in run.arrays:
        given = {n: v for n, v in run.config["given"].items() if n not in ("lines", "acceleration", "calibration")}
        onwards = command_line({"command": command, "given": given | {"init": run.folder}})
        said.append(("go on from where it ended", str(onwards)))
    formats = {"seq": "for a scanner, Pulseq", "mrd": "ISMRM Raw Data", "cfl": "BART", "mat": "MATLAB"}
    if "points" not in run.arrays:
        formats = (
            {"bin": "SPARKLING gradients", "cfl": "BART", "mat": "MATLAB"}
            if "coordinates" in run.arrays
            else {"csv": "a table of flips and times", "mat": "MATLAB"}
        )
    said += [(about, f"python -m acqdesign.export {folder} --to {to}") for to, about in formats.items()]
    if "esp_s" in run.arrays and "shape" not in run.arrays:
        lines = "--lines poisson --shape 192 192 96 --fov-mm 192 192 96"
        said.append(("for a scanner, with lines: Pulseq", f"python -m acqdesign.export {folder} --to seq {lines}"))
    said.append(("its figures for print", f"python -m acqdesign.plot {folder} --style paper"))
    said.append(("beside another run", f"python -m acqdesign.plot {folder} OTHER_RUN"))
    text = "\n".join(f"# {about}\n{line}" for about, line in said)
    return f"<h2>Repeat, go on, export</h2><pre>{escape(text)}</pre>"
