"""ISMRM Raw Data (MRD) files through the package ismrmrd: trajectory and encoding header, with samples of zero."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from acqdesign.base.files import atomic_write
from acqdesign.base.units import GAMMA_HZ_PER_T, deg_from_rad, ms_from_s, rad_from_deg, s_from_ms
from acqdesign.base.untrusted import check_memory, parsing, read_text
from acqdesign.export.formats import Format, package
from acqdesign.export.hdf5 import SIGNATURE, Hdf5
from acqdesign.export.straight import MAX_BYTES, MAX_MATRIX, MAX_SAMPLES, SAID, need, straight_lines, trajectory
from acqdesign.scene.scanner import SYSTEMS, SystemLimits

_GROUP = "dataset"
_HEAP, _REFERENCE = b"GCOL", np.dtype([("count", "<u4"), ("heap", "<u8"), ("index", "<u4")])
_OURS = "acqdesign"  # how a header says that its user counters are trains and echoes
_MAX_XML = 2**20
# Acquisitions that are no lines of the image, by the names of their flags.
_OTHER_SCANS = ["NOISE_MEASUREMENT", "SURFACECOILCORRECTIONSCAN_DATA"]
_OTHER_SCANS += [f"{what}_DATA" for what in ("NAVIGATION", "PHASECORR", "HPFEEDBACK", "RTFEEDBACK", "DUMMYSCAN")]
_MM = 1e3  # in a metre
# Not ENCODE_STEP2 and AVERAGE: mrpro 0.26 takes their flags for phase stabilisation and drops the lines that have them.
_LOOPS = ("ENCODE_STEP1", "SLICE", "REPETITION")
_FIRST = [f"FIRST_IN_{loop}" for loop in _LOOPS]
_LAST = [f"LAST_IN_{loop}" for loop in (*_LOOPS, "MEASUREMENT")]
_SCHEDULES = {"TR": "tr_s", "TE": "te_s", "echo_spacing": "esp_s"}


def _header(xsd: Any, design: Mapping[str, Any], count: int, centre: int, turbo: int, b0_t: float) -> str:
    """The header of lines of `count` samples and trains of `turbo` echoes."""
    shape = [int(n) for n in np.asarray(design["shape"])]
    fov_mm = [_MM * float(f) for f in np.asarray(design["fov_m"])]

    def space(nx: int, fx: float) -> Any:
        matrix = xsd.matrixSizeType(x=nx, y=shape[1], z=shape[2])
        extent = xsd.fieldOfViewMm(x=fx, y=fov_mm[1], z=fov_mm[2])
        return xsd.encodingSpaceType(matrixSize=matrix, fieldOfView_mm=extent)

    def limit(last: int, middle: int) -> Any:
        return xsd.limitType(minimum=0, maximum=last, center=middle)

    comment = "in cycles per voxel of the reconstructed matrix"
    encoding = xsd.encodingType(
        encodedSpace=space(count, fov_mm[0] * count / shape[0]),
        reconSpace=space(shape[0], fov_mm[0]),
        encodingLimits=xsd.encodingLimitsType(
            kspace_encoding_step_0=limit(count - 1, centre),
            kspace_encoding_step_1=limit(shape[1] - 1, shape[1] // 2),
            kspace_encoding_step_2=limit(shape[2] - 1, shape[2] // 2),
            **{name: limit(0, 0) for name in ("average", "slice", "contrast", "phase", "repetition", "set")},
            segment=limit(turbo - 1, 0),
        ),
        trajectory=xsd.trajectoryType.OTHER,
        trajectoryDescription=xsd.trajectoryDescriptionType(identifier=_OURS, comment=comment),
        echoTrainLength=turbo,
    )
    times = {
        field: [ms_from_s(float(t)) for t in np.ravel(design[name])]
        for field, name in _SCHEDULES.items()
        if design.get(name) is not None
    }
    flips = [] if design.get("flips_rad") is None else [deg_from_rad(float(f)) for f in np.asarray(design["flips_rad"])]
    header = xsd.ismrmrdHeader(
        version=1,
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=round(GAMMA_HZ_PER_T * b0_t)),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(flipAngle_deg=flips, **times),
    )
    return str(xsd.ToXML(header))


class _Raw(Hdf5):
    """A raw data file, its texts and trajectories found by hand.

    Attributes:
        heaps: first byte and length of each of them, by where its heap begins and its number in it.
    """

    def __init__(self, path: Path):
        content = read_text("mrd", path, MAX_BYTES)
        super().__init__("mrd", path, content)
        if not content.startswith(SIGNATURE):
            raise self.wrong(f"bytes 0 to 7 are {content[:8]!r}", "those of an HDF5 file")

    def find(self) -> None:
        """Finds the heaps: the HDF5 library loops, takes gigabytes or crashes on damaged ones.

        A heap is `GCOL`, version and length; then objects of number, count of references and length, the free space
        being number 0, each a multiple of 8 bytes with its head of 16.
        """
        content = self.content
        widths = content[13:15] if content[8] < 2 else content[9:11]
        if widths != b"\x08\x08":
            raise self.wrong(f"offsets and lengths of {tuple(widths)} bytes", "8 and 8")
        self.heaps: dict[tuple[int, int], tuple[int, int]] = {}
        start = content.find(_HEAP)
        while start >= 0:
            length = int.from_bytes(content[start + 8 : start + 16], "little")
            at, end = start + 16, start + length
            if length < 16 or end > len(content):
                raise self.wrong(f"a heap of {length} bytes at byte {start}", "one within the file")
            while at + 16 <= end:
                index = int.from_bytes(content[at : at + 2], "little")
                size = int.from_bytes(content[at + 8 : at + 16], "little")
                step = size if index == 0 else 16 + size + -size % 8
                if not 16 <= step <= end - at:
                    raise self.wrong(f"an object of {size} bytes at byte {at}", "one within its heap")
                if index:
                    self.heaps[start, index] = at + 16, size
                at += step
            start = content.find(_HEAP, end)

    def held(self, record: np.ndarray, width: int) -> bytes:
        """What a reference of 16 bytes leads to: count, where the heap begins, number in it."""
        count, start, index = (int(n) for n in record.view(_REFERENCE)[0])
        begin, size = self.heaps.get((start, index), (0, -1))
        if count and count * width > size:
            raise self.wrong(f"{count} values at {start}, {index}", "values that lie in a heap")
        return self.content[begin : begin + count * width]

    def group(self, file: Any) -> Any:
        """The group that holds header and acquisitions: `dataset`, or the only one."""
        if _GROUP in file:
            return self.member(file, _GROUP, self.package.Group)
        names = [name for name in file if isinstance(file.get(name, getlink=True), self.package.HardLink)]
        groups = [found for name in names if isinstance(found := file[name], self.package.Group) and "xml" in found]
        if len(groups) != 1:
            got = f"groups {sorted(file)[:9]}, {len(groups)} of them with a header"
            raise self.wrong(got, f"{_GROUP}, or one group with a header")
        return groups[0]


def _complete(text: bytes) -> bytes:
    """An XML header with what the package ismrmrd demands of each encoding and other programs leave out."""
    root = ElementTree.fromstring(text)
    for encoding in root.findall("{*}encoding"):
        for missing, source in (("reconSpace", "encodedSpace"), ("encodedSpace", "reconSpace"), ("encodingLimits", "")):
            if encoding.find(f"{{*}}{missing}") is None:
                held = encoding.find(f"{{*}}{source}") if source else None
                made = ElementTree.SubElement(encoding, encoding.tag.replace("encoding", missing))
                made.extend(held if held is not None else [])
        if encoding.find("{*}trajectory") is None:
            ElementTree.SubElement(encoding, encoding.tag.replace("encoding", "trajectory")).text = "cartesian"
    return ElementTree.tostring(root)


def _read_header(mrd: Any, raw: _Raw, xml: Any) -> Any:
    kind = xml.id.get_type()
    variable = xml.dtype.kind == "O"
    size = 16 if variable else kind.get_size()
    if xml.size != 1 or size > _MAX_XML:
        raise raw.wrong(f"xml of shape {xml.shape} and {xml.dtype}", "one text")
    text = raw.records(xml, size)[0]
    text = raw.held(text, 1) if variable else text.tobytes().rstrip(b"\0")
    if len(text) > _MAX_XML:
        raise raw.wrong(f"a header of {len(text)} bytes", f"at most {_MAX_XML}")
    if any(mark in text for mark in (b"<!DOCTYPE", b"<!ENTITY", b"\0")):
        raise raw.wrong("a header that declares entities", "plain XML in UTF-8")
    header = mrd.xsd.CreateFromDocument(_complete(text))
    if not header.encoding:
        raise raw.wrong("a header without an encoding", "one")
    return header


def _read_heads(raw: _Raw, data: Any, what: str = "traj") -> tuple[np.ndarray, np.ndarray]:
    """Heads of all acquisitions, and where their trajectories, or `what` else they have, lie."""
    kind = data.id.get_type()
    if data.ndim != 1 or not {"head", what} <= set(data.dtype.names or ()):
        raise raw.wrong(f"data of shape {data.shape} and {data.dtype}", "acquisitions")
    at = {name: kind.get_member_offset(kind.get_member_index(name.encode())) for name in ("head", what)}
    form, size = data.dtype["head"], kind.get_size()
    if form.hasobject or at["head"] + form.itemsize > size or at[what] + 16 > size:
        raise raw.wrong(f"data of {data.dtype}", "acquisitions")
    found = raw.records(data, size)
    heads = np.ascontiguousarray(found[:, at["head"] : at["head"] + form.itemsize]).view(form)[:, 0]
    return heads, found[:, at[what] : at[what] + 16]


def _flagged(mrd: Any, heads: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """Whether each acquisition has any of the flags."""
    bits = sum(1 << (getattr(mrd, f"ACQ_IS_{name}") - 1) for name in names)
    flagged: np.ndarray = heads["flags"] & np.uint64(bits) != 0
    return flagged


def _read_lines(raw: _Raw, heads: np.ndarray, references: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Trajectories `(lines, samples, 3)` of the acquisitions `wanted`."""
    samples, dimensions = heads["number_of_samples"][wanted].astype(int), heads["trajectory_dimensions"][wanted]
    wrong = np.flatnonzero(dimensions != dimensions[0])
    wrong = wrong if wrong.size or dimensions[0] in (2, 3) else np.zeros(1, int)
    if wrong.size:
        what = f"acquisition {wanted[wrong[0]]} with a trajectory of {dimensions[wrong[0]]} dimensions"
        raise raw.wrong(what, "2 or 3 dimensions, or none at all")
    if 4 * samples.sum() * int(dimensions[0]) > len(raw.content):
        raise raw.wrong(f"{samples.sum()} samples", "no more than the file has room for")
    lines = np.zeros((len(wanted), samples[0], 3), np.float32)
    for line, n in zip(lines, wanted, strict=True):
        held = np.frombuffer(raw.held(np.ascontiguousarray(references[n]), 4), "<f4")
        if held.size != samples[0] * dimensions[0]:
            raise raw.wrong(f"acquisition {n} with {held.size} coordinates", f"{line.size}")
        line[:, : dimensions[0]] = held.reshape(samples[0], -1)
    return lines.astype(float)


