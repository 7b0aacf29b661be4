"""Datasets of HDF5 files from elsewhere, found by h5py and read by hand: HDF5 loops or crashes on damaged ones."""

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import UsageError, usage_error
from acqdesign.base.untrusted import check_memory
from acqdesign.export.formats import package

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GZIP, _SHUFFLE, _CHECKSUM = 1, 2, 3  # the format's numbers of filters
_MAX_RECORDS = 2**31


class Hdf5:
    """An HDF5 file: its format's name, for errors, its path, and its bytes."""

    def __init__(self, name: str, path: Path, content: bytes):
        self.name, self.path, self.content = name, path, content
        self.package = package("h5py", "mrd")

    def wrong(self, got: str, expected: str, remedy: str = "") -> UsageError:
        """The error of a file that is not what it should be."""
        return usage_error(self.name, f"{self.path}: {got}", expected, remedy)

    def member(self, group: Any, wanted: str, kind: Any) -> Any:
        """A member of a group, of h5py's kind Group or Dataset, in the file itself: a link may lead to any other."""
        here = f"{sorted(group)[:9]} in group {group.name.strip('/') or '/'}"
        link = group.get(wanted, getlink=True)
        if link is None:
            raise self.wrong(here, wanted)
        if not isinstance(link, self.package.HardLink):
            raise self.wrong(f"{wanted}, a link", f"{wanted}, in the file itself")
        found = group.get(wanted)
        outside = isinstance(found, self.package.Dataset) and (found.is_virtual or found.external is not None)
        if not isinstance(found, kind) or outside:
            raise self.wrong(here, f"a {kind.__name__.lower()} {wanted}, in the file itself")
        return found

    def records(self, data: Any, size: int) -> np.ndarray:
        """The elements of h5py's dataset, of `size` bytes each in the file, as they stand there: `(elements, size)`."""
        count, plan = math.prod(data.shape), data.id.get_create_plist()
        filters = [plan.get_filter(n) for n in range(plan.get_nfilters())]
        unknown = [one[0] for one in filters if one[0] not in (_GZIP, _SHUFFLE, _CHECKSUM)]
        if unknown:
            got = f"{data.name}, packed by the HDF5 filter {unknown[0]}"
            raise self.wrong(got, "gzip, or nothing", "Repack it: h5repack -f GZIP=1.")
        if count > _MAX_RECORDS or (not filters and count * size > len(self.content)):
            raise self.wrong(f"{data.name} of {count} elements", "no more than the file has room for")
        check_memory(self.name, self.path, 2 * count * size)
        out, done = np.zeros((*data.shape, size), np.uint8), np.zeros(data.shape, bool)
        chunk = data.chunks or data.shape
        if data.chunks is None:
            pieces = [((0,) * len(data.shape), data.id.get_offset(), count * size, 0)]
        else:
            infos = map(data.id.get_chunk_info, range(data.id.get_num_chunks()))
            pieces = [(info.chunk_offset, info.byte_offset, info.size, info.filter_mask) for info in infos]
        whole = math.prod(chunk) * size
        check_memory(self.name, self.path, 2 * whole)
        if len(pieces) * whole > 4 * (count * size + len(self.content)):
            raise self.wrong(f"{data.name} in {len(pieces)} chunks of {whole} bytes", "fewer")
        for first, offset, length, mask in pieces:
            if offset is None or length < 1 or offset + length > len(self.content):
                raise self.wrong(f"{data.name} with elements out of the file", "all of them in it")
            packed = self.content[offset : offset + length]
            for position in reversed(range(len(filters))):
                if not mask >> position & 1:
                    packed = _undone(filters[position][0], packed, size, whole)
            box = tuple(slice(low, low + n) for low, n in zip(first, chunk, strict=True))
            held = tuple(slice(0, min(n, most - low)) for low, n, most in zip(first, chunk, data.shape, strict=True))
            if len(packed) < whole or any(part.stop < 1 for part in held):
                raise self.wrong(f"{data.name} with a chunk of {len(packed)} bytes", f"{whole}")
            out[box] = np.frombuffer(packed, np.uint8, whole).reshape(*chunk, size)[held]
            done[box] = True
        if not done.all():
            raise self.wrong(f"{data.name} with {(~done).sum()} elements never written", "all of them")
        return out.reshape(count, size)


def _undone(kind: int, packed: bytes, size: int, whole: int) -> bytes:
    """A chunk before a filter, of no more bytes than it has."""
    if kind == _GZIP:
        return zlib.decompressobj().decompress(packed, whole)
    if kind == _SHUFFLE:
        return np.frombuffer(packed, np.uint8).reshape(size, -1).T.tobytes()
    return packed[:-4]
