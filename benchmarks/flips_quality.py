"""What learned flips are worth: bounds of the command's schedules over those they start from.

An echo train at equal power against constant flips; a fingerprinting schedule, its changes from pulse to pulse
limited, against sinusoidal ones. Everything is learned by `acqdesign.learn_flips` and judged again here, from the
flips it wrote, in float64.

    python benchmarks/flips_quality.py [fse mrf times zhao] [--steps 150] [--seeds 3]

`times` is `mrf` with repetition times and the inversion delay learned too, in the same scan time. `zhao` has the limits
of Zhao et al., IEEE Trans Med Imaging 38:844, 2019, against pseudo-random schedules within the same limits and of the
same duration, for white and grey matter. What is not run keeps its place in the results.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _harness import RESULTS, machine, write_results

from acqdesign import signal
from acqdesign.export import read_design
from acqdesign.learn_flips import main as learn
from acqdesign.optim import Limits, MeanAtMost, spline_basis
from acqdesign.scene import Tissue, tissues

FSE = {"t1_ms": 1000, "t2_ms": 100, "echoes": 32, "esp_ms": 10, "tr_ms": 1000, "rms_flip_deg": 60}
MRF = {"t1_ms": 1380, "t2_ms": 80, "echoes": 400, "tr_ms": 10, "te_ms": 2, "ti_ms": 20, "max_step_deg": 1}
ZHAO = {"tissue": "wm,gm", "echoes": 400, "tr_ms": 13, "te_ms": 2, "ti_ms": 20, "max_step_deg": 1}
ZHAO |= {"min_flip_deg": 10, "max_flip_deg": 60}
ZHAO_TR_MS = (11, 15)
ZHAO_WEIGHTS = ((1.0, 1.5), (2.0, 1.1))  # of T1 and T2, of white and of grey matter
# Where times are learned too: the mean TR stays that of MRF.
TR_MS, TI_MS = (8, 16), (5, 200)


def learned(
    sequence: str, settings: dict[str, Any], *more: str
) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    """Summary, flips [deg] and design of one run of the command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        flags = [text for key, value in settings.items() for text in ("--" + key.replace("_", "-"), str(value))]
        flags += ["--sequence", sequence, "--precision", "double", "--no-figures", "--out", str(out), *more]
        if learn(flags):
            raise RuntimeError(f"learn_flips {' '.join(flags)} failed")
        design = {name: array.astype(float) for name, array in read_design(out).items()}
        return json.loads((out / "summary.json").read_text()), np.degrees(design["flips_rad"]), design


@functools.cache
def judge(sequence: str) -> Callable[..., Any]:
    """Compiled once for all schedules of a sequence."""

    def relative(times: dict[str, Any], flips: Any, t1: Any, t2: Any) -> Any:
        if sequence == "fse":
            return signal.relative_bounds(signal.FSE(flips, **times), Tissue(t1, t2), ("t2",))
        return signal.relative_bounds(signal.SSFPFID(flips, **times), Tissue(t1, t2), ("t1", "t2"))

    return jax.jit(relative)


def bound(sequence: str, settings: dict[str, Any], degrees: np.ndarray, **changed: Any) -> float:
    """Relative bound of a schedule of flips, in float64: of T2 for echo trains, of T1 and T2 for fingerprinting."""
    held = settings | changed
    names = {"tr_ms": "tr", "esp_ms": "esp"}
    if sequence == "mrf":
        names = {"tr_ms": "tr", "te_ms": "te", "ti_ms": "inversion_time"}
    times = {argument: 1e-3 * jnp.asarray(held[name], float) for name, argument in names.items()}
    if sequence == "mrf":
        times["tr"] = jnp.broadcast_to(times["tr"], degrees.shape)
    tissue = (1e-3 * jnp.asarray(held[name], float) for name in ("t1_ms", "t2_ms"))
    return float(judge(sequence)(times, jnp.radians(degrees), *tissue))


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


