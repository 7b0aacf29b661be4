"""One run on a GPU: learning steps and simulations, in seconds and over the card's measured copy bandwidth.

Cases: a step of the reference recipe; 256^3 with 10,000 lines x 512 samples; a joint step of a volume; fast spin echo
and fingerprinting with flip gradients for 1e5 and 1e6 tissues; beside them mri-nufft with cufinufft and torchsim on the
GPU where the peers' interpreter (ACQDESIGN_PEERS_PYTHON) has them. Each of ours is a process of its own, so that one
out of memory ends alone. Runs on whatever JAX's default device is; gpu_compiled.py says what XLA makes of the same
cases where there is none.

    python benchmarks/gpu.py [--quick] [--only CASE...]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from _harness import PEERS_ENV, machine, reference_start, summary, write_results
from _program import counted

STEPS = 10
CASES: dict[str, dict[str, Any]] = {
    "copy": {"kind": "copy", "size": 2**28},
    "reference step": {"kind": "traj", "shape": (23, 28, 23), "lines": 253, "samples": 128, "objective": "adjoint"},
    "large step": {"kind": "traj", "shape": (256, 256, 256), "lines": 10000, "samples": 512, "objective": "nrmse"},
    "joint step": {"kind": "joint", "shape": (90, 108, 90), "lines": 4032, "coils": 8, "tissues": 3, "anatomies": 1},
    "mrf 100000 tissues, all orders": {"kind": "mrf", "tissues": 10**5, "states": None},
    **{
        f"{kind} {tissues} tissues": {"kind": kind, "tissues": tissues}
        for kind in ("fse", "mrf")
        for tissues in (10**5, 10**6)
    },
}
# What a GPU without jax-finufft's CUDA half does.
CASES |= {f"{name}, dft": CASES[name] | {"backend": "dft"} for name in ("large step", "joint step")}
QUICK: dict[str, dict[str, Any]] = {
    "copy": {"kind": "copy", "size": 2**20},
    "reference step": CASES["reference step"] | {"shape": (7, 8, 7), "lines": 30, "samples": 14},
    "large step": CASES["large step"] | {"shape": (8, 8, 8), "lines": 40, "samples": 16},
    "joint step": CASES["joint step"] | {"shape": (2, 12, 12), "lines": 64, "coils": 2},
    "fse 100 tissues": {"kind": "fse", "tissues": 100, "pulses": 12},
    "mrf 100 tissues": {"kind": "mrf", "tissues": 100, "pulses": 20},
}
PULSES = {"fse": 96, "mrf": 1000}
STATES = 10  # of fingerprinting unless told otherwise, torchsim's own default; fast spin echo keeps all
PEER_CASES = {"reference step": "mri-nufft", "fse 100000 tissues": "torchsim", "mrf 100000 tissues": "torchsim"}


def prepare(case: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """A function to time and its arguments."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from _step import value_and_gradient

    if case["kind"] == "copy":
        return (lambda x: x + 1), (jnp.zeros(case["size"], jnp.float32),)
    if case["kind"] == "joint":
        from scaling import problem_of

        return value_and_gradient(problem_of(case))
    from acqdesign.scene import Tissue

    if case["kind"] == "traj":
        from acqdesign.design import Problem, nrmse, scaled_error
        from acqdesign.encoding import Lines
        from acqdesign.recon import CG, DensityAdjoint
        from acqdesign.scene import brain

        start, _ = reference_start(case["shape"], case["lines"], 0)
        points = np.clip(start, -0.5, 0.5)
        lines = Lines(points, samples=case["samples"], backend=case.get("backend", "auto"))
        adjoint = case["objective"] == "adjoint"
        terms, how = (scaled_error(), DensityAdjoint()) if adjoint else (nrmse(), CG())
        problem = Problem(brain(case["shape"]), lines, terms=terms, reconstruction=how)
        return value_and_gradient(problem)

    from acqdesign.signal import FSE, SSFPFID

    pulses = case.get("pulses", PULSES[case["kind"]])
    t1 = jnp.geomspace(0.3, 4, case["tissues"], dtype=jnp.float32)
    if case["kind"] == "fse":
        flips = jnp.full(pulses, 1.0, jnp.float32)
        return jax.value_and_grad(lambda f, t1: jnp.mean(FSE(f, 5e-3).signal(Tissue(t1, 0.08 * t1)) ** 2)), (flips, t1)
    flips = jnp.abs(jnp.sin(jnp.linspace(0, 12, pulses, dtype=jnp.float32)))

    def fingerprints(f: Any, t1: Any) -> Any:
        train = SSFPFID(f, 8e-3, 2e-3, inversion_time=0.02, n_states=case.get("states", STATES))
        return jnp.mean(jnp.abs(train.signal(Tissue(t1, 0.08 * t1))) ** 2)

    return jax.value_and_grad(fingerprints), (flips, t1)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Seconds, compile seconds, what XLA says of the program, and memory, in this process."""
    import jax

    function, arguments = prepare(case)
    begun = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    compile_s = time.perf_counter() - begun
    seconds = []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        found = jax.block_until_ready(program(*arguments))
        seconds.append(time.perf_counter() - begun)
    stats = jax.devices()[0].memory_stats() or {}
    result: dict[str, Any] = {
        **summary(seconds[1:]),
        "compile_s": compile_s,
        "program": counted(program.as_text()),
        "peak_memory_bytes": stats.get("peak_bytes_in_use"),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "finite": all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(found)),
    }
    if case["kind"] == "copy":
        result["bytes_per_s"] = 2 * 4 * case["size"] / result["median_s"]
    elif case["kind"] in ("fse", "mrf"):
        # What no program could do without: every tissue's echoes out and their gradient back.
        result["least_bytes"] = 2 * 4 * case["tissues"] * case.get("pulses", PULSES[case["kind"]])
    return result


# Programs for the peers' interpreter; `repeat` times a step and prints the result.
_REPEAT = """
import json, sys, time, types
import numpy as np, torch
case = json.loads(sys.argv[1])
def repeat(step):
    seconds = []
    for _ in range(11):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    print(json.dumps({"median_s": float(np.median(seconds[1:])), "device": torch.cuda.get_device_name()}))
