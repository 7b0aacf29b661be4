"""The text of a Pulseq file as tables of numbers, in a few times the file's own memory, trusting nothing in it."""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.untrusted import check_memory, read_text

_MAX_BYTES = 2**28
_MAX_SHAPE, _MAX_RAMP_S, _MAX_CHAIN = 2**18, 1.0, 64  # samples: 0.26 s of a pulse, 2.6 s of a gradient
_VERSIONS = ((1, 2), (1, 3), (1, 4), (1, 5))
_SIGNATURE = b"\n[SIGNATURE]"
_RASTERS = {"BlockDurationRaster": 1e-5, "GradientRasterTime": 1e-5, "RadiofrequencyRasterTime": 1e-6}
_SECTIONS = {"VERSION", "DEFINITIONS", "BLOCKS", "RF", "GRADIENTS", "TRAP", "ADC", "DELAYS", "EXTENSIONS", "SHAPES"}
_EXTENSIONS = {"LABELSET", "LABELINC", "TRIGGERS", "DELAYS"}
LABELS = ("NOISE", "LIN", "PAR")
_TURNS = "ROTATIONS"  # the one extension that moves k-space
_US, _NS = 1e-6, 1e-9
# What a column is multiplied by, after the event's number; another for each version where they differ.
_COLUMNS = {
    "TRAP": (1, _US, _US, _US, _US),  # amplitude, rise, flat, fall, delay
    "EXTENSIONS": (1, 1, 1),  # kind, number, next
    "DELAYS": (_US,),
    ("GRADIENTS", 3): (1, 1, _US),  # amplitude, shape, delay
    ("GRADIENTS", 4): (1, 1, 1, _US),  # amplitude, shape, times, delay
    ("GRADIENTS", 5): (1, 1, 1, 1, 1, _US),  # amplitude, first, last, shape, times, delay
    ("RF", 3): (1, 1, 1, _US, 1, 1),  # amplitude, magnitude, phase, delay, offsets
    ("RF", 4): (1, 1, 1, 1, _US, 1, 1),  # amplitude, magnitude, phase, times, delay, offsets
    ("RF", 5): (1, 1, 1, 1, _US, _US, 1, 1, 1, 1),  # ..., times, centre, delay, offsets
    ("ADC", 3): (1, _NS, _US, 1, 1),
    ("ADC", 4): (1, _NS, _US, 1, 1),  # samples, dwell, delay, offsets
    ("ADC", 5): (1, _NS, _US, 1, 1, 1, 1, 1),
}


class Tables(NamedTuple):
    """What a file says. Events go by their rows: -1 in `blocks` stands for none."""

    path: Path
    version: int  # of Pulseq 1.2 to 1.5, the second number
    definitions: dict[str, np.ndarray]  # the numeric ones
    durations: np.ndarray  # (blocks,) s
    blocks: np.ndarray  # (blocks, 6) rows of the pulse, gradients along x, y and z, readout and extension
    pulses: np.ndarray  # rows of the section RF, in SI
    uses: np.ndarray  # one letter for each pulse; empty before version 1.5
    trapezoids: np.ndarray  # rows of the section TRAP, in SI
    shaped: np.ndarray  # rows of the section GRADIENTS, in SI; in `blocks` they follow the trapezoids
    readouts: np.ndarray  # rows of the section ADC, in SI
    labels: np.ndarray  # (LABELS, extensions, 2) what each sets a label to, NaN for nothing, and what it then adds
    shapes: dict[int, np.ndarray]
    ignored: list[str]  # what else stands in the file


def wrong(path: Path, what: str, expected: str = "a Pulseq file of straight lines", remedy: str = "") -> ValueError:
    """The error of a file that is not what it should be."""
    return usage_error("seq", f"{path}: {what}", expected, remedy)


