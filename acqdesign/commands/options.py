"""What the commands ask of the scene and of the lines: the same words in every command."""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_positive, check_shape, usage_error
from acqdesign.base.types import Array, PRNGKey
from acqdesign.base.units import m_from_mm
from acqdesign.encoding import INITIALISERS, Lines, StraightLineEncoding, initial_lines, uniform_readout
from acqdesign.export import POSITION_FILES, read_positions
from acqdesign.scene import birdcage_maps, fine_shape, image_fov_m, load_image, posed, target_grid


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """What is scanned."""

    phantom: tuple[str, ...] = ("brain",)
    """Images to learn on: brain, brainweb:SUBJECT, or a .nii, .nii.gz, .npy or .npz file; several may follow."""
    holdout: tuple[str, ...] = ()
    """Images to report on and never learn on, likewise; unless given, two random poses of each phantom."""
    augment: bool = False
    """Learn on a new random rotation, scale and flip of every image at every step."""
    shape: tuple[int, int, int] = (23, 28, 23)
    """Voxels NX NY NZ, x along the readout; NX = 1 is one plane."""
    fov_mm: tuple[float, float, float] | None = None
    """Field of view along x, y and z [mm]; the phantom's own unless given."""
    field: Literal["1.5T", "3T"] = "3T"
    """Field strength, for the tissues' relaxation times."""
    contrast: Literal["T1w", "T2w", "PDw"] = "T1w"
    """Contrast of phantoms that are tissue maps."""
    coils: int = 1
    """Receive coils on a birdcage; 1 is a uniform one."""
    noise: float = 0.0
    """Standard deviation of the complex noise on each sample, for an image whose largest value is one and a
    unitary transform."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        check_shape("--shape", self.shape, dims=(3,))
        check_count("--coils", self.coils)
        if not self.phantom:
            raise usage_error("--phantom", "nothing", "at least one image")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise usage_error("--noise", self.noise, "a finite number >= 0")
        for length in self.fov_mm or ():
            check_positive("--fov-mm", length)

    @functools.cached_property
    def _own_fov_m(self) -> tuple[float, ...] | None:
        return image_fov_m(self.phantom[0])

    def fov_m(self) -> tuple[float, ...] | None:
        """Field of view [m] along x, y and z: that asked for, or the first phantom's own, if it says."""
        if self.fov_mm is not None:
            return tuple(m_from_mm(length) for length in self.fov_mm)
        if self._own_fov_m is None:
            return None
        _, voxel = target_grid(self._own_fov_m, self.shape, None)
        return tuple(length * n for length, n in zip(voxel, self.shape, strict=True))

    def voxel_size(self) -> tuple[float, ...]:
        """Lengths of a voxel's edges [m], or ones where the phantom doesn't say."""
        fov = self.fov_m()
        return (1.0, 1.0, 1.0) if fov is None else tuple(f / n for f, n in zip(fov, self.shape, strict=True))

    def load(self, spec: str, *, contrast: str | None = None, fine: bool = False) -> Array:
        """One phantom, `(nx, ny, nz)` or maps `(3, nx, ny, nz)`, on the grid or the one for `posed`."""
        shape = fine_shape(self.shape) if fine else self.shape
        voxel = None
        if self.fov_mm is not None:
            voxel = tuple(m_from_mm(length) / n for length, n in zip(self.fov_mm, shape, strict=True))
        return load_image(
            spec, shape=shape, voxel_size_m=voxel, contrast=contrast or self.contrast, field=self.field
        )

    def images(self, dtype: type[np.floating], *, fine: bool = False) -> Array:
        """The images to learn on, `(n, nx, ny, nz)`."""
        return _stack([self.load(spec, fine=fine) for spec in self.phantom], dtype)

    def held_out(self, key: PRNGKey, dtype: type[np.floating]) -> Array:
        """The images never learned on: those asked for, or two poses of each phantom."""
        if self.holdout:
            return _stack([self.load(spec) for spec in self.holdout], dtype)
        fine = jnp.repeat(self.images(dtype, fine=True), 2, axis=0)
        keys, voxel = jax.random.split(key, len(fine)), self.voxel_size()
        return jax.vmap(lambda image, key: posed(image, key, self.shape, voxel_size=voxel))(fine, keys)

    def smaps(self, dtype: type[np.floating]) -> Array | None:
        """Coil sensitivities `(coils, nx, ny, nz)`, or None for one uniform coil."""
        if self.coils == 1:
            return None
        return birdcage_maps(self.coils, self.shape, dtype=np.result_type(dtype, np.complex64))


