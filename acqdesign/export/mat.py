"""MATLAB files (`.mat`, level 5 and 7.3): a design's arrays by their names."""

import functools
import io
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from acqdesign.base.checks import usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.untrusted import parsing, read_text
from acqdesign.export.formats import Format
from acqdesign.export.hdf5 import SIGNATURE, Hdf5
from acqdesign.export.npz import PARTS, axes_of, is_key
from acqdesign.export.straight import MAX_BYTES, OURS, SAID

_HEADER, _MATRIX, _COMPRESSED, _COMPLEX = 128, 14, 15, 0x800
_PARTS = 5  # flags, sizes, name, numbers, imaginary ones
_SLACK = 2**25  # beside the file, for what is compressed in it
# The format's numbers for classes of variables, and for how they are stored.
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHERS = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function", 17: "opaque"}
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# In place of SciPy's own first text, which holds the time.
_TITLE = b"MATLAB 5.0 MAT-file, an acquisition design of acqdesign".ljust(116)


def _variables(path: Path, data: bytes) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Name and numbers of each variable, unpacked to no more than the memory that the file is worth.

    By hand: SciPy's reader takes memory for what a damaged file claims, and can crash on it.
    """
    size, at = len(data), _HEADER
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER - 2 : _HEADER])
    if order is None:
        raise usage_error("mat", f"{path}: bytes 126 and 127 are {data[126:128]!r}", "those of a MATLAB file, level 5")
    left = size + _SLACK
    while at < size:
        kind, length, body = _part(path, data, at, order)
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            body = unpacker.decompress(body, max(1, left))
            if not unpacker.eof and len(body) >= left:
                got = f"{path}, which unpacks to over {size + _SLACK} bytes"
                raise usage_error("mat", got, "less", "Save it uncompressed: with -v6.")
            kind, _, body = _part(path, body, 0, order)
        if kind != _MATRIX:
            raise usage_error("mat", f"{path}: a part of type {kind} at byte {at}", "a variable")
        left, at = left - len(body), at + length
        parts, inner = list[tuple[int, bytes]](), 0
        while inner < len(body) and len(parts) < _PARTS:  # cells and structs have more
            kind, length, content = _part(path, body, inner, order)
            parts.append((kind, content))
            inner += length
        if len(parts) < 3:
            raise usage_error("mat", f"{path}: a variable of {len(parts)} parts", "flags, sizes, a name and numbers")
        name = parts[2][1].decode("utf-8", "replace")
        yield name, functools.partial(_numbers, path, name, order, parts)


def _part(path: Path, data: bytes, at: int, order: str) -> tuple[int, int, bytes]:
    """Type, length with tag and padding, and content of the part of a file that begins at a byte."""
    if len(data) < at + 8:
        raise usage_error("mat", f"{path}: cut off within the tag of a part", "the whole file")
    kind, count = struct.unpack_from(order + "II", data, at)
    begin, length = at + 8, 8 + count + (0 if kind == _COMPRESSED else -count % 8)
    if kind >> 16:  # up to four bytes within the tag itself
        kind, count, begin, length = kind & 0xFFFF, kind >> 16, at + 4, 8
    if begin + count > len(data) or (length == 8 and count > 4):
        what = f"{path}: a part of {count} bytes where {len(data) - begin} are left"
        raise usage_error("mat", what, "the whole file")
    return kind, length, data[begin : begin + count]


def _numbers(path: Path, name: str, order: str, parts: list[tuple[int, bytes]]) -> np.ndarray:
    """The array that a variable's parts hold: flags, sizes, name, real and perhaps imaginary parts."""
    flags = np.frombuffer(parts[0][1], order + "u4")
    kind = _CLASSES.get(int(flags[0]) & 0xFF)
    if kind is None or int(flags[0]) & _COMPLEX or len(parts) != 4:
        word = _OTHERS.get(int(flags[0]) & 0xFF, f"class {int(flags[0]) & 0xFF}, or complex")
        raise usage_error("mat", f"{path}: {name}, a {word}", "real numbers")
    sizes = np.frombuffer(parts[1][1], order + "i4")
    stored = np.frombuffer(parts[3][1], order + _STORED[parts[3][0]])
    if sizes.size < 2 or sizes.min() < 0 or math.prod(sizes.tolist()) != stored.size:
        raise usage_error("mat", f"{path}: {name} of sizes {sizes.tolist()[:9]}", f"those of {stored.size} numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        return stored.astype(kind).reshape(sizes.tolist(), order="F")


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """A MATLAB matrix with the number of axes that its name asks for."""
    axes = axes_of(name, array)
    return array.reshape([n for n in array.shape if n > 1] if axes == 0 else -1) if axes < 2 else array


class Mat(Format):
    """MATLAB files."""

    ending, about = "mat", "MATLAB, every array by its name"
    keeps = "everything, in single precision"
    loses = "nothing"

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        buffer: Any = io.BytesIO()
        arrays = {name.replace(".", "_"): value for name, value in sorted(design.items())}
        scipy.io.savemat(buffer, arrays, do_compression=True)
        with atomic_write(path) as file:
            file.write(_TITLE + buffer.getvalue()[len(_TITLE) :])

    def read(self, path: Path) -> dict[str, Any]:
        """Reads a design from a MATLAB file, trusting nothing in it; those of version 7.3 need h5py."""
        found, others = dict[str, Any](), list[str]()
        content = read_text("mat", path, MAX_BYTES)
        newer = any(content[at : at + len(SIGNATURE)] == SIGNATURE for at in (0, 512, 1024, 2048))
        with parsing("mat", path, "a readable MATLAB file, of level 5 or 7.3"):
            for name, numbers in _newer(path, content) if newer else _variables(path, content):
                for part in PARTS:
                    if name.startswith(part[:-1] + "_"):
                        name = part + name[len(part) :]
                if name in found:
                    raise usage_error("mat", f"{path}, with two variables named {name}", "one of each name")
                if is_key(name):
                    found[name] = _plain(name, numbers())
                else:
                    others.append(name)
        if not found:
            raise usage_error("mat", f"{path} without any of a design's arrays", "points, flips_rad or others")
        said = f"version {'7.3' if newer else '5'}; {OURS}" + (f"; ignored: {', '.join(others[:9])}" if others else "")
        return found | {SAID: said}


def _newer(path: Path, content: bytes) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Name and numbers of each variable of a file of version 7.3, which is HDF5 with its axes in reverse."""
    held = Hdf5("mat", path, content)

    def numbers(file: Any, name: str) -> np.ndarray:
        data = held.member(file, name, held.package.Dataset)
        if data.dtype.kind not in "biuf":
            raise held.wrong(f"{name} of {data.dtype}", "real numbers")
        return held.records(data, data.dtype.itemsize).view(data.dtype).reshape(data.shape).T

    with held.package.File(path, "r") as file:
        for name in file:
            yield name, functools.partial(numbers, file, name)
