"""ISMRM Raw Data (MRD) files through the package ismrmrd: trajectory and encoding header, with samples of zero."""

import importlib
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.units import GAMMA_HZ_PER_T, deg_from_rad, ms_from_s, rad_from_deg, s_from_ms
from acqdesign.base.untrusted import parsing, read_text
from acqdesign.export.formats import Format
from acqdesign.export.straight import MAX_BYTES, need, straight_lines, trajectory
from acqdesign.scene.scanner import SYSTEMS, SystemLimits

_GROUP = "dataset"
_HEAP, _REFERENCE = b"GCOL", np.dtype([("count", "<u4"), ("heap", "<u8"), ("index", "<u4")])
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAX_XML, _MAX_MATRIX = 2**20, 2**15
_MM = 1e3  # in a metre
Heaps = Mapping[tuple[int, int], tuple[int, int]]

_SCHEDULES = {"TR": "tr_s", "TE": "te_s", "echo_spacing": "esp_s"}


def _ismrmrd() -> Any:
    try:
        return importlib.import_module("ismrmrd")
    except ImportError as error:
        remedy = 'Install it with: pip install "acqdesign[mrd]".'
        raise usage_error("ismrmrd", f"no usable installation ({error})", "the package ismrmrd", remedy) from error


def _header(
    mrd: Any,
    design: Mapping[str, Any],
    shape: list[int],
    count: int,
    centre: int,
    echo: np.ndarray,
    limits: SystemLimits,
) -> str:
    xsd = mrd.xsd
    fov_mm = [_MM * float(f) for f in np.asarray(design["fov_m"])]

    def space(nx: int, fx: float) -> Any:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=nx, y=shape[1], z=shape[2]),
            fieldOfView_mm=xsd.fieldOfViewMm(x=fx, y=fov_mm[1], z=fov_mm[2]),
        )

    def limit(last: int, middle: int) -> Any:
        return xsd.limitType(minimum=0, maximum=last, center=middle)

    encoding = xsd.encodingType(
        encodedSpace=space(count, fov_mm[0] * count / shape[0]),
        reconSpace=space(shape[0], fov_mm[0]),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_0=limit(count - 1, centre),
            kspace_encoding_step_1=limit(shape[1] - 1, shape[1] // 2),
            kspace_encoding_step_2=limit(shape[2] - 1, shape[2] // 2),
            segment=limit(int(echo.max()), 0),
        ),
        trajectory=xsd.trajectoryType.OTHER,
        trajectoryDescription=xsd.trajectoryDescriptionType(
            identifier="acqdesign", comment="in cycles per voxel of the reconstructed matrix"
        ),
        echoTrainLength=int(echo.max()) + 1,
    )
    times = {
        field: [ms_from_s(float(t)) for t in np.ravel(design[name])]
        for field, name in _SCHEDULES.items()
        if design.get(name) is not None
    }
    flips = [] if design.get("flips_rad") is None else [deg_from_rad(float(f)) for f in np.asarray(design["flips_rad"])]
    header = xsd.ismrmrdHeader(
        version=1,
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(GAMMA_HZ_PER_T * limits.b0_t)
        ),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(flipAngle_deg=flips, **times),
    )
    return str(xsd.ToXML(header))


def _heaps(path: Path, content: bytes) -> Heaps:
    """First byte and length of each text or trajectory, by where its heap begins and its number in it.

    Found by hand, as the HDF5 library loops, takes gigabytes or crashes on damaged ones. A heap is `GCOL`, version
    and length; then objects of number, count of references and length, the free space being number 0, each a
    multiple of 8 bytes with its head of 16.
    """
    widths = content[13:15] if content[8] < 2 else content[9:11]
    if widths != b"\x08\x08":
        raise usage_error("mrd", f"{path}: offsets and lengths of {tuple(widths)} bytes", "8 and 8")
    found: dict[tuple[int, int], tuple[int, int]] = {}
    start = content.find(_HEAP)
    while start >= 0:
        length = int.from_bytes(content[start + 8 : start + 16], "little")
        at, end = start + 16, start + length
        if length < 16 or end > len(content):
            raise usage_error("mrd", f"{path}: a heap of {length} bytes at byte {start}", "one within the file")
        while at + 16 <= end:
            index = int.from_bytes(content[at : at + 2], "little")
            size = int.from_bytes(content[at + 8 : at + 16], "little")
            step = size if index == 0 else 16 + size + -size % 8
            if not 16 <= step <= end - at:
                raise usage_error("mrd", f"{path}: an object of {size} bytes at byte {at}", "one within its heap")
            if index:
                found[start, index] = at + 16, size
            at += step
        start = content.find(_HEAP, end)
    return found


