"""What a schedule is worth: bounds by tissue and over T1, T2 and B1, robustness, the train's point spread, power."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.units import ms_from_s
from acqdesign.plot.bounds import round_ticks
from acqdesign.plot.images import psf_numbers

Score = tuple[str, float | None, float, str, int]
"""Name with its unit, before learning, after it, format, and which sign of a change is good."""

_NUMBERS = (
    ("rms_flip_deg", "root mean square of the flips [°]", "{:.2f}", 0),
    ("relative_power", "power, in 180° pulses", "{:.3g}", -1),
    ("largest_step_deg", "largest change from pulse to pulse [°]", "{:.2f}", 0),
    ("scan_s", "one train or schedule [s]", "{:.4g}", 0),
)


def schedule_scores(summary: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[Score]:
    """Rows of a schedule's table: those for which a run's `summary.json` and `figures.npz` have what they need."""
    found = [*_of_bounds(arrays), *_of_train(arrays)]
    for name, text, form, good in _NUMBERS:
        before, after = (summary.get(key) for key in (f"initial_{name}", name))
        if isinstance(after, int | float):
            found.append((text, None if before is None else float(before), float(after), form, good))
    return [row for row in found if np.isfinite([value for value in row[1:3] if value is not None]).all()]


def bound_unit(arrays: Mapping[str, Any]) -> str:
    """What the root of a bound is, with its unit, on one line."""
    return " ".join(str(arrays["bound_label"]).replace("$M_0$", "M0").split())


def _of_bounds(arrays: Mapping[str, Any]) -> list[Score]:
    if not {"bounds", "start.bounds"} <= set(arrays):
        return []
    unit, form = bound_unit(arrays), "{:.3g}"
    roots = [np.sqrt(arrays[name]) for name in ("start.bounds", "bounds")]
    found: list[Score] = [
        (f"{name}: {unit}", float(before), float(after), form, -1)
        for name, before, after in zip(arrays["bound_tissues"], *roots, strict=True)
    ]
    if "map" not in arrays:
        return found
    fields = np.asarray(arrays["map.b1"], float)
    spans = [f"{ms_from_s(t[0]):.0f} to {ms_from_s(t[-1]):.0f} ms" for t in (arrays["map.t1_s"], arrays["map.t2_s"])]
    maps = [np.sqrt(np.asarray(arrays[name], float)) for name in ("start.map", "map")]
    for n, b1 in enumerate(fields):
        before, after = (float(np.nanmedian(each[n])) for each in maps)
        found.append((f"the same over T1 {spans[0]}, T2 {spans[1]}, at B1 {b1:g}: median", before, after, form, -1))
    nominal, others = int(np.argmin(np.abs(fields - 1))), f"B1 {fields.min():g} to {fields.max():g}"
    if len(fields) > 1:
        with np.errstate(invalid="ignore", divide="ignore"):
            before, after = (float(np.nanmax(each / each[nominal])) for each in maps)
        text = f"how many times larger at {others} than at {fields[nominal]:g}: worst"
        found.append((text, before, after, "{:.2f}", -1))
    return found


def _of_train(arrays: Mapping[str, Any]) -> list[Score]:
    """Point spread functions of a train of spin echoes whose echoes fill a line of k-space in the order played."""
    if not {"signals", "start.signals", "esp_s"} <= set(arrays):
        return []
    found: list[Score] = []
    for name, *pair in zip(arrays["tissues"], arrays["start.signals"], arrays["signals"], strict=True):
        before, after = (psf_numbers(train_point_spread(signal)[:, None]) for signal in pair)
        text = f"{name}: point spread of the train"
        found.append((f"{text}, full width at half maximum [voxels]", before[0][0], after[0][0], "{:.2f}", -1))
        found.append((f"{text}, largest side lobe [dB]", before[1], after[1], "{:.1f}", -1))
    return found


def train_point_spread(signal: Any) -> np.ndarray:
    """`(echoes,)`, its peak at `echoes // 2`: what a point becomes where each echo is one phase encode, rising in k."""
    return np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(np.asarray(signal))))


def map_plots(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Bounds over T1 and T2 at each B1 for a page, with the start's and the gain under the cursor."""
    if "map" not in arrays:
        return {}
    t1, t2 = (ms_from_s(np.asarray(arrays[name], float)) for name in ("map.t1_s", "map.t2_s"))
    after, before = (np.sqrt(np.asarray(arrays[name], float)) for name in ("map", "start.map"))
    logs = np.log10(after[np.isfinite(after)])
    low, high = logs.min(), np.quantile(logs, 0.98)
    ticks = round_ticks(10**low, 10**high)
    bar = {"title": "learned", "tickvals": np.log10(ticks).tolist(), "ticktext": [f"{t:g}" for t in ticks]}
    found = {}
    for n, b1 in enumerate(np.asarray(arrays["map.b1"], float)):
        rows = [*zip(t1.tolist(), before[n].tolist(), after[n].tolist(), strict=True)]
        z = [[math.log10(y) if math.isfinite(y) else None for y in learned] for _, _, learned in rows]
        told = [[_told(a, *each) for each in zip(t2.tolist(), *pair, strict=True)] for a, *pair in rows]
        heat = {"type": "heatmap", "x": t2.tolist(), "y": t1.tolist(), "z": z, "zmin": float(low), "zmax": float(high)}
        heat |= {"text": told, "hovertemplate": "%{text}<extra></extra>"}
        heat |= {"colorscale": "Viridis", "colorbar": bar, "hoverongaps": False}
        axis = {"type": "log"}
        layout = {"title": f"{bound_unit(arrays)}, B1 {b1:g}", "xaxis": axis | {"title": "T2 [ms]"}}
        layout["yaxis"] = axis | {"title": "T1 [ms]"}
        found[f"map-{n}"] = {"traces": [heat], "layout": layout}
    return found


def _told(t1: float, t2: float, before: float, after: float) -> str:
    gain = f" (÷ {(before / after) ** 2:.2f} in variance)" if math.isfinite(before / after) else ""
    return f"T1 {t1:.0f}, T2 {t2:.0f} ms: {after:.3g}, start {before:.3g}{gain}"
