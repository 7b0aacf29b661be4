"""ISMRM Raw Data (MRD) files through the package ismrmrd: trajectory and encoding header, with samples of zero."""

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign._checks import bad
from acqdesign._files import atomic_write
from acqdesign.export.straight import MAX_BYTES, need, straight_lines, trajectory
from acqdesign.hardware import SYSTEMS, SystemLimits
from acqdesign.units import GAMMA_HZ_PER_T, deg_from_rad, ms_from_s, rad_from_deg, s_from_ms

_GROUP = "dataset"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAX_XML = 2**20
_MM = 1e3  # in a metre
_SCHEDULES = {"TR": "tr_s", "TE": "te_s", "echo_spacing": "esp_s"}


def _ismrmrd() -> Any:
    try:
        return importlib.import_module("ismrmrd")
    except ImportError as error:
        remedy = 'Install it with: pip install "acqdesign[mrd]".'
        raise bad("ismrmrd", f"no usable installation ({error})", "the package ismrmrd", remedy) from error


def write_mrd(path: Path | str, design: Mapping[str, Any], limits: SystemLimits = SYSTEMS["generic"]) -> None:
    """Writes a design as an ISMRM Raw Data file (HDF5), atomically.

    One acquisition a line, in the order of trains and echoes where there are any, its samples zero and its
    trajectory in cycles per voxel; the nearest grid cell and the echo as encoding counters, train and echo as user
    counters 0 and 1; matrices, fields of view, limits, times and flips in the header.

    Args:
        path: of the `.mrd` (or `.h5`) file.
        design: arrays by the names of `design.npz`.
        limits: of the scanner, for its field strength.

    Raises:
        ValueError: ismrmrd is missing, or the design lacks positions, readout, shape or field of view.
        OSError: the file cannot be written.
    """
    mrd = _ismrmrd()
    need(design, "points", "shape", "fov_m")
    shape = [int(n) for n in np.asarray(design["shape"])]
    samples = trajectory(design)
    lines, count, _ = samples.shape
    train, echo = (
        np.zeros(lines, int) if design.get(name) is None else np.asarray(design[name])
        for name in ("train", "echo")
    )
    cells = np.round(samples[:, 0, 1:] * shape[1:]).astype(int) + np.array(shape[1:]) // 2
    cells = np.clip(cells, 0, np.array(shape[1:]) - 1)
    centre = int(np.argmin(np.abs(samples[0, :, 0])))
    dwell = 0.0 if design.get("dwell_s") is None else float(design["dwell_s"])
    data = np.zeros((1, count), np.complex64)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "design.mrd"
        with mrd.Dataset(str(draft), _GROUP, mode="w") as file:
            file.write_xml_header(_header(mrd, design, shape, count, centre, echo, limits).encode())
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
            identifier="acqdesign",
            comment="straight lines along x, in cycles per voxel of the reconstructed matrix",
        ),
        echoTrainLength=int(echo.max()) + 1,
    )
    times = {
        field: [ms_from_s(float(t)) for t in np.ravel(design[name])]
        for field, name in _SCHEDULES.items()
        if design.get(name) is not None
    }
    flips = (
        []
        if design.get("flips_rad") is None
        else [deg_from_rad(float(f)) for f in np.asarray(design["flips_rad"])]
    )
    header = xsd.ismrmrdHeader(
        version=1,
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(GAMMA_HZ_PER_T * limits.b0_t)
        ),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(flipAngle_deg=flips, **times),
    )
    return str(xsd.ToXML(header))


def read_mrd(path: Path | str) -> dict[str, np.ndarray]:
    """Reads the straight lines of an ISMRM Raw Data file.

    Args:
        path: of a file whose acquisitions carry three-dimensional trajectories in cycles per voxel.

    Returns:
        Points, readout, shape, field of view and, where the file's echo train is longer than one, train, echo,
        flips and times, by the names of `design.npz`.

    Raises:
        ValueError: ismrmrd is missing, or what is wrong with the file.
        OSError: it cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_HDF5))
    if size > MAX_BYTES:
        raise bad("mrd", f"{path}: {size} bytes", f"at most {MAX_BYTES}")
    if start != _HDF5:
        raise bad("mrd", f"{path}: bytes 0 to 7 are {start!r}", "those of an HDF5 file")
    mrd = _ismrmrd()
    try:
        with mrd.Dataset(str(path), _GROUP, mode="r") as file:
            found = _contents(mrd, path, file)
    except ValueError:
        raise
    except Exception as error:  # h5py and xsdata raise many kinds on a damaged file
        raise bad(
            "mrd", f"{path} ({type(error).__name__}: {error})", "a readable ISMRM Raw Data file"
        ) from error
    return found


def _contents(mrd: Any, path: Path, file: Any) -> dict[str, np.ndarray]:
    names = set(file.list())
    if not {"xml", "data"} <= names:
        raise bad("mrd", f"{path}: {sorted(names)} in group {_GROUP}", "an XML header and data")
    text = file.read_xml_header()
    if len(text) > _MAX_XML:
        raise bad("mrd", f"{path}: a header of {len(text)} bytes", f"at most {_MAX_XML}")
    header = mrd.xsd.CreateFromDocument(text)
    if len(header.encoding) != 1:
        raise bad("mrd", f"{path}: {len(header.encoding)} encodings", "one")
    encoding = header.encoding[0]
    space = encoding.reconSpace
    shape = np.array([space.matrixSize.x, space.matrixSize.y, space.matrixSize.z])
    fov = np.array(
        [f / _MM for f in (space.fieldOfView_mm.x, space.fieldOfView_mm.y, space.fieldOfView_mm.z)]
    )
    if shape.min() < 1 or not (fov > 0).all():
        raise bad("mrd", f"{path}: reconSpace {shape.tolist()}, {fov.tolist()} m", "positive numbers")
    heads, trajectories, counters = [], [], []
    for n in range(file.number_of_acquisitions()):
        one = file.read_acquisition(n)
        if one.is_flag_set(mrd.ACQ_IS_NOISE_MEASUREMENT):
            continue
        if one.trajectory_dimensions != 3:
            what = f"{path}: acquisition {n} with a trajectory of {one.trajectory_dimensions} dimensions"
            raise bad("mrd", what, "3 dimensions")
        heads.append(one.number_of_samples)
        trajectories.append(np.array(one.traj, float))
        counters.append([one.idx.user[0], one.idx.user[1]])
    if not heads or len(set(heads)) > 1:
        raise bad(
            "mrd", f"{path}: acquisitions of {sorted(set(heads))} samples", "at least one, all of one length"
        )
    design = straight_lines("mrd", str(path), np.stack(trajectories)) | {"shape": shape, "fov_m": fov}
    if encoding.echoTrainLength and encoding.echoTrainLength > 1:
        train, echo = np.array(counters).T.astype(int)
        design |= {"train": train, "echo": echo}
        parameters = header.sequenceParameters
        for field, name in _SCHEDULES.items():
            values = np.array([s_from_ms(t) for t in getattr(parameters, field)])
            if values.size:
                design[name] = values[0] if name == "esp_s" else values
        if parameters.flipAngle_deg:
            design["flips_rad"] = np.array([rad_from_deg(f) for f in parameters.flipAngle_deg])
    return design
