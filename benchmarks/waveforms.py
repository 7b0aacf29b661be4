"""Seconds and error of the nearest waveforms within limits of gradient and slew, ours beside mri-nufft's.

Both sides take turns on the same cores, with the same paths and limits: 40 mT/m, 180 T/m/s, samples 10 µs apart, voxels
of 1 mm, k = 0 held in the middle of kooshballs. Ours also begins and ends at rest, as a scanner has to; theirs,
`project_trajectory`, is free at its ends, and judged without them. A few shots are solved by the interior-point method
of Clarabel.

    python benchmarks/waveforms.py [--wish kooshball random] [--shots 64] [--samples 1024] [--rounds 1]
"""

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
from _harness import RESULTS, Worker, alternate, machine, peers_python, serve, summary, versions, write_results

GRADIENT, SLEW, DWELL, VOXEL, GAMMA = 40e-3, 180.0, 10e-6, 1e-3, 42.577478518e6
STEP, BEND = GAMMA * GRADIENT * DWELL * VOXEL, GAMMA * SLEW * DWELL**2 * VOXEL


def wishes(name: str, shots: int, samples: int) -> np.ndarray:
    """Paths `(shots, samples, 3)` [cycles/voxel]."""
    if name == "kooshball":
        n = np.arange(shots)
        height, azimuth = 1 - 2 * (n + 0.5) / shots, 2 * np.pi * (n * 0.6180339887 % 1)
        across = np.sqrt(1 - height**2)
        directions = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), height], axis=-1)
        return np.linspace(-0.5, 0.5, samples)[None, :, None] * directions[:, None]
    # Cosines with random amplitudes, up to a wavelength at which slew is broken half as much again as gradient.
    rng, time = np.random.default_rng(0), np.linspace(0, 1, samples)
    waves = np.arange(1, samples // 36)
    amplitudes = rng.normal(size=(shots, len(waves), 3)) / np.sqrt(waves)[:, None]
    paths = np.einsum("wt,swd->std", np.cos(np.pi * waves[:, None] * time), amplitudes)
    return paths * 2.1 * STEP / np.linalg.norm(np.diff(paths, axis=1), axis=-1).max()


def broken(paths: np.ndarray, *, ends: bool) -> dict[str, float]:
    """Largest gradient and slew over their limits, less one, in float64."""
    steps = np.diff(np.asarray(paths, np.float64), axis=1)
    rest = np.zeros_like(steps[:, :1])
    bends = np.diff(np.concatenate([rest, steps, rest], axis=1) if ends else steps, axis=1)
    largest = [np.linalg.norm(x, axis=-1).max() for x in (steps, bends)]
    return {"gradient": largest[0] / STEP - 1, "slew": largest[1] / BEND - 1}


def ours(paths: np.ndarray, double: bool, hold: int) -> dict[str, Any]:
    """What the package finds, and the seconds of the second call."""
    import jax

    jax.config.update("jax_enable_x64", double)
    from acqdesign.optim import PathLimits

    limits = PathLimits("paths", STEP, BEND, held=() if hold < 0 else ((hold, 0.0),))
    project, paths = jax.jit(limits.project), jax.numpy.asarray(paths, "float64" if double else "float32")
    begin = time.perf_counter()
    jax.block_until_ready(project(paths))
    middle = time.perf_counter()
    found = jax.block_until_ready(project(paths))
    end = time.perf_counter()
    return {"found": np.asarray(found), "first_s": middle - begin, "seconds": end - middle}


def theirs(paths: np.ndarray, iterations: int, hold: int) -> dict[str, Any]:
    """What mri-nufft finds, and its seconds."""
    from mrinufft.trajectories.projection import project_trajectory
    from mrinufft.trajectories.utils import Acquisition, Hardware

    hardware = Hardware(gmax=GRADIENT, smax=SLEW, grad_raster_time=DWELL)
    size = round(0.256 / VOXEL)
    scan = Acquisition((0.256,) * 3, (size,) * 3, hardware)
    te = None if hold < 0 else hold / paths.shape[1]
    begin = time.perf_counter()
    found = project_trajectory(np.array(paths), scan, safety_factor=1.0, max_iter=iterations, TE_pos=te, verbose=0)
    return {"found": np.asarray(found), "seconds": time.perf_counter() - begin}


def nearest(paths: np.ndarray, hold: int) -> dict[str, Any]:
    """Distances from the wish to the nearest allowed path, by Clarabel."""
    import clarabel
    import scipy.sparse as sp

    _, n, d = paths.shape
    first = sp.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(n - 1, n))
    rows = sp.vstack([first / STEP, -first.T @ first / BEND])
    # A cone (1, row · x) each; then what is held.
    count = rows.shape[0]
    spread = sp.kron(sp.eye_array(count), np.eye(d + 1)[:, 1:])
    system = -spread @ sp.kron(rows, sp.eye_array(d))
    right, cones = np.tile(np.eye(d + 1)[0], count), [clarabel.SecondOrderConeT(d + 1)] * count
    if hold >= 0:
        system = sp.vstack([sp.kron(np.eye(n)[hold : hold + 1], sp.eye_array(d)), system])
        right, cones = np.concatenate([np.zeros(d), right]), [clarabel.ZeroConeT(d), *cones]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    distances = []
    for path in paths:
        # Of the change, so that tolerances are relative to it.
        moved = right - system @ path.ravel()
        solver = clarabel.DefaultSolver(
            sp.csc_matrix(sp.eye_array(n * d)), np.zeros(n * d), sp.csc_matrix(system), moved, cones, settings
        )
        distances.append(np.linalg.norm(solver.solve().x))
    return {"distances": np.asarray(distances)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wish", nargs="+", choices=("kooshball", "random"), default=("kooshball", "random"))
    parser.add_argument("--shots", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument(
        "--iterations", type=int, default=1000, help="of mri-nufft, whose default this is; 0 leaves it out"
    )
    parser.add_argument("--judged", type=int, default=3, help="shots that Clarabel solves")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    name = "waveforms" if (options.shots, options.samples) == (64, 1024) else "waveforms_large"
    path = RESULTS / f"{name}.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results |= {"machine": machine(2), "versions": versions(("jax", "acqdesign"))}
    with Worker("waveforms.py") as own, Worker("waveforms.py", python=peers_python()) as peer:
        for wish in options.wish:
            paths, kept = wishes(wish, options.shots, options.samples), dict[str, Any]()
            given: dict[str, Any] = {"paths": paths, "hold": options.samples // 2 if wish == "kooshball" else -1}

            def run(side: str, worker: Worker, call: str, given: dict = given, kept: dict = kept, **more: Any) -> list:
                kept[side] = worker.call(call, **given, **more)
                return [kept[side]["seconds"]]

            sides = {"ours": lambda run=run: run("ours", own, "ours", double=True)}
            sides["ours, single"] = lambda run=run: run("ours, single", own, "ours", double=False)
            if options.iterations:
                sides["mri-nufft"] = lambda run=run: run("mri-nufft", peer, "theirs", iterations=options.iterations)
            times = alternate(sides, rounds=options.rounds)
            some = {"paths": paths[: options.judged], "hold": given["hold"]}
            best = peer.call("nearest", **some)["distances"] if options.judged else np.zeros(0)
            told: dict[str, Any] = {
                "shots": options.shots,
                "samples": options.samples,
                "wish": broken(paths, ends=True),
            }
            for side, seconds in times.items():
                found = kept[side]["found"]
                far = np.linalg.norm(found - paths, axis=(1, 2))
                told[side] = summary(seconds) | {
                    "broken": broken(found, ends=side != "mri-nufft"),
                    "distance": far.sum(),
                }
                if options.judged:
                    told[side]["distance over Clarabel's, less one"] = (far[: len(best)] / best - 1).tolist()
            told["iterations of mri-nufft"] = options.iterations
            if "mri-nufft" in times:
                told["times faster"] = float(np.median(times["mri-nufft"]) / np.median(times["ours"]))
            results[wish] = told
            print(wish, json.dumps(told, indent=1))
    write_results(name, results)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve({"ours": ours, "theirs": theirs, "nearest": nearest})
    else:
        main()
