"""Learns one small problem on the meshes that it is told, in a process of its own; prints JSON by mesh.

    python _mesh_worker.py MESH[;MESH...] PRECISION CASE [lowered|compiled]

The last word adds how often each kind of message between devices stands in the program of a step, for few and many
readouts. With several processes: the variables COORDINATOR and PROCESS say where and which of two this is.
"""

import json
import os
import re
import sys

import jax

if "COORDINATOR" in os.environ:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(os.environ["COORDINATOR"], 2, int(os.environ["PROCESS"]))

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

from acqdesign.base.sharding import device_mesh, everywhere, place
from acqdesign.base.trees import leaf_names
from acqdesign.design import Problem, bound, learn, noise, nrmse, squared_error, term, width
from acqdesign.encoding import Lines, Trajectory
from acqdesign.recon import Prior, Subspace, cg
from acqdesign.scene import Scene, brain
from acqdesign.signal import FSE, Pulse, Readout, Sequence, Wait

SHAPE, COILS, ECHOES, STEPS = (2, 8, 8), 4, 4, 20
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


class Spokes(Trajectory):
    """A trajectory of one's own."""

    angles: jax.Array

    def coordinates(self):
        r = jnp.linspace(-0.5, 0.5, 8, dtype=self.angles.dtype)
        zero = jnp.zeros((len(self.angles), 8), self.angles.dtype)
        return jnp.stack([zero, r * jnp.cos(self.angles[:, None]), r * jnp.sin(self.angles[:, None])], -1)


class Train(Sequence):
    """A sequence of one's own."""

    flips: jax.Array

    def events(self):
        for flip in self.flips:
            yield from (Pulse(flip), Wait(2e-3), Readout(), Wait(8e-3, orders=1))


def tikhonov(encoding, kspace, noise):
    """A reconstruction of one's own."""
    return cg(encoding.normal() + 1e-2, encoding.adjoint(kspace), iterations=6)


def brightness(scan):
    """A term of one's own."""
    return jnp.mean(jnp.abs(jnp.abs(scan.image) - scan.target))


def scene(dtype, poses, shape=SHAPE):
    """Two anatomies with coils."""
    one = brain(shape, coils=COILS, dtype=dtype, augment=poses)
    maps = jnp.concatenate([one.maps, one.maps[:, :, :, ::-1]], axis=1)
    turned = one.poses
    if poses:
        both = jnp.concatenate([turned.fine, turned.fine[:, :, :, ::-1]], axis=1)
        turned = eqx.tree_at(lambda p: p.fine, turned, both)
    return Scene(maps, one.tissue, contrast=one.contrast, smaps=one.smaps, fov=one.fov, poses=turned)


def problem(case, dtype, lines=16):
    """What is learned."""
    points = jnp.asarray(np.random.default_rng(3).uniform(-0.5, 0.5, (lines, 2)), dtype)
    flips = jnp.linspace(0.5, 1.2, ECHOES, dtype=dtype)
    halves, more = (Lines(points), FSE(flips, 5e-3, te=15e-3)), {"reconstruction": Prior(iterations=6)}
    if case == "terms":
        more["terms"] = nrmse() + 0.3 * noise() + 0.1 * width() + 0.1 * bound("t2")
    if case == "subspace":
        more["reconstruction"] = Subspace(iterations=6)
    if case == "own":
        halves = (Spokes(jnp.linspace(0, 1, lines, dtype=dtype)), Train(flips))
        more = {"reconstruction": tikhonov, "terms": nrmse() + term(brightness)}
    shape = SHAPE
    if case == "parts":
        shape, more = (8, *SHAPE[1:]), more | {"terms": squared_error(), "anatomies_per_step": 1, "planes_per_step": 4}
    sigma = 1e-3 if case == "own" else 0.05
    return Problem(scene(dtype, case == "poses", shape), *halves, noise=sigma, order=None, **more)


def mesh_of(text):
    lengths = {"anatomies": 2, "coils": COILS, "planes": SHAPE[0]}
    return None if text == "none" else device_mesh(text, lengths)


def learned(text, case, dtype):
    """Twenty steps: what was learned, and every loss."""
    every, rate = 4 if case == "exchange" else 0, 5e-2 if case == "own" else 4e-3
    result, design, _ = learn(
        problem(case, dtype), STEPS, optimizer=optax.adam(rate), key=jax.random.key(1), mesh=mesh_of(text),
        exchange_every=every,
    )  # fmt: skip
    arrays = {name: leaf for name, leaf in leaf_names(design).items() if hasattr(leaf, "dtype")}
    return {name: np.asarray(leaf, float).tolist() for name, leaf in arrays.items()} | {
        "loss": result.history["loss"].tolist()
    }


def messages(text, case, dtype, lines, *, compiled):
    """How often each kind of message between devices stands in the program of a step."""
    mesh, made = mesh_of(text), problem(case, dtype, lines)
    arrays, form = eqx.partition(place(mesh, made), eqx.is_array)

    def loss(learned, arrays, key):
        whole = eqx.combine(arrays, form)
        return whole.loss(eqx.combine(learned, whole.split()[1]), key)[0]

    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(loss))
        program = step.lower(everywhere(mesh, made.split()[0]), arrays, jax.random.key(0))
        if not compiled:
            return {"all_reduce": program.as_text().count("stablehlo.all_reduce")}
        found = re.findall(rf"= [^=]*? ({COLLECTIVES})(?:-start)?\(", program.compile().as_text())
    return {kind: found.count(kind) for kind in set(found)}


def main(meshes, precision, case, counted=None):
    jax.config.update("jax_enable_x64", precision == "double")
    dtype = np.float64 if precision == "double" else np.float32
    found = {}
    for text in meshes.split(";"):
        found[text] = learned(text, case, dtype)
        if counted and text != "none":
            some = [messages(text, case, dtype, n, compiled=counted == "compiled") for n in (16, 64)]
            found[f"messages {text}"] = some
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
