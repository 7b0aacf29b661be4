"""What a joint step costs as lines, voxels, coils, tissues and devices grow: counted, then measured.

Counted from the step's own program (its jaxpr, loops multiplied out): operations of FFTs, of matrix products and of
the rest; bytes that FFTs and products read and write; messages between devices and their bytes. No arrays are made, so
a whole body can be counted too. Measured: seconds of a step as each size doubles; strong scaling (the same work on one
and on two processes of one core each) and weak scaling (twice the work on two), over gloo on localhost.

    python benchmarks/scaling.py [--steps 3] [--quick]
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from _harness import HERE, machine, write_results

BASE: dict[str, Any] = {"shape": (16, 48, 48), "lines": 512, "coils": 4, "tissues": 3, "anatomies": 2}
QUICK: dict[str, Any] = {"shape": (2, 12, 12), "lines": 64, "coils": 2, "tissues": 3, "anatomies": 2}
ECHOES, ITERATIONS = 64, 10
NOISE = 0.042  # in each part of a sample
SMALL = (1, 4, 4)
GROWTH = ("lines", "voxels", "coils", "tissues")
# 1.8 m along the readout, 0.51 m and 0.26 m across it; one phase encode in eight.
BODY = {"shape": (2240, 640, 320), "lines": 25600, "coils": 32, "tissues": 3, "anatomies": 1}
BODY_DEVICES = {"planes": 8}
# Published figures of one accelerator, for the estimate alone: memory [B/s], links to its neighbours [B/s].
H200 = {"memory_bytes_per_s": 4.8e12, "link_bytes_per_s": 450e9, "memory_bytes": 141e9}


def grown(case: dict[str, Any], what: str) -> dict[str, Any]:
    """A case with twice as much of something; voxels double along the readout."""
    if what in ("voxels", "planes"):
        return case | {"shape": (2 * case["shape"][0], *case["shape"][1:])}
    return case | {what: 2 * case[what]}


# ----------------------------------------------------------------------------- the step


def problem_of(case: dict[str, Any]) -> Any:
    """The joint problem of a case."""
    import jax.numpy as jnp
    import numpy as np

    from acqdesign.design import Problem
    from acqdesign.encoding import Lines
    from acqdesign.recon import Prior
    from acqdesign.scene import Scene, Tissue, birdcage_maps, load_brain
    from acqdesign.signal import FSE

    shape, classes = tuple(case["shape"]), case["tissues"]
    t2 = np.geomspace(0.05, 1.0, classes, dtype=np.float32)
    brain = load_brain(shape=shape, contrast="maps")
    maps = jnp.stack([brain[n % 3] for n in range(classes)])[:, None]
    scene = Scene(
        jnp.repeat(maps, case["anatomies"], axis=1), Tissue(10 * t2, t2), smaps=birdcage_maps(case["coils"], shape)
    )
    start = np.random.default_rng(0).uniform(-0.5, 0.5, (case["lines"], 2)).astype(np.float32)
    lines = Lines(start, backend=case.get("backend", "auto"))
    train = FSE(jnp.full(ECHOES, 0.8, jnp.float32), 5e-3, te=65e-3)
    prior = Prior(iterations=ITERATIONS)
    return Problem(scene, lines, train, reconstruction=prior, noise=NOISE, order=None)


def step_and_shapes(case: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Value and gradient of the joint loss, with the shapes of its arguments: no arrays of that size are made."""
    import jax
    from _step import value_and_gradient

    step, arguments = value_and_gradient(problem_of(case | {"shape": SMALL, "lines": ECHOES}))

    def resized(path: Any, leaf: Any) -> Any:
        name, shape = jax.tree_util.keystr(path, simple=True, separator="."), leaf.shape
        if name.endswith(("scene.maps", "scene.smaps", "scene.support")):
            shape = (*shape[:-3], *case["shape"])
        elif name.endswith(("trajectory.points", "trajectory.moves")):
            shape = (case["lines"], *shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    return step, jax.tree_util.tree_map_with_path(resized, arguments)


# ----------------------------------------------------------------------------- counting


def counted(case: dict[str, Any], mesh: dict[str, int] | None = None) -> dict[str, float]:
    """Operations, bytes and messages of one device in a step."""
    import contextlib

    import jax

    step, arguments = step_and_shapes(case)
    within: Any = contextlib.nullcontext()
    if mesh:
        devices = jax.sharding.AbstractMesh(
            tuple(mesh.values()), tuple(mesh), axis_types=(jax.sharding.AxisType.Auto,) * len(mesh)
        )
        within = jax.sharding.use_abstract_mesh(devices)
    with within:
        program = jax.make_jaxpr(step)(*arguments)
    found: Counter[str] = Counter()
    _count(program.jaxpr, 1, found)
    return dict(found)


def _count(program: Any, times: int, found: Counter) -> None:
    for each in program.eqns:
        name, results, inputs = each.primitive.name, each.outvars, each.invars
        inner = [p for value in each.params.values() for p in _programs(value)]
        if inner:
            for part in inner:
                _count(part, times * each.params.get("length", 1) if name == "scan" else times, found)
            continue
        size = sum(math.prod(v.aval.shape) for v in results)
        passed = sum(_bytes(v.aval) for v in (*inputs, *results) if hasattr(v, "aval"))
        if name == "fft":
            found["fft_flops"] += times * 5 * size * math.log2(max(2, math.prod(each.params["fft_lengths"])))
            found["bytes"] += times * passed
        elif name == "dot_general":
            (contracted, _), _ = each.params["dimension_numbers"]
            length = math.prod(inputs[0].aval.shape[axis] for axis in contracted)
            factor = 8 if results[0].aval.dtype.kind == "c" else 2
            found["product_flops"] += times * factor * size * length
            found["bytes"] += times * passed
        elif name.startswith("nudft"):
            found["nufft_points"] += times * math.prod(inputs[1].aval.shape[:2]) * inputs[0].aval.shape[1]
            found["bytes"] += times * passed
        elif name.startswith(("psum", "all_gather", "pmax")):
            found["messages"] += times
            found["message_bytes"] += times * sum(_bytes(v.aval) for v in results)
        elif size:
            found["other_flops"] += times * size


def _programs(value: Any) -> list[Any]:
    """The programs inside a parameter of an operation."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return [getattr(v, "jaxpr", v) for v in values if hasattr(v, "eqns") or hasattr(v, "jaxpr")]


def _bytes(aval: Any) -> int:
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 8)


# ----------------------------------------------------------------------------- measuring


def work(case: dict[str, Any], steps: int) -> dict[str, Any]:
    """Seconds of some steps in this process, which may be one of two."""
    import jax

    address, number = os.environ.get("COORDINATOR"), int(os.environ.get("PROCESS", "0"))
    if address:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, 2, number)
    from acqdesign.base.sharding import device_mesh
    from acqdesign.design import adam, learn

    lengths = case | {"planes": case["shape"][0]}
    mesh = device_mesh(case["mesh"], lengths) if case.get("mesh") else None
    result, _, _ = learn(problem_of(case), steps, optimizer=adam(steps), mesh=mesh)
    return {"median_s": result.seconds_per_step, "compile_s": result.compile_seconds, "loss": result.initial_loss}


def launch(case: dict[str, Any], steps: int, *, cores: list[list[int]]) -> dict[str, Any]:
    """`work` in one process for each list of cores, which it may use."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    processes = []
    allowed = os.sched_getaffinity(0)
    for number, mine in enumerate(cores):
        env = dict(os.environ, OMP_NUM_THREADS=str(len(mine)), PROCESS=str(number))
        if len(cores) > 1:
            env["COORDINATOR"] = address
        os.sched_setaffinity(0, mine)  # a child inherits it
        call = [sys.executable, __file__, "--steps", str(steps), "--case", json.dumps(case)]
        processes.append(subprocess.Popen(call, env=env, stdout=subprocess.PIPE, text=True, cwd=HERE))
        os.sched_setaffinity(0, allowed)
    said = [process.communicate(timeout=240)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{case} failed")
    return json.loads(said[0].splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="steps timed in each case (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--dry", action="store_true", help="write nothing: fills JAX's compilation cache, say")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(work(json.loads(args.case), args.steps)))
        return

    base = QUICK if args.quick else BASE
    cores = sorted(os.sched_getaffinity(0))[:2]
    report: dict[str, Any] = {"machine": machine(len(cores)), "base": base, "echoes": ECHOES, "iterations": ITERATIONS}
    begun = time.perf_counter()

    one, two = [[cores[0]]], [[core] for core in cores]
    report["strong"] = {"one process": launch(base, args.steps, cores=one)}
    report["weak"] = {}
    alone = report["strong"]["one process"]["median_s"]
    for axis in ("anatomies", "coils", "planes"):
        mesh = {"mesh": f"{axis}=2"}
        report["strong"][axis] = held = launch(base | mesh, args.steps, cores=two)
        held["speedup"] = alone / held["median_s"]
        report["weak"][axis] = held = launch(grown(base, axis) | mesh, args.steps, cores=two)
        held["efficiency"] = alone / held["median_s"]
    report["growth"] = {"base": {"measured": launch(base, args.steps, cores=[cores])}}
    for what in GROWTH:
        report["growth"][what] = {"measured": launch(grown(base, what), args.steps, cores=[cores])}
    report["measuring_s"] = time.perf_counter() - begun

    first = report["growth"]["base"]
    for what, held in report["growth"].items():
        held["counted"] = counted(base if what == "base" else grown(base, what))
        held["time_ratio"] = held["measured"]["median_s"] / first["measured"]["median_s"]
        held["bytes_ratio"] = held["counted"]["bytes"] / first["counted"]["bytes"]
        held["fft_ratio"] = held["counted"]["fft_flops"] / first["counted"]["fft_flops"]
    report["messages"] = {
        text: counted(base, mesh)
        for text, mesh in {
            "one device": None,
            "coils=2": {"coils": 2},
            "coils=4": {"coils": 4},
            "planes=2": {"planes": 2},
            "planes=8": {"planes": 8},
            "anatomies=2": {"anatomies": 2},
        }.items()
    }
    report["body"] = body()
    print(json.dumps({name: report[name] for name in ("strong", "weak", "messages", "body")}, indent=1))
    if not args.dry:
        write_results("scaling", report)


def body() -> dict[str, Any]:
    """A whole body at 0.8 mm with 32 coils: counted, and the seconds that an H200's memory and links would take.

    gpu_compiled.py has what XLA makes of it, memory included.
    """
    each = counted(BODY, BODY_DEVICES)
    voxels = math.prod(BODY["shape"])
    devices = math.prod(BODY_DEVICES.values())
    return {
        "case": BODY,
        "devices": devices,
        "voxels": voxels,
        "counted_per_device": each,
        "counted_per_device_with_coils_split": counted(BODY, {"coils": devices}),
        "seconds_at_memory_bandwidth": each["bytes"] / H200["memory_bytes_per_s"],
        "seconds_of_messages": 2 * each["message_bytes"] / H200["link_bytes_per_s"],
        "published": H200,
    }


if __name__ == "__main__":
    main()
