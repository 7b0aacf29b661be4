"""The text of a Pulseq file as tables of numbers, in a few times the file's own memory, trusting nothing in it."""

import hashlib
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.untrusted import check_memory, read_text

_MAX_BYTES = 2**28
_MAX_SHAPE, _MAX_RAMP_S, _MAX_CHAIN = 2**18, 1.0, 64  # samples: 0.26 s of a pulse, 2.6 s of a gradient
_VERSIONS = ((1, 4), (1, 5))
_SIGNATURE = b"\n[SIGNATURE]"
_RASTERS = {"BlockDurationRaster": 1e-5, "GradientRasterTime": 1e-5, "RadiofrequencyRasterTime": 1e-6}
_SECTIONS = {"VERSION", "DEFINITIONS", "BLOCKS", "RF", "GRADIENTS", "TRAP", "ADC", "EXTENSIONS", "SHAPES"}
_EXTENSIONS = {"LABELSET", "LABELINC", "TRIGGERS", "DELAYS"}
_US, _NS = 1e-6, 1e-9
# What a column is multiplied by, after the event's number; another for each version where they differ.
_COLUMNS = {
    "TRAP": (1, _US, _US, _US, _US),  # amplitude, rise, flat, fall, delay
    "EXTENSIONS": (1, 1, 1),  # kind, number, next
    ("GRADIENTS", 4): (1, 1, 1, _US),  # amplitude, shape, times, delay
    ("GRADIENTS", 5): (1, 1, 1, 1, 1, _US),  # amplitude, first, last, shape, times, delay
    ("RF", 4): (1, 1, 1, 1, _US, 1, 1),  # amplitude, magnitude, phase, times, delay, offsets
    ("RF", 5): (1, 1, 1, 1, _US, _US, 1, 1, 1, 1),  # ..., times, centre, delay, offsets
    ("ADC", 4): (1, _NS, _US, 1, 1),  # samples, dwell, delay, offsets
    ("ADC", 5): (1, _NS, _US, 1, 1, 1, 1, 1),
}


class Tables(NamedTuple):
    """What a file says. Events go by their rows: -1 in `blocks` stands for none."""

    path: Path
    version: int
    """4 or 5, of Pulseq 1.4 and 1.5."""
    definitions: dict[str, np.ndarray]
    """The numeric ones."""
    durations: np.ndarray
    """`(blocks,)` s."""
    blocks: np.ndarray
    """`(blocks, 6)` rows of the pulse, gradients along x, y and z, readout and extension."""
    pulses: np.ndarray
    """Rows of the section RF, in SI."""
    uses: np.ndarray
    """One letter for each pulse; empty in version 1.4."""
    trapezoids: np.ndarray
    """Rows of the section TRAP, in SI."""
    shaped: np.ndarray
    """Rows of the section GRADIENTS, in SI; in `blocks` they follow the trapezoids."""
    readouts: np.ndarray
    """Rows of the section ADC, in SI."""
    noise: np.ndarray
    """`(extensions, 2)` what each sets the label NOISE to, NaN for nothing, and what it then adds."""
    shapes: dict[int, np.ndarray]


def wrong(path: Path, what: str, expected: str = "a Pulseq file of straight lines", remedy: str = "") -> ValueError:
    """The error of a file that is not what it should be."""
    return usage_error("seq", f"{path}: {what}", expected, remedy)


