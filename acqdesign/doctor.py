"""What this machine offers and how to have what it lacks: `python -m acqdesign.doctor`."""

import argparse
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata, util

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.commands.cache import usual_folder
from acqdesign.commands.streams import leave
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
    """Largest relative error, in Euclidean norm, of a small transform against the exact sum.

    Of its value, adjoint, gradient in the points, and a batch.
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
    adjoint = jax.jit(lambda k: nufft_adjoint(jnp.asarray(samples, jnp.complex64), k, _SHAPE, backend=backend))
    gradient = jax.jit(jax.grad(lambda k: jnp.sum(jnp.abs(forward(k)) ** 2)))
    # Two images, each at points of its own.
    batch = jax.jit(jax.vmap(lambda f, k: nufft_forward(f, k, backend=backend)))
    batched = batch(jnp.stack([f, 2j * f]), jnp.stack([k, k[::-1]]))
    both = np.stack([samples, 2j * samples[::-1]])
    pairs = ((forward(k), samples), (adjoint(k), back), (gradient(k), slope), (batched, both))
    return max(float(np.linalg.norm(found - want) / np.linalg.norm(want)) for found, want in pairs)


def nvidia_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver sees, whether JAX can use them or not."""
    call = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(call, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.strip().splitlines()


def _report() -> Iterator[tuple[str, bool]]:
    """Lines of the report, each with whether what it says is in order."""
    yield f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores", True
    yield "versions: " + ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES), True
    yield f"precision: {jnp.zeros(()).dtype} unless asked for otherwise; commands take --precision double", True
    yield f"compiled programs are kept in {jax.config.values['jax_compilation_cache_dir'] or usual_folder()}", True
    for device in jax.devices():
        stats = device.memory_stats() or {}
        memory = f", {stats['bytes_limit'] / 2**30:.1f} GiB for JAX" if "bytes_limit" in stats else ""
        yield f"device {device.id}: {device.platform} {device.device_kind}{memory}", True
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        yield f"memory of this machine: {gib:.1f} GiB", True
    if jax.device_count() > 1:
        yield f"several devices: --mesh coils={jax.device_count()}, say, splits a run over them", True
    if jax.default_backend() == "cpu":
        if gpus := nvidia_gpus():
            install = 'pip install "acqdesign[cuda13]" (Python 3.12 or newer; cuda12 for older drivers)'
            yield f"{', '.join(gpus)}: not used, JAX has no CUDA here; nox -s cuda, or {install}", True
        else:
            yield "no NVIDIA GPU found here by nvidia-smi; on a machine with one: nox -s cuda", True
    for backend, missing in available_backends().items():
        if missing:
            yield f"backend {backend}: {missing}; nox -s cuda builds them; until then --backend auto takes dft", True
            continue
        error = check_backend(backend)
        told = f"backend {backend}: value, adjoint, gradient and batch within {error:.1e} of the sum"
        yield told, error < _TOLERANCE
    for module, what in EXTRAS.items():
        install = f'pip install "acqdesign[{what.split(":")[0]}]"'
        yield f"extra {what}: {install if util.find_spec(module) is None else 'there'}", True


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; gives 3 where a backend is wrong or what `--gpu` asks for is missing, else 0."""
    about = "Print devices, NUFFT backends checked against the exact sum, versions, precision and missing extras."
    parser = argparse.ArgumentParser(prog="python -m acqdesign.doctor", description=about)
    wanted = "fail unless a GPU is in use, with every backend running on it"
    parser.add_argument("--gpu", action="store_true", help=wanted)
    strict = parser.parse_args(argv).gpu
    sound = True
    for line, good in _report():
        print(line if good else f"WRONG: {line}, expected {_TOLERANCE:g} or less")
        sound &= good
    missing = [why for why in available_backends().values() if why]
    if strict and (jax.default_backend() == "cpu" or missing):
        print("WRONG: " + "; ".join(["no GPU in use"] if jax.default_backend() == "cpu" else missing))
        return 3
    return 0 if sound else 3


if __name__ == "__main__":
    leave(main())
