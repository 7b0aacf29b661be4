"""MR fingerprinting signals and derivatives: ours beside torchsim's, alternating in one run.

1000 pulses on 10,000 tissues at torchsim's default of 10 states, in float32: the signal, its derivatives by T1
and T2, and the gradient of its energy by the flips. The JSON holds the error beside the time: of both sides
against a float64 EPG of NumPy at equally many states, and of those states against all. It also holds how our
time grows with pulses, exact and truncated, and with tissues.

    python benchmarks/signal_mrf.py [--rounds 5] [--threads 2]
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _harness import Worker, alternate, machine, peers_python, serve, summary, timed, write_results

PULSES, TISSUES, STATES = 1000, 10_000, 10
TR, TI = 0.012, 0.02  # [s]
CHECKED = 5  # tissues compared with NumPy


def problem(pulses: int = PULSES, tissues: int = TISSUES) -> dict[str, Any]:
    """Flips [rad] and tissues [s] of a usual fingerprinting dictionary."""
    flips = np.abs(np.sin(np.arange(pulses) / 60)) + 0.05
    t1, t2 = np.linspace(0.3, 3.0, tissues), np.linspace(0.03, 0.3, tissues)
    return {"flips": np.float32(flips), "t1": np.float32(t1), "t2": np.float32(t2)}


# ----------------------------------------------------------------------------- the sides
# Each answers with seconds, its value as (tissues, …, pulses) for the first tissues, and what else it knows.


def torchsim(task: str, flips: np.ndarray, t1: np.ndarray, t2: np.ndarray, states: int, repeats: int) -> dict:
    """torchsim's `MRFSimulator`, which speaks degrees and milliseconds."""
    import torch
    from torchsim.simulators import MRFSimulator

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    angles = torch.tensor(np.rad2deg(flips), requires_grad=task == "flip gradient")
    simulator = MRFSimulator(flip=angles, TR=1e3 * TR, TI=1e3 * TI, states=states)
    tissue = {"T1": torch.tensor(1e3 * t1), "T2": torch.tensor(1e3 * t2)}

    def run() -> torch.Tensor:
        if task == "signal":
            return simulator.simulate(**tissue)
        if task == "tissue derivatives":
            return simulator.jacobian(("T1", "T2"), **tissue)[1]
        angles.grad = None
        (simulator.simulate(**tissue).abs() ** 2).sum().backward()
        return angles.grad

    value = run().detach().numpy()
    units = {"signal": 1.0, "tissue derivatives": 1e3, "flip gradient": 180.0 / np.pi}[task]
    value = units * (value if task == "flip gradient" else value[:CHECKED])
    return {"seconds": timed(run, repeats), "value": value.real}


