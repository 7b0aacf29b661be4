"""The simulated scan: what terms are functions of, its parts computed when a term first asks for them.

Every readout `s` acquires `y_s = Σ_c m_cs A_s ρ_c + n_s`, with `m_cs` the signal of tissue class `c` at the echo that
the readout is played at (the wanted contrast itself where there is no sequence). All that k-space knows of the spins
are these amplitudes. Reconstruction and simulation of k-space run on the local pieces of anatomies, coils and planes
where a mesh splits them, everything else on whole arrays.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from acqdesign.base.checks import usage_error
from acqdesign.base.sharding import across, specs, split, vary, varying
from acqdesign.base.types import Array, Float, Image, Inexact, PRNGKey, Samples, Scalar
from acqdesign.encoding import Encoding, Gram
from acqdesign.recon import signal_basis
from acqdesign.scene import Scene, Tissue
from acqdesign.signal import relative_bounds
from acqdesign.signal.sequence import simulate

if TYPE_CHECKING:
    from acqdesign.design.problem import Design, Problem

# In full precision on every device.
_dot = functools.partial(jnp.matmul, precision="highest")


class Assumed(eqx.Module):
    """What a reconstruction takes for granted: which tissues there are, how much of each, and what is wanted of them.

    Args:
        tissue: of shape `(classes,)`; None for the scene's own.
        contrast: `(classes,)` what the target shows of each class.
        root: `(classes, classes)` a square root of the mean of `ρ_c ρ_d` over the head's voxels.
        head: share of the voxels that are the head's.
    """

    tissue: Tissue | None
    contrast: Float[Array, " classes"]
    root: Float[Array, "classes classes"]
    head: Scalar

    @classmethod
    def of(cls, scene: Scene, contrast: Float[Array, " classes"]) -> "Assumed":
        """That of a scene, with its own tissues."""
        assert scene.maps is not None
        assert scene.support is not None
        flat = np.asarray(scene.maps).reshape(len(scene.maps), -1).astype(np.complex128)
        values, vectors = np.linalg.eigh((flat @ flat.conj().T).real / np.asarray(scene.support, np.float64).sum())
        root = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0)), contrast.dtype)
        return cls(None, contrast, root, jnp.mean(scene.support))

    @property
    def power(self) -> Scalar:
        """Mean power of the target over the head's voxels."""
        return jnp.sum(_dot(self.root.T, self.contrast) ** 2)

    def reference(self, signal: Inexact[Array, "classes echoes"]) -> Inexact[Array, " echoes"]:
        """Regression coefficient of each echo's image on the target, over the mean anatomy."""
        wanted = _dot(self.root.T, self.contrast)
        return _dot(_dot(wanted, self.root.T), signal) / jnp.sum(wanted**2)

    def components(self, signal: Float[Array, "classes echoes"], rank: int) -> tuple[Array, Array]:
        """Images of unit power `u_k` in `y_s = Σ_k b_k[e(s)] A_s u_k`, of which the target is `Σ_k g_k u_k`.

        Returns:
            `b` `(K, E)` and `g` `(K,)`: the leading subspace of the echoes' images, white in the mean anatomy.
        """
        if rank > len(signal):
            raise usage_error("rank", rank, f"at most {len(signal)}, the number of tissue classes")
        wanted, echoes = _dot(self.root.T, self.contrast), _dot(self.root.T, signal)
        turn = signal_basis(echoes.T, rank)
        return _dot(turn, echoes), _dot(turn, wanted)


def tissue_of(scene: Scene) -> Tissue:
    """The tissues of a scene, which there must be where there is a sequence."""
    if scene.tissue is None:
        expected = "a scene with tissues, where there is a sequence"
        raise usage_error("scene", "images alone", expected, "Such as acqdesign.scene.brain(shape).")
    return scene.tissue


