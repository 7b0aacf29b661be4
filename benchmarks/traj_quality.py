"""What the learned positions are worth: ours beside mri-nufft's recipe in equally many steps.

Two questions. Does the reference recipe, from the same starts, end at a lower loss? The sides' losses differ
in their density compensation, so the points of either are judged by both. And do the positions of our
default recipe give a better image? That is judged by SigPy's CG on mri-nufft's operators, without and with
noise, on the image learned on and on one that was not.

    python benchmarks/traj_quality.py [--seeds 10] [--threads 2]
"""

import argparse
import itertools
from typing import Any

import numpy as np
from _harness import Worker, machine, peers_python, reference_start, write_results

from acqdesign.scene import load_brain

SHAPE, LINES, SAMPLES = (23, 28, 23), 253, 128
STEPS, LR, DENSITY_ITERATIONS = 40, 1e-2, 10
CG_ITERATIONS = 30
NOISES = {"noise-free": (0.0, 1e-4), "noisy": (0.05, 0.05**2)}  # noise over the image's RMS, ridge
IMAGES = {"learned_on": "T1w", "not_learned_on": "T2w"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="random starts (default: 10)")
    parser.add_argument("--threads", type=int, default=2, help="cores for either side (default: 2)")
    args = parser.parse_args()

    at = machine(args.threads)
    images = {k: np.asarray(load_brain(shape=SHAPE, contrast=c), np.float32) for k, c in IMAGES.items()}
    recipe = {
        "image": images["learned_on"],
        "samples_per_line": SAMPLES,
        "density_iterations": DENSITY_ITERATIONS,
        "lr": LR,
    }
    loss_alone = {key: value for key, value in recipe.items() if key != "lr"}
    loss_alone |= {"precision": "single", "coordinates": np.zeros(0, np.int64), "step": 0.0}
    default_recipe = {"shape": SHAPE, "lines": LINES, "samples_per_line": SAMPLES, "steps": STEPS}
    losses: dict[str, list[float]] = {}
    nrmse: dict[str, list[float]] = {}
    with (
        Worker("mrinufft_peer.py", python=peers_python(), threads=args.threads) as peer,
        Worker("traj_ours.py", threads=args.threads) as ours,
    ):
        for seed in range(args.seeds):
            start, fixed = reference_start(SHAPE, LINES, seed)
            theirs = peer.call("learn", points=start, fixed=fixed, steps=STEPS, **recipe)
            mine = ours.call("learn", points=start, fixed=fixed, steps=STEPS, **recipe)
            default = ours.call("learn_default", seed=seed, **default_recipe)
            ends = {"mrinufft": theirs["points"], "acqdesign": mine["points"]}
            for judge, worker in (("mrinufft", peer), ("acqdesign", ours)):
                for name, points in {"start": start, **ends}.items():
                    reply = worker.call("gradient", points=points, fixed=fixed, **loss_alone)
                    losses.setdefault(f"{name}_judged_by_{judge}", []).append(reply["loss"])
            designs = {"start": start, "mrinufft": ends["mrinufft"], "acqdesign_reference": ends["acqdesign"]}
            designs["acqdesign_default"] = default["points"]
            for name, points in designs.items():
                for (label, (noise, ridge)), (kind, image) in itertools.product(NOISES.items(), images.items()):
                    how = {"noise": noise, "ridge": ridge, "iterations": CG_ITERATIONS, "seed": seed}
                    given = {"image": image, "points": points, "samples_per_line": SAMPLES}
                    reply = peer.call("reconstruct", **given, **how)
                    nrmse.setdefault(f"{name} {label} {kind}", []).append(reply["nrmse"])
            print(f"seed {seed}: loss {theirs['losses'][-1]:.3f} mri-nufft, {mine['losses'][-1]:.3f} acqdesign")

    means = {key: float(np.mean(values)) for key, values in nrmse.items()}
    cells = [f"{label} {kind}" for label in NOISES for kind in images]
    report: dict[str, Any] = {
        "machine": at,
        "settings": {
            "shape": SHAPE, "lines": LINES, "samples": SAMPLES, "steps": STEPS, "lr": LR, "seeds": args.seeds,
            "density_iterations": DENSITY_ITERATIONS, "cg_iterations": CG_ITERATIONS,
            "noise_over_rms_and_ridge": NOISES, "images": IMAGES,
        },
        "final_loss": {key: {"mean": float(np.mean(v)), "per_seed": v} for key, v in losses.items()},
        "nrmse": {key: {"mean": means[key], "per_seed": v} for key, v in nrmse.items()},
        "nrmse_ratio_default_to_mrinufft": {
            cell: means[f"acqdesign_default {cell}"] / means[f"mrinufft {cell}"] for cell in cells
        },
    }  # fmt: skip
    for cell, ratio in report["nrmse_ratio_default_to_mrinufft"].items():
        print(f"NRMSE, {cell}: default recipe over mri-nufft's {ratio:.3f}")
    write_results("traj_quality", report)


if __name__ == "__main__":
    main()
