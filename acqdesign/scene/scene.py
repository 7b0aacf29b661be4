"""A scene: classes of tissue, maps of where they are, receive coils, and what an image of it should show.

The signals of classes add up, `y = Σ_c m_c · A ρ_c`. A field or a spread of relaxation times inside one tissue is more
classes with fewer differences each: see `Scene.with_b1_map` and `Scene.with_t2_spread`.
"""

import copy
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from acqdesign.base.checks import check_count, check_finite, check_key, check_positive, usage_error
from acqdesign.base.sharding import split
from acqdesign.base.types import Array, ArrayLike, Complex, Float, Inexact, PRNGKey
from acqdesign.base.units import mm_from_m
from acqdesign.scene.coils import birdcage_maps
from acqdesign.scene.loaders import image_fov, load_image
from acqdesign.scene.phantom import contrast_weights
from acqdesign.scene.poses import fine_shape, random_pose
from acqdesign.scene.resample import target_grid
from acqdesign.scene.tissue import EFFECTS, TISSUES, Properties, Tissue, tissue_of, tissue_properties


class Poses(eqx.Module):
    """Anatomies to be turned at random.

    Args:
        fine: `(T, anatomies, fx, fy, fz)` maps on the finer grid of `fine_shape`.
        share: `(C, nx, ny, nz)` what each class has of them, `C` a multiple of `T`.
        voxel_size: relative lengths of a voxel's edges.
    """

    fine: Inexact[Array, "tissues anatomies fx fy fz"] = eqx.field(metadata=split(None, "anatomies"))
    share: Float[Array, "classes nx ny nz"]
    voxel_size: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, key: PRNGKey) -> Inexact[Array, "classes anatomies nx ny nz"]:
        """The classes' maps, every anatomy in a pose of its own."""
        fine, shape = jnp.moveaxis(self.fine, 1, 0), self.share.shape[1:]
        turn = functools.partial(random_pose, shape=shape, voxel_size=self.voxel_size)
        turned = jax.vmap(turn)(fine, jax.random.split(key, len(fine)))
        each = len(self.share) // len(self.fine)
        return jnp.repeat(jnp.moveaxis(turned, 0, 1), each, axis=0) * self.share[:, None]


