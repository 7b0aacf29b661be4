"""The half of the joint loss that knows of k-space: a scan by echo trains and the images made of it.

Everything about the spins has become numbers by line here, so lines, coils, tissues, anatomies and, across a fully
sampled readout, planes can be split over the devices of a mesh, each piece by `_SPLIT`; what crosses devices are
kernels (lines), images (coils, tissues) and inner products (planes), as often as there are kernels and iterations,
however many lines a device holds.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from acqdesign.base.sharding import across, vary, varying
from acqdesign.base.types import Array, Float, Image, Inexact, Scalar
from acqdesign.encoding import EchoTrainEncoding, StraightLineEncoding
from acqdesign.recon import posterior_mean

_SPLIT = {
    "points": P("lines"),
    "smaps": P("coils", "planes"),
    "through": P("tissues", "lines"),
    "weights": P(None, "lines"),
    "seen": P("lines"),
    "maps": P("tissues", "anatomies", "planes"),
    "support": P("anatomies", "planes"),
}


class Scan(eqx.Module):
    """A scan of tissue classes by straight lines, and what its reconstruction takes for granted.

        y_s = Σ_c m_cs A_s ρ_c + n_s    is solved for components    u_k in    y_s = Σ_k b_ks A_s u_k

    Args:
        lines: where k-space is sampled.
        through: `(C, S)` amplitudes `m` of each class at each line.
        weights: `(K, S)` amplitudes `b` that the components are assumed to have.
        seen: `(S,)` how much of the target is expected in each line.
        mix: `(K,)` what the image has of each component.
        ridge: noise variance of a sample, for components of unit power.
        prior: amplitudes of `spectral_prior`, or None.
        maps: `(C, anatomies, nx, ny, nz)`.
        support: `(anatomies, nx, ny, nz)` one where the reconstruction looks for anything, or None: everywhere.
        noise: `(anatomies, [coils,] S, samples)` on the samples, or None.
        iterations: of conjugate gradients.
    """

    lines: StraightLineEncoding
    through: Float[Array, "classes lines"]
    weights: Float[Array, "components lines"]
    seen: Float[Array, " lines"]
    mix: Float[Array, " components"]
    ridge: Scalar
    prior: Float[Array, "ny nz"] | None
    maps: Float[Array, "classes anatomies nx ny nz"]
    support: Float[Array, "anatomies nx ny nz"] | None
    noise: Inexact[Array, "..."] | None
    iterations: int = eqx.field(static=True)

    def images(self, *, both: bool = False) -> tuple[Image, ...]:
        """The images `(anatomies, nx, ny, nz)`; with `both` those under the negative noise too."""
        return self._across(lambda scan: scan._images(both), P("anatomies", "planes"))

    def point_spread(self) -> Image:
        """Scan and reconstruction of a point of the target's contrast in the middle, `(ny, nz)` in its plane."""
        # Anatomies, where they are and noise stay out of it, and planes whole.
        none = dataclasses.replace(self, maps=self.maps[:, :1], support=None, noise=None)
        return none._across(Scan._point_spread, P(), {**_SPLIT, "maps": P("tissues"), "smaps": P("coils")})

    def _across(self, function: Callable, out: P, split: dict[str, P] = _SPLIT) -> Any:
        by_line = P("anatomies", *([] if self.lines.smaps is None else ["coils"]), "lines")
        specs = jax.tree_util.tree_map_with_path(
            lambda path, _: (split | {"noise": by_line}).get(path[-1].name, P()), self
        )
        return across(function, (specs,), out)(self)

    def _solver(self) -> Callable[[Image], Image]:
        """From right-hand sides `(anatomies, K, nx, ny, nz)` to images `(anatomies, nx, ny, nz)`."""
        small = self._encoding(self.weights)
        gram = self.lines.normal(self.weights[0] ** 2) if len(self.weights) == 1 else small.normal()
        support = None if self.support is None else self.support[:, None]

        def solve(rhs: Image) -> Image:
            found = posterior_mean(
                gram, rhs, self.prior, ridge=self.ridge, iterations=self.iterations, dims=4, support=support
            )
            mix = self.mix.astype(found.dtype)  # JAX 0.8 warns of the gradient of mixed products
            return jnp.einsum("k,akxyz->axyz", mix, found, precision="highest")

        return solve

    def _encoding(self, amplitudes: Float[Array, "classes lines"]) -> EchoTrainEncoding:
        """Every line as an echo of its own."""
        return EchoTrainEncoding(self.lines, jnp.arange(amplitudes.shape[1]), amplitudes)

    def _images(self, both: bool) -> tuple[Image, ...]:
        # What anatomies or planes share is made to vary with them here: its gradient is then summed over them once.
        apart = varying(self.maps) & {"anatomies", "planes"}
        scan = jax.tree.map(lambda leaf: vary(leaf, apart), self)
        encoding, solve = scan._encoding(scan.through), scan._solver()
        rhs = jnp.stack([encoding.weighted_sum(w * scan.through, scan.maps) for w in scan.weights], axis=1)
        if scan.noise is None:
            return (solve(rhs),) * (2 if both else 1)
        # One realisation of the samples, seen through every component.
        noise = jnp.stack([scan.lines.adjoint(scan.noise, w) for w in scan.weights], axis=1)
        return (solve(rhs + noise), *([solve(rhs - noise)] if both else []))

    def _point_spread(self) -> Image:
        shape = self.lines.shape
        middle = tuple(n // 2 for n in shape)
        point = jnp.zeros(shape, self.seen.dtype).at[middle].set(1)
        rhs = [self.lines.gram(point, row * self.seen) for row in self.weights]
        return self._solver()(jnp.stack(rhs)[None])[0, middle[0]]
