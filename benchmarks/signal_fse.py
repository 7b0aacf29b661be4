"""Fast spin echo signals, derivatives and Cramér–Rao bounds: ours beside torchsim's, alternating in one run.

10,000 tissues, 96 echoes, float32: the signal, the gradient of its energy by the flips, its derivatives by T1 and T2,
and the relative bounds of T1 and T2 with their mean's gradient by the flips; then one tissue with the cost of
torchsim's example, 1 / Σ (dS/dT2)². torchsim runs with the 100 states that make its answer right, and with the 10
that it has unless told otherwise. What takes it longer than the run may is measured on fewer tissues and scaled, as
the JSON says. The error stands beside the time: of either side against exact derivatives of a float64 EPG.

`peers` writes signal_fse.json; `ours` writes signal_fse_scaling.json: how our time grows with pulses and tissues,
what steady states cost, what compiling takes, and the peak memory of 100,000 tissues with their gradient.

    python benchmarks/signal_fse.py [peers|ours|all] [--rounds 3] [--threads 2]
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _harness import Worker, alternate, machine, peers_python, serve, summary, timed, write_results

PULSES, TISSUES = 96, 10_000
ESP = 5e-3  # [s]
EXACT, DEFAULT = 100, 10  # torchsim's states
TASKS = ("signal", "flip gradient", "tissue derivatives", "bounds and flip gradient", "single tissue")
FEWER = {
    ("flip gradient", EXACT): 1000,
    ("tissue derivatives", EXACT): 1000,
    ("bounds and flip gradient", EXACT): 1000,
    ("bounds and flip gradient", DEFAULT): 2000,
}
"""Tissues on which torchsim is measured in a task, to be scaled."""
CHECKED = 5  # tissues compared with NumPy
SOME = np.arange(0, PULSES, 12)  # flips by which it differentiates


def problem(pulses: int = PULSES, tissues: int = TISSUES) -> dict[str, Any]:
    """Flips [rad] of a variable train, and tissues [s]."""
    flips = np.deg2rad(90 + 50 * np.cos(np.linspace(0, 2 * np.pi, pulses)))
    t1, t2 = np.linspace(0.3, 3.0, tissues), np.linspace(0.03, 0.3, tissues)
    if tissues == 1:
        flips, t1, t2 = np.full(pulses, np.deg2rad(60)), np.ones(1), np.full(1, 0.1)
    return {"flips": np.float32(flips), "t1": np.float32(t1), "t2": np.float32(t2)}


# ----------------------------------------------------------------------------- the sides
# Each answers with seconds and its value: (tissues, [2,] pulses) for the first tissues, or a gradient by flips.


def torchsim(task: str, flips: np.ndarray, t1: np.ndarray, t2: np.ndarray, states: int, repeats: int) -> dict:
    """torchsim's `FSESimulator` and `crlb`, which speak degrees and milliseconds."""
    import torch
    from torchsim.optim import crlb
    from torchsim.simulators import FSESimulator

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    angles = torch.tensor(np.rad2deg(flips), requires_grad=task not in ("signal", "tissue derivatives"))
    simulator = FSESimulator(flip=angles, ESP=1e3 * ESP, states=states)
    tissue = {"T1": torch.tensor(1e3 * t1), "T2": torch.tensor(1e3 * t2)}

    def cost() -> torch.Tensor:
        if task == "flip gradient":
            return (simulator.simulate(**tissue).abs() ** 2).sum()
        if task == "single tissue":
            return 1 / (simulator.jacobian(("T2",), **tissue)[1].abs() ** 2).sum()
        bounds = crlb(simulator.jacobian(("T1", "T2"), **tissue)[1])
        return (bounds / torch.stack([tissue["T1"], tissue["T2"]], dim=-1) ** 2).sum(-1).mean()

    def run() -> torch.Tensor:
        if task == "signal":
            return simulator.simulate(**tissue)
        if task == "tissue derivatives":
            return simulator.jacobian(("T1", "T2"), **tissue)[1]
        angles.grad = None
        cost().backward()
        return angles.grad

    value = run().detach().numpy()
    if task == "tissue derivatives":
        value = 1e3 * value
    elif task != "signal":
        value = value * 180 / np.pi
    seconds = timed(run, repeats)
    return {"seconds": seconds, "value": value.real[:CHECKED] if value.ndim > 1 else value}