def _stored(path: Path, content: bytes, data: Any, size: int) -> np.ndarray:
    """The records of a dataset as they stand in the file: bytes `(records, size)`."""
    records, plan = math.prod(data.shape), data.id.get_create_plist()
    if plan.get_nfilters() or records * size > len(content):
        got = f"{path}: {data.name} of {records} records, perhaps compressed"
        raise usage_error("mrd", got, "plain ones, no more than the file has room for")
    out, done = np.zeros((records, size), np.uint8), np.zeros(records, bool)
    if data.chunks is None:
        pieces = [(0, data.id.get_offset())]
        most = records
    else:
        infos = map(data.id.get_chunk_info, range(data.id.get_num_chunks()))
        pieces = [(info.chunk_offset[0], info.byte_offset) for info in infos]
        most = data.chunks[0]
    for first, offset in pieces:
        count = min(most, records - first)
        if offset is None or count < 1 or offset + count * size > len(content):
            raise usage_error("mrd", f"{path}: {data.name} with records out of the file", "all of them in it")
        flat = np.frombuffer(content, np.uint8, count * size, offset)
        out[first : first + count], done[first : first + count] = flat.reshape(count, size), True
    if not done.all():
        raise usage_error("mrd", f"{path}: {data.name} with {(~done).sum()} records never written", "all of them")
    return out


def _held(path: Path, content: bytes, heaps: Heaps, record: np.ndarray, width: int) -> bytes:
    """What a reference of 16 bytes leads to: count, where the heap begins, number in it."""
    count, start, index = (int(n) for n in record.view(_REFERENCE)[0])
    begin, size = heaps.get((start, index), (0, -1))
    if count and count * width > size:
        raise usage_error("mrd", f"{path}: {count} values at {start}, {index}", "values that lie in a heap")
    return content[begin : begin + count * width]


def _inside(h5py: Any, path: Path, group: Any, name: str) -> Any:
    """A member of a group that lies in the file itself: a link may lead to any other."""
    link = group.get(name, getlink=True)
    found = group.get(name) if isinstance(link, h5py.HardLink) else None
    outside = isinstance(found, h5py.Dataset) and (found.is_virtual or found.external is not None)
    if not isinstance(found, h5py.Group if name == _GROUP else h5py.Dataset) or outside:
        got = f"{path}: {sorted(group)[:9]} in group {group.name.strip('/')}, one perhaps a link"
        raise usage_error("mrd", got, f"{name}, in the file itself")
    return found