@dataclasses.dataclass(eq=False)
class SimulatedKspace:
    """The samples of a scan, which are formed only where they are asked for."""

    encoding: Encoding
    gram: Gram | None
    maps: Image
    amplitudes: Array | None
    noise: Array | None
    sign: float = 1.0
    known: list[tuple[Any, Any, Image, Image | None]] = dataclasses.field(default_factory=list)

    def opposite(self) -> "SimulatedKspace":
        """The same with the noise's sign changed, sharing what has been computed."""
        return dataclasses.replace(self, sign=-self.sign)

    @property
    def array(self) -> Samples:
        """The samples themselves, `(anatomies, [coils,] readouts, samples)`."""
        each = self.encoding.forward(self.maps)
        if self.amplitudes is None:
            samples = each[0]
        else:
            over = "".join("kl"[: len(self.encoding.samples) - 2])
            samples = jnp.einsum(f"ca{over}sr,cs->a{over}sr", each, self.amplitudes, precision="highest")
        return samples if self.noise is None else samples + self.sign * self.noise

    def adjoint(self, factors: Array | None, weights: Any) -> Image:
        """`Aᴴ W f y` with a factor for each readout, by kernels where that is cheaper."""
        found = next((known for known in self.known if known[0] is factors and known[1] is weights), None)
        if found is None:
            found = factors, weights, self._signal(factors, weights), self._noise_image(factors, weights)
            self.known.append(found)
        _, _, signal, noise = found
        return signal if noise is None else signal + self.sign * noise

    def _signal(self, factors: Array | None, weights: Any) -> Image:
        encoding = self.encoding
        if self.amplitudes is None:
            if factors is None and weights is None and self.gram is not None:
                return self.gram(self.maps[0])
            scaled = weights if factors is None else encoding.scaled(weights, factors)
            return encoding.normal(scaled)(self.maps[0])
        each = self.amplitudes if factors is None else factors * self.amplitudes
        if not jnp.iscomplexobj(each):
            return encoding.sum_of_normals(encoding.scaled(weights, each), self.maps)
        parts = jnp.concatenate([each.real, each.imag])
        maps = jnp.concatenate([self.maps + 0j, 1j * self.maps])
        return encoding.sum_of_normals(encoding.scaled(weights, parts), maps)

    def _noise_image(self, factors: Array | None, weights: Any) -> Image | None:
        if self.noise is None:
            return None
        noise = self.noise
        if factors is not None and jnp.iscomplexobj(factors):
            noise, factors = noise * factors[:, None], None
        return self.encoding.adjoint(noise, weights if factors is None else self.encoding.scaled(weights, factors))


class Acquisition(Encoding):
    """The encoding that a reconstruction gets: of the target image, as far as a scanner can know it.

    Args:
        encoding: where k-space is sampled, with coils.
        expected: `(readouts,)` amplitude that the target is expected to have at each readout; None for one.
        gram: `Aᴴ |expected|² A`.
        support: `(anatomies, nx, ny, nz)` one where there is something to see; None: everywhere.
        power: mean power of the target over the head's voxels.
        rows: from a rank, `(K, readouts)` amplitudes of the leading images and their share `(K,)` in the target.
    """

    encoding: Encoding
    expected: Array | None
    gram: Gram
    support: Array | None
    power: Scalar
    rows: Any = eqx.field(static=True)

    shape = property(lambda self: self.encoding.shape)  # type: ignore[assignment]
    samples = property(lambda self: self.encoding.samples)  # type: ignore[assignment]
    oversampling = property(lambda self: self.encoding.oversampling)  # type: ignore[assignment]

    def forward(self, image: Image) -> Samples:
        """Expected samples of a target image."""
        samples = self.encoding.forward(image)
        return samples if self.expected is None else samples * self.expected[:, None]

    def adjoint(self, kspace: Any, weights: Any = None) -> Image:
        """`Aᴴ W y`, of samples or of simulated ones."""
        if isinstance(kspace, SimulatedKspace):
            matched = self.expected
            if matched is not None and jnp.iscomplexobj(matched):
                matched = jnp.conj(matched)
            return kspace.adjoint(matched, weights)
        if self.expected is not None:
            kspace = kspace * jnp.conj(self.expected)[:, None]
        return self.encoding.adjoint(kspace, weights)

    def normal(self, weights: Any = None) -> Gram:
        if weights is None:
            return self.gram
        if self.expected is not None:
            weights = self.encoding.scaled(weights, jnp.abs(self.expected) ** 2)
        return self.encoding.normal(weights)

    def density(self, name: str = "pipe", iterations: int = 10) -> Any:
        return self.encoding.density(name, iterations)

    def adjoint_of(self, prepared: Any, weights: Any) -> Image:
        """As of the encoding; only where nothing weights the readouts."""
        return self.encoding.adjoint_of(prepared, weights)

    def subspace(self, rank: int) -> tuple["Coefficients", Array]:
        """The leading images of the echoes' subspace, as an encoding, and their share `(K,)` in the target."""
        if self.rows is None:
            raise usage_error("reconstruction", "subspace without a sequence", "one image, as there is one contrast")
        rows, mix = self.rows(rank)
        return Coefficients(self.encoding, rows), mix


