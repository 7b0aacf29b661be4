"""Lines and flips in one loss: `loss({"points": (S, 2), "flips": (E,)}, key) -> (scalar, terms)`.

The echoes' amplitudes in each tissue follow from the flips and weight the lines; the image is reconstructed as a
scanner would, with one assumed train of amplitudes, and compared with ideal spin-echo contrast.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp

from acqdesign._checks import bad, check_choice, check_count
from acqdesign._types import Array, Float, Image, Int, PRNGKey, PyTree, Scalar
from acqdesign.encoding import EchoTrainEncoding, StraightLineEncoding, toeplitz
from acqdesign.recon import conjugate_gradients, signal_basis
from acqdesign.scene import TissueClasses
from acqdesign.signal import fse

RECONSTRUCTIONS = ("image", "subspace")


@dataclasses.dataclass(frozen=True)
class JointSettings:
    """How an echo train is played, reconstructed and judged; times in seconds."""

    esp_s: float
    te_echo: int
    """The echo, from 0, that defines contrast."""
    noise: float = 0.0
    """Standard deviation of the complex noise on each sample, of a unitary transform."""
    ridge: float = 1e-2
    iterations: int = 12
    reconstruction: str = "image"
    """`image`: one image with assumed amplitudes; `subspace`: `rank` coefficient images."""
    rank: int = 2
    weight_nrmse: float = 1.0
    weight_noise: float = 0.0
    """Of the reconstruction's noise, its standard deviation over the target's root mean square."""
    weight_psf: float = 0.0
    """Of the point spread function's energy outside its main lobe, relative to that inside."""

    def __post_init__(self) -> None:
        check_choice("reconstruction", self.reconstruction, RECONSTRUCTIONS)
        check_count("iterations", self.iterations)
        for name in ("noise", "ridge", "weight_nrmse", "weight_noise", "weight_psf"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise bad(name, value, "a finite number >= 0")
        if self.weight_nrmse + self.weight_noise + self.weight_psf == 0:
            raise bad("weight_nrmse", 0.0, "at least one positive weight")
        if self.weight_noise and self.reconstruction == "subspace":
            raise bad("weight_noise", self.weight_noise, "0 with a subspace reconstruction")


class JointObjective(eqx.Module):
    """Image error, noise and point spread of an echo-train scan, in its lines and flips.

    Args:
        lines: template whose points are replaced by those learned.
        echo: `(S,)` echo at which each line is acquired, from 0.
        anatomies: one or more scenes of the same classes, to learn on; their maps are stacked.
        settings: see `JointSettings`.

    Raises:
        ValueError: on an echo outside the train, or anatomies that differ in their classes.
    """

    lines: StraightLineEncoding
    echo: Int[Array, " lines"]
    scene: TissueClasses
    maps: Float[Array, "classes anatomies nx ny nz"]
    share: Float[Array, " classes"]
    settings: JointSettings = eqx.field(static=True)

    def __init__(
        self,
        lines: StraightLineEncoding,
        echo: Int[Array, " lines"],
        anatomies: list[TissueClasses],
        settings: JointSettings,
    ):
        self.lines, self.echo, self.settings = lines, jnp.asarray(echo), settings
        if not anatomies or any(a.maps.shape != anatomies[0].maps.shape for a in anatomies):
            raise bad("anatomies", len(anatomies), "one or more, with maps of one shape")
        self.scene = anatomies[0]
        self.maps = jnp.stack([a.maps for a in anatomies], axis=1)
        # The reference train: classes by their share of the image's power.
        power = jnp.sum(self.maps**2, axis=(1, 2, 3, 4))
        self.share = power / power.sum()

    def amplitudes(self, flips: Float[Array, " echoes"]) -> Float[Array, "classes echoes"]:
        """Signal of each class at each echo, for unit proton density."""
        scene = self.scene
        return fse(flips, self.settings.esp_s, scene.t1, scene.t2, b1=scene.b1)

    def target(self) -> Float[Array, "anatomies nx ny nz"]:
        """Ideal spin-echo images at the effective echo time."""
        te = (self.settings.te_echo + 1) * self.settings.esp_s
        return jnp.einsum("c,caxyz->axyz", jnp.exp(-te / self.scene.t2), self.maps)

    def encoding(self, params: PyTree) -> EchoTrainEncoding:
        """The operator of a design."""
        lines = eqx.tree_at(lambda e: e.points, self.lines, params["points"])
        return EchoTrainEncoding(lines, self.echo, self.amplitudes(params["flips"]))

    def _adjoint_noise(self, encoding: EchoTrainEncoding, weights: Array, key: PRNGKey) -> Image:
        """`Aᴴ w n` for white noise on every sample of every anatomy."""
        lines = encoding.lines
        coils = () if lines.smaps is None else lines.smaps.shape[:1]
        size = (self.maps.shape[1], *coils, len(lines.points), lines.samples_per_line)
        dtype = jnp.result_type(lines.points.dtype, jnp.complex64)
        return lines.adjoint(self.settings.noise * jax.random.normal(key, size, dtype), weights)

    def _image(self, encoding: EchoTrainEncoding, key: PRNGKey) -> tuple[Image, Scalar]:
        """Images `(anatomies, nx, ny, nz)` and their noise's variance, for unit variance on the samples."""
        settings = self.settings
        reference = self.share @ encoding.amplitudes
        gram, rhs = encoding.matched(reference, self.maps)
        noise_key, probe_key = jax.random.split(key)
        if settings.noise:
            rhs += self._adjoint_noise(encoding, encoding.at_lines(reference), noise_key)
        ridge = settings.ridge * encoding.lines.samples_per_line / encoding.lines.shape[0]

        def solve(b: Image) -> Image:
            return conjugate_gradients(gram, b, ridge=ridge, iterations=settings.iterations)

        variance = jnp.zeros((), encoding.amplitudes.dtype)
        if settings.weight_noise:
            # Hutchinson: the covariance is M G M with M the solver; uᴴ G u with u = M z estimates its trace.
            probe = jax.random.rademacher(probe_key, rhs.shape[1:], encoding.amplitudes.dtype).astype(
                rhs.dtype
            )
            moved = solve(probe)
            variance = jnp.vdot(moved, gram(moved)).real / probe.size
        return solve(rhs), variance

    def _subspace(self, encoding: EchoTrainEncoding, key: PRNGKey) -> Image:
        """The images at the effective echo, from coefficient images."""
        settings = self.settings
        basis = signal_basis(encoding.amplitudes, settings.rank)
        small = EchoTrainEncoding(encoding.lines, encoding.echo, basis)
        weights = small.at_lines(basis)
        through = encoding.at_lines(encoding.amplitudes)
        rhs = jnp.stack([encoding.weighted_sum(w * through, self.maps) for w in weights], axis=1)
        if settings.noise:
            # One realisation of the samples, seen through every row of the basis.
            rhs += jnp.stack([self._adjoint_noise(encoding, w, key) for w in weights], axis=1)
        ridge = settings.ridge * encoding.lines.samples_per_line / encoding.lines.shape[0]
        found = conjugate_gradients(small.gram, rhs, ridge=ridge, iterations=settings.iterations, dims=4)
        return jnp.einsum("k,akxyz->axyz", basis[:, settings.te_echo], found)

    def reconstruct(self, params: PyTree, key: PRNGKey) -> Image:
        """Images `(anatomies, nx, ny, nz)`, scaled to the target by one real number each."""
        return self._evaluate(params, key)[0]

    def _evaluate(
        self, params: PyTree, key: PRNGKey, change: Array | None = None
    ) -> tuple[Image, dict[str, Scalar]]:
        encoding, target = self.encoding(params), self.target()
        if change is not None:
            # Every line as an echo of its own.
            each = encoding.at_lines(encoding.amplitudes) + change
            encoding = EchoTrainEncoding(encoding.lines, jnp.arange(each.shape[1]), each)
        variance = None
        if self.settings.reconstruction == "image":
            found, variance = self._image(encoding, key)
        else:
            found = self._subspace(encoding, key)
        axes = (1, 2, 3)
        scale = jnp.sum((found * target).real, axes) / jnp.sum(jnp.abs(found) ** 2, axes)
        found = scale[:, None, None, None] * found
        power = jnp.sum(target**2, axes)
        terms = {"nrmse": jnp.mean(jnp.sqrt(jnp.sum(jnp.abs(found - target) ** 2, axes) / power))}
        if self.settings.weight_noise and variance is not None:
            rms = jnp.sqrt(jnp.mean(power) / target[0].size)
            terms["noise"] = self.settings.noise * jnp.mean(jnp.abs(scale)) * jnp.sqrt(variance) / rms
        if self.settings.weight_psf:
            terms["psf"] = side_lobe_energy(encoding, self.share @ encoding.amplitudes)
        return found, terms

    def __call__(
        self, params: PyTree, key: PRNGKey, change: Float[Array, "classes lines"] | None = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Loss and its terms; `change` is added to the lines' amplitudes, for derivatives in them."""
        _, terms = self._evaluate(params, key, change)
        loss = sum(getattr(self.settings, f"weight_{name}") * value for name, value in terms.items())
        return jnp.asarray(loss), terms


def point_spread(encoding: EchoTrainEncoding, amplitudes: Float[Array, " echoes"]) -> Image:
    """Point spread function `(ny, nz)` of one tissue's train: `Bᴴ m` in the lines' plane, one at its centre."""
    weights, lines = encoding.at_lines(amplitudes), encoding.lines
    psf = toeplitz.nufft_adjoint(weights, lines.points, lines.shape[1:], eps=lines.eps, backend=lines.backend)
    return psf / jnp.sum(weights)


def side_lobe_energy(encoding: EchoTrainEncoding, amplitudes: Float[Array, " echoes"]) -> Scalar:
    """Energy of the point spread function beyond the voxels next to its peak, over that within."""
    energy = jnp.abs(point_spread(encoding, amplitudes)) ** 2
    distance = [jnp.abs(jnp.arange(n) - n // 2) for n in energy.shape]
    near = (distance[0][:, None] <= 1) & (distance[1][None, :] <= 1)
    inside = jnp.sum(jnp.where(near, energy, 0))
    return (jnp.sum(energy) - inside) / inside
