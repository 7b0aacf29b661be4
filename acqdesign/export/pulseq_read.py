"""Pulseq files back to designs, trusting nothing in them."""

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign._checks import bad
from acqdesign._untrusted import parsing
from acqdesign.export.sequence import pypulseq
from acqdesign.units import GAMMA_HZ_PER_T, cycles_from_per_m

_MAX_BYTES = 2**28
_MAX_SHAPE, _MAX_BLOCKS, _MAX_RAMP_S = 10**6, 2 * 10**6, 1.0
_VERSIONS = ((1, 4), (1, 5))
_SIGNATURE = "\n[SIGNATURE]"
_STRAIGHT = 1e-4  # cycles/voxel that samples of a line may leave it


def read_pulseq(path: Path | str) -> dict[str, np.ndarray]:
    """Reads the design that a Pulseq file plays.

    Args:
        path: of a `.seq` file of straight lines along x, with a signature and the definitions FOV and ImgSize;
            `write_pulseq`'s or another program's.

    Returns:
        Arrays by the names of `design.npz`: positions and readout [cycles/voxel] in the order of playing, from
        pypulseq's `calculate_kspace`; with refocusing pulses also train, echo, flips, phases and times. In
        float64, as exact as the file's digits.

    Raises:
        ValueError: what is wrong with the file.
        OSError: it cannot be read.
    """
    path = Path(path)
    with parsing("seq", path, "a Pulseq file, which is text"):
        _check_text(path)
    pp = pypulseq()
    seq = pp.Sequence(pp.Opts(gamma=GAMMA_HZ_PER_T))
    fault = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            seq.read(str(path))
        except (
            Exception
        ) as error:  # pypulseq's parser raises many kinds on a damaged file, and leaves it open
            fault = f"{type(error).__name__}: {error}"
    if fault:
        raise _wrong(path, f"not readable by pypulseq ({fault})")
    # References to what the file doesn't hold, and shapes that don't unpack, come to light only here.
    with parsing("seq", path, "a consistent Pulseq file of straight lines"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _check_size(path, seq)
        return _design(path, seq)


def _wrong(
    path: Path, what: str, expected: str = "a Pulseq file of straight lines", remedy: str = ""
) -> ValueError:
    return bad("seq", f"{path}: {what}", expected, remedy)


def _check_text(path: Path) -> None:
    """Raises unless the file is text of Pulseq in a known version, whole by its own signature."""
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise _wrong(path, f"{size} bytes", f"at most {_MAX_BYTES}")
    try:
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError as error:
        raise _wrong(path, f"byte {error.start} is not ASCII", "a Pulseq file, which is text") from None
    fields = dict(line.split(None, 1) for line in _section(text, "VERSION") if len(line.split(None, 1)) == 2)
    if not fields:
        raise _wrong(path, "no section [VERSION]", "a Pulseq file")
    try:
        version = int(fields["major"]), int(fields["minor"])
    except (KeyError, ValueError):
        raise _wrong(path, "section [VERSION] without major and minor numbers", "a Pulseq file") from None
    if version not in _VERSIONS:
        known = " or ".join(f"{major}.{minor}" for major, minor in _VERSIONS)
        raise _wrong(path, f"version {version[0]}.{version[1]}", f"version {known}")
    body, mark, rest = text.rpartition(_SIGNATURE)
    signed = dict(line.split(None, 1) for line in _section(mark + rest, "SIGNATURE") if " " in line)
    if not mark or "Hash" not in signed:
        remedy = "It is truncated, or was written without one."
        raise _wrong(path, "no signature at its end", "a signed Pulseq file", remedy)
    if hashlib.md5(body.encode(), usedforsecurity=False).hexdigest() != signed["Hash"].strip():
        raise _wrong(path, "content that its signature does not fit", "an unchanged file", "Export it again.")
    samples = [line.split()[1] for line in text.splitlines() if line.startswith("num_samples ")]
    if any(not n.isdigit() or int(n) > _MAX_SHAPE for n in samples):
        raise _wrong(path, "a shape of " + max(samples, key=len) + " samples", f"at most {_MAX_SHAPE}")


def _section(text: str, name: str) -> list[str]:
    """The lines of one section, without comments."""
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == f"[{name}]"
        elif inside and line.strip() and not line.startswith("#"):
            lines.append(line.strip())
    return lines


def _check_size(path: Path, seq: Any) -> None:
    """Raises where evaluating the file would take more memory than any scan is worth."""
    if len(seq.block_events) > _MAX_BLOCKS:
        raise _wrong(path, f"{len(seq.block_events)} blocks", f"at most {_MAX_BLOCKS}")
    library = seq.grad_library
    for key, data in library.data.items():
        if library.type[key] == "t" and (max(data[1:4]) > _MAX_RAMP_S or min(data[1:5]) < 0):
            raise _wrong(path, f"trapezoid {key} with times {data[1:5]} s", f"0 to {_MAX_RAMP_S} s")
    samples = sum(int(seq.adc_library.data[e[5]][0]) for e in seq.block_events.values() if e[5])
    if samples > _MAX_BYTES:
        raise _wrong(path, f"{samples} samples", f"at most {_MAX_BYTES}")


def _design(path: Path, seq: Any) -> dict[str, np.ndarray]:
    shape, fov = _definition(path, seq, "ImgSize"), _definition(path, seq, "FOV")
    if (shape != np.round(shape)).any() or shape.max() > 2**15:
        raise _wrong(path, f"ImgSize {shape.tolist()}", "three numbers of voxels")
    starts = np.concatenate([[0.0], np.cumsum(list(seq.block_durations.values()))])[:-1]
    adcs = [
        (start, seq.adc_library.data[event[5]])
        for start, event in zip(starts, seq.block_events.values(), strict=True)
        if event[5]
    ]
    labels = seq.evaluate_labels(evolution="adc")
    noise = np.asarray(labels.get("NOISE", np.zeros(len(adcs)))).astype(bool)
    if not (~noise).any():
        raise _wrong(path, "no readout", "at least one")
    counts = np.array([int(data[0]) for _, data in adcs])
    dwells = np.array([data[1] for _, data in adcs])
    for name, values in (("samples", counts[~noise]), ("dwell time", dwells[~noise])):
        if np.ptp(values) > 1e-12:
            raise _wrong(path, f"readouts that differ in {name}", "the same for every line")
    k, _, excited, refocused, t_adc = seq.calculate_kspace()
    wanted = np.repeat(~noise, counts)
    samples = int(counts[~noise][0])
    voxel = (fov / shape).tolist()
    axes = [cycles_from_per_m(axis[wanted], length) for axis, length in zip(k, voxel, strict=True)]
    cycles = np.stack(axes).reshape(3, -1, samples)
    readout, points = cycles[0].mean(0), cycles[1:].mean(-1).T
    spread = max(np.abs(cycles[0] - readout).max(), np.abs(cycles[1:] - points.T[..., None]).max())
    if not np.isfinite(cycles).all() or spread > _STRAIGHT:
        raise _wrong(path, f"k-space lines that are not straight along x, by {spread:.2g} cycles/voxel")
    times = t_adc[wanted].reshape(-1, samples)
    dwell = dwells[~noise][0]
    centre = float(np.interp(0.0, readout, np.arange(samples))) if samples > 1 else 0.0
    design = {
        "points": points,
        "learned": np.ones(len(points), bool),
        "samples_per_line": np.array(samples),
        "readout": readout,
        "shape": shape.astype(int),
        "fov_m": fov,
        "dwell_s": np.array(dwell),
    }
    return design | _pulses(path, seq, np.array(excited), np.array(refocused), times[:, 0] + centre * dwell)


def _definition(path: Path, seq: Any, name: str) -> np.ndarray:
    value = np.atleast_1d(np.asarray(seq.get_definition(name)))
    if (
        value.shape != (3,)
        or value.dtype.kind not in "if"
        or not (np.isfinite(value).all() and (value > 0).all())
    ):
        raise _wrong(
            path, f"definition {name} {value.tolist()}", f"a definition {name} of three positive numbers"
        )
    return value.astype(float)


def _pulses(
    path: Path, seq: Any, excited: np.ndarray, refocused: np.ndarray, centres: np.ndarray
) -> dict[str, np.ndarray]:
    """Train and echo of each line, and the flips, phases and times of a train, from the times of the pulses."""
    index = np.searchsorted(excited, centres) - 1
    if (index < 0).any():
        raise _wrong(path, "a readout before the first excitation, not labelled NOISE")
    start = excited[index]
    found = _flips(seq)
    excitation = found["e"][0][index[0]]
    te = centres - start
    period = np.diff(np.unique(start))
    tr = np.array([period.min()] if period.size else [], float)
    if not len(refocused):
        return {"flips_rad": np.array([excitation]), "te_s": te[:1], **({"tr_s": tr} if tr.size else {})}
    before = np.searchsorted(refocused, start)
    echo = np.searchsorted(refocused, centres) - before - 1
    trains, train = np.unique(index, return_inverse=True)
    first = np.searchsorted(refocused, excited[trains])
    ends = np.append(excited, np.inf)[trains + 1]
    counts = np.searchsorted(refocused, ends) - first
    if np.ptp(counts) or (echo < 0).any():
        raise _wrong(path, "echo trains of unequal length", "as many refocusing pulses in every train")
    flips, phases = (values[first[:, None] + np.arange(counts[0])] for values in found["r"])
    if np.ptp(flips, axis=0).max() > 1e-6 or np.ptp(phases, axis=0).max() > 1e-6:
        raise _wrong(path, "flips that differ from train to train", "the same in every train")
    pulse_times = refocused[first[0] : first[0] + counts[0]] - excited[trains[0]]
    # An echo lies as long after its pulse as the one before did before it.
    times = np.empty(counts[0])
    last = 0.0
    for n, when in enumerate(pulse_times):
        last = 2 * when - last
        times[n] = last
    if np.abs(times[echo] - te).max() > 1e-6:
        raise _wrong(
            path, "readouts that are not centred on spin echoes", "the centre of k-space at each echo"
        )
    return {
        "train": train,
        "echo": echo,
        "flips_rad": flips[0],
        "phases_rad": phases[0],
        "excitation_rad": np.array(excitation),
        "esp_s": np.array(2 * pulse_times[0]),
        "te_s": times,
        **({"tr_s": tr} if tr.size else {}),
    }


def _flips(seq: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Flips and phases [rad] of all pulses in order, by use: excitation `e` and refocusing `r`."""
    library: dict[int, tuple[str, float, float]] = {}
    for key, data in seq.rf_library.data.items():
        use = seq.rf_library.type[key]
        pulse = seq.rf_from_lib_data(data, use)
        steps = np.diff(pulse.t)
        if len(pulse.t) == 2:  # a hard pulse by its two ends
            area = steps[0] * pulse.signal.mean()
        else:
            area = pulse.signal.sum() * pulse.shape_dur / len(pulse.t)
        library[key] = use, float(2 * math.pi * abs(area)), float(pulse.phase_offset)
    played = [library[event[1]] for event in seq.block_events.values() if event[1]]
    each = {use: [(flip, phase) for kind, flip, phase in played if kind == use] for use in "er"}
    return {
        use: (np.array([f for f, _ in pairs]), np.array([p for _, p in pairs])) for use, pairs in each.items()
    }