@functools.cache
def compiled_task(task: str, pulses: int, tissues: int, options: str) -> tuple[Any, float]:
    """Our `FSE` and `crlb`, from plain JAX transformations, and the seconds that compiling took."""
    import jax
    import jax.numpy as jnp

    from acqdesign.scene import Tissue
    from acqdesign.signal import FSE, crlb

    def signal(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        return FSE(flips, ESP, **json.loads(options)).signal(Tissue(t1, t2))

    def derivatives(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        """By the logarithms of T1 and T2, `(2, tissues, pulses)`."""
        return jax.jacfwd(lambda s: signal(flips, t1 * jnp.exp(s[0]), t2 * jnp.exp(s[1])))(jnp.zeros(2))

    def by_times(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        return derivatives(flips, t1, t2) / jnp.stack([t1, t2], axis=-1)[:, None, :]

    def bounds(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        return crlb(derivatives(flips, t1, t2)).sum(-1).mean()

    def example(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        """In milliseconds, one tissue without a batch axis."""
        slope = jax.jvp(lambda t2: signal(flips, t1[0], t2), (t2[0],), (jnp.float32(1e-3),))[1]
        return 1 / (slope**2).sum()

    function = {
        "signal": signal,
        "flip gradient": jax.grad(lambda *args: (signal(*args) ** 2).sum()),
        "tissue derivatives": by_times,
        "bounds and flip gradient": jax.value_and_grad(bounds),
        "single tissue": jax.value_and_grad(example),
    }[task]
    args = [jax.ShapeDtypeStruct((size,), np.float32) for size in (pulses, tissues, tissues)]
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.perf_counter() - start


def acqdesign(
    task: str, flips: np.ndarray, t1: np.ndarray, t2: np.ndarray, repeats: int, options: dict[str, Any]
) -> dict:
    """Our side."""
    import jax
    import jax.numpy as jnp

    compiled, compile_seconds = compiled_task(task, flips.size, t1.size, json.dumps(options))
    args = [jnp.asarray(value) for value in (flips, t1, t2)]
    run = lambda: jax.block_until_ready(compiled(*args))  # noqa: E731
    value = run()
    value = np.asarray(value[1] if isinstance(value, tuple) else value)
    if task == "tissue derivatives":
        value = np.moveaxis(value[:CHECKED], -1, 1)
    return {
        "seconds": timed(run, repeats),
        "value": value[:CHECKED] if value.ndim > 1 else value,
        "compile_seconds": compile_seconds,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


# ----------------------------------------------------------------------------- the judge


def textbook(flips: np.ndarray, t1: np.ndarray, t2: np.ndarray) -> np.ndarray:
    """A CPMG train in NumPy, `(pulses, tissues)`: every order, and analytic in each complex argument."""
    half2, e1 = np.exp(-ESP / 2 / t2), np.exp(-ESP / t1)
    plus, minus, z = (np.zeros((len(flips) + 2, np.size(t1)), complex) for _ in range(3))
    plus[0] = half2
    none, echoes = np.zeros((1, np.size(t1))), []
    for flip in flips:
        sin, cos = np.sin(flip), np.cos(flip)
        kept, across = (plus + minus) / 2, (plus - minus) / 2
        across, z = cos * across + sin * z, e1 * (cos * z - sin * across)
        plus, minus = kept + across, kept - across
        echoes.append(half2 * minus[0])
        plus = half2**2 * np.concatenate([minus[:1], plus[:-1]])
        minus = half2**2 * np.concatenate([minus[1:], none])
    return np.array(echoes)


def slopes(flips: np.ndarray, t1: np.ndarray, t2: np.ndarray) -> np.ndarray:
    """Derivatives of `textbook` by T1 and T2, `(2, pulses, tissues)`, of eighth order in the step."""
    h = 1e-2
    found = []
    for by in ((1, 0), (0, 1)):
        at = [
            textbook(flips, t1 * (1 + k * h * by[0]), t2 * (1 + k * h * by[1]))
            - textbook(flips, t1 * (1 - k * h * by[0]), t2 * (1 - k * h * by[1]))
            for k in (1, 2, 3, 4)
        ]
        found.append(sum(c * a for c, a in zip((4 / 5, -1 / 5, 4 / 105, -1 / 280), at, strict=True)))
    return np.array(found) / (h * np.stack([t1, t2])[:, None])


def costs(task: str, flips: np.ndarray, t1: np.ndarray, t2: np.ndarray) -> complex:
    """What the gradient by flips is of, analytic in them."""
    if task == "flip gradient":
        return (textbook(flips, t1, t2) ** 2).sum()
    a, b = slopes(flips, t1, t2)
    if task == "single tissue":
        return 1e6 / (b**2).sum()
    aa, ab, bb = (a * a).sum(0), (a * b).sum(0), (b * b).sum(0)
    return ((bb / t1**2 + aa / t2**2) / (aa * bb - ab**2)).mean()


def judged(task: str, given: dict[str, np.ndarray]) -> np.ndarray:
    """The answer, of as many tissues or flips as are checked."""
    flips, t1, t2 = (given[name].astype(np.float64) for name in ("flips", "t1", "t2"))
    if task == "signal":
        return textbook(flips, t1[:CHECKED], t2[:CHECKED]).real.T
    if task == "tissue derivatives":
        return np.moveaxis(slopes(flips, t1[:CHECKED], t2[:CHECKED]).real, -1, 0)
    step = 1e-30j
    return np.array([costs(task, flips + step * (np.arange(flips.size) == i), t1, t2).imag / 1e-30 for i in SOME])


def relative(value: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


# ----------------------------------------------------------------------------- the runs


def ours_in(threads: int) -> Worker:
    return Worker("signal_fse.py", threads=threads)


def theirs_in(threads: int) -> Worker:
    return Worker("signal_fse.py", python=peers_python(), threads=threads)


def compare(task: str, rounds: int, threads: int) -> dict[str, Any]:
    """Times and errors of both sides in one task, taken in turn."""
    sizes = {"acqdesign": 1 if task == "single tissue" else TISSUES}
    for states in (EXACT, DEFAULT):
        sizes[f"torchsim, {states} states"] = FEWER.get((task, states), sizes["acqdesign"])
    given = {name: problem(tissues=size) for name, size in sizes.items()}
    result: dict[str, Any] = {name: {} for name in sizes}
    with theirs_in(threads) as peer, ours_in(threads) as ours:

        def call(name: str, given: dict[str, Any], repeats: int) -> dict[str, Any]:
            if name == "acqdesign":
                return ours.call(name, task=task, repeats=repeats, options={}, **given)
            states = int(name.split()[1])
            return peer.call("torchsim", task=task, states=states, repeats=repeats, **given)

        def turn(name: str) -> Callable[[], list[float]]:
            def run() -> list[float]:
                # torchsim's longer tasks once a round: getting the value has warmed it up.
                repeats = 5 if name == "acqdesign" or task in ("signal", "single tissue") else 1
                reply = call(name, given[name], repeats)
                if name == "acqdesign":
                    result[name] |= {key: reply[key] for key in ("compile_seconds", "temporary_bytes")}
                scale = sizes["acqdesign"] / sizes[name]
                return [scale * seconds for seconds in reply["seconds"]]

            return run

        times = alternate({name: turn(name) for name in sizes}, rounds=rounds)
        # Gradients add up over tissues: few are judged.
        few = problem(tissues=1) if task == "single tissue" else problem(tissues=20)
        truth = judged(task, few)
        for name, entry in result.items():
            value = call(name, few, 0)["value"]
            entry |= summary(times[name])
            entry["measured_on_tissues"] = sizes[name]
            entry["relative_error"] = relative(value[SOME] if value.ndim == 1 else value, truth)
    for states in (EXACT, DEFAULT):
        peer_s = result[f"torchsim, {states} states"]["median_s"]
        result[f"speedup_over_{states}_states"] = peer_s / result["acqdesign"]["median_s"]
    return result


def against_peers(rounds: int, threads: int) -> None:
    report: dict[str, Any] = {"machine": machine(threads), "versions": {}, "tasks": {}}
    report["settings"] = {"pulses": PULSES, "tissues": TISSUES, "rounds": rounds, "dtype": "float32"}
    for side, start, names in (
        ("torchsim", theirs_in, ["torchsim", "torch"]),
        ("acqdesign", ours_in, ["acqdesign", "jax"]),
    ):
        with start(threads) as worker:
            report["versions"][side] = worker.call("versions", names=names)
    for task in TASKS:
        entry = report["tasks"][task] = compare(task, rounds, threads)
        shown = ", ".join(
            f"{name} {1e3 * side['median_s']:.3g} ms (error {side['relative_error']:.0e})"
            for name, side in entry.items()
            if isinstance(side, dict)
        )
        ratios = " and ".join(f"{entry[f'speedup_over_{states}_states']:.1f}" for states in (EXACT, DEFAULT))
        print(f"{task}: {shown}: {ratios} times faster")
    write_results("signal_fse", report)


def scaling(threads: int) -> None:
    """Our seconds against pulses, tissues and kind of steady state; compile times; peak memory."""
    kinds: dict[str, dict[str, Any]] = {
        "one train": {},
        "steady state": {"tr": 1.0},
        "steady state, complete spoiling": {"tr": 1.0, "spoiling": "complete"},
    }
    cases = [("pulses", n, 1024, "one train") for n in (24, 48, 96, 192, 384)]
    cases += [("tissues", PULSES, n, "one train") for n in (1, 100, 1000, 10_000, 20_000)]
    cases += [("kinds", 32, n, kind) for kind in kinds for n in (1, 100)]
    report: dict[str, Any] = {"machine": machine(threads), "pulses": [], "tissues": [], "kinds": []}
    with ours_in(threads) as worker:
        report["versions"] = worker.call("versions", names=["acqdesign", "jax"])
        for curve, pulses, tissues, kind in cases:
            entry: dict[str, Any] = {"kind": kind, "pulses": pulses, "tissues": tissues}
            tasks = ["signal", "flip gradient"] + (["bounds and flip gradient"] if curve == "kinds" else [])
            for task in tasks:
                given = problem(pulses, tissues)
                reply = worker.call("acqdesign", task=task, repeats=7, options=kinds[kind], **given)
                entry[task] = {"median_s": float(np.median(reply["seconds"])), "compile_s": reply["compile_seconds"]}
            report[curve].append(entry)
            print(curve, entry)
    with ours_in(threads) as worker:
        worker.call("acqdesign", task="signal", repeats=0, options={}, **problem(4, 1))
        imports = worker.call("memory")["peak_rss_bytes"]
        worker.call("acqdesign", task="flip gradient", repeats=1, options={}, **problem(tissues=100_000))
        peak = worker.call("memory")["peak_rss_bytes"]
    report["memory of 100,000 tissues x 96 echoes with gradient"] = {
        "peak_rss_bytes": peak,
        "of_which_imports_bytes": imports,
    }
    print(f"peak memory {peak / 2**30:.2f} GiB, of which imports {imports / 2**30:.2f}")
    write_results("signal_fse_scaling", report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("peers", "ours", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="turns per side (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="cores for either side (default: 2)")
    args = parser.parse_args()
    if args.part != "ours":
        against_peers(args.rounds, args.threads)
    if args.part != "peers":
        scaling(args.threads)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve({"torchsim": torchsim, "acqdesign": acqdesign})
    else:
        main()
