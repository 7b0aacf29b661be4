"""The folder of a run: made, claimed, begun with `config.json`, and never half written."""

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from acqdesign.base.checks import usage_error
from acqdesign.base.files import write_json
from acqdesign.base.sharding import is_main_process

_RUN_FILES = ("config.json", "design.npz", "history.csv", "summary.json", "checkpoint/step-*.json")
_DRAWN = ("*.png", "*.pdf", "learning.gif", "figures.npz", "report.html")
_RUN_OUTPUTS = (*_RUN_FILES, "checkpoint/step-*.npz", *_DRAWN, "design.*")
_HALF_WRITTEN = (".*.tmp", "checkpoint*/.*.tmp")


@contextlib.contextmanager
def run_folder(
    out: Path, config: Mapping[str, Any], *, overwrite: bool = False, resume: bool = False
) -> Iterator[Path]:
    """The folder of a run, made unless it is there, with `config.json`; enter it once all input has been read.

    A run that it holds is removed with `overwrite` and continued with `resume`. Of several processes, only the first
    does anything to it.

    Raises:
        UsageError: it holds a run already and neither `overwrite` nor `resume` was asked for; or another
            process is writing to it.
        OSError: it cannot be made or written.
    """
    if not is_main_process():
        yield out
        return
    refuse_folder(out, held=overwrite or resume)
    out.mkdir(parents=True, exist_ok=True)
    with _claimed(out):
        refuse_folder(out, held=overwrite or resume)  # another run may have begun and ended here a moment ago
        for link in (entry for entry in out.glob("checkpoint*") if entry.is_symlink()):
            got = f"{out}, whose {link.name} is a link to {os.readlink(link)}"
            raise usage_error("--out", got, "a folder that holds its own files", "Remove the link.")
        for pattern in (*_RUN_OUTPUTS, *_HALF_WRITTEN) if overwrite else _HALF_WRITTEN:
            for old in out.glob(pattern):
                old.unlink()
        write_json(out / "config.json", config)
        yield out


def refuse_folder(out: Path, *, held: bool) -> None:
    """Raises where results cannot go to a folder; one that has a run may be `held`."""
    if out.exists() and not out.is_dir():
        raise usage_error("--out", f"{out}, which is a file", "a folder")
    if not held and any(found for pattern in _RUN_FILES for found in out.glob(pattern)):
        raise usage_error("--out", f"{out}, which holds a run", "a new folder", "--overwrite replaces that run.")


def environment() -> dict[str, Any]:
    """Versions and platform, for `config.json`."""
    packages = ("acqdesign", "jax", "jaxlib", "jax-finufft", "optax", "equinox", "numpy", "scipy")
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "backend": device.platform,
            "device": device.device_kind,
            "devices": jax.device_count(),
            "processes": jax.process_count(),
        },
    }


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Holds a lock on a folder that ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"{out}, which another run is writing to"
            raise usage_error("--out", what, "a folder of its own") from None
        yield
    finally:
        os.close(descriptor)