def read_tables(path: Path) -> Tables:
    """The tables of a Pulseq file that is whole by its own signature.

    Args:
        path: of the file.

    Raises:
        ValueError: what is wrong with it; some of Python's and NumPy's own do not name the file.
        OSError: it cannot be read.
    """
    sections = _sections(path)
    version = _version(path, sections)
    definitions = _definitions(sections.get("DEFINITIONS", b""))
    for name, default in _RASTERS.items():
        raster = definitions.setdefault(name, np.array([default]))
        if raster.shape != (1,) or not 0 < raster[0] <= _MAX_RAMP_S:
            raise wrong(path, f"definition {name} {raster.tolist()}", "one positive time in s")
    cut = rb"^extension[ \t]+(\w+)[ \t]+(\d{1,9})[ \t\r]*\n"
    text, *parts = re.split(cut, sections.pop("EXTENSIONS", b""), flags=re.MULTILINE)
    sections["EXTENSIONS"] = text
    labels = {(kind.decode(), int(n)): body for kind, n, body in zip(*(parts[i::3] for i in range(3)), strict=True)}
    unknown = {kind for kind, _ in labels} - _EXTENSIONS
    if unknown:
        raise wrong(path, f"extension {min(unknown)}", "one of " + ", ".join(sorted(_EXTENSIONS)))
    tables, numbers, uses = {}, {}, np.zeros(0, "U1")
    for name in ("RF", "TRAP", "GRADIENTS", "ADC", "EXTENSIONS"):
        scale = np.array(_COLUMNS.get(name) or _COLUMNS[name, version], float)
        text = name == "RF" and version == 5
        rows = _table(sections.pop(name, b""), [("n", float, len(scale) + 1), *([("use", "U1")] if text else [])])
        if not np.isfinite(rows["n"]).all():
            raise wrong(path, f"numbers that are not finite in [{name}]")
        numbers[name], tables[name] = _whole(path, name, rows["n"][:, 0]), rows["n"][:, 1:] * scale
        uses = rows["use"].copy() if text else uses
    if tables["TRAP"].size and (tables["TRAP"][:, 1:].min() < 0 or tables["TRAP"][:, 1:4].max() > _MAX_RAMP_S):
        raise wrong(path, "trapezoids with times that are negative or long", f"0 to {_MAX_RAMP_S} s")
    blocks = _table(sections.pop("BLOCKS", b""), [("n", np.int32, 8)])["n"]
    if not len(blocks) or blocks.min() < 0:
        raise wrong(path, "no blocks, or blocks with negative numbers", "blocks of events")
    gradients = np.concatenate([numbers["TRAP"], numbers["GRADIENTS"]])
    for column, known in enumerate((numbers["RF"], *[gradients] * 3, numbers["ADC"], numbers["EXTENSIONS"]), 2):
        blocks[:, column] = _rows(path, known, blocks[:, column])
    noise = _noise(path, numbers["EXTENSIONS"], tables["EXTENSIONS"], labels)
    return Tables(
        path,
        version,
        definitions,
        blocks[:, 1] * definitions["BlockDurationRaster"],
        blocks[:, 2:],
        tables["RF"],
        uses,
        tables["TRAP"],
        tables["GRADIENTS"],
        tables["ADC"],
        noise,
        _shapes(path, sections.get("SHAPES", b"")),
    )


def _sections(path: Path) -> dict[str, bytes]:
    """The sections before the signature, which must fit."""
    data = read_text("seq", path, _MAX_BYTES)
    if not data.isascii():
        at = next(n for n, byte in enumerate(data) if byte > 127)
        raise wrong(path, f"byte {at} is not ASCII", "a Pulseq file, which is text")
    if not re.search(rb"^\[VERSION\]", data, re.MULTILINE):
        raise wrong(path, "no section [VERSION]", "a Pulseq file")
    end = data.rfind(_SIGNATURE)
    signed = re.search(rb"^Hash[ \t]+(\w+)", data[end:], re.MULTILINE) if end >= 0 else None
    if signed is None:
        remedy = "It is truncated, or was written without one."
        raise wrong(path, "no signature at its end", "a signed Pulseq file", remedy)
    digest = hashlib.md5(memoryview(data)[:end], usedforsecurity=False).hexdigest()
    if digest.encode() != signed.group(1):
        raise wrong(path, "content that its signature does not fit", "an unchanged file", "Export it again.")
    heads = list(re.compile(rb"^\[([^\]\n]*)\].*\n?", re.MULTILINE).finditer(data, 0, end + 1))
    ends = [head.start() for head in heads[1:]] + [end + 1]
    found: dict[str, bytes] = {}
    for head, stop in zip(heads, ends, strict=True):
        name = head.group(1).decode()
        if name not in _SECTIONS or name in found:
            known = "once each of " + ", ".join(sorted(_SECTIONS))
            raise wrong(path, f"section [{name[:40]}]", known)
        found[name] = data[head.end() : stop]
    return found


def _version(path: Path, sections: Mapping[str, bytes]) -> int:
    found = {}
    for name in ("major", "minor"):
        number = re.search(rf"^{name}[ \t]+(\d{{1,6}})\s*$".encode(), sections["VERSION"], re.MULTILINE)
        if number is None:
            raise wrong(path, "section [VERSION] without major and minor numbers", "a Pulseq file")
        found[name] = int(number.group(1))
    version = found["major"], found["minor"]
    if version not in _VERSIONS:
        known = " or ".join(f"{major}.{minor}" for major, minor in _VERSIONS)
        raise wrong(path, f"version {version[0]}.{version[1]}", f"version {known}")
    return version[1]


def _definitions(text: bytes) -> dict[str, np.ndarray]:
    found = {}
    for line in text.decode().splitlines():
        name, *words = line.split() or [""]
        try:
            found[name] = np.array(words, float)
        except ValueError:
            continue
    return found


