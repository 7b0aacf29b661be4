"""MR fingerprinting signals and derivatives: ours beside blochsim's, in turn in one run.

500 pulses after an inversion on 10,000 tissues, 32 and 10 states, in float32: the signal, its derivatives by T1 and T2,
and the gradient of its energy by the flips. The JSON holds the error beside the time: of both sides against a float64
EPG of NumPy at equally many states, and of those states against all. Ours runs twice: on one device, of which XLA uses
one core here, and on a device a core, tissues shared among them by `shard_map`. It also holds how our time grows with
pulses, orders and tissues.

    python benchmarks/signal_mrf.py [--rounds 5] [--threads 2]
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _harness import Worker, alternate, machine, peers_python, serve, summary, timed, write_results

PULSES, TISSUES, STATES = 500, 10_000, (32, 10)
TR, TI = 0.012, 0.02  # [s]
CHECKED = 5  # tissues compared with NumPy


def problem(pulses: int = PULSES, tissues: int = TISSUES) -> dict[str, Any]:
    """Flips [rad] and tissues [s] of a usual fingerprinting dictionary."""
    flips = np.abs(np.sin(np.arange(pulses) / 60)) + 0.05
    t1, t2 = np.linspace(0.3, 3.0, tissues), np.linspace(0.03, 0.3, tissues)
    return {"flips": np.float32(flips), "t1": np.float32(t1), "t2": np.float32(t2)}


# ----------------------------------------------------------------------------- the sides
# Each answers with seconds, its value as (tissues, …, pulses) for the first tissues, and what else it knows.


def blochsim(task: str, flips: np.ndarray, t1: np.ndarray, t2: np.ndarray, states: int, repeats: int) -> dict[str, Any]:
    """blochsim's `MRFSimulator`, which speaks degrees and milliseconds."""
    import torch
    from blochsim.simulators import MRFSimulator

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