def acqdesign(task: str, flips: np.ndarray, t1: np.ndarray, t2: np.ndarray, states: int | None, repeats: int) -> dict:
    """Our `SSFPFID`."""
    import jax
    import jax.numpy as jnp

    from acqdesign.scene import Tissue
    from acqdesign.signal import SSFPFID

    def signal(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        return SSFPFID(flips, TR, inversion_time=TI, n_states=states).signal(Tissue(t1, t2))

    def derivatives(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        def along(by_t1: jax.Array, by_t2: jax.Array) -> jax.Array:
            tangents = (by_t1 * jnp.ones_like(t1), by_t2 * jnp.ones_like(t2))
            return jax.jvp(lambda *times: signal(flips, *times), (t1, t2), tangents)[1]

        return jax.vmap(along, out_axes=-2)(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))

    gradient = jax.grad(lambda *args: (signal(*args) ** 2).sum())
    function = {"signal": signal, "tissue derivatives": derivatives, "flip gradient": gradient}[task]
    args = [jnp.asarray(value) for value in (flips, t1, t2)]
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_seconds = time.perf_counter() - start
    run = lambda: compiled(*args).block_until_ready()  # noqa: E731
    value = np.asarray(run())
    return {
        "seconds": timed(run, repeats),
        "value": value if task == "flip gradient" else value[:CHECKED],
        "compile_seconds": compile_seconds,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


# ----------------------------------------------------------------------------- the judge


def textbook(flips: np.ndarray, t1: np.ndarray, t2: np.ndarray, states: int) -> np.ndarray:
    """A complex EPG in NumPy, `(tissues, pulses)`, in the precision of its arguments."""
    e1, e2 = np.exp(-TR / t1), np.exp(-TR / t2)
    plus, minus, z = (np.zeros((states, t1.size), complex) for _ in range(3))
    z[0] = 1 - 2 * np.exp(-TI / t1)
    echoes = []
    for flip in flips:
        c, s, sine = np.cos(flip / 2) ** 2, np.sin(flip / 2) ** 2, np.sin(flip)
        plus, minus, z = (  # a pulse about y
            c * plus - s * minus + sine * z,
            -s * plus + c * minus + sine * z,
            -0.5 * sine * (plus + minus) + np.cos(flip) * z,
        )
        echoes.append(plus[0])
        plus, minus, z = e2 * plus, e2 * minus, e1 * z
        z[0] += 1 - e1
        minus = np.concatenate([minus[1:], np.zeros((1, t1.size))])
        plus = np.concatenate([minus[:1].conj(), plus[:-1]])
    return np.real(echoes).T


def judged(task: str, given: dict[str, np.ndarray], states: int) -> np.ndarray:
    """What a side should answer, by the textbook in float64 and central differences of it."""
    flips, t1, t2 = (given[name].astype(np.float64) for name in ("flips", "t1", "t2"))
    if task == "signal":
        return textbook(flips, t1[:CHECKED], t2[:CHECKED], states)
    if task == "tissue derivatives":
        t1, t2, h = t1[:CHECKED], t2[:CHECKED], 1e-4
        by_t1 = [textbook(flips, t1 * (1 + k * h), t2, states) for k in (1, -1)]
        by_t2 = [textbook(flips, t1, t2 * (1 + k * h), states) for k in (1, -1)]
        slopes = [(up - down) / (2 * h * t[:, None]) for (up, down), t in ((by_t1, t1), (by_t2, t2))]
        return np.stack(slopes, axis=1)
    some = np.arange(0, flips.size, flips.size // 8)
    h = 1e-4
    energies = [
        [(textbook(flips + k * h * (np.arange(flips.size) == i), t1, t2, states) ** 2).sum() for k in (1, -1)]
        for i in some
    ]
    return np.array([(up - down) / (2 * h) for up, down in energies])


def relative(value: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(value - truth) / np.linalg.norm(truth))


# ----------------------------------------------------------------------------- the runs


def sides(threads: int) -> dict[str, Callable[[], Worker]]:
    """How to start a worker of either side."""
    return {
        "torchsim": lambda: Worker("signal_mrf.py", python=peers_python(), threads=threads),
        "acqdesign": lambda: Worker("signal_mrf.py", threads=threads),
    }


def compare(task: str, rounds: int, threads: int) -> dict[str, Any]:
    """Times, errors and peak memory of both sides in one task, taken in turn."""
    given, replies, repeats = problem(), {}, 3
    starts = sides(threads)
    with starts["torchsim"]() as peer, starts["acqdesign"]() as ours:
        workers = {"torchsim": peer, "acqdesign": ours}

        def turn(name: str) -> Callable[[], list[float]]:
            def run() -> list[float]:
                replies[name] = workers[name].call(name, task=task, states=STATES, repeats=repeats, **given)
                return replies[name]["seconds"]

            return run

        times = alternate({name: turn(name) for name in workers}, rounds=rounds)
        peaks = {name: worker.call("memory")["peak_rss_bytes"] for name, worker in workers.items()}
    result: dict[str, Any] = {name: summary(seconds) for name, seconds in times.items()}
    if task == "flip gradient":  # a smaller problem for NumPy's many differences
        small = problem(200, 200)
        truth = judged(task, small, STATES)
        for name, start in starts.items():
            with start() as worker:
                value = worker.call(name, task=task, states=STATES, repeats=0, **small)["value"]
            result[name]["relative_error"] = relative(value[:: 200 // 8], truth)
    else:
        truth = judged(task, given, STATES)
        every = judged(task, given, PULSES)
        for name in workers:
            result[name]["relative_error"] = relative(replies[name]["value"], truth)
        result["error_of_so_few_states"] = relative(truth, every)
    for name in workers:
        result[name]["peak_rss_bytes"] = peaks[name]
    for key in ("compile_seconds", "temporary_bytes"):
        result["acqdesign"][key] = replies["acqdesign"][key]
    result["speedup"] = result["torchsim"]["median_s"] / result["acqdesign"]["median_s"]
    return result


def growth(threads: int) -> dict[str, list[dict[str, float | int]]]:
    """Our seconds for the signal against pulses, with all orders and with few, and against tissues."""
    cases = {
        "pulses, all orders": [(n, 256, None) for n in (125, 250, 500, 1000)],
        "pulses, 10 states": [(n, TISSUES, STATES) for n in (250, 500, 1000, 2000)],
        "tissues, 10 states": [(PULSES, n, STATES) for n in (2500, 5000, 10_000, 20_000)],
    }
    found: dict[str, list[dict[str, float | int]]] = {}
    with sides(threads)["acqdesign"]() as worker:
        for name, sizes in cases.items():
            for pulses, tissues, states in sizes:
                given = problem(pulses, tissues)
                reply = worker.call("acqdesign", task="signal", states=states, repeats=5, **given)
                entry = {"pulses": pulses, "tissues": tissues, "median_s": float(np.median(reply["seconds"]))}
                found.setdefault(name, []).append(entry)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns per side (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="cores for either side (default: 2)")
    args = parser.parse_args()

    report: dict[str, Any] = {"machine": machine(args.threads), "versions": {}, "tasks": {}}
    report["settings"] = {"pulses": PULSES, "tissues": TISSUES, "states": STATES, "rounds": args.rounds}
    names = {"torchsim": ["torchsim", "torch"], "acqdesign": ["acqdesign", "jax"]}
    for side, start in sides(args.threads).items():
        with start() as worker:
            report["versions"][side] = worker.call("versions", names=names[side])
    for task in ("signal", "tissue derivatives", "flip gradient"):
        entry = report["tasks"][task] = compare(task, args.rounds, args.threads)
        ours, peer = entry["acqdesign"]["median_s"], entry["torchsim"]["median_s"]
        print(f"{task}: torchsim {peer:.3f} s, acqdesign {ours:.3f} s: {entry['speedup']:.1f} times faster")
    report["growth"] = growth(args.threads)
    write_results("signal_mrf", report)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve({"torchsim": torchsim, "acqdesign": acqdesign})
    else:
        main()