def _table(text: bytes, columns: list) -> np.ndarray:
    """The rows of a section; as many numbers in each as there are columns."""
    kind = np.dtype(columns)
    if not re.search(rb"^[ \t]*[^#\s]", text, re.MULTILINE):
        return np.zeros(0, kind)
    return np.atleast_1d(np.loadtxt(io.BytesIO(text), kind))


def _whole(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Numbers of events as integers, positive and each once."""
    found = values.astype(np.int64)
    if (found != values).any() or (found < 1).any() or len(np.unique(found)) != len(found):
        raise wrong(path, f"events of [{name}] without a number of their own", "positive whole numbers, each once")
    return found


def _rows(path: Path, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of events by their numbers; -1 for the number 0."""
    order = np.concatenate([[-1], np.argsort(known)])
    numbers = np.concatenate([[0], known[order[1:]]])
    at = np.searchsorted(numbers, wanted).clip(max=len(numbers) - 1)
    if (numbers[at] != wanted).any():
        raise wrong(path, f"event {wanted[numbers[at] != wanted][0]}, which is not in it", "a consistent file")
    return order[at]


def _noise(path: Path, known: np.ndarray, table: np.ndarray, labels: Mapping[tuple[str, int], bytes]) -> np.ndarray:
    """What each extension, with those it goes on to, does to the label NOISE."""
    value = np.zeros(len(table))
    does = np.zeros(len(table), "U8")
    for (kind, number), body in labels.items():
        if kind.startswith("LABEL"):
            rows = [line.split() for line in body.splitlines() if line.strip() and not line.startswith(b"#")]
            acts = {int(row[0]): float(row[1]) for row in rows if row[2:] == [b"NOISE"]}
            mine = (table[:, 0] == number) & np.isin(table[:, 1], list(acts))
            does[mine] = kind
            value[mine] = [acts[int(n)] for n in table[mine, 1]]
    following = _rows(path, known, table[:, 2].astype(np.int64))
    here = np.arange(len(table))
    found = np.stack([np.full(len(table), math.nan), np.zeros(len(table))], -1)
    for _ in range(_MAX_CHAIN):
        live = np.flatnonzero(here >= 0)
        if not live.size:
            return found
        sets, adds = (live[does[here[live]] == name] for name in ("LABELSET", "LABELINC"))
        found[sets, 0], found[sets, 1] = value[here[sets]], 0.0
        found[adds, 1] += value[here[adds]]
        here[live] = following[here[live]]
    raise wrong(path, f"more than {_MAX_CHAIN} extensions in a row, perhaps in a circle", "fewer")


def _shapes(path: Path, text: bytes) -> dict[int, np.ndarray]:
    """The shapes, unpacked."""
    text = re.sub(rb"^#.*", b"", text, flags=re.MULTILINE)
    parts = re.split(rb"^shape_id[ \t]+", text, flags=re.MULTILINE)[1:]
    heads = [re.match(rb"(\d{1,9})\s+num_samples[ \t]+(\S+)[ \t\r]*\n", part) for part in parts]
    if any(head is None for head in heads):
        raise wrong(path, "a shape without its number and num_samples", "a consistent Pulseq file")
    counts = [head.group(2).decode() for head in heads if head]
    if any(not n.isdigit() or len(n) > 9 or int(n) > _MAX_SHAPE for n in counts):
        raise wrong(path, f"a shape of {max(counts, key=len)[:40]} samples", f"at most {_MAX_SHAPE}")
    check_memory("seq", path, 8 * sum(map(int, counts)))
    found = {}
    for part, head, count in zip(parts, heads, counts, strict=True):
        assert head is not None
        packed = np.array(part[head.end() :].split(), float)
        shape = _unpacked(packed, int(count))
        if len(shape) != int(count) or not np.isfinite(shape).all():
            raise wrong(path, f"shape {head.group(1).decode()}, which does not unpack to {count} finite samples")
        found[int(head.group(1))] = shape
    return found


def _unpacked(packed: np.ndarray, count: int) -> np.ndarray:
    """Run lengths of differences undone: two equal ones are followed by how many more there are."""
    if len(packed) == count:
        return packed
    pieces, at, left = list[np.ndarray](), 0, count
    for pair in np.flatnonzero(packed[1:] == packed[:-1]).tolist():
        if pair < at:  # within the last run
            continue
        more = float(packed[pair + 2]) if pair + 2 < len(packed) else math.nan
        if not 0 <= more <= left or more != int(more):
            return np.zeros(0)
        pieces += [packed[at:pair], np.full(int(more) + 2, packed[pair])]
        left -= pair - at + int(more) + 2
        at = pair + 3
    return np.cumsum(np.concatenate([*pieces, packed[at:]]))