def best_sinusoid(delay: float) -> tuple[str, np.ndarray]:
    """The best of a grid of `base + height |sin|` in period and phase, within the limits on flips and their steps."""
    pulse, tried = np.arange(MRF["echoes"]), {}
    grid = itertools.product(
        (0, 5, 10, 20), (30, 50, 63, 80), (60, 80, 100, 120, 133, 160, 200, 250, 300, 400), (0, 0.25, 0.5, 0.75)
    )
    for base, height, period, phase in grid:
        flips = base + height * np.abs(np.sin(math.pi * (pulse / period + phase)))
        if np.abs(np.diff(flips)).max() <= MRF["max_step_deg"] and flips.max() <= 90:
            tried[f"{base} + {height} |sin|, humps of {period} from {phase}"] = flips
    best = min(tried, key=lambda name: bound("mrf", MRF, tried[name], ti_ms=delay))
    return f"{best}: the best of {len(tried)}", tried[best]


def echo_trains(seeds: int, *how: str) -> dict[str, Any]:
    """Of the command as it stands, by seed."""
    constant = bound("fse", FSE, np.full(FSE["echoes"], float(FSE["rms_flip_deg"])))
    runs = []
    for seed in range(seeds):
        summary, flips, _ = learned("fse", FSE, "--seed", str(seed), *how)
        best = bound("fse", FSE, flips)
        print(f"FSE, seed {seed}: T2 bound {constant:.3f} -> {best:.3f}, {constant / best:.2f} times lower")
        runs.append(
            {
                "seed": seed,
                "relative_bound_t2_learned": best,
                "variance_ratio": constant / best,
                "variance_ratio_of_each_start": [constant / loss for loss in summary["start_losses"]],
                "rms_flip_deg": float(np.sqrt(np.mean(flips**2))),
                "flips_deg": flips.round(2).tolist(),
                **{name: summary[name] for name in ("compile_seconds", "seconds_per_step")},
            }
        )
    return {"settings": FSE, "relative_bound_t2_constant": constant, "runs": runs}


def fingerprinting(*how: str) -> dict[str, Any]:
    """Against sinusoidal schedules; with learned times, those too at the inversion delay that suits them best."""
    summary, flips, design = learned("mrf", MRF, *how)
    tr, ti = 1e3 * design["tr_s"], 1e3 * float(design["ti_s"])
    best = bound("mrf", MRF, flips, tr_ms=tr, ti_ms=ti)
    delays = np.linspace(*TI_MS, 40) if "--learn-ti-ms" in how else [MRF["ti_ms"]]
    rows = {}
    for name, flips_of in (*sinusoids(MRF["echoes"]).items(), best_sinusoid(delays[0])):
        found = min(bound("mrf", MRF, flips_of, ti_ms=delay) for delay in delays)
        rows[name] = {"relative_bound": found, "variance_ratio": found / best}
        print(f"MRF from {name}: {found:.3f} -> {best:.3f}, {found / best:.2f} times lower")
    return {
        "settings": MRF,
        "relative_bound_learned": best,
        "final_bound_of_each_start": summary["start_losses"],
        "largest_step_deg": float(np.abs(np.diff(flips)).max()),
        "mean_tr_ms": float(tr.mean()),
        "ti_ms": ti,
        "sinusoidal": rows,
        "flips_deg": flips.round(2).tolist(),
        **{name: summary[name] for name in ("compile_seconds", "seconds_per_step")},
    }


