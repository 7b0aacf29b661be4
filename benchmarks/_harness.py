"""What the benchmarks share: workers in other interpreters, alternating timings and the JSON they leave.

Standard library and NumPy only, so that every side can import it, whatever else its interpreter holds.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PEERS_ENV = "ACQDESIGN_PEERS_PYTHON"


def peers_python() -> str:
    """The interpreter that holds the peers: `ACQDESIGN_PEERS_PYTHON`, or this one where it has them."""
    given = os.environ.get(PEERS_ENV)
    if given:
        return given
    try:
        importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"No torch in {sys.executable}: run `nox -s bench`, or set {PEERS_ENV} (benchmarks/README.md).")
    return sys.executable


# ----------------------------------------------------------------------------- the worker's end


def serve(handlers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers calls, one JSON line each, until standard input closes.

    A handler takes the call's scalars and arrays by name and returns a dict of scalars and arrays. What a
    library prints goes to standard error. `memory` and `versions` are answered for every worker.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            arrays = dict(np.load(request["arrays"])) if request["arrays"] else {}
            handler = {"memory": memory, "versions": versions, **handlers}[request["call"]]
            reply = _split(handler(**request["scalars"], **arrays), request["folder"])
        except Exception:  # the caller raises it again, with this text
            reply = {"error": traceback.format_exc()}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def memory() -> dict[str, int]:
    """Resident memory of this process: now, and at its highest since it started [bytes]."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "rss_bytes": int(fields["VmRSS"].split()[0]) * 1024,
        "peak_rss_bytes": int(fields["VmHWM"].split()[0]) * 1024,
    }


def versions(names: Sequence[str]) -> dict[str, str]:
    """Installed versions of the named packages, and Python's."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _split(values: Mapping[str, Any], folder: str) -> dict[str, Any]:
    arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
    scalars = {k: v for k, v in values.items() if k not in arrays}
    path = ""
    if arrays:
        handle, path = tempfile.mkstemp(suffix=".npz", dir=folder)
        os.close(handle)
        np.savez(path, **arrays)
    return {"scalars": scalars, "arrays": path}


# ----------------------------------------------------------------------------- the driver's end


class Worker:
    """A script that calls `serve`, running in an interpreter of its own on the first `threads` cores."""

    def __init__(self, script: str, *, python: str = sys.executable, threads: int = 2, **env: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(allowed)[:threads])  # a child inherits it
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(HERE / script), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **counts, **env},
        )
        os.sched_setaffinity(0, allowed)

    def call(self, name: str, **values: Any) -> dict[str, Any]:
        """What the worker's handler `name` returns for these scalars and arrays."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"call": name, "folder": self._folder.name, **_split(values, self._folder.name)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{name}: the worker ended with code {self._process.wait()}.")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{name} failed in the worker:\n{reply['error']}")
        arrays = dict(np.load(reply["arrays"])) if reply["arrays"] else {}
        return {**reply["scalars"], **arrays}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._folder.cleanup()


def alternate(
    sides: Mapping[str, Callable[[], Sequence[float]]], *, rounds: int, settle_s: float = 0.3
) -> dict[str, list[float]]:
    """Times every side in turn, `rounds` times over, so that a change in the machine's load meets all.

    Each side's function returns the seconds that it measured; between two sides idle threads settle.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            time.sleep(settle_s)
            times[name].extend(run())
    return times


def timed(run: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of some calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float | int]:
    """Median, extremes and count of some timings."""
    return {
        "median_s": float(np.median(seconds)),
        "min_s": float(np.min(seconds)),
        "max_s": float(np.max(seconds)),
        "count": len(seconds),
    }


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two arrays, taken as vectors in float64."""
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def reference_start(shape: Sequence[int], lines: int, seed: int) -> tuple[np.ndarray, int]:
    """The reference recipe's first phase encodes `(lines, 2)` in cycles per voxel, and how many are fixed.

    `round(sqrt(0.3 lines))²` points on a square grid of half-width `side / 2 / nx`, the rest uniform.
    """
    side = round((0.3 * lines) ** 0.5)
    axis = np.linspace(-side / 2 / shape[0], side / 2 / shape[0], side)
    centre = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    free = np.random.default_rng(seed).random((lines - side**2, 2)) - 0.5
    return np.concatenate([centre, free]).astype(np.float32), side**2


def machine(threads: int) -> dict[str, Any]:
    """The machine that the figures belong to; says so where other work would spoil them."""
    load = round(os.getloadavg()[0], 2)
    if load > 0.5:
        print(f"The machine is busy (load {load}): threaded sides suffer most. Keep no timing from this run.")
    models = [s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_at_start": load,
    }


def write_results(name: str, results: Mapping[str, Any]) -> Path:
    """Writes `results/NAME.json` and says where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {path}")
    return path
