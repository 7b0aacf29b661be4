"""What learned flips are worth: bounds of the command's schedules over those they start from.

An echo train at equal power against constant flips; a fingerprinting schedule, its changes from pulse to pulse
limited, against sinusoidal ones. Everything is learned by `acqdesign.learn_flips` and judged again here, from the
flips it wrote, in float64.

    python benchmarks/flips_quality.py [--steps 150] [--starts 4]
"""

import argparse
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _harness import machine, write_results

from acqdesign.design.flip_objectives import Schedule, relative_bounds
from acqdesign.learn_flips import main as learn

FSE = {"t1_ms": 1000, "t2_ms": 100, "echoes": 32, "esp_ms": 10, "tr_ms": 1000, "rms_flip_deg": 60}
MRF = {"t1_ms": 1380, "t2_ms": 80, "echoes": 400, "tr_ms": 10, "te_ms": 2, "ti_ms": 20, "max_step_deg": 1}


def learned(sequence: str, settings: dict[str, Any], *more: str) -> tuple[dict[str, Any], np.ndarray]:
    """Summary and flips [deg] of one run of the command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        flags = [
            text for key, value in settings.items() for text in ("--" + key.replace("_", "-"), str(value))
        ]
        flags += ["--sequence", sequence, "--precision", "double", "--no-figures", "--out", str(out), *more]
        if learn(flags):
            raise RuntimeError(f"learn_flips {' '.join(flags)} failed")
        with np.load(out / "design.npz") as design:
            return json.loads((out / "summary.json").read_text()), np.degrees(
                design["flips_rad"].astype(float)
            )


def bound(sequence: str, settings: dict[str, Any], target: str, degrees: np.ndarray) -> float:
    """Relative bound of a schedule of flips, in float64."""
    names = ("tr_ms", "esp_ms") if sequence == "fse" else ("tr_ms", "te_ms", "ti_ms")
    schedule = Schedule(sequence, **{name[:-3]: jnp.asarray(1e-3 * settings[name]) for name in names})
    tissue = (jnp.asarray(1e-3 * settings[name]) for name in ("t1_ms", "t2_ms"))
    params = {"flips": jnp.asarray(np.radians(degrees))}
    return float(relative_bounds(schedule, params, *tissue, jnp.asarray(1.0), target=target))


def sinusoids(count: int) -> dict[str, np.ndarray]:
    """Sinusoidal schedules [deg] as in use, all within 1° from pulse to pulse but where a hump of Ma's ends."""
    pulse = np.arange(count)
    hump = np.abs(np.sin(math.pi * pulse / 200))
    ma = (10 + 50 * np.sin(math.pi * (pulse % 250) / 250)) * np.where(pulse // 250 % 2, 0.5, 1.0)
    return {
        "10 + 50 sin, humps of 250, every second halved (Ma 2013)": ma,
        "10 + 50 |sin|, humps of 200": 10 + 50 * hump,
        "63 |sin|, humps of 200, as steep as allowed": 63 * hump,
        "45 |sin|, humps of 200": 45 * hump,
        "60 sin, one hump": 60 * np.sin(math.pi * pulse / count),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=150, help="optimisation steps (default: 150)")
    parser.add_argument("--starts", type=int, default=4, help="starts of each (default: 4)")
    args = parser.parse_args()
    how = ("--steps", str(args.steps), "--starts", str(args.starts))

    summary, flips = learned("fse", FSE, *how)
    jax.config.update("jax_enable_x64", True)
    constant = bound("fse", FSE, "t2", np.full(FSE["echoes"], float(FSE["rms_flip_deg"])))
    best = bound("fse", FSE, "t2", flips)
    report: dict[str, Any] = {
        "machine": machine(len(os.sched_getaffinity(0))),
        "settings": {"fse": FSE, "mrf": MRF, "steps": args.steps, "starts": args.starts},
        "fse": {
            "relative_bound_t2_constant": constant,
            "relative_bound_t2_learned": best,
            "variance_ratio": constant / best,
            "final_bound_of_each_start": summary["start_losses"],
            "rms_flip_deg": float(np.sqrt(np.mean(flips**2))),
            "flips_deg": flips.round(2).tolist(),
        },
    }
    print(f"FSE: T2 bound {constant:.3f} -> {best:.3f}, {constant / best:.2f} times lower")

    summary, flips = learned("mrf", MRF, *how)
    best = bound("mrf", MRF, "t1t2", flips)
    starts = {name: bound("mrf", MRF, "t1t2", s) for name, s in sinusoids(MRF["echoes"]).items()}
    report["mrf"] = {
        "relative_bound_learned": best,
        "final_bound_of_each_start": summary["start_losses"],
        "largest_step_deg": float(np.abs(np.diff(flips)).max()),
        "sinusoidal": {name: {"relative_bound": b, "variance_ratio": b / best} for name, b in starts.items()},
        "flips_deg": flips.round(2).tolist(),
    }
    for name, b in starts.items():
        print(f"MRF from {name}: {b:.3f} -> {best:.3f}, {b / best:.2f} times lower")
    write_results("flips_quality", report)


if __name__ == "__main__":
    main()
