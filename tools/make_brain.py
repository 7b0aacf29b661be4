"""Make acqdesign/scene/data/brain.npz from the MNI templates that the nilearn wheel carries.

    pip download --no-deps nilearn==0.14.1 -d wheel
    python tools/make_brain.py wheel/nilearn-0.14.1-py3-none-any.whl

Needs nibabel and scipy. The templates' licence is beside the data, in LICENSE-MNI.
"""

import argparse
import gzip
import zipfile
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from acqdesign.scene.resample import box_resample

MEMBER = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
TARGET = Path(__file__).parents[1] / "acqdesign" / "scene" / "data" / "brain.npz"

# The stored grid: axes superior, posterior, left; the middle of the field of view in source voxel edges.
# The template is its own mirror image about the middle of voxel 98 of its left-right axis.
SHAPE = (80, 96, 80)
CENTRE = {"right": 98.5, "anterior": 118.0, "superior": 78.0}


def read_templates(wheel: Path) -> dict[str, np.ndarray]:
    """The three templates as uint8 volumes, axes right, anterior, superior, 1 mm."""
    volumes = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in ("t1", "gm", "wm"):
            raw = gzip.decompress(archive.read(MEMBER.format(name)))
            volumes[name] = np.asarray(nibabel.Nifti1Image.from_bytes(raw).dataobj)
    return volumes


def tissue_maps(volumes: dict[str, np.ndarray]) -> np.ndarray:
    """Grey matter, white matter and fluid `(3, right, anterior, superior)` with values 0 to 255, 1 mm."""
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(volumes["t1"] > 0, iterations=2))
    gm, wm = (np.where(brain, volumes[n], 0).astype(np.int64) for n in ("gm", "wm"))
    csf = np.clip(255 * brain.astype(np.int64) - gm - wm, 0, 255)
    return np.stack([gm, wm, csf])


def centred(maps: np.ndarray, axis: int, centre: float) -> np.ndarray:
    """`maps` padded with zeros along `axis` until its middle is at `centre` (counted in voxel edges)."""
    pad = round(2 * centre) - maps.shape[axis]
    return np.pad(maps, [((0, 0) if a != axis else (max(-pad, 0), max(pad, 0))) for a in range(maps.ndim)])


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=TARGET)
    args = parser.parse_args()

    maps = tissue_maps(read_templates(args.wheel))
    for axis, centre in enumerate(CENTRE.values(), start=1):
        maps = centred(maps, axis, centre)
    maps = maps.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1]
    maps = box_resample(maps.astype(np.float64), SHAPE, voxel_in=(1e-3,) * 3, voxel_out=(2e-3,) * 3)
    if not np.allclose(maps, maps[..., ::-1], atol=1e-9):
        raise SystemExit("The templates are not symmetric: store both hemispheres.")
    # Running sums are rounded, so that fractions never add up to more than one; and first to six digits, so
    # that sums ending in .5 fall the same way on every machine.
    sums = np.rint(np.round(np.cumsum(maps[..., SHAPE[2] // 2 :], axis=0), 6))
    left = np.diff(sums, axis=0, prepend=0).astype(np.uint8)
    np.savez_compressed(args.out, left=np.ascontiguousarray(left), voxel_size_m=np.float64(2e-3))

    millilitres = 2 * left.reshape(3, -1).sum(1) / 255 * 8e-3
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB; GM, WM, CSF in ml:", millilitres.round(1))


if __name__ == "__main__":
    main()
