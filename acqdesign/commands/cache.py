"""Compiled programs kept between runs, in JAX's persistent cache."""

import hashlib
import os
import platform
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import jax

MOST_BYTES = 2**30
"""Of all that is kept, whatever the version of JAX and the machine; beyond it the oldest programs go."""
_UNREADABLE = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']*)'")


def usual_folder() -> Path:
    """In the user's cache folder, one for each version of JAX and kind of processor; may not be there yet."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kind = platform.processor() + platform.machine()
    with suppress(OSError):  # Linux alone has the file
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    machine = hashlib.sha256(kind.encode()).hexdigest()[:12]
    return root / "acqdesign" / f"jax-{jax.__version__}-{machine}"


def keep_programs(folder: Path | None) -> str | None:
    """Has JAX keep compiled programs in a folder, the usual one unless given, and shortens that.

    What to say where it cannot be used, JAX then compiling as if there were none; else None.
    """
    try:
        given, folder = folder, folder or usual_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if given is None and hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise PermissionError(0, "it belongs to another user")  # whose programs would be run
        with tempfile.TemporaryFile(dir=folder):
            pass
        if given is None:
            _shorten(folder.parent)
    except (OSError, RuntimeError) as error:  # the latter without a home
        return f"compiled programs are not kept, in {folder}: {getattr(error, 'strerror', None) or error}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return None


def _shorten(root: Path) -> None:
    files = [(path.stat(), path) for path in root.rglob("*") if path.is_file()]
    kept = 0
    for stat, path in sorted(files, key=lambda file: max(file[0].st_atime, file[0].st_mtime), reverse=True):
        kept += stat.st_size
        if kept > MOST_BYTES:
            path.unlink(missing_ok=True)


def of_cache(warning: str) -> str | None:
    """What to say, once a run, of JAX's warning that an entry cannot be read or written; None for other warnings.

    What cannot be read is removed, so that it is made anew.
    """
    found = _UNREADABLE.match(warning)
    if found is None:
        return None
    folder = Path(jax.config.values["jax_compilation_cache_dir"] or ".")
    for path in folder.glob(f"{found[2]}-*-cache") if found[1] == "reading" else ():
        with suppress(OSError):
            path.unlink()
    return f"programs in {folder} that cannot be {'read' if found[1] == 'reading' else 'written'} are compiled anew"
