"""Ten thousand steps of one fit: `nox -s endurance`. Memory stays flat, nothing is compiled again, no step slows down.

Memory and time are noted every hundred steps, in the fit's own process, between two steps; times are of the last
thousand steps beside the thousand after the first hundred. Noting compiles a copy at step 100, so compilations count
from step 200 on. Checkpoints are written as in any run.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from jax import monitoring

from acqdesign.design import Problem, learn
from acqdesign.encoding import Lines
from acqdesign.optim import Between, Checkpoints, Snapshots, make_optimizer
from acqdesign.recon import CG
from acqdesign.scene import brain

EVERY = 100


def resident_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text[text.index("VmRSS:") :].split(None, 2)[1]) * 1024


def versions() -> dict[str, str]:
    """What the result was found with."""
    names = ("jax", "numpy", "scipy", "h5py", "pypulseq", "nibabel")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    scene = brain((8, 12, 10))
    lines = Lines.poisson(scene, lines=40, calibration=4, samples=16, backend="dft")
    problem = Problem(scene, lines, reconstruction=CG(1e-3, 5), noise=0.01)
    compiled: list[float] = []
    marks: list[tuple[int, float, int, int]] = []

    def note(event: str, seconds: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(seconds)

    def look(step: int, params: object, memory: object) -> tuple[object, object]:
        marks.append((step, time.perf_counter(), resident_bytes(), len(compiled)))
        return params, memory

    monitoring.register_event_duration_secs_listener(note)
    with tempfile.TemporaryDirectory() as folder:
        result, _, _ = learn(
            problem,
            options.steps,
            optimizer=make_optimizer("adam", 1e-3, steps=options.steps),
            key=jax.random.key(1),
            callbacks=[
                Between(look, EVERY), Snapshots(max(1, options.steps // 50)), Checkpoints(Path(folder), 1000)
            ],
        )  # fmt: skip
    times = np.diff([mark[1] for mark in marks]) / EVERY * 1e3
    after, last = marks[0], marks[-1]
    early, late = float(np.median(times[:10])), float(np.median(times[-10:]))
    found = {
        "steps": result.steps,
        "resident_mib_after_100": round(after[2] / 2**20, 2),
        "resident_mib_at_the_end": round(last[2] / 2**20, 2),
        "growth_percent": round(100 * (last[2] / after[2] - 1), 3),
        "compilations_after_200": last[3] - marks[1][3],
        "early_ms_a_step": round(early, 4),
        "late_ms_a_step": round(late, 4),
        "drift_percent": round(100 * (late / early - 1), 2),
        "blocks_ms_a_step": [round(float(np.median(part)), 3) for part in np.array_split(times, 10)],
        "verdict": result.verdict,
    }
    found["versions"] = versions()
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    flat = found["growth_percent"] < 2 and found["compilations_after_200"] == 0
    return int(not (flat and found["drift_percent"] < 5))


if __name__ == "__main__":
    sys.exit(main())
