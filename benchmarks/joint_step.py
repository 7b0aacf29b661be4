"""Time, split and memory of one joint learning step of a 3D scan, and its growth with lines and coils.

90 x 108 x 90 voxels, 3 tissues, 8 coils, 4032 lines at 64 echoes, 10 iterations of conjugate gradients: value and
gradient in lines and flips, the noise's realisation included. Each case runs in a process of its own, for its peak
memory. The split is by differences: without noise, with fewer iterations, and the signal model alone.

    python benchmarks/joint_step.py [--steps 2] [--quick]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from _harness import machine, memory, write_results

SHAPE, LINES, COILS, ECHOES, ITERATIONS = (90, 108, 90), 4032, 8, 64, 10
ESP, TE = 5e-3, 65e-3  # [s]
FULL: dict[str, Any] = {
    "shape": SHAPE,
    "lines": LINES,
    "coils": COILS,
    "echoes": ECHOES,
    "iterations": ITERATIONS,
    "noise": 0.042,  # in each part of a sample
    "devices": 2,  # of the processor, that share the planes
}
CASES = {
    "full": {},
    "without noise": {"noise": 0.0},
    "one iteration, without noise": {"iterations": 1, "noise": 0.0},
    "a third of the lines": {"lines": LINES // 3},
    "half the coils": {"coils": COILS // 2},
    "one device": {"devices": 1},
}


def measure(case: dict[str, Any], steps: int) -> dict[str, Any]:
    """Seconds of each step, of compilation and of the signal model, and peak memory, in this process."""
    import jax

    jax.config.update("jax_num_cpu_devices", case["devices"])
    import jax.numpy as jnp
    from _step import value_and_gradient

    from acqdesign.base.sharding import device_mesh, place
    from acqdesign.design import Problem
    from acqdesign.encoding import Lines
    from acqdesign.recon import Prior
    from acqdesign.scene import brain
    from acqdesign.signal import FSE

    scene = brain(case["shape"], coils=case["coils"])
    start = Lines.start(scene, jax.random.key(0), lines=case["lines"], calibration=16)
    train = FSE(jnp.full(case["echoes"], 0.8, jnp.float32), ESP, te=TE)
    recon = Prior(iterations=case["iterations"])
    problem = Problem(scene, Lines(start.points), train, reconstruction=recon, noise=case["noise"])

    def timed(function: Any, *args: Any) -> tuple[float, list[float]]:
        begun = time.perf_counter()
        run = jax.jit(function).lower(*args).compile()
        compile_s = time.perf_counter() - begun
        seconds = []
        for _ in range(steps):
            begun = time.perf_counter()
            jax.block_until_ready(run(*args))
            seconds.append(time.perf_counter() - begun)
        return compile_s, seconds

    step, arguments = value_and_gradient(problem)
    mesh = device_mesh(f"planes={case['devices']}", {"planes": case["shape"][0]})
    with jax.set_mesh(mesh):
        compile_s, seconds = timed(step, *place(mesh, arguments))
    found = {"seconds": seconds, "compile_s": compile_s, **memory()}

    def pulled_back(flips: Any, tissue: Any) -> Any:
        signal, pull = jax.vjp(lambda flips: FSE(flips, ESP, te=TE).signal(tissue), flips)
        return pull(jnp.ones_like(signal))

    _, found["signal_seconds"] = timed(pulled_back, train.flips, scene.tissue)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="steps timed in each case (default: 2)")
    parser.add_argument("--quick", action="store_true", help="a small volume, to try the script; writes nothing")
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), help="some of the cases")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(json.loads(args.case), args.steps)))
        return

    at = machine(len(os.sched_getaffinity(0)))
    base = FULL | ({"shape": (24, 40, 32), "lines": 960, "coils": 2} if args.quick else {})
    report: dict[str, Any] = {"machine": at, "settings": base, "steps": args.steps, "cases": {}}
    for name in args.only or CASES:
        change = {k: (v * base[k] // FULL[k] if k in ("lines", "coils") else v) for k, v in CASES[name].items()}
        call = [sys.executable, __file__, "--steps", str(args.steps), "--case", json.dumps(base | change)]
        reply = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
        report["cases"][name] = json.loads(reply.splitlines()[-1])
        held = report["cases"][name]
        print(f"{name}: {min(held['seconds']):.2f} s, {held['peak_rss_bytes'] / 2**30:.2f} GiB", flush=True)

    best = {name: min(held["seconds"]) for name, held in report["cases"].items()}
    if set(best) == set(CASES):
        solve = (best["without noise"] - best["one iteration, without noise"]) * ITERATIONS / (ITERATIONS - 1)
        signal = min(report["cases"]["full"]["signal_seconds"])
        report["split_s"] = {
            "signal model": signal,
            "noise": best["full"] - best["without noise"],
            "conjugate gradients": solve,
            "kernels, data and the rest": best["without noise"] - solve - signal,
        }
        # At most 3 and 2 where the cost is linear or less.
        report["one device over two"] = best["one device"] / best["full"]
        report["growth"] = {
            "time, 3 times the lines": best["full"] / best["a third of the lines"],
            "time, twice the coils": best["full"] / best["half the coils"],
        }
        print(report["split_s"], report["growth"])
    if not args.quick:
        write_results("joint_step", report)


if __name__ == "__main__":
    main()
