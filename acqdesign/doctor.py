"""What this machine offers and how to have what it lacks: `python -m acqdesign.doctor`."""

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata, util

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.encoding import available_backends, nufft_adjoint, nufft_forward

PACKAGES = ("acqdesign", "jax", "jaxlib", "jax-finufft", "optax", "equinox", "numpy", "scipy", "matplotlib")
EXTRAS = {
    "nibabel": "nifti: images from .nii and .nii.gz",
    "brainweb_dl": "brainweb: BrainWeb's subjects, downloaded",
    "pypulseq": "pulseq: sequences for scanners",
    "ismrmrd": "mrd: ISMRM Raw Data",
}
"""Importable module of each optional extra, with the extra's name and what it is for."""

# Points and shape of the check, and how far float32 may be from the exact sum.
_POINTS, _SHAPE, _TOLERANCE = 60, (12, 10), 1e-5


def check_backend(backend: str) -> float:
    """Relative error of a small transform there and back against the exact sum, with its gradient in the points.

    Args:
        backend: `finufft` or `dft`.

    Returns:
        The largest of the three relative errors in Euclidean norm.
    """
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (_POINTS, 2))
    image = rng.normal(size=_SHAPE) + 1j * rng.normal(size=_SHAPE)
    grid = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in _SHAPE), indexing="ij"), -1).reshape(-1, 2)
    matrix = np.exp(-2j * np.pi * points @ grid.T)
    samples = matrix @ image.ravel()
    back = (matrix.conj().T @ samples).reshape(_SHAPE)
    # d/dk |s|² = 2 Re(conj(s) ds/dk)
    slope = 2 * np.real(samples.conj()[:, None] * (-2j * np.pi * matrix @ (image.reshape(-1, 1) * grid)))

    k, f = jnp.asarray(points, jnp.float32), jnp.asarray(image, jnp.complex64)
    forward = jax.jit(lambda k: nufft_forward(f, k, backend=backend))
    adjoint = jax.jit(
        lambda k: nufft_adjoint(jnp.asarray(samples, jnp.complex64), k, _SHAPE, backend=backend)
    )
    gradient = jax.jit(jax.grad(lambda k: jnp.sum(jnp.abs(forward(k)) ** 2)))
    pairs = ((forward(k), samples), (adjoint(k), back), (gradient(k), slope))
    return max(float(np.linalg.norm(found - want) / np.linalg.norm(want)) for found, want in pairs)


def _report() -> Iterator[tuple[str, bool]]:
    """Lines of the report, each with whether what it says is in order."""
    yield f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores", True
    yield "versions: " + ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES), True
    yield (
        f"precision: {jnp.zeros(()).dtype} unless asked for otherwise; commands take --precision double",
        True,
    )
    cache = jax.config.values["jax_compilation_cache_dir"]
    hint = "none; JAX_COMPILATION_CACHE_DIR=DIR keeps compiled programs between processes"
    yield f"compilation cache: {cache or hint}", True
    for device in jax.devices():
        stats = device.memory_stats() or {}
        memory = f", {stats['bytes_limit'] / 2**30:.1f} GiB for JAX" if "bytes_limit" in stats else ""
        yield f"device: {device.platform} {device.device_kind}{memory}", True
    if jax.default_backend() == "cpu":
        yield (
            'no GPU in use; with an NVIDIA one: pip install "acqdesign[cuda13]" (Python 3.12 or newer)',
            True,
        )
    for backend, missing in available_backends().items():
        if missing:
            remedy = "build jax-finufft from its sdist with CUDA; until then --backend auto takes dft"
            yield f"backend {backend}: {missing}; {remedy}", True
            continue
        error = check_backend(backend)
        yield (
            f"backend {backend}: value, adjoint and gradient within {error:.1e} of the sum",
            error < _TOLERANCE,
        )
    for module, what in EXTRAS.items():
        extra = what.split(":")[0]
        there = util.find_spec(module) is not None
        yield f"extra {what}: " + ("there" if there else f'pip install "acqdesign[{extra}]"'), True


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report.

    Args:
        argv: the command's arguments, of which there are none but `--help`; the process's own unless given.

    Returns:
        0, or 3 where a backend computes something else than the sum.
    """
    about = (
        "Print devices, NUFFT backends checked against the exact sum, versions, precision and missing extras."
    )
    argparse.ArgumentParser(prog="python -m acqdesign.doctor", description=about).parse_args(argv)
    sound = True
    for line, good in _report():
        print(line if good else f"WRONG: {line}, expected {_TOLERANCE:g} or less")
        sound &= good
    return 0 if sound else 3


if __name__ == "__main__":
    sys.exit(main())
