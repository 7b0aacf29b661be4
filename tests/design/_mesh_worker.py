"""Fits one small joint problem on the meshes that it is told, in a process of its own; prints JSON by mesh.

    python _mesh_worker.py MESH[;MESH...] PRECISION [OPTION=VALUE...]

    python _mesh_worker.py MESH[;MESH...] PRECISION messages lowered|compiled

With several processes: the variables COORDINATOR and PROCESS say where and which of two this is.
"""

import json
import os
import re
import sys

import jax

if "COORDINATOR" in os.environ:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(os.environ["COORDINATOR"], 2, int(os.environ["PROCESS"]))

import jax.numpy as jnp
import numpy as np
import optax

from acqdesign.base.sharding import device_mesh, split_over
from acqdesign.design.assignment import exchange_step
from acqdesign.design.joint_objective import SPLIT, JointObjective, JointSettings, Poses
from acqdesign.encoding import StraightLineEncoding
from acqdesign.optim.fit import fit
from acqdesign.scene import birdcage_maps, fine_shape, load_brain, tissue_classes, tissues

SHAPE, COILS, ECHOES, STEPS = (2, 8, 8), 4, 4, 20
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def problem(dtype, lines=16, poses=False, **settings):
    """A scene of two anatomies with coils and noise."""
    maps = load_brain(shape=SHAPE, contrast="maps").astype(dtype)
    table = tissues("gm,wm,csf", "3T")
    scenes = [tissue_classes(maps, table), tissue_classes(maps[:, :, ::-1], table)]
    points = jnp.asarray(np.random.default_rng(3).uniform(-0.5, 0.5, (lines, 2)), dtype)
    smaps = birdcage_maps(COILS, SHAPE, dtype=np.result_type(dtype, np.complex64))
    encoding = StraightLineEncoding(points, SHAPE, SHAPE[0], smaps=smaps)
    chosen = JointSettings(**({"esp_s": 5e-3, "te_echo": 2, "noise": 0.05, "iterations": 6} | settings))
    fine = load_brain(shape=fine_shape(SHAPE), contrast="maps").astype(dtype)
    turned = (
        Poses(jnp.stack([fine, fine[:, :, ::-1]], axis=1), jnp.ones((3, *SHAPE), dtype)) if poses else None
    )
    objective = JointObjective(encoding, jnp.arange(lines) % ECHOES, scenes, chosen, poses=turned)
    return objective, {"points": points, "flips": jnp.linspace(0.5, 1.2, ECHOES).astype(dtype)}


def mesh_of(text, lines=16):
    return (
        None
        if text == "none"
        else device_mesh(text, {"anatomies": 2, "tissues": 3, "coils": 4, "planes": SHAPE[0], "lines": lines})
    )


def learn(text, dtype, exchange_every=0, **more):
    """Twenty steps: the parameters and every loss."""
    objective, params = problem(dtype, **more)
    mesh, between = mesh_of(text), exchange_step(objective, jax.random.key(2)) if exchange_every else None
    if mesh is not None:
        objective = split_over(mesh, objective, SPLIT)
    result = fit(
        objective,
        params,
        optimizer=optax.adam(4e-3),
        steps=STEPS,
        key=jax.random.key(1),
        between=between,
        between_every=exchange_every or 1,
        progress=False,
        mesh=mesh,
    )
    return {
        "points": np.asarray(result.params["points"], float).tolist(),
        "flips": np.asarray(result.params["flips"], float).tolist(),
        "loss": result.history["loss"].tolist(),
    }


def messages(text, dtype, lines, *, compiled):
    """How often each kind of message between devices stands in the program of a step."""
    objective, params = problem(dtype, lines)
    mesh = mesh_of(text, lines)
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(lambda p, o, k: o(p, k)[0]))
        program = step.lower(
            split_over(mesh, params, {}), split_over(mesh, objective, SPLIT), jax.random.key(0)
        )
        if not compiled:
            return {"all_reduce": program.as_text().count("stablehlo.all_reduce")}
        found = re.findall(rf"= [^=]*? ({COLLECTIVES})(?:-start)?\(", program.compile().as_text())
    return {kind: found.count(kind) for kind in set(found)}


def main(meshes, precision, *options):
    jax.config.update("jax_enable_x64", precision == "double")
    kind = np.float64 if precision == "double" else np.float32
    given = {name: json.loads(value) for name, value in (o.split("=", 1) for o in options if "=" in o)}
    counted = {"lowered": False, "compiled": True}.get(options[-1]) if options else None
    found = {}
    for text in meshes.split(";"):
        if options[:1] != ("messages",):
            found[text] = learn(text, kind, **given)
        if counted is not None and text != "none":
            found[f"messages {text}"] = [messages(text, kind, n, compiled=counted) for n in (16, 64)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