class Coefficients(eqx.Module):
    """`y_s = Σ_k b_ks A_s u_k`: an encoding of several images.

    Args:
        encoding: of one image.
        rows: `(K, readouts)` real amplitudes.
    """

    encoding: Encoding
    rows: Float[Array, "images readouts"]

    def adjoint(self, kspace: SimulatedKspace) -> Image:
        """Images `(anatomies, K, nx, ny, nz)`."""
        return jnp.stack([kspace.adjoint(row, None) for row in self.rows], axis=1)

    def normal(self) -> Any:
        """`Aᴴ A` of images `(..., K, nx, ny, nz)`, by one kernel a pair."""
        rows = self.rows

        def gram(images: Image) -> Image:
            moved = jnp.moveaxis(images, -4, 0)
            return jnp.stack([self.encoding.sum_of_normals(row * rows, moved) for row in rows], axis=-4)

        return gram


class _Pieces(eqx.Module):
    """What simulation and reconstruction of k-space need; arrays are split over devices as their fields say."""

    encoding: Encoding
    maps: Image = eqx.field(metadata=split(None, "anatomies", "planes"))
    support: Array | None = eqx.field(metadata=split("anatomies", "planes"))
    amplitudes: Array | None
    noise: Array | None = eqx.field(metadata=split("anatomies", "coils"))
    signal: Array | None  # of the assumed tissues, at each readout
    assumed: Assumed
    sigma: Array
    reconstruction: Any

    def acquisition(self) -> Acquisition:
        """The encoding for the reconstruction."""
        assumed, signal = self.assumed, self.signal
        if signal is None:
            expected, rows = None, None
        else:
            expected, rows = assumed.reference(signal), functools.partial(assumed.components, signal)
        weights = None if expected is None else jnp.abs(expected) ** 2
        return Acquisition(
            encoding=self.encoding, expected=expected, gram=self.encoding.normal(weights),
            support=self.support, power=assumed.power, rows=rows,
        )  # fmt: skip

    def images(self, opposite: bool) -> tuple[Image, ...]:
        """The image, and with `opposite` that under the negative noise."""
        # What anatomies or planes share is made to vary with them here: its gradient is then summed over them once.
        apart = varying(self.maps) & {"anatomies", "planes"}
        this = jax.tree.map(lambda leaf: vary(leaf, apart) if eqx.is_array(leaf) else leaf, self)
        encoding = this.acquisition()
        kspace = SimulatedKspace(
            this.encoding, encoding.gram if this.signal is None else None, this.maps, this.amplitudes, this.noise
        )
        found = [this._reconstructed(encoding, kspace)]
        if opposite:
            found.append(found[0] if this.noise is None else this._reconstructed(encoding, kspace.opposite()))
        return tuple(found)

    def _reconstructed(self, encoding: Acquisition, kspace: SimulatedKspace) -> Image:
        image = self.reconstruction(encoding, kspace, self.sigma)
        wanted, name = self.maps.shape[1:], name_of(self.reconstruction)
        if getattr(image, "shape", None) != wanted or not jnp.issubdtype(image.dtype, jnp.inexact):
            shown = image if hasattr(image, "shape") else repr(image)
            raise usage_error(f"reconstruction {name}", shown, f"an image of shape {wanted}: (anatomies, nx, ny, nz)")
        return image


def name_of(function: Any) -> str:
    """What to call a function or a module in messages and logs."""
    return getattr(function, "__name__", type(function).__name__)


