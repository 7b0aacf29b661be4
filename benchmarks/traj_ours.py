"""Our side of the trajectory benchmarks, answering the same calls as `mrinufft_peer.py`."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _harness import serve

from acqdesign import learn_traj
from acqdesign.design import Problem, learn, scaled_error
from acqdesign.encoding import Lines, StraightLineEncoding, pipe_density
from acqdesign.optim import fit
from acqdesign.recon import DensityAdjoint
from acqdesign.scene import Scene


def ends(samples_per_line: int, dtype: np.dtype) -> jax.Array:
    """The reference recipe's readout, both ends included."""
    return jnp.linspace(-0.5, 0.5, samples_per_line, dtype=dtype)


def reference(
    image: jax.Array, points: np.ndarray, fixed: int, samples_per_line: int, density_iterations: int
) -> Problem:
    """The reference recipe."""
    lines = Lines(points, np.arange(len(points)) >= fixed, readout=ends(samples_per_line, image.dtype))
    reconstruction = DensityAdjoint(iterations=density_iterations)
    return Problem(Scene(image[None, None]), lines, terms=scaled_error(), reconstruction=reconstruction)


def reference_recipe(
    image: np.ndarray,
    points: np.ndarray,
    fixed: int,
    samples_per_line: int,
    steps: int,
    density_iterations: int,
    lr: float,
) -> dict:
    """The reference recipe: losses, seconds and learned points."""
    problem = reference(jnp.asarray(image), points, fixed, samples_per_line, density_iterations)
    result, design, _ = learn(problem, steps, optimizer=optax.adam(lr))
    return {
        "losses": result.history["loss"].tolist(),
        "seconds_per_step": result.seconds_per_step,
        "compile_seconds": result.compile_seconds,
        "points": np.asarray(design.trajectory.points),
    }


def learn_default(shape: list[int], lines: int, samples_per_line: int, steps: int, seed: int) -> dict:
    """The points that the command learns on its own brain by its default recipe."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        flags = {"shape": shape, "lines": [lines], "samples": [samples_per_line], "steps": [steps], "seed": [seed]}
        argv = [str(word) for name, values in flags.items() for word in (f"--{name}", *values)]
        with contextlib.redirect_stdout(sys.stderr):
            code = learn_traj.main([*argv, "--no-figures", "--out", str(out)])
        if code:
            raise RuntimeError(f"learn_traj ended with code {code}")
        with np.load(out / "design.npz") as design:
            return {"points": design["points"]}


def gradient(
    image: np.ndarray,
    points: np.ndarray,
    fixed: int,
    samples_per_line: int,
    density_iterations: int,
    precision: str,
    coordinates: np.ndarray,
    step: float,
) -> dict:
    """Loss, its gradient in the free points, and central differences at some `coordinates` (flat indices)."""
    with jax.enable_x64(True):
        real = {"single": np.float32, "double": np.float64}[precision]
        start = points.astype(real)
        problem = reference(
            jnp.asarray(image.astype(real)), start, fixed, samples_per_line, density_iterations
        ).prepared()
        learned, rest = problem.split()

        @jax.jit
        def loss(points: jax.Array) -> jax.Array:
            moved = eqx.tree_at(lambda design: design.trajectory.points, learned, points)
            return problem.loss(eqx.combine(moved, rest), jax.random.key(0))[0]

        value, slope = jax.jit(jax.value_and_grad(loss))(jnp.asarray(start))
        differences = []
        for index in coordinates:
            values = []
            for shift in (step, -step):
                moved = start.copy()
                moved[fixed:].ravel()[index] += shift  # a view: the rows after `fixed` are contiguous
                values.append(float(loss(jnp.asarray(moved))))
            differences.append((values[0] - values[1]) / (2 * step))
        return {"loss": float(value), "gradient": np.asarray(slope)[fixed:], "differences": np.array(differences)}


def operators(image: np.ndarray, points: np.ndarray, samples_per_line: int) -> dict:
    """Forward values of an image, and the adjoint of those."""
    readout = ends(samples_per_line, points.dtype)
    operator = StraightLineEncoding(jnp.asarray(points), image.shape, readout=readout)
    samples = operator.forward(jnp.asarray(image))
    return {"forward": np.asarray(samples).ravel(), "adjoint": np.asarray(operator.adjoint(samples))}


def bound(image: np.ndarray, points: np.ndarray, fixed: int, samples_per_line: int, density_iterations: int) -> dict:
    """What a step's time goes to: median seconds of each part's value and gradient, alone."""
    k, shape = jnp.asarray(points), image.shape
    planes = jnp.asarray(image, jnp.complex64)

    def gram(k: jax.Array) -> eqx.Module:
        return StraightLineEncoding(k, shape, shape[0]).normal()

    def filtered(spectrum: jax.Array) -> jax.Array:
        moved = eqx.tree_at(lambda gram: gram.spectrum, gram(k), spectrum)
        return jnp.sum(jnp.abs(moved(planes)) ** 2)

    nothing = fit(
        lambda params, key: (jnp.sum(params["points"] ** 2), {}),
        {"points": k},
        optimizer=optax.adam(1e-2),
        steps=40,
        key=jax.random.key(0),
        project=lambda params: {"points": jnp.clip(params["points"], -0.5, 0.5)},
    )
    return {
        "density_s": _seconds(lambda k: jnp.sum(pipe_density(k, shape[1:], density_iterations) ** 2), k),
        "spreading_s": _seconds(lambda k: jnp.sum(gram(k).spectrum ** 2), k),
        "fft_s": _seconds(filtered, gram(k).spectrum),
        "dispatch_s": nothing.seconds_per_step,
    }


def _seconds(function: Callable, argument: jax.Array, repeats: int = 9) -> float:
    run = jax.jit(jax.value_and_grad(function))
    jax.block_until_ready(run(argument))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run(argument))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    serve(
        {
            "learn": reference_recipe,
            "learn_default": learn_default,
            "gradient": gradient,
            "operators": operators,
            "bound": bound,
        }
    )