class Scene(eqx.Module):
    """What is scanned.

    Args:
        maps: `(classes, anatomies, nx, ny, nz)` volume fractions of each class, or images where there are no tissues;
            None for tissues alone, of which there is no image.
        tissue: of shape `(classes,)`, or None for images.
        contrast: `(classes,)` what the wanted image shows of each class; ones unless given.
        smaps: `(coils, nx, ny, nz)` complex coil sensitivities, or None for one uniform coil.
        fov: field of view along x, y and z [m], or None where it is not known.
        poses: where given, `sample` turns the anatomies at random.
        ensemble: tissues that bounds are averaged over, of any shape; `tissue` unless given.
        planes: which planes across the readout these are, `(nx,)`, and of how many; all unless given.
        reposed: from a key, the same scene in other poses, for judging; None where that cannot be.
    """

    maps: Inexact[Array, "classes anatomies nx ny nz"] | None = eqx.field(metadata=split(None, "anatomies", "planes"))
    tissue: Tissue | None
    contrast: Float[Array, " classes"] | None
    smaps: Complex[Array, "coils nx ny nz"] | None = eqx.field(metadata=split("coils", "planes"))
    support: Float[Array, "anatomies nx ny nz"] | None = eqx.field(metadata=split("anatomies", "planes"))
    poses: Poses | None
    ensemble: Tissue | None
    planes: tuple[Integer[Array, " nx"], int] | None
    fov: tuple[float, ...] | None = eqx.field(static=True)
    reposed: Callable[[PRNGKey], "Scene"] | None = eqx.field(static=True)

    def __init__(
        self,
        maps: Array | None = None,
        tissue: Tissue | None = None,
        *,
        contrast: ArrayLike | None = None,
        smaps: Array | None = None,
        fov: Sequence[float] | None = None,
        poses: Poses | None = None,
        ensemble: Tissue | None = None,
        planes: tuple[Integer[Array, " nx"], int] | None = None,
        reposed: Callable[[PRNGKey], "Scene"] | None = None,
    ):
        if maps is None and tissue is None:
            raise usage_error("maps", "neither maps nor a tissue", "at least one of them")
        self.tissue, self.ensemble = tissue, tissue if ensemble is None else ensemble
        self.maps = self.contrast = self.smaps = self.support = None
        self.planes = planes
        self.fov = None if fov is None else tuple(float(length) for length in fov)
        if self.fov is not None and len(self.fov) != 3:
            raise usage_error("fov", self.fov, "three lengths")
        check_positive("fov", self.fov or 1.0)
        self.poses, self.reposed = poses, reposed
        if maps is None:
            return
        if getattr(maps, "ndim", 0) != 5 or not jnp.issubdtype(maps.dtype, jnp.inexact):
            raise usage_error("maps", maps, "a floating array (classes, anatomies, nx, ny, nz)")
        check_finite("maps", maps)
        real = jnp.finfo(maps.dtype).dtype
        if tissue is not None and tissue.shape != maps.shape[:1]:
            raise usage_error("tissue", f"of shape {tissue.shape}", f"({maps.shape[0]},), one for each map")
        weights = jnp.ones(maps.shape[0], real) if contrast is None else jnp.asarray(contrast, real)
        if weights.shape != maps.shape[:1]:
            raise usage_error("contrast", weights, f"shape ({maps.shape[0]},), one number for each map")
        if smaps is not None:
            if not hasattr(smaps, "shape") or smaps.size == 0 or smaps.shape[1:] != maps.shape[2:]:
                expected = f"shape (coils, {', '.join(map(str, maps.shape[2:]))}) with a coil or more"
                raise usage_error("smaps", smaps, expected)
            if not jnp.issubdtype(smaps.dtype, jnp.inexact):
                raise usage_error("smaps", smaps, "complex numbers")
            check_finite("smaps", smaps)
        self.maps, self.contrast, self.smaps = maps, weights, smaps
        self.support = _support(maps, None if tissue is None else tissue.m0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(nx, ny, nz)` of its images."""
        nx, ny, nz = self._maps().shape[2:]
        return nx, ny, nz

    def _maps(self) -> Array:
        if self.maps is None:
            raise usage_error("scene", "tissues alone", "a scene with maps", "Such as acqdesign.scene.brain(shape).")
        return self.maps

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its tissues, each once."""
        return tuple(dict.fromkeys(() if self.tissue is None else self.tissue.names))

    def voxel_size(self) -> tuple[float, ...]:
        """Lengths of a voxel's edges [m]; ones where the field of view is not known."""
        return (1.0, 1.0, 1.0) if self.fov is None else tuple(f / n for f, n in zip(self.fov, self.shape, strict=True))

    def density(self) -> Float[Array, "anatomies nx ny nz"]:
        """Proton density, all classes together; magnitudes of images."""
        return _density(self._maps(), None if self.tissue is None else self.tissue.m0)

    def image(self, contrast: Array | None = None) -> Inexact[Array, "anatomies nx ny nz"]:
        """Images that show this much of each class, `(classes,)`; the scene's own contrast unless given."""
        maps, weights = self._maps(), self.contrast if contrast is None else contrast
        assert weights is not None
        return jnp.einsum("c,caxyz->axyz", weights.astype(maps.dtype), maps, precision="highest")

    def label(self, name: str) -> Array:
        """Where a tissue fills at least half of a voxel, boolean `(anatomies, nx, ny, nz)`."""
        if self.tissue is None or name not in self.tissue.names:
            known = ", ".join(self.names) or "none: images have no tissues"
            raise usage_error("label", repr(name), f"one of {known}")
        mine = np.array([n == name for n in self.tissue.names])
        return jnp.sum(jnp.where(mine[:, None, None, None, None], self._maps(), 0), axis=0) >= 0.5

    def sample(self, key: PRNGKey) -> "Scene":
        """A scene of the same structure to take a step on: in random poses where there are `poses`, else itself."""
        if self.poses is None:
            return self
        turned = eqx.tree_at(lambda s: s.maps, self, self.poses(key))
        support = _support(turned.maps, None if self.tissue is None else self.tissue.m0)
        return eqx.tree_at(lambda s: s.support, turned, support)

    def fixed(self) -> "Scene":
        """The scene with its anatomies as they are; scenes of one form are then alike to JAX but for their arrays."""
        other = copy.copy(self)
        for name in ("poses", "reposed"):
            object.__setattr__(other, name, None)
        return other

    def astype(self, dtype: Any) -> "Scene":
        """In another precision."""
        cast = lambda x: x.astype(jnp.result_type(dtype, 1j) if jnp.iscomplexobj(x) else dtype)  # noqa: E731
        return jax.tree.map(lambda x: cast(x) if eqx.is_inexact_array(x) else x, self)

    def every_plane(self, step: int) -> "Scene":
        """The scene, as it stands, on every so many planes across the readout, which are problems of their own."""
        check_count("step", step)
        return self._thinned(slice(None), np.arange(self.shape[0])[::step], None)

    def part(
        self, anatomies: ArrayLike | Sequence[int] | None = None, planes: ArrayLike | Sequence[int] | None = None
    ) -> "Scene":
        """Some of its anatomies, as they stand, and planes across the readout, by number; a scan still reads all."""
        which: Any = slice(None) if anatomies is None else jnp.asarray(anatomies)
        if planes is None:
            return self._thinned(which, slice(None), self.planes)
        known, of = self.planes or (jnp.arange(self.shape[0]), self.shape[0])
        return self._thinned(which, jnp.asarray(planes), (known[jnp.asarray(planes)], of))

    def some(self, key: PRNGKey, anatomies: int, planes: int) -> "Scene":
        """As `part`, so many of each at random; each is as likely."""
        keys, (there, across) = jax.random.split(key), self._maps().shape[1:3]
        return self.part(_some_of(keys[0], anatomies, there), _some_of(keys[1], planes, across))

    def _thinned(self, anatomies: Any, at: Any, planes: Any) -> "Scene":
        thin = lambda array: None if array is None else array[..., at, :, :]  # noqa: E731
        maps, support = thin(self._maps()[:, anatomies]), thin(self.support[anatomies])  # type: ignore[index]
        kept: dict[str, Any] = {"contrast": self.contrast, "fov": self.fov, "ensemble": self.ensemble}
        thinned = Scene(maps, self.tissue, smaps=thin(self.smaps), planes=planes, **kept)
        return eqx.tree_at(lambda s: s.support, thinned, support)

    def with_class(self, name: str, mask: ArrayLike, tissue: Tissue, contrast: float = 1.0) -> "Scene":
        """The scene with one more tissue, such as a lesion, which takes the place of the others.

        Args:
            name: of the new tissue.
            mask: `(nx, ny, nz)` or `(anatomies, nx, ny, nz)` its volume fraction.
            tissue: one, of shape `()`.
            contrast: what the wanted image shows of it.

        Returns:
            The scene as it stands, without poses: the mask is on its grid.
        """
        if self.maps is None or self.tissue is None or self.contrast is None:
            raise usage_error("scene", "images alone", "a scene of tissues")
        if tissue.shape != ():
            raise usage_error("tissue", f"of shape {tissue.shape}", "one tissue, of shape ()")
        share, whole = jnp.asarray(mask, self.maps.dtype), self.maps.shape[1:]
        if share.shape not in (self.shape, whole):
            raise usage_error("mask", share, f"shape {self.shape}, or {whole}")
        share = jnp.broadcast_to(share, whole)[None]
        joined = {}
        for field in EFFECTS:
            old, new = getattr(self.tissue, field), getattr(tissue, field)
            if (old is None) != (new is None):
                raise usage_error(f"tissue: {field}", "given for some tissues", "all or none")
            if old is not None:
                # In the precision of the times: a number for all tissues has none of its own.
                dtype = jnp.result_type(old, self.tissue.t1, *([1j] if jnp.iscomplexobj(new) else []))
                joined[field] = jnp.append(jnp.broadcast_to(old.astype(dtype), self.tissue.shape), new.astype(dtype))
        maps = jnp.concatenate([self.maps * (1 - share), share])
        names = (*(self.tissue.names or ("",) * len(self.maps)), name)
        return self._with(maps, Tissue(**joined, names=names), contrast=jnp.append(self.contrast, contrast))

    def _with(self, maps: Array, tissue: Tissue, **more: Any) -> "Scene":
        """Other classes in the same place, with the ensemble where it is another than the scene's tissues."""
        ensemble = None if bool(eqx.tree_equal(self.ensemble, self.tissue)) else self.ensemble
        return Scene(maps, tissue, smaps=self.smaps, fov=self.fov, ensemble=ensemble, **more)

    def with_b1_map(self, b1: ArrayLike, *, nodes: int = 5) -> "Scene":
        """The same scene under a transmit field that varies in space.

        A signal is a smooth function of B1, so in each voxel it is the polynomial through its values at `nodes`
        Chebyshev points between the field's extremes, `m(b1(r)) ≈ Σ_k L_k(b1(r)) m(b1_k)`; class `c` becomes the
        classes `(c, k)` with maps `ρ_c L_k(b1(r))`. For 96 echoes of 5 ms at 60° and a field of 0.8 to
        1.2 the error of the signal stays below 4e-3 of M0 with 5 nodes and 2e-3 with 9.

        Args:
            b1: `(nx, ny, nz)` relative transmit field; multiplies the tissues' own.
            nodes: the polynomial's points; more for long trains and wide fields.

        Berrut & Trefethen, "Barycentric Lagrange interpolation", SIAM Rev. 46 (2004).
        """
        nodes = check_count("nodes", nodes, minimum=2)
        field = np.asarray(b1)
        if field.shape != self.shape or field.dtype.kind not in "fiu":
            raise usage_error("b1", field, f"real numbers of shape {tuple(self.shape)}")
        check_positive("b1", field)
        field = field.astype(np.float64)
        middle, half = (field.max() + field.min()) / 2, (field.max() - field.min()) / 2
        points = middle + half * np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
        points = points if half else points[:1]
        basis = [
            math.prod(((field - q) / (p - q) for j, q in enumerate(points) if j != k), start=np.ones_like(field))
            for k, p in enumerate(points)
        ]
        return self._expanded("b1", points, np.stack(basis))

    def with_t2_spread(self, spread: float, *, nodes: int = 3) -> "Scene":
        """The same scene with T2 spread log-normally inside each tissue.

        `T2 exp(spread ξ)` with `ξ` standard normal, by Gauss–Hermite quadrature: exact for signals that are
        polynomials of degree `2 nodes - 1` in `ξ`.

        Args:
            spread: standard deviation of `ln T2`; every T2 must stay below `2 T1`.
            nodes: quadrature points.
        """
        check_positive("spread", spread)
        check_count("nodes", nodes)
        at, weights = np.polynomial.hermite_e.hermegauss(nodes)
        factors, weights = np.exp(spread * at), weights / weights.sum()
        if self.tissue is not None and bool((self.tissue.t2 * factors.max() > 2 * self.tissue.t1).any()):
            raise usage_error("spread", spread, "one that keeps every T2 below 2 T1")
        return self._expanded("t2", factors, np.broadcast_to(weights[:, None, None, None], (nodes, *self.shape)))

    def _expanded(self, field: str, factors: np.ndarray, weights: np.ndarray) -> "Scene":
        """Every class split in `K`: its `field` times `factors` `(K,)`, its maps times `weights` `(K, nx, ny, nz)`."""
        if self.maps is None or self.tissue is None or self.contrast is None:
            raise usage_error("scene", "images alone", "a scene of tissues")
        k, share = len(factors), jnp.asarray(weights, self.maps.dtype)
        fields = {n: jnp.repeat(jnp.broadcast_to(x, self.tissue.shape), k) for n, x in self.tissue.effects().items()}
        fields[field] *= jnp.tile(jnp.asarray(factors, self.tissue.t1.dtype), len(self.maps))
        tissue = Tissue(**fields, names=tuple(name for name in self.tissue.names for _ in range(k)))
        maps = (self.maps[:, None] * share[:, None]).reshape(-1, *self.maps.shape[1:])
        poses = self.poses
        if poses is not None:
            spread = (poses.share[:, None] * share).reshape(-1, *self.shape)
            poses = Poses(poses.fine, spread, poses.voxel_size)
        again = self.reposed
        return self._with(
            maps, tissue, contrast=jnp.repeat(self.contrast, k), poses=poses,
            reposed=None if again is None else lambda key: again(key)._expanded(field, factors, weights),
        )  # fmt: skip


def _some_of(key: PRNGKey, count: int, there: int) -> Integer[Array, " count"]:
    """Numbers of so many among all that are there, each as likely: one out of each of `count` spans around a circle."""
    ends = np.arange(count + 1) * there // count
    keys = jax.random.split(key)
    inside = jax.random.randint(keys[0], (count,), 0, np.diff(ends))
    return (jnp.asarray(ends[:-1]) + inside + jax.random.randint(keys[1], (), 0, there)) % there


def _density(maps: Array, m0: Array | None) -> Array:
    if m0 is None:
        return jnp.abs(jnp.sum(maps, 0))
    weights = jnp.broadcast_to(jnp.abs(m0).astype(maps.dtype), maps.shape[:1])
    return jnp.einsum("c,caxyz->axyz", weights, maps, precision="highest")


@jax.jit
def _support(maps: Array, m0: Array | None) -> Array:
    return head_mask(_density(maps, m0))


def head_mask(density: Float[Array, "... ny nz"]) -> Float[Array, "... ny nz"]:
    """Where there is something to see, as a scout or masked coil maps show it, of proton density in any unit.

    One where a voxel or one of its eight neighbours in the plane across the readout has over a twentieth of the densest
    voxel's, zero elsewhere [1]. Its derivative is zero.
    """
    seen = (density > jnp.max(density) / 20).astype(density.dtype)
    window = (1,) * (density.ndim - 2) + (3, 3)
    return jax.lax.reduce_window(seen, np.zeros((), seen.dtype), jax.lax.max, window, (1,) * density.ndim, "SAME")


def load_scene(
    *phantoms: str,
    shape: Sequence[int],
    tissue_names: Sequence[str] | Mapping[str, Properties] | None = TISSUES,
    contrast: str = "T1w",
    field: str = "3T",
    fov: Sequence[float] | None = None,
    coils: int = 1,
    augment: bool = False,
    key: PRNGKey | None = None,
    each: int = 1,
    volume: int | None = None,
    fill: float | None = None,
    dtype: Any = np.float32,
) -> Scene:
    """A scene from phantoms by name or file.

    Args:
        phantoms: as for `load_image`; each is an anatomy.
        shape: `(nx, ny, nz)`, x along the readout; `nx = 1` is one plane.
        tissue_names: what the phantoms' tissue maps are of, in their order, by names of the table or with their
            properties; None for images of a contrast.
        contrast: `T1w`, `T2w` or `PDw`: what images show, or the wanted image where the sequence does not say.
        field: `1.5T`, `3T` or `7T`.
        fov: field of view [m]; the phantoms' own unless given, and of several that differ the largest along each axis.
        coils: receive coils on a birdcage; 1 is a uniform one.
        augment: whether `Scene.sample` turns the anatomies at random.
        key: where given, the anatomies in random poses.
        each: random poses of each phantom, where there is a `key`, and in `Scene.reposed`.
        volume: which of several in a phantom's file, from 0.
        fill: what takes the place of a file's voxels that are NaN, in its unit.
        dtype: float32 or float64.
    """
    if key is not None:
        check_key("key", key)
    asked, kind = None if fov is None else tuple(fov), contrast if tissue_names is None else "maps"
    of_file: dict[str, Any] = {"volume": volume, "fill": fill}
    own = [image_fov(phantom, **of_file) for phantom in phantoms]
    known = [each for each in own if each is not None]
    if asked is None and len(known) == len(own) and np.ptp(known, axis=0).max() > 1e-6:
        asked = tuple(np.max(known, axis=0).tolist())
        size = " x ".join(f"{mm_from_m(length):g}" for length in asked)
        warnings.warn(f"phantoms of different fields of view: all are shown in {size} mm", stacklevel=2)
    fov = asked or own[0]
    if asked is None and fov is not None:
        fov = tuple(v * n for v, n in zip(target_grid(fov, shape, None)[1], shape, strict=True))

    def load(grid: Sequence[int]) -> np.ndarray:  # until all is put together: each of JAX's would be a program
        sizes = None if asked is None else tuple(f / n for f, n in zip(asked, grid, strict=True))
        more: dict[str, Any] = {"voxel_size": sizes, "contrast": kind, "field": field, **of_file}
        images = [load_image(phantom, shape=grid, **more) for phantom in phantoms]
        stacked = np.stack([np.asarray(image, jnp.result_type(*images, dtype)) for image in images], axis=-4)
        return stacked[None] if tissue_names is None else stacked

    voxel_size = (1.0, 1.0, 1.0) if fov is None else tuple(f / n for f, n in zip(fov, shape, strict=True))
    poses = None
    if augment or key is not None:
        fine = np.repeat(load(fine_shape(shape)), 1 if key is None else each, axis=1)
        share = np.ones((len(fine), *shape), np.finfo(fine.dtype).dtype)
        poses = Poses(jnp.asarray(fine), jnp.asarray(share), voxel_size)
    maps = jnp.asarray(load(shape)) if key is None or poses is None else eqx.filter_jit(poses)(key)
    tissue = weights = None
    if tissue_names is not None:
        table = tissue_properties(tissue_names, field)
        if len(table) != len(maps):
            raise usage_error("tissues", len(table), f"{len(maps)}, one for each map")
        tissue, weights = tissue_of(table).astype(dtype), contrast_weights(contrast, table)
    cplx = np.result_type(dtype, np.complex64)
    smaps = birdcage_maps(coils, shape, dtype=cplx) if check_count("coils", coils) > 1 else None
    again = functools.partial(
        load_scene, *phantoms, shape=shape, tissue_names=tissue_names, contrast=contrast, field=field, fov=asked,
        coils=coils, each=each, dtype=dtype, **of_file,
    )  # fmt: skip
    return Scene(
        maps, tissue, contrast=weights, smaps=smaps, fov=fov, poses=poses if key is None else None,
        reposed=(lambda key: again(key=key)) if key is None else None,
    )  # fmt: skip


def brain(shape: Sequence[int] = (23, 28, 23), **options: Any) -> Scene:
    """The packaged brain as a scene of grey matter, white matter and fluid; options as of `load_scene`."""
    return load_scene("brain", shape=shape, **options)
