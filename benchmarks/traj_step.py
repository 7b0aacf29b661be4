"""One learning step of straight-line positions: ours beside mri-nufft's, alternating in one run.

Same image, same start, same density iterations, same Adam; a step is value, gradient, update and clip. The
JSON holds the error beside the time: each side's gradient against central differences of its own loss in
float64, and peak memory of a process that did nothing else. Our step is timed with 256 and with 1024 samples a
line, too, of which it should not depend.

    python benchmarks/traj_step.py [--rounds 5] [--threads 2] [--cases reference large]
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from _harness import Worker, alternate, cosine, machine, peers_python, reference_start, summary, write_results

from acqdesign.scene import load_brain

CASES: dict[str, dict[str, Any]] = {
    # Steps a turn, of which its median counts.
    "reference": {"shape": (23, 28, 23), "lines": 253, "samples": 128, "steps": {"mrinufft": 4, "acqdesign": 40}},
    "large": {"shape": (90, 108, 90), "lines": 2000, "samples": 256, "steps": {"mrinufft": 2, "acqdesign": 6}},
}
DENSITY_ITERATIONS = 10
LR = 1e-2
READOUTS = (256, 1024)
COORDINATES = 64  # of the gradient that are checked by central differences
STEP = 1e-4  # of those differences [cycles/voxel]


def sides(threads: int) -> dict[str, Callable[[], Worker]]:
    """How to start a worker of either side."""
    return {
        "mrinufft": lambda: Worker("mrinufft_peer.py", python=peers_python(), threads=threads),
        "acqdesign": lambda: Worker("traj_ours.py", threads=threads),
    }


def problem(case: dict[str, Any]) -> dict[str, Any]:
    """The arguments that both sides' `learn` take."""
    points, fixed = reference_start(case["shape"], case["lines"], seed=0)
    return {
        "image": np.asarray(load_brain(shape=case["shape"], contrast="T1w"), np.float32),
        "points": points,
        "fixed": fixed,
        "samples_per_line": case["samples"],
        "density_iterations": DENSITY_ITERATIONS,
    }


def time_steps(case: dict[str, Any], rounds: int, threads: int) -> dict[str, Any]:
    """Timings of both sides, taken in turn."""
    starts, given = sides(threads), problem(case)
    with starts["mrinufft"]() as peer, starts["acqdesign"]() as ours:
        workers, replies = {"mrinufft": peer, "acqdesign": ours}, {}

        def steps_of(name: str) -> Callable[[], list[float]]:
            def run() -> list[float]:
                replies[name] = workers[name].call("learn", steps=case["steps"][name], lr=LR, **given)
                return [replies[name]["seconds_per_step"]]

            return run

        for name in workers:  # once before any timing: compilation, plans, page faults
            steps_of(name)()
        compile_seconds = replies["acqdesign"]["compile_seconds"]
        times = alternate({name: steps_of(name) for name in workers}, rounds=rounds)
        result = {name: summary(seconds) for name, seconds in times.items()}
        result["mrinufft"]["density_share"] = float(
            replies["mrinufft"]["density_seconds_per_step"] / replies["mrinufft"]["seconds_per_step"]
        )
        result["acqdesign"]["compile_seconds"] = compile_seconds
        result["acqdesign"]["bound"] = ours.call("bound", **given)
    return result


def readout_dependence(case: dict[str, Any], rounds: int, threads: int) -> dict[str, Any]:
    """Our step with few and with many samples a line, in turn."""
    with sides(threads)["acqdesign"]() as worker:

        def steps_with(samples: int) -> Callable[[], list[float]]:
            given = problem(case | {"samples": samples})
            steps = case["steps"]["acqdesign"]
            return lambda: [worker.call("learn", steps=steps, lr=LR, **given)["seconds_per_step"]]

        turns = {str(samples): steps_with(samples) for samples in READOUTS}
        for turn in turns.values():
            turn()
        times = {name: summary(seconds) for name, seconds in alternate(turns, rounds=rounds).items()}
    few, many = (times[str(samples)]["median_s"] for samples in READOUTS)
    return {"seconds_by_samples": times, "ratio": many / few}


