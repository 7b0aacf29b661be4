"""Runs killed at any moment: `nox -s kill`, or `python tests/campaigns/kill.py --kills 20`.

A command is killed by SIGKILL either at a random time or at a random point of its writing: half-way through the bytes
of a file, before it is flushed, before or after it takes its name, before an old checkpoint goes. What stands under a
final name must then be readable, and the run, resumed (sometimes killed again meanwhile), must end with the same bytes
in design.npz and history.csv as one that was left in peace. Exports are killed and repeated likewise.

Commands run in processes forked after the imports, with JAX's cache of compiled programs. The points of writing are
those of the operating system's calls, which are watched from here: the package knows nothing of it.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

CACHE = Path(tempfile.mkdtemp(prefix="acqdesign-kill-cache-"))
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_COMPILATION_CACHE_DIR": str(CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from acqdesign import learn_flips, learn_joint, learn_traj  # noqa: E402
from acqdesign.export import __main__ as export  # noqa: E402
from acqdesign.export import read_positions  # noqa: E402

Main = Callable[[Sequence[str]], int]
COMMON = ["--deterministic", "--no-figures", "--seed", "3"]
LINES = ["--shape", "8", "10", "8", "--lines", "24", "--samples", "16"]
TRAINS = ["--shape", "1", "12", "12", "--lines", "24", "--echoes", "6", "--samples", "1", "--te-eff-ms", "15"]
JOBS: dict[str, tuple[Main, list[str]]] = {
    "learn_traj": (learn_traj.main, ["--steps", "40", "--checkpoint-every", "4", *LINES, *COMMON]),
    "learn_flips": (
        learn_flips.main,
        ["--steps", "60", "--checkpoint-every", "5", "--echoes", "12", "--optimizer", "adam", "--starts", "1", *COMMON],
    ),
    "learn_joint": (learn_joint.main, ["--steps", "30", "--checkpoint-every", "3", *TRAINS, *COMMON]),
}
EXPORTS = ("bin", "cfl", "mat", "mrd", "seq")
RESULTS = ("design.npz", "history.csv")

# ------------------------------------------------------------------------------------------- the watched process


class Watch:
    """Counts the points of writing, and ends the process without warning at one of them."""

    def __init__(self, stop: int | None, log: Path):
        self.stop, self.log, self.count, self.path = stop, log, 0, ""
        self.points: list[str] = []

    def point(self, what: str, path: Any = None) -> bool:
        """Whether this is where to stop."""
        if path is not None:
            self.path = str(path)
        self.points.append(f"{what} {self.path}")
        self.count += 1
        return self.count == self.stop

    def install(self) -> None:
        replace, fsync, unlink, fdopen = os.replace, os.fsync, os.unlink, os.fdopen

        def watched_replace(source: Any, target: Any) -> None:
            if self.point("before rename", target):
                die()
            replace(source, target)
            if self.point("after rename", target):
                die()

        def watched_fsync(descriptor: int) -> None:
            if self.point("before fsync"):
                die()
            fsync(descriptor)

        def watched_unlink(path: Any, **options: Any) -> None:
            if self.point("before unlink", path):
                die()
            unlink(path, **options)

        def watched_fdopen(descriptor: int, *args: Any, **options: Any) -> Any:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            return (
                File(fdopen(descriptor, *args, **options), self, name)
                if name.endswith(".tmp")
                else fdopen(descriptor, *args, **options)
            )

        os.replace, os.fsync, os.unlink, os.fdopen = (watched_replace, watched_fsync, watched_unlink, watched_fdopen)


class File:
    """A file whose writing can stop half-way."""

    def __init__(self, file: Any, watch: Watch, name: str):
        self._file, self._watch = file, watch
        watch.path = name

    def write(self, data: Any) -> int:
        if self._watch.point("half-way through writing"):
            self._file.write(bytes(data)[: len(bytes(data)) // 2])
            self._file.flush()
            die()
        return self._file.write(data)

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(main: Main, argv: list[str], log: Path, *, point: int | None = None, after_s: float | None = None) -> int:
    """Exit status of `main(argv)` in a process of its own: negative where a signal ended it."""
    log.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        said = os.open(log.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1), os.dup2(said, 2)
        watch = Watch(point, log)
        watch.install()
        code = 99
        try:
            code = main(argv)
        finally:
            log.write_text(json.dumps(watch.points))
            os._exit(code)
    end = None if after_s is None else time.monotonic() + after_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(0.002)


# ---------------------------------------------------------------------------------------------------- the checks


def unreadable(folder: Path) -> list[str]:
    """Files under final names that cannot be read whole."""
    wrong = []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.is_dir():
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as held:
                    assert all(held[name] is not None for name in held.files)
            elif path.suffix == ".csv":
                text = path.read_text()
                assert text.endswith("\n")
                assert len({line.count(",") for line in text.splitlines()}) == 1
            elif path.suffix in (".png", ".gif"):
                with Image.open(path) as image:
                    image.load()
            elif path.suffix[1:] in EXPORTS:
                read_positions(path)
        except Exception as error:
            wrong.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return wrong


def reference(name: str, work: Path) -> tuple[dict[str, bytes], list[str], float]:
    """What a run in peace leaves, twice in two processes; its points of writing; how long it takes."""
    main, argv = JOBS[name]
    found = []
    for n in range(2):
        out, begun = work / f"{name}-{n}", time.monotonic()
        code = run(main, ["--out", str(out), *argv], work / "log")
        if code:
            raise RuntimeError(f"{name} ends with {code}: {(work / 'log.said').read_text()[-2000:]}")
        found.append({file: (out / file).read_bytes() for file in RESULTS})
    if found[0] != found[1]:
        raise RuntimeError(f"{name}: two runs differ")
    return found[0], json.loads((work / "log").read_text()), time.monotonic() - begun


def trial(rng: random.Random, name: str, known: Any, work: Path) -> dict[str, Any]:
    """One run, killed once or more, then resumed to its end."""
    main, argv = JOBS[name]
    expected, points, seconds = known
    out, log = work / "run", work / "log"
    shutil.rmtree(out, ignore_errors=True)
    record: dict[str, Any] = {"command": name, "kills": [], "unreadable": []}
    args, again = ["--out", str(out), *argv], rng.choice((0, 0, 0, 1, 2))
    while True:
        if rng.random() < 0.4:
            after = rng.uniform(0, seconds)
            code, what = run(main, args, log, after_s=after), f"after {after:.3f} s"
        else:
            late = [n for n, text in enumerate(points) if "step-" not in text]
            at = rng.choice(late) if rng.random() < 0.4 else rng.randrange(len(points))
            # A resumed run writes less: what it does not reach does not kill it.
            code, what = (
                run(main, args, log, point=at + 1),
                " ".join((points[at].split(" /")[0], Path(points[at]).name)),
            )
        killed = code == -signal.SIGKILL
        record["kills"].append({"at": what, "killed": killed})
        record["unreadable"] += unreadable(out) if out.exists() else []
        begun = (out / "config.json").exists()
        args = ["--resume", str(out), "--deterministic"] if begun else ["--out", str(out), *argv]
        record.setdefault("begun", begun)
        if not again or not killed:
            break
        again -= 1
    code = run(main, args, log)
    record["exit"] = code
    record["same"] = all((out / f).exists() and (out / f).read_bytes() == expected[f] for f in RESULTS)
    record["unreadable"] += unreadable(out)
    record["left"] = [p.name for p in out.rglob(".*.tmp")]
    if code or not record["same"]:
        record["said"] = log.with_suffix(".said").read_text()[-500:]
    return record


def export_trial(rng: random.Random, form: str, source: Path, work: Path) -> dict[str, Any]:
    """One export over an older one, killed at a point of its writing, then repeated."""
    folder, log = work / "export", work / "log"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    argv = [str(folder), "--to", form, "--samples", "16"]
    if run(export.main, argv, log):
        raise RuntimeError(log.with_suffix(".said").read_text()[-2000:])
    names = [p.name for p in folder.glob("design.*") if p.suffix != ".npz"]
    expected = {name: (folder / name).read_bytes() for name in names}
    count = len(json.loads(log.read_text()))
    if rng.random() < 0.5:  # half of them over nothing
        for name in names:
            (folder / name).unlink()
    at = rng.randrange(count)
    code = run(export.main, argv, log, point=at + 1)
    record = {
        "command": f"export {form}",
        "kills": [{"at": f"point {at + 1} of {count}", "killed": code == -signal.SIGKILL}],
    }
    # BART's two files take their names one after the other: the first alone is refused, not misread.
    broken = unreadable(folder)
    record["unreadable"] = [] if form == "cfl" and len(list(folder.glob("design.[ch]*"))) == 1 else broken
    record["exit"] = run(export.main, argv, log)
    record["same"] = all((folder / name).read_bytes() == content for name, content in expected.items())
    record["unreadable"] += unreadable(folder)
    record["begun"] = True
    return record


def versions() -> dict[str, str]:
    """What the result was found with."""
    names = ("jax", "numpy", "scipy", "h5py", "pypulseq", "nibabel")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    rng, begun = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        known = {name: reference(name, work) for name in JOBS}
        for name, (_, points, seconds) in known.items():
            print(f"{name}: {seconds:.1f} s, {len(points)} points of writing", file=sys.stderr)
        trials: list[dict[str, Any]] = []
        killed = 0
        while killed < options.kills:
            turn = len(trials)
            if turn % 5 == 4:
                one = export_trial(rng, EXPORTS[turn // 5 % len(EXPORTS)], work / "learn_traj-0", work)
            else:
                one = trial(rng, list(JOBS)[turn % len(JOBS)], known[list(JOBS)[turn % len(JOBS)]], work)
            trials.append(one)
            killed += sum(kill["killed"] for kill in one["kills"])
            if one["exit"] or not one["same"] or one["unreadable"]:
                print(json.dumps(one, indent=1), file=sys.stderr)
    shutil.rmtree(CACHE, ignore_errors=True)
    places = Counter(
        "at a random time" if kill["at"].startswith("after") and " s" in kill["at"][-3:] else
        ("in an export" if one["command"].startswith("export") else kill["at"].rsplit(" ", 1)[0])
        for one in trials for kill in one["kills"] if kill["killed"]
    )  # fmt: skip
    result = {
        "kills": killed,
        "seed": options.seed,
        "runs": len(trials),
        "killed_again_while_resumed": sum(len(one["kills"]) > 1 for one in trials),
        "killed_before_config_json": sum(not one["begun"] for one in trials),
        "same_final_bytes": sum(one["same"] for one in trials),
        "other_exit_codes": sum(one["exit"] != 0 for one in trials),
        "unreadable_under_a_final_name": sum(len(one["unreadable"]) for one in trials),
        "places": dict(sorted(places.items())),
        "commands": dict(Counter(one["command"] for one in trials)),
        "seconds": round(time.monotonic() - begun),
    }
    result["versions"] = versions()
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    sound = result["same_final_bytes"] == len(trials) and not result["other_exit_codes"]
    return int(not sound or result["unreadable_under_a_final_name"] > 0)


if __name__ == "__main__":
    sys.exit(main())
