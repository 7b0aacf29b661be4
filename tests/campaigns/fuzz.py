"""Mutated files for every reader: `nox -s fuzz`, or `python tests/campaigns/fuzz.py --files 2000 --only mrd`.

Each file is a sound one with bytes flipped, numbers replaced, ranges cut, doubled or exchanged, also inside its own
compression, signature or checksum. A reader may accept it or refuse it by a `UsageError` that names the file and that
a terminal can show; it may not crash, hang over 5 s, take more memory than 4 times the file and 256 MiB, or return what
is not finite. Readers run in processes that are forked after the imports and started again where they die. Files that
break a reader are kept; file N of a seed is always the same.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np

from acqdesign.base.checks import UsageError
from acqdesign.commands.config import read_config
from acqdesign.export import pns, read_design, write_design
from acqdesign.learn_joint import JointOptions
from acqdesign.optim.checkpoint import load_checkpoint, save_checkpoint
from acqdesign.scene.files import read_nifti, read_npy, read_npz

HANG_S, SLACK = 5.0, 2**28
Mutate = Callable[[random.Random, bytes], bytes]

# ------------------------------------------------------------------------------------------------- sound files


def design() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "points": rng.uniform(-0.5, 0.5, (8, 2)).astype(np.float32),
        "shape": np.array([8, 10, 7]),
        "fov_m": np.array([0.096, 0.11, 0.084]),
        "samples_per_line": np.array(8),
        "train": np.repeat(np.arange(2), 4),
        "echo": np.tile(np.arange(4), 2),
        "flips_rad": np.linspace(0.5, 2.5, 4).astype(np.float32),
        "phases_rad": np.zeros(4, np.float32),
        "te_s": 8e-3 * np.arange(1, 5),
        "tr_s": np.array([2.0]),
        "esp_s": np.array(8e-3),
    }


def nifti(folder: Path, name: str, version: int) -> Path:
    import nibabel

    volume = np.random.default_rng(1).integers(0, 900, (6, 7, 5)).astype(np.int16)
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    image = kind(volume, np.diag([1.0, 2.0, 1.5, 1.0]))
    image.header.set_slope_inter(0.5, 3.0)
    nibabel.save(image, folder / name)
    return folder / name


def mgh(folder: Path, name: str) -> Path:
    """Two volumes of FreeSurfer's."""
    import nibabel

    volumes = np.random.default_rng(1).integers(0, 900, (6, 7, 5, 2)).astype(np.int16)
    nibabel.save(nibabel.MGHImage(volumes, np.diag([1.0, 2.0, 1.5, 1.0])), folder / name)
    return folder / name


def several(folder: Path) -> Path:
    """Two volumes with voxels that are NaN."""
    import nibabel

    volumes = np.random.default_rng(1).uniform(size=(6, 7, 5, 2)).astype(np.float32)
    volumes[2] = np.nan
    nibabel.save(nibabel.Nifti1Image(volumes, np.diag([1.0, 2.0, 1.5, 1.0])), folder / "several.nii.gz")
    return folder / "several.nii.gz"


def asc(folder: Path) -> Path:
    """A scanner's model of nerve stimulation, with made-up numbers."""
    lines = ['asCOMP[0].tName = "MADE_UP"', "asGPAParameters[0].sGCParameters.flGScaleFactorX = 0.325"]
    lines += [f"asGPAParameters[0].sGCParameters.flGScaleFactor{axis} = 0.325" for axis in "YZ"]
    for axis in "XYZ":
        lines += [f"flGSWDTau{axis}[{n}] = {value}" for n, value in enumerate((0.2, 12.0, 3.0))]
        lines += [f"flGSWDA{axis}[{n}] = {value}" for n, value in enumerate((0.4, 0.1, 0.5))]
        lines += [f"flGSWDStimulationLimit{axis} = 30.0", f"flGSWDStimulationThreshold{axis} = 24.0"]
    path = folder / "a.asc"
    path.write_text("\n".join([*lines, "### ASCCONV END ###", ""]))
    return path


