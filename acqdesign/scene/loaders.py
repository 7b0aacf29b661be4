"""Images and tissue maps from a name or a file: what `--phantom` takes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice, printable, usage_error
from acqdesign.base.types import Image
from acqdesign.scene.files import Volume, read_nifti, read_npy, read_npz, scaled, to_scanner_axes
from acqdesign.scene.phantom import CONTRASTS, FOV, load_brain, weighted_image
from acqdesign.scene.resample import box_resample, target_grid
from acqdesign.scene.tissue import TABLE

_READERS = dict.fromkeys((".nii", ".nii.gz", ".mgh", ".mgz"), read_nifti) | {".npy": read_npy, ".npz": read_npz}
_KINDS = "brain, brainweb:SUBJECT, or a file that ends in " + ", ".join(_READERS)

# BrainWeb's normal brain, and its twenty: C. A. Cocosco et al., NeuroImage 5:S425 (1997).
BRAINWEB_SUBJECTS = (0, 4, 5, 6, 18, 20, 38, *range(41, 55))


def _brainweb(subject: str) -> Volume:
    """Tissue maps of a BrainWeb subject, downloaded where they are not cached yet."""
    number = int(check_choice("brainweb subject", subject, map(str, BRAINWEB_SUBJECTS)))
    try:
        from brainweb_dl import get_mri
    except ImportError as error:
        remedy, wanted = 'Install it: pip install "acqdesign[brainweb]".', "the package brainweb-dl to be installed"
        raise usage_error("phantom", f"brainweb:{subject}", wanted, remedy) from error
    try:
        labels, affine = get_mri(number, "crisp", with_affine=True)
    except Exception as error:  # whatever the network, the server or the cache may raise
        reason = f"brainweb:{subject}, whose download failed ({type(error).__name__}: {error})"
        remedy = "Try again with the network up, or use --phantom brain."
        raise usage_error("phantom", reason, "BrainWeb to be reachable", remedy) from error
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.max() > 11 or not all((labels == known).any() for known in (1, 2, 3)):
        raise usage_error("phantom", f"brainweb:{subject} with unknown labels", "labels 1, 2, 3 for CSF, GM and WM")
    labels, voxel = to_scanner_axes(labels.astype(np.uint8), affine)
    maps, (size, *_) = zip(*(_coarsened(labels == known, voxel) for known in (2, 3, 1)), strict=True)
    return Volume(np.stack(maps), size)


def _coarsened(mask: np.ndarray, voxel: tuple[float, ...]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Tissue fractions at 1 mm from labels at 0.5 mm, which would fill gigabytes."""
    if max(voxel) > 0.75e-3 or any(n % 2 for n in mask.shape):
        return mask.astype(np.float32), voxel
    a, b, c = (n // 2 for n in mask.shape)
    blocks = mask.reshape(a, 2, b, 2, c, 2)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32), tuple(2 * v for v in voxel)


