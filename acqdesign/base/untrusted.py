"""Files from elsewhere: sizes are known before memory is taken, no pickle is ever read, every error names the file.

Everywhere `name` is what a file is read as, and `path` where it is, for errors; these are `UsageError`, a `ValueError`.
"""

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import UsageError, usage_error

_SLACK = 3 * 2**26
_CFL_DIMS, _CFL_HEADER = 16, 2**16
_NPY_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@contextmanager
def parsing(name: str, path: Path, expected: str) -> Iterator[None]:
    """Turns whatever a parser raises on a damaged file into an error that names the file and says what was `expected`.

    Our own errors, where they name the file, pass as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UsageError) and str(path) in str(error) and str(error).isprintable():
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        short = reason if len(reason) < 200 else reason[:200] + "..."  # some quote half the file
        raise usage_error(name, f"{path} ({type(error).__name__}: {short})", expected) from error


def check_regular(name: str, path: Path) -> None:
    """Raises where a device, a pipe or a folder stands, which may block or have no end."""
    if path.exists() and not path.is_file():
        raise usage_error(name, f"{path}: a device, pipe or folder", "a regular file")


def check_memory(name: str, path: Path, need: float | int) -> None:
    """Raises where reading a file `need`s more bytes than 4 times its size and 192 MiB: it unpacks to too much."""
    most = 4 * path.stat().st_size + _SLACK
    if need > most:
        expected = f"at most {most}: 4 times the file and {_SLACK >> 20} MiB"
        raise usage_error(name, f"{path}, which takes {need:.3g} bytes of memory", expected, "Unpack it, or crop it.")


def npy_header(name: str, path: Path, file: Any) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and header length of an `.npy` stream, of numbers, booleans or text."""
    with parsing(name, path, "a NumPy array with a sound .npy header"):
        version = np.lib.format.read_magic(file)
        if version not in _NPY_HEADER_READERS:
            raise ValueError(f"format version {version}")
        shape, _, dtype = _NPY_HEADER_READERS[version](file)
        if dtype.kind not in "biufcUS":
            raise ValueError(f"dtype {dtype}")
    return shape, dtype, file.tell()


def npz_headers(
    name: str, path: Path, archive: zipfile.ZipFile, wanted: Callable[[str], bool] = bool
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shapes and dtypes of an archive's `wanted` arrays, once each is found to be as long as its header claims."""
    found: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for info in archive.infolist():
        member = info.filename.removesuffix(".npy")
        if not wanted(member):
            continue
        if member in found:
            raise usage_error(name, f"{path}, with two arrays named {member!r}", "one of each name")
        with archive.open(info) as file:
            shape, dtype, offset = npy_header(name, path, file)
        if info.file_size != offset + math.prod(shape) * dtype.itemsize:
            raise usage_error(name, f"{path}, whose {member} has {info.file_size} bytes", "what its header claims")
        found[member] = shape, dtype
    return found


def read_npz(name: str, path: Path, wanted: Callable[[str], bool] = bool) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, or those whose names are `wanted`."""
    check_regular(name, path)
    with parsing(name, path, f"a readable {name}.npz"), zipfile.ZipFile(path) as archive:
        headers = npz_headers(name, path, archive, wanted)
        check_memory(name, path, 3 * sum(math.prod(s) * d.itemsize for s, d in headers.values()))
        return {member: read_member(archive, member) for member in headers}


def read_member(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """One array, by its name without ending, of an archive that passed `npz_headers`."""
    with archive.open(next(n for n in archive.namelist() if n.removesuffix(".npy") == member)) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_text(name: str, path: Path, limit: int) -> bytes:
    """The bytes of a small regular file, of at most `limit`."""
    size = path.stat().st_size
    if not path.is_file() or size > limit:
        raise usage_error(name, f"{path}: {size} bytes", f"a file of at most {limit}")
    return path.read_bytes()


def read_cfl(cfl: Path, hdr: Path, limit: int) -> tuple[np.ndarray, list[int], list[str]]:
    """The numbers of BART's pair of files as they stand there, its dimensions and its header; the first varies fastest.

    Files of more than `limit` bytes are refused.
    """
    try:
        lines = [line.strip() for line in read_text("cfl", hdr, _CFL_HEADER).decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise usage_error("cfl", f"{hdr}: byte {error.start} is no text", "a BART header") from None
    try:
        given = [int(n) for n in lines[lines.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError):
        raise usage_error("cfl", f"{hdr}: no sizes after a line '# Dimensions'", "a BART header") from None
    if not given or min(given) < 1 or len(given) > _CFL_DIMS or max(given) > 2**31:
        raise usage_error("cfl", f"{hdr}: dimensions {given[:20]}", f"up to {_CFL_DIMS} positive ones")
    expected = 8 * math.prod(given)
    if expected > limit:
        raise usage_error("cfl", f"{hdr}: dimensions {given}, {expected} bytes", f"at most {limit}")
    size = cfl.stat().st_size
    if size != expected or not cfl.is_file():
        bytes_of = f"{expected} for the dimensions in {hdr.name}"
        raise usage_error("cfl", f"{cfl}: {size} bytes", bytes_of, "It is truncated, or another's.")
    check_memory("cfl", cfl, 4 * expected)
    return np.fromfile(cfl, "<c8"), given, lines