def version_7_3(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    """A MATLAB file of version 7.3: HDF5 behind 512 bytes, axes in reverse, some packed."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            how = {"chunks": True, "compression": "gzip"} if np.ndim(array) > 1 else {}
            file.create_dataset(name, data=np.asarray(array).T, **how)
    return b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + path.read_bytes()[128:]


def cartesian(path: Path) -> None:
    """Raw data without trajectories, packed."""
    import h5py
    import ismrmrd

    plain = path.with_suffix(".plain")
    with ismrmrd.Dataset(str(plain), "dataset") as file:
        space = ismrmrd.xsd.encodingSpaceType(
            matrixSize=ismrmrd.xsd.matrixSizeType(x=8, y=4, z=4),
            fieldOfView_mm=ismrmrd.xsd.fieldOfViewMm(x=192, y=96, z=96),
        )
        encoding = ismrmrd.xsd.encodingType(
            encodedSpace=space,
            reconSpace=space,
            trajectory=ismrmrd.xsd.trajectoryType.CARTESIAN,
            encodingLimits=ismrmrd.xsd.encodingLimitsType(),
        )
        conditions = ismrmrd.xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_200_000)
        header = ismrmrd.xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[encoding])
        file.write_xml_header(ismrmrd.xsd.ToXML(header))
        for n in range(16):
            one = ismrmrd.Acquisition.from_array(np.ones((1, 8), np.complex64))
            one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2 = divmod(n, 4)
            file.append_acquisition(one)
    with h5py.File(plain) as old, h5py.File(path, "w") as new:
        group = new.create_group("measurement")
        group.create_dataset("xml", data=old["dataset/xml"][:], dtype=h5py.special_dtype(vlen=bytes))
        group.create_dataset("data", data=old["dataset/data"][:], chunks=(5,), compression="gzip", shuffle=True)


def older(text: str) -> str:
    """A Pulseq file of 1.5 as one of 1.4, whose pulses have no uses."""
    rows = text.split("[RF]\n")[1].split("\n\n")[0]
    kept = [row.split() for row in rows.splitlines()]
    fewer = "\n".join(" ".join([*words[:5], words[6], *words[9:11]]) for words in kept)
    readouts = text.split("[ADC]\n")[1].split("\n\n")[0]
    shorter = "\n".join(" ".join([*row.split()[:4], *row.split()[6:8]]) for row in readouts.splitlines())
    shaped = text.split("[GRADIENTS]\n")[1].split("\n\n")[0]
    plain = "\n".join(" ".join([*row.split()[:2], *row.split()[4:]]) for row in shaped.splitlines())
    text = text.replace(rows, fewer).replace(readouts, shorter).replace(shaped, plain)
    return text.replace("minor 5", "minor 4").rpartition("\n[SIGNATURE]")[0]


def sound_files(folder: Path) -> dict[str, list[Path]]:
    """By reader: files that it reads, written by the package where it writes that format."""
    rng, found = np.random.default_rng(0), design()
    single = {name: found[name] for name in ("points", "shape", "fov_m", "samples_per_line")}
    own = {"coordinates": rng.uniform(-0.5, 0.5, (4, 8, 2)).astype(np.float32), "trajectory.angles": np.ones(4)}
    for ending in ("npz", "seq", "bin", "cfl", "mrd", "mat"):
        write_design(folder / f"a.{ending}", found)
    np.savez(folder / "b.npz", **single)
    write_design(folder / "own.npz", own)
    for ending in ("seq", "mrd"):
        write_design(folder / f"b.{ending}", single)
    import scipy.io

    scipy.io.savemat(folder / "b.mat", single | {"name": "text", "more": {"x": np.ones(3)}})
    (folder / "c.mat").write_bytes(version_7_3(folder / "c.mat", single))
    mask = rng.uniform(size=(8, 7)) < 0.5
    np.save(folder / "mask.npy", mask)
    np.savetxt(folder / "mask.txt", mask, "%d")
    (folder / "mask.hdr").write_text("# Dimensions\n1 8 7 1 1 \n")
    mask.astype("<c8").ravel(order="F").tofile(folder / "mask.cfl")
    cartesian(folder / "c.mrd")
    text = (folder / "b.seq").read_text()
    (folder / "c.seq").write_text(older(text))
    cells = np.stack(np.meshgrid((np.arange(4) - 2) / 4, (np.arange(3) - 1) / 3), -1).reshape(-1, 2)
    write_design(folder / "d.seq", single | {"points": cells, "shape": np.array([8, 4, 3])})
    # Without the matrix, which its labels count too.
    text = re.sub(r"(ImgSize|Matrix).*\n", "", (folder / "d.seq").read_text())
    (folder / "d.seq").write_text(text.rpartition("\n[SIGNATURE]")[0])
    image = rng.uniform(size=(5, 6, 4)).astype(np.float32)
    np.save(folder / "a.npy", image)
    np.save(folder / "b.npy", np.asfortranarray(image + 1j))
    np.savez_compressed(folder / "c.npz", gm=image / 3, wm=image / 3, csf=image / 3)
    np.savez(folder / "d.npz", image=image)
    (folder / "a.json").write_text(json.dumps({"options": {"steps": 4, "lr": 0.1, "shape": [4, 5, 6],
        "phantom": ["brain"], "field": "3T", "tissue": "wm,gm,csf", "noise": "inf", "no_figures": True}}))  # fmt: skip
    state = {"state.params.x": image, "state.step": np.array(3), "history.loss": np.ones(3)}
    save_checkpoint(folder / "checkpoint", 3, state, meta={"key": {"key": [0, 7]}, "config": {"steps": 4}})
    return {
        "design npz": [folder / "a.npz", folder / "b.npz", folder / "own.npz"],
        "seq": [folder / "a.seq", folder / "b.seq", folder / "c.seq", folder / "d.seq"],
        "bin": [folder / "a.bin"],
        "cfl": [folder / "a.cfl", folder / "mask.cfl"],
        "hdr": [folder / "a.hdr", folder / "mask.hdr"],
        "mrd": [folder / "a.mrd", folder / "b.mrd", folder / "c.mrd"],
        "mat": [folder / "a.mat", folder / "b.mat"],
        "mat 7.3": [folder / "c.mat"],
        "mask": [folder / "mask.npy", folder / "mask.txt"],
        "npy": [folder / "a.npy", folder / "b.npy"],
        "phantom npz": [folder / "c.npz", folder / "d.npz"],
        "nii": [nifti(folder, "a.nii", 1), nifti(folder, "b.nii", 2)],
        "nii.gz": [nifti(folder, "c.nii.gz", 1)],
        "volumes": [several(folder)],
        "mgh": [mgh(folder, "a.mgh")],
        "mgz": [mgh(folder, "a.mgz")],
        "config json": [folder / "a.json"],
        "checkpoint npz": sorted((folder / "checkpoint").glob("*.npz")),
        "checkpoint json": sorted((folder / "checkpoint").glob("*.json")),
        "asc": [asc(folder)],
    }


# --------------------------------------------------------------------------------------------------- mutations

NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63,
    2**64 - 1,
)
WORDS = ("0", "-1", "1e308", "nan", "inf", "99999999999999999999", "4294967296", "2147483648", "0.5", "", "\x1b[2J",
         "[" * 3000, "null", "true", '""', "../../x", "\u202e", "{}", "1" * 5000, "\x00")  # fmt: skip


def bytes_mutated(rng: random.Random, data: bytes) -> bytes:
    """One to six changes that know nothing of the format."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not out:
            break
        at, kind = rng.randrange(len(out)), rng.randrange(9)
        # Headers are where readers believe what they read.
        at = min(at, rng.randrange(400)) if rng.random() < 0.4 and len(out) > 400 else at
        size = min(len(out) - at, rng.choice((1, 2, 4, 8, 16, 64, 400)))
        if kind <= 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at] = rng.randrange(256)
        elif kind == 3:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(NUMBERS) & (256**width - 1)
            out[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 4:
            out[at : at + 4] = struct.pack("<f", rng.choice((np.nan, np.inf, -1.0, 1e30, 0.0, 1e-40)))
        elif kind == 5:
            del out[at:]
        elif kind == 6:
            del out[at : at + size]
        elif kind == 7:
            out[at:at] = out[at : at + size] * rng.choice((1, 1, 2, 50))
        else:
            other = rng.randrange(len(out))
            out[other : other + size] = out[at : at + size]
    return bytes(out)


def text_mutated(rng: random.Random, data: bytes) -> bytes:
    """Numbers and words of a text exchanged, or lines lost, doubled and moved."""
    if rng.random() < 0.3:
        return bytes_mutated(rng, data)
    text = data.decode("latin-1")
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.7:
            tokens = list(re.finditer(r"[^\s,:\[\]{}=]+", text))
            if tokens:
                one = rng.choice(tokens)
                word = rng.choice(WORDS) if rng.random() < 0.7 else rng.choice(tokens).group()
                text = text[: one.start()] + word + text[one.end() :]
        else:
            lines = text.split("\n")
            at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[at : at + rng.randrange(2)] = [lines[other]] * rng.choice((0, 1, 2))
            text = "\n".join(lines)
    return text.encode("latin-1", "replace")


def inside_zip(rng: random.Random, data: bytes) -> bytes:
    """A member mutated and packed anew; or renamed, doubled or stored in another way."""
    if rng.random() < 0.4:
        return bytes_mutated(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    kind = rng.random()
    if kind < 0.6:
        mutate = bytes_mutated if rng.random() < 0.5 else lambda r, d: text_mutated(r, d[:128]) + d[128:]
        members[at] = (name, mutate(rng, content))
    elif kind < 0.7:
        members[at] = (rng.choice(("../../x.npy", "\x1b[31m.npy", "points.npy", "image.npy", "a", "")), content)
    elif kind < 0.8:
        members.append(members[at])
    elif kind < 0.9:
        del members[at]
    else:
        members[at] = (name, members[rng.randrange(len(members))][1])
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, content in members:
                archive.writestr(name or "x", content)
    return out.getvalue()


def inside_gzip(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return bytes_mutated(rng, data)
    return gzip.compress(bytes_mutated(rng, gzip.decompress(data)), 1)


def inside_mat(rng: random.Random, data: bytes) -> bytes:
    """One element of a level 5 file mutated under its compression."""
    if rng.random() < 0.4:
        return bytes_mutated(rng, data)
    parts, at = [], 128
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        parts.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    index = rng.randrange(len(parts))
    kind, content = parts[index]
    inner = bytes_mutated(rng, zlib.decompress(content) if kind == 15 else content)
    parts[index] = (15, zlib.compress(inner)) if rng.random() < 0.7 else (kind, inner)
    return data[:128] + b"".join(struct.pack("<II", kind, len(content)) + content for kind, content in parts)


def signed_again(rng: random.Random, data: bytes) -> bytes:
    """A Pulseq file changed before its signature, which fits again."""
    if rng.random() < 0.2:
        return bytes_mutated(rng, data)
    body = text_mutated(rng, data.rpartition(b"\n[SIGNATURE]")[0])
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return body + b"\n[SIGNATURE]\nType md5\nHash " + digest.encode() + b"\n"


MUTATIONS: dict[str, Mutate] = {
    "design npz": inside_zip,
    "phantom npz": inside_zip,
    "checkpoint npz": inside_zip,
    "seq": signed_again,
    "mat": inside_mat,
    "nii.gz": inside_gzip,
    "volumes": inside_gzip,
    "mgz": inside_gzip,
    "hdr": text_mutated,
    "config json": text_mutated,
    "checkpoint json": text_mutated,
    "asc": text_mutated,
}

# ----------------------------------------------------------------------------------------------------- readers

READERS: dict[str, Callable[[Path], object]] = {
    "design npz": read_design,
    "seq": read_design,
    "bin": read_design,
    "cfl": read_design,
    "hdr": lambda path: read_design(path.with_suffix(".cfl")),
    "mrd": read_design,
    "mat": read_design,
    "mat 7.3": read_design,
    "mask": read_design,
    "npy": read_npy,
    "phantom npz": read_npz,
    "nii": read_nifti,
    "nii.gz": read_nifti,
    "volumes": lambda path: read_nifti(path, 1, 0.0),
    "mgh": lambda path: read_nifti(path, 1),
    "mgz": lambda path: read_nifti(path, 0),
    "config json": lambda path: read_config(JointOptions, path),
    "checkpoint npz": lambda path: load_checkpoint(path.parent),
    "checkpoint json": lambda path: load_checkpoint(path.parent),
    "asc": pns.read_hardware,
}


def digest_again(folder: Path, rng: random.Random) -> None:
    """Mostly, checksums that fit the mutated checkpoint: what a forger would write."""
    if rng.random() < 0.2:
        return
    npz, record = next(folder.glob("*.npz")), next(folder.glob("*.json"))
    try:
        content = json.loads(record.read_bytes())
        content["sha256"] = hashlib.sha256(npz.read_bytes()).hexdigest()
        body = {name: content[name] for name in ("step", "sha256", "meta")}
        content["body_sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        record.write_text(json.dumps(content))
    except (ValueError, KeyError, TypeError, RecursionError):
        return


def prepare(index: int, seed: int, sound: dict[str, list[Path]], folder: Path) -> tuple[str, Path]:
    """Mutated file number `index` in an empty folder, and the name of its reader."""
    rng = random.Random(f"{seed}/{index}")
    name = list(sound)[index % len(sound)]
    source = rng.choice(sound[name])
    data = MUTATIONS.get(name, bytes_mutated)(rng, source.read_bytes())
    path = folder / source.name
    if name in ("cfl", "hdr", "checkpoint npz", "checkpoint json"):
        for beside in source.parent.glob(f"{source.stem}.*"):
            if beside.suffix in (".cfl", ".hdr", ".npz", ".json") and beside.suffix != source.suffix:
                shutil.copy(beside, folder / beside.name)
    path.write_bytes(data)
    if name.startswith("checkpoint"):
        digest_again(folder, rng)
    return name, path


# ----------------------------------------------------------------------------------------------------- workers


def resident(field: str) -> int:
    """VmRSS, VmHWM or VmSize of this process [bytes]."""
    text = Path("/proc/self/status").read_text()
    return int(text[text.index(field + ":") :].split(None, 2)[1]) * 1024


def arrays_of(value: object) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        return [a for item in value.values() for a in arrays_of(item)]
    return [a for item in value for a in arrays_of(item)] if isinstance(value, (tuple, list)) else []


def judge(name: str, path: Path) -> tuple[str, str]:
    """What the reader did: accepted, refused, or what is wrong with how it did so."""
    size = sum(p.stat().st_size for p in path.parent.iterdir())
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = resident("VmRSS")
    # More than a reader may take, so that what it asks for too much is seen, and the machine is safe.
    resource.setrlimit(resource.RLIMIT_AS, (resident("VmSize") + 8 * size + 8 * SLACK, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    verdict, text = "accepted", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = READERS[name](path)
        if not name.startswith("checkpoint"):  # which hold any state
            for array in arrays_of(found):
                if array.dtype.hasobject or not np.isfinite(array).all():
                    verdict, text = "not finite", f"{array.dtype} {array.shape}"
    except UsageError as error:
        text, verdict = str(error), "refused"
        chain, seen = error, []
        while chain is not None and len(seen) < 20:
            seen.append(chain)
            chain = chain.__cause__ or chain.__context__
        if any(isinstance(one, MemoryError) for one in seen):
            verdict = "asked for too much memory"
        elif path.stem not in text and path.parent.name not in text:
            verdict = "unnamed"
        elif not text.isprintable():
            verdict = "unprintable"
    except BaseException as error:
        verdict, text = "wrong error", f"{type(error).__name__}: {error}"
    signal.setitimer(signal.ITIMER_REAL, 0)
    used = resident("VmHWM") - before
    if used > 4 * size + SLACK:
        verdict, text = "memory", f"{used / 2**20:.0f} MiB for {size} bytes; {text}"
    return verdict, text


def work(first: int, count: int, seed: int, sound: dict[str, list[Path]], results: Path) -> None:
    """Reads files `first` to `count`, a line of JSON for each; the number of the next is written before it is read."""
    with tempfile.TemporaryDirectory(dir=scratch()) as name, results.open("a") as log:
        for index in range(first, count):
            folder = Path(name) / f"fuzz-{index}"
            folder.mkdir()
            reader, path = prepare(index, seed, sound, folder)
            log.write(f"{index} {reader}\n")
            log.flush()
            begun = time.perf_counter()
            verdict, text = judge(reader, path)
            line = {"i": index, "reader": reader, "verdict": verdict, "s": round(time.perf_counter() - begun, 4)}
            if verdict not in ("accepted", "refused"):
                line["text"] = text[:300]
            log.write(json.dumps(line) + "\n")
            shutil.rmtree(folder)


def scratch() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def campaign(count: int, seed: int, only: list[str], kept: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name) / "sound", Path(name) / "log"
        folder.mkdir()
        made = sound_files(folder)
        sound = {reader: made[reader] for reader in (only or made)}
        tails: Counter[str] = Counter()
        log.touch()
        following, died = 0, []
        begun = time.perf_counter()
        while following < count:
            child = os.fork()
            if child == 0:
                said = os.open(Path(name) / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(said, 1), os.dup2(said, 2)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                work(following, count, seed, sound, log)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            last = log.read_text().rstrip().rsplit("\n", 1)[-1]
            if status == 0:
                break
            index, reader = last.split(" ", 1) if not last.startswith("{") else ("-1", last)
            if index == "-1":
                raise RuntimeError(f"a worker died between files: status {status}, after {last}")
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            verdict = f"crash ({signal.Signals(number).name})" if number else "exit"
            verdict = "hang" if number == signal.SIGALRM else verdict
            died.append({"i": int(index), "reader": reader, "verdict": verdict, "s": HANG_S, "text": ""})
            following = int(index) + 1
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")] + died
        escapes = (Path(name) / "said").read_bytes().count(b"\x1b")
        faults = [line for line in lines if line["verdict"] not in ("accepted", "refused")]
        for fault in faults[:200]:
            place = kept / str(fault["i"])
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            prepare(fault["i"], seed, sound, place)
        for line in lines:
            tails[f"{line['reader']}: {line['verdict']}"] += 1
        return {
            "files": len(lines),
            "seed": seed,
            "seconds": round(time.perf_counter() - begun, 1),
            "slowest_s": max(line["s"] for line in lines),
            "escapes_printed": escapes,
            "faults": len(faults),
            "verdicts": dict(sorted(tails.items())),
            "first_faults": faults[:40],
        }


def versions() -> dict[str, str]:
    """What the result was found with."""
    names = ("jax", "numpy", "scipy", "h5py", "pypulseq", "nibabel")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="readers, by the names in READERS")
    parser.add_argument("--kept", type=Path, default=Path("fuzz-faults"), help="where files that break a reader go")
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    result = campaign(options.files, options.seed, options.only, options.kept)
    result["versions"] = versions()
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return int(bool(result["faults"] or result["escapes_printed"]))


if __name__ == "__main__":
    sys.exit(main())