def _spaces(raw: _Raw, encoding: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Voxels and lengths [m] of the image, and those of the encoded space; one stands for the other."""
    found = []
    for space in (encoding.reconSpace or encoding.encodedSpace, encoding.encodedSpace or encoding.reconSpace):
        if space is None or space.matrixSize is None or space.fieldOfView_mm is None:
            raise raw.wrong("an encoding without reconSpace and encodedSpace", "one of them")
        matrix, extent = space.matrixSize, space.fieldOfView_mm
        sizes, fov = np.array([matrix.x, matrix.y, matrix.z]), np.array([extent.x, extent.y, extent.z], float) / _MM
        if not all(1 <= n <= MAX_MATRIX for n in sizes.tolist()) or not (np.isfinite(fov) & (fov > 0)).all():
            raise raw.wrong(f"a space of {sizes.tolist()}, {fov.tolist()} m", "positive numbers")
        found += [sizes, fov]
    return tuple(found)  # type: ignore[return-value]


def _from_steps(raw: _Raw, encoding: Any, heads: np.ndarray) -> np.ndarray:
    """Positions `(lines, samples, 3)` [cycles/voxel] of Cartesian acquisitions, from their encoding steps.

    Step `n` lies `n - centre` cycles per encoded field of view from the centre of k-space; the centre is the header's,
    or the middle of the encoded matrix.
    """
    shape, fov, encoded, encoded_fov = _spaces(raw, encoding)
    kind, limits = getattr(encoding.trajectory, "value", None), encoding.encodingLimits
    if kind not in (None, "cartesian"):
        raise raw.wrong(f"acquisitions without a trajectory, of kind {kind}", "trajectories, or a Cartesian encoding")
    count = int(heads["number_of_samples"][0])
    centre = heads["center_sample"].astype(float)
    centre = np.where(centre == 0, count // 2, centre)
    cells = np.zeros((len(heads), count, 3))
    # Samples may be finer than the encoded matrix: they span the encoded extent of k-space.
    cells[..., 0] = (np.arange(count) - centre[:, None]) * min(1.0, encoded[0] / count)
    for axis in (1, 2):
        limit = getattr(limits, f"kspace_encoding_step_{axis}", None)
        middle = limit.center if limit is not None and limit.maximum > 0 else encoded[axis] // 2
        cells[..., axis] = (heads["idx"][f"kspace_encode_step_{axis}"].astype(float) - middle)[:, None]
    return cells / encoded_fov * (fov / shape)


def _named(header: Any, design: dict[str, Any], counters: np.ndarray) -> dict[str, Any]:
    """The trains of a file of ours: the counters of others mean other things."""
    encoding = header.encoding[0]
    turbo, parameters = encoding.echoTrainLength or 1, header.sequenceParameters
    if turbo <= 1:
        return design
    if getattr(encoding.trajectoryDescription, "identifier", None) != _OURS:
        said = f"; trains of {turbo} echoes not taken, as the file doesn't say whose lines they are"
        return design | {SAID: design[SAID] + said}
    design |= {"train": counters[:, 0], "echo": counters[:, 1]}
    for field, name in _SCHEDULES.items():
        values = np.array([s_from_ms(t) for t in getattr(parameters, field, None) or ()])
        if values.size:
            design[name] = values[0] if name == "esp_s" else values
    if flips := getattr(parameters, "flipAngle_deg", None):
        design["flips_rad"] = np.array([rad_from_deg(f) for f in flips])
    return design


class Mrd(Format):
    """ISMRM Raw Data.

    Args:
        system: of the scanner, for its field strength.
    """

    ending, about, also = "mrd", 'ISMRM Raw Data with trajectory and header; needs the extra "mrd"', ("h5",)
    keeps = "positions, matrix, field of view, trains, flips, TR, TE and echo spacing"
    loses = "phases, TI and events of a sequence"

    def __init__(self, system: SystemLimits = SYSTEMS["generic"]):
        self.system = system

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        """Writes a design as an ISMRM Raw Data file (HDF5), atomically.

        One acquisition a line, in the order of trains and echoes where there are any, its samples zero and its
        trajectory in cycles per voxel; read, phase and slice along x, y and z about the origin, the first and the last
        flagged; the nearest grid cell and the echo as encoding counters, train and echo as user counters 0 and 1;
        matrices, fields of view, limits, times and flips in the header.
        """
        mrd = package("ismrmrd", "mrd")
        samples = trajectory(design)
        need(design, "shape", "fov_m")
        most = np.asarray(design["shape"], int)[1:]
        count, none = samples.shape[1], np.zeros(len(samples), int)
        train, echo = (none if design.get(name) is None else np.asarray(design[name]) for name in ("train", "echo"))
        cells = np.clip(np.round(samples[:, 0, 1:] * most).astype(int) + most // 2, 0, most - 1)
        centre = int(np.argmin(np.linalg.norm(samples[0], axis=-1)))
        dwell = 0.0 if design.get("dwell_s") is None else float(design["dwell_s"])
        data, order = np.zeros((1, count), np.complex64), np.lexsort((echo, train))
        header = _header(mrd.xsd, design, count, centre, int(echo.max()) + 1, self.system.b0_t)
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / "design.mrd"
            with mrd.Dataset(str(draft), _GROUP, mode="w") as file:
                file.write_xml_header(header.encode())
                for number, line in enumerate(order):
                    one = mrd.Acquisition.from_array(data, samples[line].astype(np.float32))
                    one.center_sample, one.sample_time_us = centre, 1e6 * dwell
                    one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2 = (int(n) for n in cells[line])
                    one.idx.segment = int(echo[line])
                    one.idx.user[0], one.idx.user[1] = int(train[line]), int(echo[line])
                    one.scan_counter = number
                    for axis, direction in enumerate((one.read_dir, one.phase_dir, one.slice_dir)):
                        direction[axis] = 1.0
                    for flag in _FIRST * (number == 0) + _LAST * (number == len(order) - 1):
                        one.setFlag(getattr(mrd, f"ACQ_{flag}"))
                    file.append_acquisition(one)
            content = draft.read_bytes()
        with atomic_write(path) as out:
            out.write(content)

    def read(self, path: Path) -> dict[str, Any]:
        """Reads the straight lines of an ISMRM Raw Data file: of its trajectories, or of its Cartesian encoding steps.

        Returns:
            Points, readout, shape, field of view and, from a file of ours with echo trains, train, echo, flips and
            times, by the names of `design.npz`.
        """
        mrd, raw = package("ismrmrd", "mrd"), _Raw(path)
        with parsing("mrd", path, "a readable ISMRM Raw Data file"):
            raw.find()
            with raw.package.File(path, "r") as file:
                group = raw.group(file)
                xml, data = (raw.member(group, name, raw.package.Dataset) for name in ("xml", "data"))
                header, (heads, references) = _read_header(mrd, raw, xml), _read_heads(raw, data)
            return _design(raw, header, heads, references, ~_flagged(mrd, heads, _OTHER_SCANS))


def read_noise(path: Path) -> np.ndarray:
    """Samples `(coils, samples)` of the noise scans in an ISMRM Raw Data file, complex64."""
    mrd, raw = package("ismrmrd", "mrd"), _Raw(path)
    with parsing("mrd", path, "a readable ISMRM Raw Data file"):
        raw.find()
        with raw.package.File(path, "r") as file:
            heads, references = _read_heads(raw, raw.member(raw.group(file), "data", raw.package.Dataset), "data")
        wanted = np.flatnonzero(_flagged(mrd, heads, ["NOISE_MEASUREMENT"]))
        coils = heads["active_channels"][wanted].astype(int)
        if not wanted.size or (coils != coils[0]).any() or not coils[0]:
            got = f"{len(heads)} acquisitions, {wanted.size} of noise, of {sorted(set(coils.tolist()))} coils"
            raise raw.wrong(got, "noise scans of the same coils")
        found = [np.frombuffer(raw.held(np.ascontiguousarray(references[n]), 4), "<c8") for n in wanted]
        return np.concatenate([each.reshape(coils[0], -1) for each in found], axis=1)


def _design(raw: _Raw, header: Any, heads: np.ndarray, references: np.ndarray, imaging: np.ndarray) -> dict[str, Any]:
    """The design of the acquisitions of the image that belong to the first encoding which has any."""
    if not imaging.any():
        raise raw.wrong(f"{len(heads)} acquisitions, none of an image", "at least one")
    spaces = heads["encoding_space_ref"].astype(int)
    space = int(spaces[imaging].min())
    if space >= len(header.encoding):
        raise raw.wrong(f"encoding {space} of {len(header.encoding)}", "one that the header has")
    wanted = np.flatnonzero(imaging & (spaces == space))
    encoding = header.encoding[space]
    lengths, counts = np.unique(heads["number_of_samples"][wanted], return_counts=True)
    if len(lengths) > 1 or not lengths[0]:
        each = ", ".join(f"{count} of {length}" for length, count in zip(lengths[:9], counts[:9], strict=True))
        raise raw.wrong(f"acquisitions of different samples: {each}", "at least one, all of one length")
    if len(wanted) * int(lengths[0]) > MAX_SAMPLES:
        raise raw.wrong(f"{len(wanted)} acquisitions of {lengths[0]} samples", f"at most {MAX_SAMPLES}")
    shape, fov, *_ = _spaces(raw, encoding)
    chosen = heads[wanted]
    if (chosen["trajectory_dimensions"] == 0).all():
        check_memory("mrd", raw.path, 100.0 * len(wanted) * int(lengths[0]))
        lines, how = _from_steps(raw, encoding, chosen), "positions from encoding steps"
    else:
        lines, how = _read_lines(raw, heads, references, wanted), "positions in cycles/voxel"
    design = straight_lines("mrd", str(raw.path), lines, shape, fov)
    left = [f"{(~imaging).sum()} noise or calibration scans left out"] if (~imaging).any() else []
    others = int((imaging & (spaces != space)).sum())
    left += [f"{others} acquisitions of other encodings left out"] if others else []
    design[SAID] = "; ".join([how, design[SAID], *left])
    return _named(header, design, chosen["idx"]["user"][:, :2].astype(int))