def pseudo_random(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Flips [deg] and TR [ms], smooth and random, of the whole ranges and the mean TR of `ZHAO`."""
    keys = jax.random.split(jax.random.key(seed))
    low, high = ZHAO["min_flip_deg"], ZHAO["max_flip_deg"]
    knots = [jax.random.uniform(key, (20,), minval=-1, maxval=1) for key in keys]
    basis = spline_basis(ZHAO["echoes"], 20)
    flips, tr = (np.asarray(basis @ knot) for knot in knots)
    flips = low + (high - low) * (flips - flips.min()) / np.ptp(flips)
    flips = np.asarray(Limits(low, high, step=ZHAO["max_step_deg"]).project(jnp.asarray(flips)))
    limit = MeanAtMost("tr", ZHAO["tr_ms"], *ZHAO_TR_MS)
    return flips, np.asarray(limit.project(jnp.asarray(ZHAO["tr_ms"] + 2 * tr / np.abs(tr).max())))


def both_times(scan: Any) -> Any:
    """The term that is learned: relative bounds, weighted so that of no tissue either time's bound stays behind."""
    tissue = dataclasses.replace(scan.scene.ensemble, m0=jnp.ones((), scan.scene.ensemble.t1.dtype))
    found = signal.tissue_bounds(scan.sequence, tissue, relative=True)
    return jnp.mean(found * jnp.asarray(ZHAO_WEIGHTS, found.dtype))


def as_published(*how: str) -> dict[str, Any]:
    """The learned schedule beside ten pseudo-random ones: relative bounds of T1 and T2 of each tissue."""
    start = time.perf_counter()
    summary, flips, design = learned("mrf", ZHAO, "--term", f"{__file__}:both_times", "--starts", "8", *how)
    lasted = time.perf_counter() - start
    tissue = dataclasses.replace(tissues(ZHAO["tissue"]), m0=jnp.ones(()))
    held = {"te": 1e-3 * ZHAO["te_ms"], "inversion_time": 1e-3 * ZHAO["ti_ms"]}

    @jax.jit
    def both(flips: Any, tr: Any) -> Any:
        return signal.tissue_bounds(signal.SSFPFID(jnp.radians(flips), 1e-3 * tr, **held), tissue, relative=True)

    found = np.asarray(both(flips, 1e3 * design["tr_s"]))
    random = [pseudo_random(seed) for seed in range(10)]
    others = np.stack([both(*each) for each in random])
    humps = np.maximum(sinusoids(ZHAO["echoes"])["10 + 50 sin, humps of 250, every second halved (Ma 2013)"], 10)
    lobes = np.stack([both(humps, tr) for _, tr in random])
    baselines = {
        "flips and TR, the median of ten": np.median(others, axis=0),
        "flips and TR, the best of ten": np.min(others, axis=0),
        "TR, with humps of 10 + 50 sin (Ma 2013), the best of ten": np.min(lobes, axis=0),
    }
    ratios = {
        which: {
            name: dict(zip(("t1", "t2"), (row / found[n]).tolist(), strict=True))
            for n, (name, row) in enumerate(zip(tissue.names, reduced, strict=True))
        }
        for which, reduced in baselines.items()
    }
    print(f"Zhao's limits: {lasted:.0f} s; variance lower than of pseudo-random schedules: {ratios}")
    return {
        "settings": ZHAO | {"learn_tr_ms": ZHAO_TR_MS},
        "relative_bounds_learned": dict(zip(tissue.names, found.tolist(), strict=True)),
        "variance_ratio_to_pseudo_random": ratios,
        "largest_step_deg": float(np.abs(np.diff(flips)).max()),
        "flip_range_deg": [float(flips.min()), float(flips.max())],
        "mean_tr_ms": float(1e3 * design["tr_s"].mean()),
        "seconds": lasted,
        "steps": summary["steps"],
        "flips_deg": flips.round(2).tolist(),
        "tr_ms": (1e3 * design["tr_s"]).round(3).tolist(),
        **{name: summary[name] for name in ("compile_seconds", "seconds_per_step")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="fse, mrf, times, zhao (default: all)")
    parser.add_argument("--steps", type=int, default=150, help="optimisation steps (default: 150)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the echo train (default: 3)")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    steps = ("--steps", str(args.steps))
    times = ("--learn-tr-ms", *map(str, TR_MS), "--learn-ti-ms", *map(str, TI_MS))
    parts = {
        "fse": lambda: echo_trains(args.seeds, *steps),
        "mrf": lambda: fingerprinting(*steps),
        "times": lambda: fingerprinting(*steps, *times),
        "zhao": lambda: as_published(*steps, "--learn-tr-ms", *map(str, ZHAO_TR_MS)),
    }
    path = RESULTS / "flips_quality.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for part in args.parts or parts:
        report[part] = {"machine": machine(len(os.sched_getaffinity(0))), **parts[part]()}
    write_results("flips_quality", report)


if __name__ == "__main__":
    main()