def _read_header(mrd: Any, path: Path, content: bytes, heaps: Heaps, xml: Any) -> Any:
    kind = xml.id.get_type()
    variable = xml.dtype.kind == "O"
    size = 16 if variable else kind.get_size()
    if xml.size != 1 or size > _MAX_XML:
        raise usage_error("mrd", f"{path}: xml of shape {xml.shape} and {xml.dtype}", "one text")
    text = _stored(path, content, xml, size)[0]
    text = _held(path, content, heaps, text, 1) if variable else text.tobytes().rstrip(b"\0")
    if len(text) > _MAX_XML:
        raise usage_error("mrd", f"{path}: a header of {len(text)} bytes", f"at most {_MAX_XML}")
    if any(mark in text for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        raise usage_error("mrd", f"{path}: a header that declares entities", "plain XML in UTF-8")
    header = mrd.xsd.CreateFromDocument(text)
    if len(header.encoding) != 1:
        raise usage_error("mrd", f"{path}: {len(header.encoding)} encodings", "one")
    return header


def _read_lines(mrd: Any, path: Path, content: bytes, heaps: Heaps, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories `(lines, samples, 3)`, and train and echo of each, of all but noise scans."""
    kind = data.id.get_type()
    if data.ndim != 1 or not {"head", "traj"} <= set(data.dtype.names or ()):
        raise usage_error("mrd", f"{path}: data of shape {data.shape} and {data.dtype}", "acquisitions")
    at = {name: kind.get_member_offset(kind.get_member_index(name.encode())) for name in ("head", "traj")}
    form, size = data.dtype["head"], kind.get_size()
    if form.hasobject or at["head"] + form.itemsize > size or at["traj"] + 16 > size:
        raise usage_error("mrd", f"{path}: data of {data.dtype}", "acquisitions")
    records = _stored(path, content, data, size)
    heads = np.ascontiguousarray(records[:, at["head"] : at["head"] + form.itemsize]).view(form)[:, 0]
    noise = heads["flags"] & np.uint64(1 << (mrd.ACQ_IS_NOISE_MEASUREMENT - 1)) != 0
    wanted = np.flatnonzero(~noise)
    heads, samples = heads[wanted], heads["number_of_samples"][wanted].astype(int)
    wrong = np.flatnonzero(heads["trajectory_dimensions"] != 3)
    if wrong.size:
        dimensions = heads["trajectory_dimensions"][wrong[0]]
        what = f"{path}: acquisition {wanted[wrong[0]]} with a trajectory of {dimensions} dimensions"
        raise usage_error("mrd", what, "3 dimensions")
    if not len(samples) or np.ptp(samples) or not samples[0]:
        got = f"{path}: acquisitions of {np.unique(samples).tolist()[:9]} samples"
        raise usage_error("mrd", got, "at least one, all of one length")
    if 12 * samples.sum() > len(content):
        raise usage_error("mrd", f"{path}: {samples.sum()} samples", "no more than the file has room for")
    lines = np.empty((len(wanted), samples[0], 3), np.float32)
    for line, n in zip(lines, wanted, strict=True):
        reference = np.ascontiguousarray(records[n, at["traj"] : at["traj"] + 16])
        held = np.frombuffer(_held(path, content, heaps, reference, 4), "<f4")
        if held.size != line.size:
            raise usage_error("mrd", f"{path}: acquisition {n} with {held.size} coordinates", f"{line.size}")
        line[...] = held.reshape(line.shape)
    return lines.astype(float), heads["idx"]["user"][:, :2].astype(int)


def _named(path: Path, header: Any, lines: np.ndarray, counters: np.ndarray) -> dict[str, np.ndarray]:
    """The design, by the names of `design.npz`, of acquisitions and the XML header."""
    encoding = header.encoding[0]
    matrix, extent = encoding.reconSpace.matrixSize, encoding.reconSpace.fieldOfView_mm
    sizes, fov = [matrix.x, matrix.y, matrix.z], np.array([extent.x, extent.y, extent.z], float) / _MM
    if not all(1 <= n <= _MAX_MATRIX for n in sizes) or not (np.isfinite(fov) & (fov > 0)).all():
        raise usage_error("mrd", f"{path}: reconSpace {sizes}, {fov.tolist()} m", "positive numbers")
    design = straight_lines("mrd", str(path), lines) | {"shape": np.array(sizes), "fov_m": fov}
    if encoding.echoTrainLength and encoding.echoTrainLength > 1:
        design |= {"train": counters[:, 0], "echo": counters[:, 1]}
        parameters = header.sequenceParameters
        for field, name in _SCHEDULES.items():
            values = np.array([s_from_ms(t) for t in getattr(parameters, field, ())])
            if values.size:
                design[name] = values[0] if name == "esp_s" else values
        flips = getattr(parameters, "flipAngle_deg", ())
        if flips:
            design["flips_rad"] = np.array([rad_from_deg(f) for f in flips])
    return design


class Mrd(Format):
    """ISMRM Raw Data.

    Args:
        system: of the scanner, for its field strength.
    """

    ending, about, also = "mrd", 'ISMRM Raw Data with trajectory and header; needs the extra "mrd"', ("h5",)

    def __init__(self, system: SystemLimits = SYSTEMS["generic"]):
        self.system = system

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        """Writes a design as an ISMRM Raw Data file (HDF5), atomically.

        One acquisition a line, in the order of trains and echoes where there are any, its samples zero and its
        trajectory in cycles per voxel; the nearest grid cell and the echo as encoding counters, train and echo as user
        counters 0 and 1; matrices, fields of view, limits, times and flips in the header.
        """
        mrd = _ismrmrd()
        samples = trajectory(design)
        need(design, "shape", "fov_m")
        shape = [int(n) for n in np.asarray(design["shape"])]
        lines, count, _ = samples.shape
        train, echo = (
            np.zeros(lines, int) if design.get(name) is None else np.asarray(design[name]) for name in ("train", "echo")
        )
        cells = np.round(samples[:, 0, 1:] * shape[1:]).astype(int) + np.array(shape[1:]) // 2
        cells = np.clip(cells, 0, np.array(shape[1:]) - 1)
        centre = int(np.argmin(np.linalg.norm(samples[0], axis=-1)))
        dwell = 0.0 if design.get("dwell_s") is None else float(design["dwell_s"])
        data = np.zeros((1, count), np.complex64)
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "design.mrd"
            with mrd.Dataset(str(draft), _GROUP, mode="w") as file:
                file.write_xml_header(_header(mrd, design, shape, count, centre, echo, self.system).encode())
                for number, line in enumerate(np.lexsort((echo, train))):
                    one = mrd.Acquisition.from_array(data, samples[line].astype(np.float32))
                    one.center_sample, one.sample_time_us = centre, 1e6 * dwell
                    one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2 = (int(n) for n in cells[line])
                    one.idx.segment = int(echo[line])
                    one.idx.user[0], one.idx.user[1] = int(train[line]), int(echo[line])
                    one.scan_counter = number
                    file.append_acquisition(one)
            content = draft.read_bytes()
        with atomic_write(path) as out:
            out.write(content)

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """Reads the straight lines of an ISMRM Raw Data file.

        Returns:
            Points, readout, shape, field of view and, where the file's echo train is longer than one, train, echo,
            flips and times, by the names of `design.npz`.
        """
        content = read_text("mrd", path, MAX_BYTES)
        if not content.startswith(_HDF5):
            raise usage_error("mrd", f"{path}: bytes 0 to 7 are {content[:8]!r}", "those of an HDF5 file")
        mrd, h5py = _ismrmrd(), importlib.import_module("h5py")
        with parsing("mrd", path, "a readable ISMRM Raw Data file"):
            heaps = _heaps(path, content)
            with h5py.File(path, "r") as file:
                group = _inside(h5py, path, file, _GROUP)
                xml, data = (_inside(h5py, path, group, name) for name in ("xml", "data"))
                header = _read_header(mrd, path, content, heaps, xml)
                lines = _read_lines(mrd, path, content, heaps, data)
            return _named(path, header, *lines)