def peak_memory(case: dict[str, Any], threads: int) -> dict[str, dict[str, int]]:
    """Peak resident memory of either side in a process of its own, with what its imports alone take."""
    result = {}
    for name, start in sides(threads).items():
        with start() as worker:
            imported = worker.call("memory")["rss_bytes"]
            worker.call("learn", steps=3, lr=LR, **problem(case))
            peak = worker.call("memory")["peak_rss_bytes"]
        result[name] = {"peak_rss_bytes": peak, "imported_rss_bytes": imported}
    return result


def operator_difference(case: dict[str, Any], threads: int) -> dict[str, float]:
    """Relative difference between the sides' forward operators, and their adjoints of that."""
    given = {key: value for key, value in problem(case).items() if key in ("image", "points", "samples_per_line")}
    values = {}
    for name, start in sides(threads).items():
        with start() as worker:
            values[name] = worker.call("operators", **given)
    ours, peer = values["acqdesign"], values["mrinufft"]
    return {k: float(np.linalg.norm(ours[k] - peer[k]) / np.linalg.norm(peer[k])) for k in ("forward", "adjoint")}


def gradient_errors(case: dict[str, Any], threads: int) -> dict[str, Any]:
    """Each side's float32 gradient against central differences of its own loss in float64."""
    given, result, gradients = problem(case), {}, {}
    free = 2 * (case["lines"] - given["fixed"])
    chosen = np.sort(np.random.default_rng(1).choice(free, COORDINATES, replace=False))
    for name, start in sides(threads).items():
        with start() as worker:
            nothing = np.zeros(0, np.int64)
            single = worker.call("gradient", precision="single", coordinates=nothing, step=STEP, **given)
            double = worker.call("gradient", precision="double", coordinates=chosen, step=STEP, **given)
        gradients[name] = single["gradient"]
        result[name] = {
            "loss_single": single["loss"],
            "loss_double": double["loss"],
            "cosine_to_central_differences": cosine(single["gradient"].ravel()[chosen], double["differences"]),
            "norm_over_central_differences": float(
                np.linalg.norm(single["gradient"].ravel()[chosen]) / np.linalg.norm(double["differences"])
            ),
            "cosine_single_to_double": cosine(single["gradient"], double["gradient"]),
        }
    result["cosine_between_sides"] = cosine(gradients["mrinufft"], gradients["acqdesign"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns per side (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="cores for either side (default: 2)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    args = parser.parse_args()

    report: dict[str, Any] = {"machine": machine(args.threads), "versions": {}, "cases": {}}
    report["settings"] = {"density_iterations": DENSITY_ITERATIONS, "lr": LR, "rounds": args.rounds}
    names = {"mrinufft": ["mri-nufft", "finufft", "torch"], "acqdesign": ["acqdesign", "jax", "jax-finufft"]}
    for side, start in sides(args.threads).items():
        with start() as worker:
            report["versions"][side] = worker.call("versions", names=names[side])
    for name in args.cases:
        case = CASES[name]
        seconds = time_steps(case, args.rounds, args.threads)
        speedup = seconds["mrinufft"]["median_s"] / seconds["acqdesign"]["median_s"]
        entry = {k: case[k] for k in ("shape", "lines", "samples")}
        entry |= {"step": seconds, "speedup": speedup, "memory": peak_memory(case, args.threads)}
        entry["readout"] = readout_dependence(case, args.rounds, args.threads)
        entry["operators_differ_by"] = operator_difference(case, args.threads)
        if name == "reference":  # central differences at the large size would take an hour
            entry["error"] = gradient_errors(case, args.threads)
        report["cases"][name] = entry
        ours, peer = seconds["acqdesign"]["median_s"], seconds["mrinufft"]["median_s"]
        print(f"{name}: mri-nufft {peer:.4f} s, acqdesign {ours:.4f} s a step: {speedup:.1f} times faster")
        parts = ", ".join(f"{part[:-2]} {1e3 * s:.2f} ms" for part, s in seconds["acqdesign"]["bound"].items())
        print(f"{name}: of our {1e3 * ours:.2f} ms, value and gradient of each part alone: {parts}")
        print(f"{name}: {READOUTS[1]} samples a line over {READOUTS[0]}: {entry['readout']['ratio']:.3f} of the time")
    write_results("traj_step", report)


if __name__ == "__main__":
    main()