def _stack(images: list[Array], dtype: type[np.floating]) -> Array:
    complex_type = np.result_type(dtype, np.complex64)
    return jnp.stack([i.astype(complex_type if jnp.iscomplexobj(i) else dtype) for i in images])


@dataclasses.dataclass(frozen=True)
class LineOptions:
    """How k-space is sampled."""

    lines: int | None = None
    """Number of readout lines; 253 unless --acceleration is given."""
    acceleration: float | None = None
    """Instead of --lines: phase encodes of the full grid over lines."""
    samples: int = 128
    """Samples of a line."""
    init: str | None = None
    """Where lines start: reference, poisson, caipi, spiral, full, or a file of positions: the design.npz of a run,
    Pulseq .seq, SPARKLING .bin, BART .cfl, ISMRM Raw Data .mrd or .h5, or MATLAB .mat."""
    calibration: int | None = None
    """Side of the fully sampled block of lines in the centre, which stays as it is; 0 for none."""
    backend: Literal["auto", "finufft", "dft"] = "auto"
    """NUFFT: finufft (fast), dft (exact; any device) or auto."""
    eps: float | None = None
    """Relative accuracy of finufft; 1e-6 in single and 1e-12 in double precision unless given."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        check_count("--samples", self.samples)
        for name in ("lines", "calibration"):
            if getattr(self, name) is not None:
                check_count(f"--{name}", getattr(self, name), minimum=1 if name == "lines" else 0)
        if self.lines is not None and self.acceleration is not None:
            raise usage_error(
                "--acceleration", f"{self.acceleration} and --lines {self.lines}", "one of the two"
            )
        if self.acceleration is not None:
            check_positive("--acceleration", self.acceleration)
        if self.init is not None and not self.init.endswith(POSITION_FILES):
            check_choice(
                "--init", self.init, (*INITIALISERS, *(f"FILE{ending}" for ending in POSITION_FILES))
            )
        if self.eps is not None and not 0 < self.eps < 1:
            raise usage_error("--eps", self.eps, "a relative accuracy between 0 and 1")

    def resolved_backend(self, deterministic: bool) -> str:
        """The backend to ask for: `dft` where runs must repeat bit for bit.

        Raises:
            ValueError: `finufft`, whose threads add in any order, was asked for with `deterministic`.
        """
        if not deterministic:
            return self.backend
        if self.backend == "finufft":
            raise usage_error(
                "--backend", "finufft with --deterministic", "dft or auto", "Its sums vary with threads."
            )
        return "dft"

    def encoding(
        self, shape: tuple[int, int, int], readout: Array, smaps: Array | None, backend: str
    ) -> StraightLineEncoding:
        """A template of the operator, its points yet to be set."""
        points = jnp.zeros((1, 2), readout.dtype)
        # The operator saves a product along the readout where it knows that the samples are uniform.
        uniform = np.array_equal(readout, uniform_readout(self.samples, readout.dtype))
        given = {"samples_per_line": self.samples} if uniform else {"readout": readout}
        return StraightLineEncoding(points, shape, **given, smaps=smaps, eps=self.eps, backend=backend)


def start_lines(options: LineOptions, init: str, shape: tuple[int, int, int], key: PRNGKey) -> Lines:
    """The positions that learning starts from.

    The default `poisson` start has a calibration block of nearly a third of the lines and, where they fit, keeps
    to the ellipse inside k-space.

    Args:
        options: of the lines.
        init: a pattern's name, or the path of a file of positions.
        shape: `(nx, ny, nz)` of the image.
        key: for random patterns.

    Raises:
        ValueError: what cannot be met, by the argument's name.
    """
    if init.endswith(POSITION_FILES):
        if options.lines is not None or options.acceleration is not None or options.calibration is not None:
            raise usage_error("--init", f"{init} with a number of lines", "none: the file says how many")
        held = read_positions(init)
        return Lines(jnp.asarray(held["points"]), jnp.asarray(held["learned"]))
    _, ny, nz = shape
    lines, acceleration, calibration = options.lines, options.acceleration, options.calibration
    if lines is None and acceleration is None and init != "full":
        lines = min(253, ny * nz)
    shutter = False
    if init in ("poisson", "spiral"):
        count = lines if acceleration is None else ny * nz / acceleration
        assert count is not None
        if calibration is None:
            calibration = min(round(math.sqrt(0.3 * count)), ny, nz)
        shutter = init == "poisson" and count <= 0.75 * ny * nz
    return initial_lines(
        init,
        shape,
        key=key,
        lines=lines,
        acceleration=acceleration,
        calibration=calibration or 0,
        shutter=shutter,
    )
