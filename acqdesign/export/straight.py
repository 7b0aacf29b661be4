"""Designs as trajectories of straight lines along x, and trajectories back to designs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import check_count, usage_error

MAX_BYTES = 2**30
STRAIGHT = 1e-4  # cycles/voxel that samples of a line may leave it


def need(design: Mapping[str, Any], *names: str) -> None:
    """Raises unless a design holds the named arrays.

    Raises:
        ValueError: names what is missing, and where it comes from.
    """
    missing = [name for name in names if design.get(name) is None]
    if "points" in missing:
        remedy = "Designs of learn_flips have no lines to acquire: learn them together with learn_joint."
    elif "fov_m" in missing:
        remedy = "The phantom's file doesn't say: learn with --fov-mm."
    else:
        remedy = ""
    if missing:
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
    check_count("samples", samples)
    if design.get("points") is None and design.get("coordinates") is not None:
        raise usage_error("samples", f"{samples} for readouts with samples of their own", "straight lines")
    shape, fov = design.get("shape"), design.get("fov_m")
    changed: dict[str, Any] = {"samples_per_line": np.array(samples), "readout": None}
    if shape is not None and int(shape[0]) == 1:
        changed["shape"] = np.array([samples, *np.asarray(shape)[1:]])
        if fov is not None:
            changed["fov_m"] = np.asarray(fov) * np.array([samples, 1, 1])
    return {name: value for name, value in {**design, **changed}.items() if value is not None}


def trajectory(design: Mapping[str, Any]) -> np.ndarray:
    """Every sample of a design: `(lines, samples, 3)` in cycles per voxel, in float64.

    Raises:
        ValueError: the design has no positions, or no readout.
    """
    other = design.get("coordinates")
    if design.get("points") is None and other is not None:
        return _in_space(np.asarray(other, float), design)
    need(design, "points")
    points, readout = np.asarray(design["points"], float), readout_of(design)
    out = np.empty((len(points), len(readout), 3))
    out[..., 0], out[..., 1:] = readout, points[:, None]
    return out


def _in_space(samples: np.ndarray, design: Mapping[str, Any]) -> np.ndarray:
    """Coordinates with three columns; two go with the axes of the image that are longer than one."""
    if samples.shape[-1] == 3:
        return samples
    need(design, "shape")
    axes = [axis for axis, n in enumerate(np.asarray(design["shape"]).tolist()) if n > 1]
    if len(axes) != samples.shape[-1]:
        shape = np.asarray(design["shape"]).tolist()
        raise usage_error("coordinates", samples, f"{len(axes)} or 3 columns for an image of shape {shape}")
    out = np.zeros((*samples.shape[:-1], 3))
    out[..., axes] = samples
    return out


def straight_lines(name: str, where: str, samples: np.ndarray) -> dict[str, np.ndarray]:
    """The lines of a trajectory, as a design.

    Args:
        name: of the format, for errors.
        where: the file, for errors.
        samples: `(lines, samples, 3)` in cycles per voxel.

    Returns:
        Points, readout and their like, by the names of `design.npz`, in float64.

    Raises:
        ValueError: samples that are not finite, or not on straight lines along x with one readout.
    """
    if samples.ndim != 3 or samples.shape[-1] != 3 or not samples.size:
        raise usage_error(name, f"{where}: a trajectory of shape {samples.shape}", "(lines, samples, 3)")
    if not np.isfinite(samples).all():
        raise usage_error(name, f"{where}: positions that are not finite", "finite ones")
    readout, points = samples[..., 0].mean(0), samples[..., 1:].mean(1)
    spread = max(np.abs(samples[..., 0] - readout).max(), np.abs(samples[..., 1:] - points[:, None]).max())
    if spread > STRAIGHT:
        raise usage_error(
            name,
            f"{where}: lines that leave straight ones along x by {spread:.2g} cycles/voxel",
            "straight lines along x with one readout",
        )
    return {"points": points, "samples_per_line": np.array(len(readout)), "readout": readout}
