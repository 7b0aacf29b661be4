"""Designs as trajectories of straight lines, and trajectories back to designs; the units of both."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from acqdesign.base.checks import check_count, usage_error
from acqdesign.encoding import order_readouts
from acqdesign.signal import Readout
from acqdesign.signal.events import KINDS

MAX_BYTES = 2**30
MAX_LINE, MAX_SAMPLES, MAX_MATRIX = 2**20, 2**27, 2**15  # of a line, of all lines, and voxels along an axis
STRAIGHT = 1e-4  # cycles/voxel that samples of a line may leave it
SAID = "said"  # the name under which a format's `read` may say, beside its arrays, what it understood
OURS = "SI units and cycles/voxel"  # which `design.npz` is in
_FILLED, _FEW, _MAX_FOV_M = 0.6, 16, 3.0  # of ±0.5, and lines whose extent says nothing yet


def need(design: Mapping[str, Any], *names: str) -> None:
    """Raises unless a design holds the named arrays: what is missing, and where it comes from."""
    missing = [name for name in names if design.get(name) is None]
    if missing:
        remedy = "The phantom's file doesn't say: learn with --fov-mm." if "fov_m" in missing else ""
        if "points" in missing:
            remedy = "Designs of learn_flips have no lines: export with --lines, or learn both by learn_joint."
        raise usage_error("design", "none of " + ", ".join(missing), "a design with " + ", ".join(names), remedy)


def readout_of(design: Mapping[str, Any]) -> np.ndarray:
    """Positions of a line's samples along x [cycles/voxel], in float64: the design's, or half-open uniform ones."""
    if design.get("readout") is not None:
        return np.asarray(design["readout"], float)
    need(design, "samples_per_line")
    samples = int(design["samples_per_line"])
    return (np.arange(samples) - samples // 2) / samples


def with_samples(design: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """A design with another readout: half-open and uniform.

    Args:
        design: arrays by the names of `design.npz`.
        samples: of a line; a design of one plane gets as many voxels along x, each as thick as the plane.
    """
    check_count("samples", samples, maximum=MAX_LINE)
    if design.get("points") is None and design.get("coordinates") is not None:
        raise usage_error("samples", f"{samples} for readouts with samples of their own", "straight lines")
    shape, fov = design.get("shape"), design.get("fov_m")
    changed: dict[str, Any] = {"samples_per_line": np.array(samples), "readout": None}
    if shape is not None and int(shape[0]) == 1:
        changed["shape"] = np.array([samples, *np.asarray(shape)[1:]])
        if fov is not None:
            changed["fov_m"] = np.asarray(fov) * np.array([samples, 1, 1])
    return {name: value for name, value in {**design, **changed}.items() if value is not None}


EVERY = "every"
"""The order in which each line is acquired by all readouts of a repetition, as of series of images."""


def with_lines(
    design: Mapping[str, Any], lines: Mapping[str, Any], *, te: float | None = None, ordering: str | None = None
) -> dict[str, Any]:
    """A sequence's pulses with lines, each acquired at an echo of a train, or at every one of a repetition.

    Args:
        design: of a fast spin echo's flips or of a sequence's events, by the names of `design.npz`.
        lines: a design with `points`, `shape`, `fov_m` and a readout. Where they do not fill the last train, its last
            echoes acquire nothing.
        te: after the first pulse, at which the centre of k-space is acquired: the nearest echo's [s]; 80 ms of spin
            echoes and the first readout of others unless given.
        ordering: one of `acqdesign.encoding.ORDERINGS`, or `every`; unless given `centre-out` for pulses of one echo
            spacing, which make one image, and `every` for others.
    """
    events, esp = design.get("events"), design.get("esp_s")
    wanted = ("events",) if events is not None else ("flips_rad", "esp_s", "excitation_rad")
    missing = [name for name in wanted if design.get(name) is None]
    has_lines = design.get("points") is not None
    if missing or has_lines:
        got = "lines of its own" if has_lines else "none of " + ", ".join(missing)
        raise usage_error("design", got, "the pulses of a sequence, as of learn_flips")
    need(lines, "points", "shape", "fov_m")
    points = np.asarray(lines["points"], float)
    of_lines = ("points", "shape", "fov_m", "samples_per_line", "readout", "dwell_s", "learned")
    found = {name: lines.get(name) for name in of_lines} | {n: x for n, x in design.items() if n not in of_lines}
    echoes = len(np.asarray(design["flips_rad"])) if events is None else read_out(np.asarray(events))
    ordering = ordering or (EVERY if esp is None else "centre-out")
    if ordering == EVERY:
        at = np.arange(len(points) * echoes)
        found |= {n: np.repeat(np.asarray(found[n]), echoes, 0) for n in ("points", "learned") if found[n] is not None}
        found |= {"train": at // echoes, "echo": at % echoes}
    else:
        missing_lines = np.tile(points[np.argmax(np.hypot(*points.T))], (-len(points) % echoes, 1))
        te = 80e-3 if te is None and events is None else te
        te_echo = 0 if te is None else min(max(round(te / float(esp or te)) - 1, 0), echoes - 1)
        every = np.concatenate([points, missing_lines])
        order = order_readouts(ordering, every, echoes, te_echo=te_echo, key=jax.random.key(0))
        found |= {"train": order.train[: len(points)], "echo": order.echo[: len(points)]}
    return {name: value for name, value in found.items() if value is not None}


def read_out(events: np.ndarray) -> int:
    """How many readouts an event table has."""
    return int((events[:, 1] == KINDS.index(Readout)).sum())


def trajectory(design: Mapping[str, Any]) -> np.ndarray:
    """Every sample of a design that has positions and a readout: `(lines, samples, 3)` in cycles/voxel, in float64."""
    other = design.get("coordinates")
    if design.get("points") is None and other is not None:
        return _in_space(np.asarray(other, float), design)
    need(design, "points")
    points, readout = np.asarray(design["points"], float), readout_of(design)
    if len(points) * len(readout) > MAX_SAMPLES:
        got = f"{len(readout)} for {len(points)} lines"
        raise usage_error("samples_per_line", got, f"at most {MAX_SAMPLES} in all")
    out = np.empty((len(points), len(readout), 3))
    out[..., 0], out[..., 1:] = readout, points[:, None]
    return out


def _longer(design: Mapping[str, Any]) -> list[int]:
    """Axes of the image that are longer than one: those of coordinates with as many columns."""
    return np.flatnonzero(np.asarray(design["shape"]) > 1).tolist()


def _in_space(samples: np.ndarray, design: Mapping[str, Any]) -> np.ndarray:
    """Coordinates with three columns."""
    if samples.shape[-1] == 3:
        return samples
    need(design, "shape")
    axes = _longer(design)
    if len(axes) != samples.shape[-1]:
        shape = np.asarray(design["shape"]).tolist()
        raise usage_error("coordinates", samples, f"{len(axes)} or 3 columns for an image of shape {shape}")
    out = np.zeros((*samples.shape[:-1], 3))
    out[..., axes] = samples
    return out


def straight_lines(
    name: str, where: str, samples: np.ndarray, shape: np.ndarray, fov_m: np.ndarray | None = None
) -> dict[str, Any]:
    """The lines of a trajectory along x, y or z, as a design: the readout's axis comes first, the others follow.

    `samples` is `(lines, samples, 3)` in cycles per voxel, the shape along x, y and z; format and file are for errors.

    Returns:
        Points, readout, shape and field of view by the names of `design.npz`, in float64, and what was understood.
    """
    if samples.ndim != 3 or samples.shape[-1] != 3 or not samples.size:
        raise usage_error(name, f"{where}: a trajectory of shape {samples.shape}", "(lines, samples, 3)")
    if not np.isfinite(samples).all():
        raise usage_error(name, f"{where}: positions that are not finite", "finite ones")
    order, said = axes_from(np.ptp(samples, axis=1).max(0))
    samples = samples[..., order]
    readout, points = samples[..., 0].mean(0), samples[..., 1:].mean(1)
    spread = max(np.abs(samples[..., 0] - readout).max(), np.abs(samples[..., 1:] - points[:, None]).max())
    if spread > STRAIGHT:
        got = f"{where}: lines that leave straight ones along {'xyz'[order[0]]} by {spread:.2g} cycles/voxel"
        raise usage_error(name, got, "straight lines along x, y or z with one readout")
    design = {"points": points, "samples_per_line": np.array(len(readout)), "readout": readout, "shape": shape[order]}
    return design | ({} if fov_m is None else {"fov_m": fov_m[order]}) | {SAID: said + falling(readout)}


def axes_from(extent: np.ndarray) -> tuple[list[int], str]:
    """Axes in the order of a design, whose readout is along the first: that of the largest extent; and a word on it."""
    first = int(np.argmax(extent))
    order = [first, *(axis for axis in range(3) if axis != first)]
    names = ["xyz"[axis] for axis in order]
    return order, "readout along " + (f"{names[0]} (axes {', '.join(names)})" if first else "x")


def falling(readout: np.ndarray) -> str:
    """A word on a readout from + to -."""
    return ", from + to -" if readout[-1] < readout[0] else ""


def check_units(where: str, design: Mapping[str, np.ndarray]) -> None:
    """Raises where positions lie over a cell beyond ±0.5 cycles/voxel or a field of view can't be in metres.

    The error has the range that came, the unit that it looks like, and the conversion; `where` is what gave the design.
    Warns of positions of many lines that fill under 60 % of ±0.5.
    """
    shape, fov = design.get("shape"), design.get("fov_m")
    if fov is not None:
        check_fov(where, fov)
    along = {"readout": [0], "points": [1, 2]}
    if shape is not None and "coordinates" in design:
        columns, longer = design["coordinates"].shape[-1], _longer(design)
        along["coordinates"] = longer if columns == len(longer) else list(range(columns))
    for name in ("readout", "points", "coordinates"):
        if name not in design or not design[name].size:
            continue
        found = design[name].reshape(-1, 1) if name == "readout" else design[name].reshape(-1, design[name].shape[-1])
        largest = np.abs(found).max(0).astype(float)
        voxels = np.zeros(len(largest)) if shape is None else shape[along[name]].astype(float)
        limit = 0.5 + 1 / np.where(voxels > 0, np.maximum(voxels, 3), 8)
        worst = int(np.argmax(largest - limit))
        if largest[worst] > limit[worst]:
            low, high = float(found[:, worst].min()), float(found[:, worst].max())
            of = "" if name == "readout" else f" in column {worst}"
            lengths = None if shape is None or fov is None else fov[along[name]]
            got, remedy = f"positions from {low:.4g} to {high:.4g}{of}", _unit(name, largest, voxels, lengths)
            raise usage_error(f"{where}: {name}", got, "cycles/voxel, -0.5 to 0.5", remedy)
        few = len(found) < (4 if name == "readout" else _FEW)
        if not few and ((largest > 1e-6) & (largest < 0.5 * _FILLED)).any():
            reached = ", ".join(f"±{value:.3g}" for value in largest)
            what = "a coarser image than the matrix has, or positions in another unit, such as 1/mm."
            warnings.warn(f"{where}: {name} reach only {reached} of ±0.5 cycles/voxel: {what}", stacklevel=3)


def check_fov(where: str, fov_m: np.ndarray) -> None:
    """Raises where a field of view is over 3 m, with the unit that it looks like."""
    if np.max(fov_m) > _MAX_FOV_M:
        unit, scale = ("mm", 1e3) if np.max(fov_m) > 60 else ("cm", 1e2)
        metres = ", ".join(f"{value / scale:.6g}" for value in fov_m)
        expected = f"metres, at most {_MAX_FOV_M:g}"
        raise usage_error(f"{where}: fov_m", np.asarray(fov_m).tolist(), expected, f"It looks like {unit}: ({metres}).")


def _unit(name: str, largest: np.ndarray, voxels: np.ndarray, fov_m: np.ndarray | None) -> str:
    """The unit that the largest positions along the axes look like, and the conversion to type."""
    known = voxels.min() > 0
    matrix = np.array2string(voxels.astype(int), separator=", ") if known else "[voxels along each axis]"
    if not known and (np.abs(2 * largest - np.round(2 * largest)) < 1e-3).all():
        return f"They look like cycles per field of view: {name} / np.array({matrix})."
    candidates = {f"radians: {name} / (2 * np.pi)": np.full(len(largest), math.pi)}
    if known:
        candidates[f"cycles per field of view: {name} / np.array({matrix})"] = 0.5 * voxels
    if known and fov_m is not None:
        size = fov_m / voxels
        text = np.array2string(size, separator=", ", precision=6)
        candidates[f"1/m: {name} * np.array({text})"] = 0.5 / size
        candidates[f"1/mm: {name} * 1e3 * np.array({text})"] = 0.5e-3 / size
        candidates[f"rad/m: {name} / (2 * np.pi) * np.array({text})"] = math.pi / size
    # The axis on which a candidate fits best speaks for it: others may not be filled.
    fit = {text: float(np.abs(np.log(np.maximum(largest, 1e-9) / full)).min()) for text, full in candidates.items()}
    best = min(fit, key=fit.__getitem__)
    if fit[best] < 0.25:
        return f"They look like {best}."
    if fov_m is None and largest.max() > 30:
        return f"They look like 1/m: {name} * np.array([voxel lengths in m])."
    if fov_m is None and largest.max() < 2:
        return f"They look like 1/mm: {name} * np.array([voxel lengths in mm])."
    return "Convert them: cycles per field of view / matrix, radians / (2 * np.pi), 1/m * voxel length in m."
