"""Lines and flips in one loss: `loss({"points": (S, 2), "flips": (E,)}, key) -> (scalar, terms)`.

The echoes' amplitudes in each tissue follow from the flips and weight the lines; images are reconstructed as a
scanner would, from what it may know (the train, the noise, where the head is, what tissues there are and how much of
each), and compared with ideal spin-echo contrast.
"""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from acqdesign.base.checks import check_choice, check_count, usage_error
from acqdesign.base.types import Array, Float, Image, Int, PRNGKey, PyTree, Scalar
from acqdesign.design.joint_scan import Scan
from acqdesign.encoding import EchoTrainEncoding, StraightLineEncoding
from acqdesign.recon import signal_basis, spectral_prior
from acqdesign.scene import TissueClasses, posed, support
from acqdesign.signal import crlb, fse

RECONSTRUCTIONS = ("image", "subspace")

TERMS = ("nrmse", "noise", "width", "side_lobes", "crlb_t2", "crlb_t1")
"""What a design may be learned for; see `JointSettings`."""

SPLIT = {
    "maps": P("tissues", "anatomies", "planes"),
    "fractions": P(None, "anatomies"),
    "smaps": P("coils", "planes"),
    "support": P("anatomies", "planes"),
    **dict.fromkeys(("scene.maps", "spread", "t1", "t2", "b1"), P("tissues")),
}
"""How an objective's arrays lie on a mesh, for `split_over`; lines are split as a step begins."""

# In full float32 on every device.
_dot = functools.partial(jnp.matmul, precision="highest")
# Of the mean power of the image, where nothing is known of the noise.
_LEAST_RIDGE = 1e-6


@dataclasses.dataclass(frozen=True)
class JointSettings:
    """How an echo train is played, reconstructed and judged; times in seconds."""

    esp_s: float
    te_echo: int
    """The echo, from 0, that defines contrast."""
    noise: float = 0.0
    """Standard deviation of the complex noise on each sample, of a unitary transform."""
    ridge: float | None = None
    """Weight of the prior: noise variance over the mean power of the head's voxels. None takes those of the scene."""
    prior: float = 1.5
    """Exponent of the power spectrum that the prior gives images; 0 is white."""
    iterations: int = 12
    reconstruction: str = "image"
    """`image`: one image with assumed amplitudes; `subspace`: `rank` coefficient images."""
    rank: int = 2
    weight_nrmse: float = 1.0
    """Of the image's root-mean-square error, over that of the target."""
    weight_noise: float = 0.0
    """Of the image's noise, its standard deviation over the target's root mean square."""
    weight_width: float = 0.0
    """Of the root-mean-square radius [voxels] of the point spread function's main lobe, five voxels across."""
    weight_side_lobes: float = 0.0
    """Of the point spread function's energy outside the three central voxels, relative to that inside."""
    weight_crlb_t2: float = 0.0
    """Of the relative standard deviation of T2 (T1 known), by the Cramér–Rao bound from a fully sampled train, as
    root mean square over the tissues."""
    weight_crlb_t1: float = 0.0
    """Likewise of T1 (T2 known)."""

    def __post_init__(self) -> None:
        check_choice("reconstruction", self.reconstruction, RECONSTRUCTIONS)
        check_count("iterations", self.iterations)
        check_count("rank", self.rank)
        weights = [f"weight_{name}" for name in TERMS]
        for name in ("noise", "prior", *weights, *(["ridge"] if self.ridge is not None else [])):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise usage_error(name, value, "a finite number >= 0")
        if not any(getattr(self, name) for name in weights):
            raise usage_error("weight_nrmse", 0.0, "at least one positive weight")
        for name in ("weight_noise", "weight_crlb_t2", "weight_crlb_t1"):
            if getattr(self, name) and not self.noise:
                raise usage_error(name, getattr(self, name), "0 without noise", "Or give a noise above 0.")

    @property
    def weights(self) -> dict[str, float]:
        """The positive weights, by the term's name."""
        found = {name: getattr(self, f"weight_{name}") for name in TERMS}
        return {name: weight for name, weight in found.items() if weight}


