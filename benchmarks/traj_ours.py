"""Our side of the trajectory benchmarks, answering the same calls as `mrinufft_peer.py`."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _harness import serve

from acqdesign import learn_traj
from acqdesign.design.line_objectives import AdjointObjective
from acqdesign.encoding import StraightLineEncoding, pipe_density
from acqdesign.encoding.toeplitz import convolve_planes, gram_spectrum
from acqdesign.optim import fit


def encoding(points: jax.Array, shape: tuple[int, ...], samples_per_line: int) -> StraightLineEncoding:
    """The reference recipe's operator, ends of the readout included."""
    readout = jnp.linspace(-0.5, 0.5, samples_per_line, dtype=points.dtype)
    return StraightLineEncoding(points, shape, readout=readout)


def reference_loss(image: jax.Array, samples_per_line: int, density_iterations: int) -> AdjointObjective:
    """The reference recipe's objective."""
    template = encoding(jnp.zeros((1, 2), image.dtype), image.shape, samples_per_line)
    return AdjointObjective(template, image[None], density_iterations=density_iterations)


def _fit(loss: Callable, points: np.ndarray, fixed: int, steps: int, lr: float) -> dict:
    result = fit(
        loss,
        {"points": jnp.asarray(points)},
        optimizer=optax.adam(lr),
        steps=steps,
        key=jax.random.key(0),
        project=lambda params: {"points": jnp.clip(params["points"], -0.5, 0.5)},
        learned={"points": np.arange(len(points))[:, None] >= fixed},
        progress=False,
    )
    return {
        "losses": result.history["loss"].tolist(),
        "seconds_per_step": result.seconds_per_step,
        "compile_seconds": result.compile_seconds,
        "points": np.asarray(result.params["points"]),
    }


def learn(
    image: np.ndarray,
    points: np.ndarray,
    fixed: int,
    samples_per_line: int,
    steps: int,
    density_iterations: int,
    lr: float,
) -> dict:
    """The reference recipe through the package's fit loop: losses, seconds and learned points."""
    loss = reference_loss(jnp.asarray(image), samples_per_line, density_iterations)
    return _fit(loss, points, fixed, steps, lr)


def learn_default(shape: list[int], lines: int, samples_per_line: int, steps: int, seed: int) -> dict:
    """The points that the command learns on its own brain by its default recipe."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        flags = {
            "shape": shape,
            "lines": [lines],
            "samples": [samples_per_line],
            "steps": [steps],
            "seed": [seed],
        }
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
        objective = reference_loss(jnp.asarray(image.astype(real)), samples_per_line, density_iterations)
        key, start = jax.random.key(0), points.astype(real)
        loss = jax.jit(lambda k: objective({"points": k}, key)[0])
        value, slope = jax.jit(jax.value_and_grad(loss))(jnp.asarray(start))
        differences = []
        for index in coordinates:
            values = []
            for shift in (step, -step):
                moved = start.copy()
                moved[fixed:].ravel()[index] += shift  # a view: the rows after `fixed` are contiguous
                values.append(float(loss(jnp.asarray(moved))))
            differences.append((values[0] - values[1]) / (2 * step))
        return {
            "loss": float(value),
            "gradient": np.asarray(slope)[fixed:],
            "differences": np.array(differences),
        }


def operators(image: np.ndarray, points: np.ndarray, samples_per_line: int) -> dict:
    """Forward values of an image, and the adjoint of those."""
    operator = encoding(jnp.asarray(points), image.shape, samples_per_line)
    samples = operator.forward(jnp.asarray(image))
    return {"forward": np.asarray(samples).ravel(), "adjoint": np.asarray(operator.adjoint(samples))}


def bound(
    image: np.ndarray, points: np.ndarray, fixed: int, samples_per_line: int, density_iterations: int
) -> dict:
    """What a step's time goes to: median seconds of each part's value and gradient, alone."""
    shape = image.shape[1:]
    k, planes = jnp.asarray(points), jnp.asarray(image, jnp.complex64)
    ones = jnp.ones(len(points), jnp.float32)
    spectrum = gram_spectrum(k, ones, shape)
    nothing = _fit(lambda p, key: (jnp.sum(p["points"] ** 2), {}), points, fixed, 40, 1e-2)
    return {
        "density_s": _seconds(lambda k: jnp.sum(pipe_density(k, shape, density_iterations) ** 2), k),
        "spreading_s": _seconds(lambda k: jnp.sum(gram_spectrum(k, ones, shape) ** 2), k),
        "fft_s": _seconds(lambda s: jnp.sum(jnp.abs(convolve_planes(planes, s)) ** 2), spectrum),
        "dispatch_s": nothing["seconds_per_step"],
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
            "learn": learn,
            "learn_default": learn_default,
            "gradient": gradient,
            "operators": operators,
            "bound": bound,
        }
    )