def read_tables(path: Path) -> Tables:
    """The tables of a Pulseq file.

    A signature that does not fit the content is warned of, a missing one is none's fault. Some errors are Python's and
    NumPy's own and do not name the file.
    """
    version, sections, ignored = _sections(path)
    definitions = _definitions(sections.get("DEFINITIONS", b""))
    for name, default in _RASTERS.items():
        raster = definitions.setdefault(name, np.array([default]))
        if raster.shape != (1,) or not 0 < raster[0] <= _MAX_RAMP_S:
            raise wrong(path, f"definition {name} {raster.tolist()}", "one positive time in s")
    cut = rb"^extension[ \t]+(\w+)[ \t]+(\d{1,9})[ \t]*\n"
    text, *parts = re.split(cut, sections.pop("EXTENSIONS", b""), flags=re.MULTILINE)
    sections["EXTENSIONS"] = text
    labels = {(kind.decode(), int(n)): body for kind, n, body in zip(*(parts[i::3] for i in range(3)), strict=True)}
    ignored += [f"extension {kind}" for kind in sorted({kind for kind, _ in labels} - _EXTENSIONS)]
    tables, numbers, uses = {}, {}, np.zeros(0, "U1")
    for name in ("RF", "TRAP", "GRADIENTS", "ADC", "DELAYS", "EXTENSIONS"):
        scale = np.array(_COLUMNS.get(name) or _COLUMNS[name, max(version, 3)], float)
        text = name == "RF" and version == 5
        rows = _table(sections.pop(name, b""), [("n", float, len(scale) + 1), *([("use", "U1")] if text else [])])
        if not np.isfinite(rows["n"]).all():
            raise wrong(path, f"numbers that are not finite in [{name}]")
        numbers[name], tables[name] = _whole(path, name, rows["n"][:, 0]), rows["n"][:, 1:] * scale
        uses = rows["use"].copy() if text else uses
    for name, at in (("RF", 3), ("GRADIENTS", 2)) if version < 4 else ():  # without shapes of times
        tables[name] = np.insert(tables[name], at, 0.0, axis=1)
    if tables["TRAP"].size and (tables["TRAP"][:, 1:].min() < 0 or tables["TRAP"][:, 1:4].max() > _MAX_RAMP_S):
        raise wrong(path, "trapezoids with times that are negative or long", f"0 to {_MAX_RAMP_S} s")
    blocks = _blocks(sections.pop("BLOCKS", b""), version)
    if not len(blocks) or blocks.min() < 0:
        raise wrong(path, "no blocks, or blocks with negative numbers", "blocks of events")
    gradients = np.concatenate([numbers["TRAP"], numbers["GRADIENTS"]])
    for column, known in enumerate((numbers["RF"], *[gradients] * 3, numbers["ADC"], numbers["EXTENSIONS"]), 2):
        blocks[:, column] = _rows(path, known, blocks[:, column])
    counters, turns = _labels(path, numbers["EXTENSIONS"], tables["EXTENSIONS"], labels)
    if np.append(turns, False)[blocks[:, 7]].any():
        remedy = "Write it with its gradients rotated: in pypulseq by `rotate`."
        raise wrong(path, f"blocks with the extension {_TURNS}", "gradients along x, y and z as they are", remedy)
    shapes = _shapes(path, sections.get("SHAPES", b""), packed=version < 4)
    if version < 4:
        delays = np.append(tables["DELAYS"][:, 0], 0.0)[_rows(path, numbers["DELAYS"], blocks[:, 1])]
        durations = np.maximum(delays, _longest(tables, shapes, definitions, blocks[:, 2:]))
    else:
        durations = blocks[:, 1] * definitions["BlockDurationRaster"]
    events = (tables["RF"], uses, tables["TRAP"], tables["GRADIENTS"], tables["ADC"])
    return Tables(path, version, definitions, durations, blocks[:, 2:], *events, counters, shapes, ignored)


def _sections(path: Path) -> tuple[int, dict[str, bytes], list[str]]:
    """The version, the sections before the signature, and names of those that are none of Pulseq's."""
    data = read_text("seq", path, _MAX_BYTES)
    whole = data
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not re.search(rb"^\[VERSION\]", data, re.MULTILINE):
        raise wrong(path, "no section [VERSION]", "a Pulseq file")
    end = data.rfind(_SIGNATURE)
    stop = end + 1 if end >= 0 else len(data)
    heads = list(re.compile(rb"^\[([^\]\n]*)\].*\n?", re.MULTILINE).finditer(data, 0, stop))
    found: dict[str, bytes] = {}
    for head, until in zip(heads, [head.start() for head in heads[1:]] + [stop], strict=True):
        name = head.group(1).decode(errors="replace")
        if name in found:
            raise wrong(path, f"two sections [{name[:40]}]", "each once")
        found[name] = data[head.end() : until]
    version = _version(path, found["VERSION"])
    if end >= 0:
        _check_signature(path, data, end, whole)
    return version, found, [f"section [{name[:40]}]" for name in found if name not in _SECTIONS]


def _check_signature(path: Path, data: bytes, end: int, whole: bytes) -> None:
    """Warns of a signature that does not fit the text before it, with either kind of line ends."""
    signed = re.search(rb"^Hash[ \t]+(\w+)", data[end:], re.MULTILINE)
    contents = ((data, end), (data, end + 1), (whole, whole.rfind(b"\r\n[SIGNATURE]")))
    digests = (hashlib.md5(memoryview(text)[:stop], usedforsecurity=False).hexdigest() for text, stop in contents)
    if signed is None or signed.group(1).lower().decode() not in digests:
        what = "its signature does not fit its content: it was changed after it was written, or is not whole."
        warnings.warn(f"{path}: {what}", stacklevel=2)


def _version(path: Path, text: bytes) -> int:
    patterns = (rb"^%s[ \t]+(\d{1,6})\s*$" % name for name in (b"major", b"minor"))
    version = tuple(int(found.group(1)) for one in patterns if (found := re.search(one, text, re.MULTILINE)))
    if len(version) < 2:
        raise wrong(path, "section [VERSION] without major and minor numbers", "a Pulseq file")
    if version not in _VERSIONS:
        got, *known = (f"{major}.{minor}" for major, minor in (version, *_VERSIONS))
        raise wrong(path, f"version {got}", f"version {', '.join(known)}", "Convert it with a current toolbox.")
    return version[1]