"""
PEERS = {
    "mri-nufft": _REPEAT
    + """
from mrinufft import get_operator
free = torch.rand(case["lines"], 2) - 0.5
line, n = torch.linspace(-0.5, 0.5, case["samples"]), case["samples"]
along = line.repeat(len(free), 1)
samples = torch.stack([along, *(free[:, d].repeat(n, 1).T for d in (0, 1))], dim=-1).reshape(-1, 3)
operator = get_operator("cufinufft", wrt_data=True, wrt_traj=True)(
    samples.numpy(), shape=tuple(case["shape"]), density={"name": "pipe", "max_iter": 10}, squeeze_dims=False
)
image = torch.ones((1, *case["shape"]), dtype=torch.complex64, device="cuda")
def step():
    operator.samples = samples.cuda().requires_grad_(True)
    adjoint = operator.adj_op(operator.op(image)).abs()
    torch.autograd.grad(((adjoint / adjoint.mean() - 1) ** 2).mean(), operator.samples)
repeat(step)
""",
    "torchsim": _REPEAT
    + """
from torchsim.simulators import FSESimulator, MRFSimulator
flips = torch.full((case["pulses"],), 57.3, device="cuda", requires_grad=True)
t1 = torch.logspace(np.log10(300), np.log10(4000), case["tissues"], device="cuda")
if case["kind"] == "fse":
    simulator = FSESimulator(flip=flips, ESP=5.0, states=100)
else:
    simulator = MRFSimulator(flip=flips, TR=8.0, TI=20.0, states=case["states"])
def step():
    flips.grad = None
    (simulator.simulate(T1=t1, T2=0.08 * t1).abs() ** 2).mean().backward()
repeat(step)
""",
}


def peer(name: str, case: dict[str, Any]) -> dict[str, Any]:
    """A peer's seconds for a case, or why there are none."""
    python = os.environ.get(PEERS_ENV)
    if not python:
        return {"missing": f"{PEERS_ENV} is not set"}
    call = [python, "-W", "ignore", "-c", PEERS[name], json.dumps(case)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script; writes nothing")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="cases whose names begin so")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(json.loads(args.case))))
        return
    cases = QUICK if args.quick else CASES
    chosen = [name for name in cases if name == "copy" or not args.only or name.startswith(tuple(args.only))]
    report: dict[str, Any] = {"machine": machine(os.cpu_count() or 1), "cases": {}}
    for name in chosen:
        call = [sys.executable, __file__, "--case", json.dumps(cases[name])]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            held: dict[str, Any] = {"failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
        else:
            held = json.loads(done.stdout.splitlines()[-1])
        report["cases"][name] = held
        copied = report["cases"]["copy"].get("bytes_per_s")
        if copied and "program" in held:
            held["times_the_memory_limit"] = held["median_s"] / (held["program"]["bytes"] / copied)
        print(
            name,
            {key: held[key] for key in ("median_s", "times_the_memory_limit", "failed") if key in held},
            flush=True,
        )
    if not args.quick:
        report["peers"] = {}
        for name, package in PEER_CASES.items():
            case = CASES[name] | {"pulses": PULSES.get(CASES[name]["kind"]), "states": STATES}
            report["peers"][f"{package}: {name}"] = peer(package, case)
        write_results("gpu", report)
    if any("failed" in held for held in report["cases"].values()):
        sys.exit("some cases failed")


if __name__ == "__main__":
    main()