class SimulatedScan:
    """One scan of a design, made by `Problem.scan`; its parts are computed when first asked for, within one trace."""

    def __init__(self, problem: "Problem", design: "Design", key: PRNGKey, change: Array | None = None):
        self.problem, self.design, self._change = problem, design, change
        self._noise_key, scene_key = jax.random.split(key)
        self.scene: Scene = problem.scene.sample(scene_key)
        if problem.of_a_step:
            self.scene = self.scene.some(jax.random.fold_in(scene_key, 1), *problem.of_a_step)
        self.trajectory, self.sequence = design.trajectory, design.sequence

    @functools.cached_property
    def signal(self) -> Inexact[Array, "classes echoes"]:
        """The signal of each class at each readout of the sequence."""
        return simulate(self._need("sequence"), tissue_of(self.scene))

    @functools.cached_property
    def amplitudes(self) -> Inexact[Array, "classes readouts"] | None:
        """The signal of each class at each readout of the trajectory; None without a sequence."""
        return None if self.sequence is None else self._at_readouts(self.signal)

    def _at_readouts(self, signal: Array) -> Array:
        each = signal[:, jnp.arange(self.problem.trajectory.readouts()) % signal.shape[1]]
        return each if self._change is None else each + self._change

    @functools.cached_property
    def target(self) -> Inexact[Array, "anatomies nx ny nz"]:
        """The wanted images."""
        return self.scene.image(self.problem.contrast(self.scene))

    @functools.cached_property
    def encoding(self) -> Encoding:
        """Where k-space is sampled, with coils."""
        return self._need("trajectory").encoding(self.scene)

    @functools.cached_property
    def noise(self) -> Samples | None:
        """White noise on every sample of every anatomy; None where there is none."""
        if not self.problem.noisy:
            return None
        samples, maps = self.encoding.samples, self.scene.maps
        assert maps is not None
        size, dtype = (maps.shape[1], *samples), jnp.result_type(maps.dtype, jnp.complex64)
        # A complex normal number of unit variance has parts of half of it.
        scale = self.problem.noise * jnp.sqrt(2.0).astype(self.problem.noise.dtype)
        return scale * jax.random.normal(self._noise_key, size, dtype)

    def _pieces(self, **changed: Any) -> _Pieces:
        problem, assumed, encoding, signal = self.problem, self.problem.assumed, self.encoding, self.amplitudes
        if signal is not None and assumed.tissue is not None:
            signal = self._at_readouts(simulate(self.sequence, assumed.tissue))
        given = {
            "encoding": encoding, "maps": self.target[None] if self.sequence is None else self.scene.maps,
            "support": self.scene.support, "amplitudes": self.amplitudes, "noise": self.noise, "signal": signal,
            "assumed": assumed, "sigma": problem.noise, "reconstruction": problem.reconstruction,
        }  # fmt: skip
        return _Pieces(**given | changed)

    @functools.cached_property
    def _images(self) -> tuple[Image, ...]:
        arrays, static = eqx.partition(self._pieces(), eqx.is_array)
        opposite = self.problem.terms.needs_opposite

        def run(arrays: _Pieces) -> tuple[Image, ...]:
            return eqx.combine(arrays, static).images(opposite)

        return across(run, (specs(arrays),), PartitionSpec("anatomies", "planes"))(arrays)

    @property
    def unscaled(self) -> Image:
        """The reconstructed images as they are."""
        return self._images[0]

    @functools.cached_property
    def image(self) -> Image:
        """The reconstructed images `(anatomies, nx, ny, nz)`; where their scale is free, scaled to the target."""
        return self._scale * self._images[0]

    @functools.cached_property
    def opposite(self) -> Image:
        """The images under the same noise with its sign changed, on the scale of `image`."""
        return self._scale * self._images[1]

    @functools.cached_property
    def _scale(self) -> Any:
        if not self.problem.free_scale:
            return 1
        found, axes = self._images[0], (1, 2, 3)
        inner = jnp.sum((found * jnp.conj(self.target)).real, axes)
        return (inner / jnp.sum(jnp.abs(found) ** 2, axes))[:, None, None, None]

    @functools.cached_property
    def kspace(self) -> SimulatedKspace:
        """The samples, formed when its `array` is asked for."""
        pieces = self._pieces()
        return SimulatedKspace(pieces.encoding, None, pieces.maps, pieces.amplitudes, pieces.noise)

    @functools.cached_property
    def point_spread(self) -> Image:
        """Scan and reconstruction of a point of the target's contrast in the middle: an image `(ny, nz)`.

        As if the head filled the field of view, since a point's response depends on where in the head it lies.
        """
        shape = self.scene.shape
        middle = tuple(n // 2 for n in shape)
        point = jnp.zeros((1, 1, *shape), self.problem.noise.dtype).at[(0, 0, *middle)].set(1)
        pieces = self._pieces(maps=point, support=None, noise=None)
        if pieces.signal is not None:
            expected = pieces.assumed.reference(pieces.signal)
            pieces = eqx.tree_at(lambda p: p.amplitudes, pieces, expected[None])
        return pieces.images(False)[0][0, middle[0]]

    def bounds(self, *targets: str, nuisance: tuple[str, ...] = ("m0",), per_time: bool = False) -> Float[Array, "..."]:
        """Relative Cramér–Rao bounds of tissue parameters over the scene's ensemble; see `relative_bounds`.

        For the problem's noise in units of M0 or, where it is zero, for noise of M0 itself: from a train seen in every
        voxel as if each echo were fully sampled. `per_time` multiplies them by the sequence's duration [s]: what is
        reached in one second by repeating it.
        """
        sequence, tissue = self._need("sequence"), self.scene.ensemble
        assert tissue is not None
        found = relative_bounds(sequence, tissue, targets, nuisance=nuisance)
        if per_time:
            if not hasattr(sequence, "duration"):
                raise usage_error("per_time", f"True with {name_of(sequence)}", "a sequence with a duration()")
            found = found * sequence.duration()
        return self.problem.noise**2 * found if self.problem.noisy else found

    def bound(self, *targets: str) -> Scalar:
        """The mean of `bounds`."""
        return jnp.mean(self.bounds(*targets))

    def _need(self, half: str) -> Any:
        found = getattr(self, half)
        if found is None:
            raise usage_error(half, "None", f"a {half}, for what a term asks of the scan")
        return found
