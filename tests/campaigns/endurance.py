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
import jax.numpy as jnp
import numpy as np
from jax import monitoring

from acqdesign.design.line_objectives import IterativeObjective
from acqdesign.encoding import StraightLineEncoding, initial_lines
from acqdesign.optim import CheckpointPolicy, fit, make_optimizer
from acqdesign.scene import load_brain

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
    shape = (8, 12, 10)
    image = load_brain(shape=shape)[None]
    lines = initial_lines("poisson", shape, key=jax.random.key(0), lines=40, calibration=4)
    encoding = StraightLineEncoding(jnp.zeros((1, 2)), shape, samples_per_line=16, backend="dft")
    objective = IterativeObjective(encoding, image, ridge=1e-3, iterations=5, noise=0.01, held_out=image)
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
        result = fit(
            objective,
            {"points": lines.points.astype(jnp.float32)},
            optimizer=make_optimizer("adam", 1e-3, steps=options.steps),
            steps=options.steps,
            key=jax.random.key(1),
            project=lambda p: {"points": jnp.clip(p["points"], -0.5, 0.5)},
            learned={"points": lines.learned[:, None]},
            snapshot_every=max(1, options.steps // 50),
            between=look,
            between_every=EVERY,
            checkpoint=CheckpointPolicy(Path(folder), every=1000),
            progress=False,
        )
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