def acqdesign(
    task: str, flips: np.ndarray, t1: np.ndarray, t2: np.ndarray, states: int | None, repeats: int, devices: int
) -> dict[str, Any]:
    """Our `SSFPFID`, tissues shared among so many devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    from acqdesign.scene import Tissue
    from acqdesign.signal import SSFPFID

    def signal(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        return SSFPFID(flips, TR, inversion_time=TI, n_states=states).signal(Tissue(t1, t2))

    def derivatives(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        def along(by_t1: jax.Array, by_t2: jax.Array) -> jax.Array:
            tangents = (by_t1 * jnp.ones_like(t1), by_t2 * jnp.ones_like(t2))
            return jax.jvp(lambda *times: signal(flips, *times), (t1, t2), tangents)[1]

        return jax.vmap(along, out_axes=-2)(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))

    def gradient(flips: jax.Array, t1: jax.Array, t2: jax.Array) -> jax.Array:
        mine = jax.grad(lambda flips: (signal(flips, t1, t2) ** 2).sum())(flips)
        return jax.lax.psum(mine, "tissues") if devices > 1 else mine

    function = {"signal": signal, "tissue derivatives": derivatives, "flip gradient": gradient}[task]
    if devices > 1:
        own, whole = PartitionSpec("tissues"), PartitionSpec()
        mesh = jax.make_mesh((devices,), ("tissues",), axis_types=(jax.sharding.AxisType.Auto,))
        function = jax.shard_map(
            function, mesh=mesh, in_specs=(whole, own, own), out_specs=whole if task == "flip gradient" else own,
            check_vma=False,
        )  # fmt: skip
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


def sides(threads: int) -> dict[str, tuple[Callable[[], Worker], dict[str, Any]]]:
    """How to start a worker of each side, and what to call it with."""
    ours = lambda: Worker("signal_mrf.py", threads=threads, JAX_NUM_CPU_DEVICES=str(threads))  # noqa: E731
    return {
        "blochsim": (lambda: Worker("signal_mrf.py", python=peers_python(), threads=threads), {"name": "blochsim"}),
        "acqdesign": (ours, {"name": "acqdesign", "devices": 1}),
        "acqdesign, a device a core": (ours, {"name": "acqdesign", "devices": threads}),
    }


def compare(task: str, states: int, rounds: int, threads: int) -> dict[str, Any]:
    """Times, errors and peak memory of all sides in one task, taken in turn."""
    given, replies, repeats = problem(), {}, 3
    with contextlib.ExitStack() as stack:
        workers = {name: (stack.enter_context(start()), how) for name, (start, how) in sides(threads).items()}

        def turn(name: str) -> Callable[[], list[float]]:
            def run() -> list[float]:
                worker, how = workers[name]
                replies[name] = worker.call(**how, task=task, states=states, repeats=repeats, **given)
                return replies[name]["seconds"]

            return run

        times = alternate({name: turn(name) for name in workers}, rounds=rounds)
        peaks = {name: worker.call("memory")["peak_rss_bytes"] for name, (worker, _) in workers.items()}
        result: dict[str, Any] = {name: summary(seconds) for name, seconds in times.items()}
        if task == "flip gradient":  # a smaller problem for NumPy's many differences
            small = problem(200, 200)
            truth = judged(task, small, states)
            for name, (worker, how) in workers.items():
                value = worker.call(**how, task=task, states=states, repeats=0, **small)["value"]
                result[name]["relative_error"] = relative(value[:: 200 // 8], truth)
        else:
            truth = judged(task, given, states)
            for name in workers:
                result[name]["relative_error"] = relative(replies[name]["value"], truth)
            result["error_of_so_few_states"] = relative(truth, judged(task, given, PULSES))
    for name in workers:
        result[name]["peak_rss_bytes"] = peaks[name]
        if name != "blochsim":
            result[name] |= {key: replies[name][key] for key in ("compile_seconds", "temporary_bytes")}
            result[name]["speedup"] = result["blochsim"]["median_s"] / result[name]["median_s"]
    return result


def growth(threads: int) -> dict[str, list[dict[str, float | int | None]]]:
    """Our seconds for the signal, on one device, against pulses, orders and tissues."""
    few = min(STATES)
    cases: dict[str, list[tuple[int, int, int | None]]] = {
        "pulses, all orders": [(n, 256, None) for n in (125, 250, 500, 1000)],
        "pulses": [(n, TISSUES, few) for n in (250, 500, 1000, 2000)],
        "orders": [(PULSES, TISSUES, n) for n in (8, 16, 32, 64, 128)],
        "tissues": [(PULSES, n, few) for n in (100, 1000, 10_000, 100_000, 1_000_000)],
    }
    found: dict[str, list[dict[str, float | int | None]]] = {}
    with Worker("signal_mrf.py", threads=threads) as worker:
        for name, sizes in cases.items():
            for pulses, tissues, states in sizes:
                given = problem(pulses, tissues)
                reply = worker.call("acqdesign", task="signal", states=states, repeats=3, devices=1, **given)
                entry = {"pulses": pulses, "tissues": tissues, "orders": states}
                found.setdefault(name, []).append(entry | {"median_s": float(np.median(reply["seconds"]))})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns per side (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="cores for each side (default: 2)")
    args = parser.parse_args()

    report: dict[str, Any] = {"machine": machine(args.threads), "versions": {}, "tasks": {}}
    report["settings"] = {"pulses": PULSES, "tissues": TISSUES, "rounds": args.rounds}
    names = {"blochsim": ["blochsim", "torch"], "acqdesign": ["acqdesign", "jax"]}
    for side, wanted in names.items():
        with sides(args.threads)[side][0]() as worker:
            report["versions"][side] = worker.call("versions", names=wanted)
    for states in STATES:
        for task in ("signal", "tissue derivatives", "flip gradient"):
            entry = compare(task, states, args.rounds, args.threads)
            report["tasks"][f"{task}, {states} states"] = entry
            shown = {
                n: f"{x['median_s']:.3f} s, error {x['relative_error']:.0e}"
                for n, x in entry.items()
                if isinstance(x, dict)
            }
            print(f"{task}, {states} states:", shown, flush=True)
    report["growth"] = growth(args.threads)
    write_results("signal_mrf", report)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve({"blochsim": blochsim, "acqdesign": acqdesign})
    else:
        main()