class Poses(eqx.Module):
    """Anatomies to be turned at random: volume fractions on the finer grid of `posed`, and what each class has of them.

    Args:
        fractions: `(T, anatomies, fx, fy, fz)` of the `T` tissues, see `fine_shape`.
        spread: `(C, nx, ny, nz)` maps of the classes where the fractions are one, `C` a multiple of `T`.
    """

    fractions: Float[Array, "tissues anatomies fx fy fz"]
    spread: Float[Array, "classes nx ny nz"]

    def __call__(self, key: PRNGKey) -> Float[Array, "classes anatomies nx ny nz"]:
        """The classes' maps, every anatomy in a pose of its own."""
        fine = jnp.moveaxis(self.fractions, 1, 0)
        shape = self.spread.shape[1:]
        turned = jax.vmap(lambda f, k: posed(f, k, shape))(fine, jax.random.split(key, len(fine)))
        each = len(self.spread) // len(self.fractions)
        return jnp.repeat(jnp.moveaxis(turned, 0, 1), each, axis=0) * self.spread[:, None]


class JointObjective(eqx.Module):
    """Image error, noise, point spread and bounds of an echo-train scan, in its lines and flips.

    Args:
        lines: template whose points are replaced by those learned.
        echo: `(S,)` echo at which each line is acquired, from 0.
        anatomies: one or more scenes of the same classes, to learn on; their maps are stacked.
        settings: see `JointSettings`.
        known: an objective whose tissues and their shares the reconstruction assumes; its own unless given. Where the
            head is, it sees by itself.
        poses: new maps at every step in the place of the anatomies' own.
        louder: factor on the noise of the settings.

    Raises:
        ValueError: anatomies that differ in their classes; a rank above their number.
    """

    lines: StraightLineEncoding
    echo: Int[Array, " lines"]
    scene: TissueClasses
    maps: Float[Array, "classes anatomies nx ny nz"]
    support: Float[Array, "anatomies nx ny nz"]
    root: Float[Array, "classes classes"]
    prior: Float[Array, "ny nz"] | None
    known: "JointObjective | None"
    poses: Poses | None
    louder: Scalar
    settings: JointSettings = eqx.field(static=True)

    def __init__(
        self,
        lines: StraightLineEncoding,
        echo: Int[Array, " lines"],
        anatomies: list[TissueClasses],
        settings: JointSettings,
        *,
        known: "JointObjective | None" = None,
        poses: Poses | None = None,
        louder: float = 1.0,
    ):
        self.lines, self.echo, self.settings = lines, jnp.asarray(echo), settings
        if not anatomies or any(a.maps.shape != anatomies[0].maps.shape for a in anatomies):
            raise usage_error("anatomies", len(anatomies), "one or more, with maps of one shape")
        classes = len(anatomies[0].maps)
        if settings.reconstruction == "subspace" and settings.rank > classes:
            raise usage_error("rank", settings.rank, f"at most {classes}, the number of tissue classes")
        self.scene, self.known, self.poses = anatomies[0], known, poses
        self.maps = jnp.stack([a.maps for a in anatomies], axis=1)
        self.louder = jnp.asarray(louder, self.maps.dtype)
        self.support = support(jnp.sum(self.maps, 0))
        # A square root of the classes' covariance: the mean of ρ_c ρ_d over the anatomies' voxels.
        flat = np.asarray(self.maps, np.float64).reshape(len(self.maps), -1)
        values, vectors = np.linalg.eigh(flat @ flat.T / np.asarray(self.support, np.float64).sum())
        self.root = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0)), self.maps.dtype)
        plane = (lines.shape[1], lines.shape[2])
        self.prior = spectral_prior(plane, settings.prior, dtype=self.maps.dtype) if settings.prior else None

    def amplitudes(self, flips: Float[Array, " echoes"]) -> Float[Array, "classes echoes"]:
        """Signal of each class at each echo, in units of its proton density, for refocusing `flips` [rad]."""
        scene = self.scene
        return fse(flips, self.settings.esp_s, scene.t1, scene.t2, b1=scene.b1)

    def contrast(self) -> Float[Array, " classes"]:
        """Ideal spin-echo signal of each class at the effective echo time, in units of its proton density."""
        return jnp.exp(-(self.settings.te_echo + 1) * self.settings.esp_s / self.scene.t2)

    def target(self, maps: Array | None = None) -> Float[Array, "anatomies nx ny nz"]:
        """Ideal spin-echo images at the effective echo time.

        Args:
            maps: images of proton density `(classes, anatomies, nx, ny, nz)`; the scenes' own unless given.
        """
        return jnp.einsum(
            "c,caxyz->axyz", self.contrast(), self.maps if maps is None else maps, precision="highest"
        )

    def encoding(self, params: PyTree) -> EchoTrainEncoding:
        """The operator of a design."""
        lines = eqx.tree_at(lambda e: e.points, self.lines, params["points"])
        return EchoTrainEncoding(lines, self.echo, self.amplitudes(params["flips"]))

    def reference(self, amplitudes: Float[Array, "classes echoes"]) -> Float[Array, " echoes"]:
        """By echo, how much of the target image is in the echo's: least squares over the expected anatomy.

        Args:
            amplitudes: of each class at each echo, in units of proton density.
        """
        wanted = _dot(self.root.T, self.contrast())
        return _dot(_dot(wanted, self.root.T), amplitudes) / jnp.sum(wanted**2)

    def components(self, amplitudes: Float[Array, "classes echoes"]) -> tuple[Array, Array]:
        """What is solved for: images of unit power `u_k` in `y_s = Σ_k b_k[e(s)] A_s u_k`, the target `Σ_k g_k u_k`.

        Args:
            amplitudes: of each class at each echo, in units of proton density.

        Returns:
            `b` `(K, E)` and `g` `(K,)`: one image with the amplitudes of the reference, or the leading subspace of
            the echoes' images, white in the expected anatomy.
        """
        wanted, echoes = _dot(self.root.T, self.contrast()), _dot(self.root.T, amplitudes)
        if self.settings.reconstruction == "image":
            power = jnp.sqrt(jnp.sum(wanted**2))
            return (_dot(wanted, echoes) / power)[None], power[None]
        turn = signal_basis(echoes.T, self.settings.rank)
        return _dot(turn, echoes), _dot(turn, wanted)

    def _ridge(self, known: "JointObjective") -> Array:
        """Noise variance of a sample, for components of unit power."""
        settings, lines = self.settings, self.lines
        power = jnp.sum(_dot(known.root.T, known.contrast()) ** 2)
        if settings.ridge is not None:
            return settings.ridge * power * lines.samples_per_line / lines.shape[0]
        return jnp.maximum(self._deviation() ** 2, _LEAST_RIDGE * power)

    def _deviation(self) -> Scalar:
        """Standard deviation of the noise of a sample."""
        return self.settings.noise * self.louder

    def _noise(self, points: Array, anatomies: int, key: PRNGKey) -> Array:
        """White noise on every sample of every anatomy."""
        smaps = self.lines.smaps
        coils = () if smaps is None else smaps.shape[:1]
        size = (anatomies, *coils, len(points), self.lines.samples_per_line)
        return self._deviation() * jax.random.normal(key, size, jnp.result_type(points.dtype, jnp.complex64))

    def reconstruct(self, params: PyTree, key: PRNGKey) -> Image:
        """Images `(anatomies, nx, ny, nz)`, scaled to the target by one real number each."""
        return self._evaluate(params, key, frozenset({"nrmse"}))[0]

    def terms(self, params: PyTree, key: PRNGKey) -> dict[str, Scalar]:
        """All `TERMS`, weighted or not."""
        return self._evaluate(params, key, frozenset(TERMS))[1]

    def point_spread(self, params: PyTree) -> Image:
        """Scan and reconstruction of a point of the target's contrast in the middle: an image `(ny, nz)`.

        As if the head filled the field of view, since a point's response depends on where in the head it lies.
        """
        return self._scan(params, self.maps, None, None).point_spread()

    def _scan(
        self,
        params: PyTree,
        maps: Array,
        where: Array | None,
        noise: Array | None,
        change: Array | None = None,
    ) -> Scan:
        """The scan of a design, and what its reconstruction assumes; `change` is added to the lines' amplitudes."""
        encoding, known = self.encoding(params), self.known or self
        through = encoding.at_lines(encoding.amplitudes)
        assumed = encoding.amplitudes if self.known is None else known.amplitudes(params["flips"])
        echo = self.echo
        if change is not None:
            through = through + change
            # Every line as an echo of its own.
            assumed = through if self.known is None else assumed[:, echo]
            echo = jnp.arange(len(echo), dtype=echo.dtype)
        rows, mix = known.components(assumed)
        return Scan(
            encoding.lines,
            through,
            rows[:, echo],
            known.reference(assumed)[echo],
            mix,
            self._ridge(known),
            self.prior,
            maps,
            where,
            noise,
            self.settings.iterations,
        )

    def _evaluate(
        self, params: PyTree, key: PRNGKey, wanted: frozenset[str], change: Array | None = None
    ) -> tuple[Image, dict[str, Scalar]]:
        noise_key, pose_key = jax.random.split(key)
        maps, where = self.maps, self.support
        if self.poses is not None:
            maps = self.poses(pose_key)
            where = support(jnp.sum(maps, 0))
        target = self.target(maps)
        noise = self._noise(params["points"], len(target), noise_key) if self.settings.noise else None
        scan = self._scan(params, maps, where, noise, change)
        # What the same noise changes with either sign: |J n|² estimates the trace of J Jᴴ, J the derivative of the
        # reconstruction as it is run (conjugate gradients that stop early are not linear in their data).
        found, *other = scan.images(both="noise" in wanted)
        axes = (1, 2, 3)
        scale = jnp.sum((found * target).real, axes) / jnp.sum(jnp.abs(found) ** 2, axes)
        found = scale[:, None, None, None] * found
        power = jnp.sum(target**2, axes)
        terms = {"nrmse": jnp.mean(jnp.sqrt(jnp.sum(jnp.abs(found - target) ** 2, axes) / power))}
        for opposite in other:
            moved = found - scale[:, None, None, None] * opposite
            terms["noise"] = jnp.mean(jnp.sqrt(jnp.sum(jnp.abs(moved) ** 2, axes) / (4 * power)))
        if {"width", "side_lobes"} & wanted:
            terms |= main_lobe(scan.point_spread())
        for name in {"crlb_t2", "crlb_t1"} & wanted:
            terms[name] = self._bound(params["flips"], name[5:])
        return found, {name: terms[name] for name in TERMS if name in wanted}

    def _bound(self, flips: Array, which: str) -> Scalar:
        """Relative standard deviation of a relaxation time, M0 and its phase unknown."""
        scene, dtype = self.scene, flips.dtype

        def signal(shift: Array) -> tuple[Array, Array]:
            factor = {name: jnp.exp(shift) if name == which else 1 for name in ("t1", "t2")}
            t1, t2 = scene.t1 * factor["t1"], scene.t2 * factor["t2"]
            echoes = fse(flips, self.settings.esp_s, t1, t2, b1=scene.b1)
            return echoes, echoes

        slopes, echoes = jax.jacfwd(signal, has_aux=True)(jnp.zeros((), dtype))
        return self._deviation() * jnp.sqrt(jnp.mean(crlb(slopes[..., None], signal=echoes)))

    def __call__(
        self, params: PyTree, key: PRNGKey, change: Float[Array, "classes lines"] | None = None
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Loss and its weighted terms; `change` is added to the lines' amplitudes, for derivatives in them."""
        weights = self.settings.weights
        _, terms = self._evaluate(params, key, frozenset(weights), change)
        return jnp.asarray(sum(weight * terms[name] for name, weight in weights.items())), terms


def main_lobe(psf: Image) -> dict[str, Scalar]:
    """Width and side lobes of a point spread function `(ny, nz)` about its middle; see `JointSettings`."""
    energy = jnp.abs(psf) ** 2
    distance = [jnp.abs(jnp.arange(n) - n // 2) for n in energy.shape]
    from_peak = jnp.maximum(distance[0][:, None], distance[1][None, :])
    square = (distance[0][:, None] ** 2 + distance[1][None, :] ** 2).astype(energy.dtype)
    lobe = jnp.where(from_peak <= 2, energy, 0)
    inside = jnp.sum(jnp.where(from_peak <= 1, energy, 0))
    width = jnp.sqrt(jnp.sum(square * lobe) / jnp.sum(lobe))
    return {"width": width, "side_lobes": (jnp.sum(energy) - inside) / inside}