def _blocks(text: bytes, version: int) -> np.ndarray:
    """Rows of number, duration or delay, and six events; 1.2 has none of extensions."""
    first = re.search(rb"^[ \t]*[^#\s].*", text, re.MULTILINE)
    short = version < 4 and first is not None and len(first.group().split()) == 7
    blocks = _table(text, [("n", np.int32, 7 if short else 8)])["n"]
    return np.pad(blocks, ((0, 0), (0, 1))) if short else blocks


def _longest(
    tables: dict[str, np.ndarray], shapes: dict[int, np.ndarray], definitions: dict[str, np.ndarray], events: np.ndarray
) -> np.ndarray:
    """How long the longest event of each block lasts [s]: what versions before 1.4 leave to those who read."""

    def shaped(numbers: np.ndarray, raster: str) -> np.ndarray:
        return np.array([len(shapes.get(int(n), ())) for n in numbers], float) * definitions[raster][0]

    pulse, trap, shape, adc = (tables[name] for name in ("RF", "TRAP", "GRADIENTS", "ADC"))
    gradient = np.concatenate([trap[:, 1:].sum(1), shape[:, 3] + shaped(shape[:, 1], "GradientRasterTime")])
    sent = pulse[:, 4] + shaped(pulse[:, 1], "RadiofrequencyRasterTime")
    lasts = (sent, *[gradient] * 3, adc[:, 0] * adc[:, 1] + adc[:, 2])
    return np.max([np.append(last, 0.0)[events[:, n]] for n, last in enumerate(lasts)], axis=0)


def _definitions(text: bytes) -> dict[str, np.ndarray]:
    found = {}
    for line in text.decode(errors="replace").splitlines():
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


def _labels(
    path: Path, known: np.ndarray, table: np.ndarray, labels: Mapping[tuple[str, int], bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """What each extension, with those it goes on to, does to each of `LABELS`, and whether it rotates gradients."""
    value, which = np.zeros(len(table)), np.zeros(len(table), int)
    does = np.zeros(len(table), "U9")
    for (kind, number), body in labels.items():
        if kind.startswith("LABEL"):
            rows = [line.split() for line in body.splitlines() if line.strip() and not line.startswith(b"#")]
            for label, name in enumerate(LABELS):
                acts = {int(row[0]): float(row[1]) for row in rows if row[2:] == [name.encode()]}
                mine = (table[:, 0] == number) & np.isin(table[:, 1], list(acts))
                does[mine], which[mine] = kind, label
                value[mine] = [acts[int(n)] for n in table[mine, 1]]
        elif kind == _TURNS:
            does[table[:, 0] == number] = kind
    following = _rows(path, known, table[:, 2].astype(np.int64))
    here = np.arange(len(table))
    found = np.tile([math.nan, 0.0], (len(LABELS), len(table), 1))
    turns = np.zeros(len(table), bool)
    for _ in range(_MAX_CHAIN):
        live = np.flatnonzero(here >= 0)
        if not live.size:
            return found, turns
        sets, adds, rotates = (live[does[here[live]] == name] for name in ("LABELSET", "LABELINC", _TURNS))
        found[which[here[sets]], sets] = np.stack([value[here[sets]], np.zeros(len(sets))], -1)
        found[which[here[adds]], adds, 1] += value[here[adds]]
        turns[rotates] = True
        here[live] = following[here[live]]
    raise wrong(path, f"more than {_MAX_CHAIN} extensions in a row, perhaps in a circle", "fewer")


def _shapes(path: Path, text: bytes, packed: bool) -> dict[int, np.ndarray]:
    """The shapes, unpacked; `packed` ones even where they are no shorter for it, as before version 1.4."""
    text = re.sub(rb"^#.*", b"", text, flags=re.MULTILINE)
    parts = re.split(rb"^shape_id[ \t]+", text, flags=re.MULTILINE | re.IGNORECASE)[1:]
    head_of = re.compile(rb"(\d{1,9})\s+num_(?:samples|uncompressed)[ \t]+(\S+)[ \t]*\n", re.IGNORECASE)
    heads = [head_of.match(part) for part in parts]
    if any(head is None for head in heads):
        raise wrong(path, "a shape without its number and num_samples", "a consistent Pulseq file")
    counts = [head.group(2).decode() for head in heads if head]
    if any(not n.isdigit() or len(n) > 9 or int(n) > _MAX_SHAPE for n in counts):
        raise wrong(path, f"a shape of {max(counts, key=len)[:40]} samples", f"at most {_MAX_SHAPE}")
    check_memory("seq", path, 8 * sum(map(int, counts)))
    found = {}
    for part, head, count in zip(parts, heads, counts, strict=True):
        assert head is not None
        held = np.array(part[head.end() :].split(), float)
        shape = held if len(held) == int(count) and not packed else _unpacked(held, int(count))
        if len(shape) != int(count) or not np.isfinite(shape).all():
            raise wrong(path, f"shape {head.group(1).decode()}, which does not unpack to {count} finite samples")
        found[int(head.group(1))] = shape
    return found


def _unpacked(packed: np.ndarray, count: int) -> np.ndarray:
    """Run lengths of differences undone: two equal ones are followed by how many more there are."""
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
