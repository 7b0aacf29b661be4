"""Files that are either whole or absent: written beside their final name, then renamed."""

import errno
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextmanager
def atomic_write(path: Path | str) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` only once everything in it is on the disk.

    The bytes go to a hidden temporary file in the same folder, which must exist, are flushed and fsynced, and are then
    renamed; on any failure the temporary file is removed, what stood under `path` stays as it was, and an error of the
    system names `path`.
    """
    path = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp makes private files
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # a disk that went away: the first error says so
                os.unlink(temporary)
            raise
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; non-finite numbers, which JSON cannot say, as null."""
    with atomic_write(path) as file:
        file.write((json.dumps(plain(value), indent=2, allow_nan=False) + "\n").encode())


def write_npz(path: Path | str, arrays: Mapping[str, Any]) -> None:
    """Writes arrays as a compressed npz, atomically; equal arrays give equal bytes."""
    ready = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in ready.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name}: got an array of Python objects, expected numbers, booleans or text.")
    with atomic_write(path) as file:
        np.savez_compressed(file, **ready)  # type: ignore[arg-type]


def plain(value: Any) -> Any:
    """`value` in JSON's own types: paths and arrays become text and lists, non-finite numbers None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "dtype"):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def sync_folder(folder: Path) -> None:
    """Puts a rename on the disk too, where the system can do that for folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_history(path: Path | str, history: Mapping[str, np.ndarray]) -> None:
    """Writes the log as CSV, atomically: step, loss and every term, one row a logged step, empty for NaN."""
    rows = zip(*(np.asarray(column).tolist() for column in history.values()), strict=True)
    text = lambda value: "" if value != value else repr(value)  # noqa: E731
    lines = [",".join(history), *(",".join(map(text, row)) for row in rows)]
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