def _volume(spec: str, volume: int | None, fill: float | None) -> Volume:
    """What a file or a downloadable phantom holds, on its own grid."""
    word, _, subject = spec.partition(":")
    if word == "brainweb":
        return _brainweb(subject)
    path = Path(spec)
    reader = next((r for ending, r in _READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise usage_error("phantom", repr(spec), _KINDS)
    if not path.is_file():
        raise usage_error("phantom", f"{spec}, which is no file", _KINDS)
    try:
        found = scaled(path, reader(path, volume, fill))
    except OSError as error:
        reason = f"{spec}, which cannot be read ({error.strerror or error})"
        raise usage_error("phantom", reason, "a readable file") from error
    logging.getLogger("acqdesign").info(f"{printable(spec)}: {_understood(found)}")
    return found


def _understood(volume: Volume) -> str:
    """What a file was taken for, in one line."""
    what = "tissue maps gm, wm, csf" if volume.data.ndim == 4 else f"an image of {volume.data.dtype}"
    size = "fills the field of view, as it has no voxel size"
    if volume.voxel_size is not None:
        fov = (1e3 * v * n for v, n in zip(volume.voxel_size, volume.data.shape[-3:], strict=True))
        size = "field of view " + " x ".join(f"{length:.5g}" for length in fov) + " mm, x to the head"
    matrix = " x ".join(map(str, volume.data.shape[-3:]))
    return "; ".join([what, f"matrix {matrix}", size, *filter(None, [volume.said])])


def load_image(
    spec: str,
    *,
    shape: Sequence[int] | None = None,
    voxel_size: float | Sequence[float] | None = None,
    contrast: str = "T1w",
    field: str = "3T",
    volume: int | None = None,
    fill: float | None = None,
) -> Image:
    """The image, or the tissue maps, that a phantom's name or file stands for.

        brain             the packaged brain (see `load_brain`)
        brainweb:SUBJECT  a BrainWeb subject (0, or 4 to 54), downloaded by brainweb-dl
        FILE.nii[.gz]     a volume, turned so that x runs to the head, y to the back and z to the left
        FILE.mgz, .mgh    likewise, as FreeSurfer writes it
        FILE.npy          a volume `(nx, ny, nz)`, axes as they are
        FILE.npz          one volume, alone or named `image`; or fractions named `gm`, `wm` and `csf`

    Images from files, real or complex, are scaled to a largest magnitude of one, so that noise levels mean the same for
    every phantom, and keep their contrast whatever `contrast` says; tissue maps become an image by `weighted_image`.
    Grids are resampled by box overlap, the field of view kept. A `.npy` or `.npz` does not know its voxel size: it
    fills the grid asked for.

    Args:
        spec: one of the above.
        shape: `(nx, ny, nz)`; the file's own where None. See `load_brain` for `nx = 1`.
        voxel_size: one length, or one for each axis [m].
        contrast: `T1w`, `T2w` or `PDw` for an image, or `maps` for tissue maps.
        field: `1.5T`, `3T` or `7T`.
        volume: which of several along a file's fourth axis, from 0.
        fill: what takes the place of voxels that are NaN, in the file's unit.

    Returns:
        float32 or complex64 image `(nx, ny, nz)`, or float32 maps `(3, nx, ny, nz)`.

    Raises:
        UsageError: what is wrong with the name, the file or the grid; the message names the file.
    """
    check_choice("contrast", contrast, (*CONTRASTS, "maps"))
    check_choice("field", field, TABLE)
    if spec == "brain":
        return load_brain(shape=shape, voxel_size=voxel_size, contrast=contrast, field=field)
    data, voxel, _ = _volume(spec, volume, fill)
    is_maps = data.ndim == 4
    if contrast == "maps" and not is_maps:
        raise usage_error("phantom", f"{spec}, which holds one image", "tissue maps named gm, wm and csf")
    if voxel is None and voxel_size is not None and shape is None:
        raise usage_error("voxel_size", repr(voxel_size), f"none, as {spec} carries no voxel size", "Give a shape.")
    if shape is not None or voxel_size is not None:
        # Without a voxel size only ratios of shapes count, and the volume fills the grid.
        voxel_in = (1.0, 1.0, 1.0) if voxel is None else voxel
        fov = tuple(v * n for v, n in zip(voxel_in, data.shape[-3:], strict=True))
        grid, voxel_out = target_grid(fov, shape, None if voxel is None else voxel_size)
        data = box_resample(data, grid, voxel_in=voxel_in, voxel_out=voxel_out)
    if not is_maps or contrast == "maps":
        return jnp.asarray(data)
    return weighted_image(data, contrast, field)


def image_fov(spec: str, volume: int | None = None, fill: float | None = None) -> tuple[float, ...] | None:
    """The field of view `(x, y, z)` [m] of a phantom as `load_image` takes it, or None for a file that doesn't say."""
    if spec == "brain":
        return FOV
    data, voxel, _ = _volume(spec, volume, fill)
    return None if voxel is None else tuple(v * n for v, n in zip(voxel, data.shape[-3:], strict=True))
