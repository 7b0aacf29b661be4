"""What XLA makes of the GPU cases for an H200 that need not be here: memory, kernels, bytes, messages, compile time.

XLA compiles for a described card without one (openxla/xla pull request 16913); only JAX's CUDA wheels have to be
installed, and the CUDA half of jax-finufft where its transforms are to be in the programs. Of each of gpu.py's cases,
of a joint step on several cards and of scaling.py's whole body, this reads memory from XLA's buffer assignment, and
from the program's text the kernels started and the bytes that they read and write, loops multiplied out. What
jax-finufft's kernels do inside, and the memory that they take, is not in the program.

No times: `seconds_at_bandwidth` is what those bytes take at the published bandwidth, of a card with no time lost.

    python benchmarks/gpu_compiled.py [--only CASE...]
"""

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import time
from typing import Any
from unittest import mock

import scaling
from _harness import machine, versions, write_results
from _program import counted
from gpu import CASES, prepare

# XLA's specification of an H100 SXM (xla/tools/hlo_opt/gpu_specs), with the memory and the bandwidth of an H200.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 141000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H200"
"""
MESHES = {
    f"{scaling.BASE['coils']} coils, {text}": {"mesh": mesh}
    for text, mesh in {
        "one card": {},
        "coils=4": {"coils": 4},
        "planes=8": {"planes": 8},
        "anatomies=2": {"anatomies": 2},
    }.items()
}
OURS: dict[str, dict[str, Any]] = {
    **{name: case for name, case in CASES.items() if name != "copy"},
    **{name: scaling.BASE | case for name, case in MESHES.items()},
    "whole body": scaling.BODY | {"mesh": scaling.BODY_DEVICES},
}


# ----------------------------------------------------------------------------- compiling


def compile_for_h200(case: dict[str, Any]) -> tuple[Any, float]:
    """The compiled program of a case, and the seconds that tracing and compiling took."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    from acqdesign.base.sharding import specs

    mesh = case.get("mesh")
    function, arguments = scaling.step_and_shapes(case) if mesh is not None else prepare(case)
    sizes = mesh or {"all": 1}
    card = topologies.get_topology_desc(
        platform="cuda", target_config=H200, topology=f"1x1x{math.prod(sizes.values())}"
    )
    cards = np.array(card.devices).reshape(tuple(sizes.values()))
    devices = Mesh(cards, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))

    def place(leaf: Any, spec: P) -> Any:
        present = P(*(axis if axis in sizes else None for axis in spec))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(devices, present))

    arguments = jax.tree.map(place, arguments, specs(arguments))
    settings = {"out_shardings": NamedSharding(devices, P())} if mesh else {}
    begun = time.perf_counter()
    # What a program asks of the default backend while it is traced is answered for a GPU.
    on_gpu = mock.patch.object(jax, "default_backend", return_value="gpu")
    with on_gpu, jax.set_mesh(devices) if mesh else contextlib.nullcontext():
        traced = jax.jit(function, **settings).trace(*arguments)
        program = traced.lower(lowering_platforms=("cuda",)).compile()
    return program, time.perf_counter() - begun


def work(case: dict[str, Any]) -> dict[str, Any]:
    """What is reported of a case."""
    import jax

    jax.devices()  # loads the CUDA libraries that jax-finufft's own module looks for
    from jax_finufft import lowering

    program, seconds = compile_for_h200(case)
    text, memory = program.as_text(), program.memory_analysis()
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    found = counted(text)
    # Products of real numbers that are not asked for in full precision would be rounded to 10 bits.
    products = [line for line in text.splitlines() if " dot(" in line or '"__cublas$' in line]
    return {
        "compile_s": seconds,
        "memory_bytes": needed,
        "fits": needed < scaling.H200["memory_bytes"],
        **found,
        "seconds_at_bandwidth": found["bytes"] / scaling.H200["memory_bytes_per_s"],
        "products": len(products),
        "products_in_full_precision": sum("highest" in line.lower() for line in products),
        # Each pass of a loop of unknown length asks the host whether to go on.
        "loops_of_unknown_length": sum(" while(" in x and "known_trip_count" not in x for x in text.splitlines()),
        "transfers_to_host": len(re.findall(r" (?:infeed|outfeed|send|recv)\(|S\(5\)", text)),
        "calls_of_jax_finufft": text.count('custom_call_target="nufft'),
        "jax_finufft_has_cuda": lowering.jax_finufft_gpu is not None,
        "versions": versions(("jax", "jaxlib", "jax-finufft")) | {"backend": jax.default_backend()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="CASE", help="cases whose names begin so; writes nothing")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(work(json.loads(args.case))))
        return
    # Arrays that are needed on the way are the processor's; there may be no driver for JAX to ask for its version, and
    # there is no card to try kernels on.
    env = dict(os.environ, JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1", CUDA_VISIBLE_DEVICES="-1")
    env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    report: dict[str, Any] = {"machine": machine(os.cpu_count() or 1), "cases": {}}
    for name, case in OURS.items():
        if args.only and not name.startswith(tuple(args.only)):
            continue
        call = [sys.executable, __file__, "--case", json.dumps(case)]
        done = subprocess.run(call, capture_output=True, text=True, env=env)
        if done.returncode:
            sys.exit(f"{name}: {(done.stderr.strip().splitlines() or ['it ended without a word'])[-1]}")
        report["cases"][name] = held = json.loads(done.stdout.splitlines()[-1])
        shown = {"compile_s": 1, "memory_bytes": 1e-9, "kernels": 1, "bytes": 1e-9, "seconds_at_bandwidth": 1}
        print(name, {key: float(f"{held[key] * unit:.3g}") for key, unit in shown.items()}, flush=True)
    if not args.only:
        write_results("gpu_compiled", report)


if __name__ == "__main__":
    main()
