"""The gallery: what is taken from a block of an example, its figure and its animations, and the order of examples."""

import shutil
from pathlib import Path

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def figures(block, block_vars, gallery_conf):
    """Saves the figures and animations that a block of an example made.

    The package returns figures and never registers them with pyplot, which is where sphinx-gallery looks.
    """
    names, paths = block_vars["example_globals"], block_vars["image_path_iterator"]
    saved = []
    figure = names.pop("figure", None)
    if isinstance(figure, Figure):
        saved.append(next(paths))
        figure.savefig(saved[-1], dpi=110, bbox_inches="tight")
    for animation in Path(block_vars["src_file"]).parent.glob("*.gif"):
        saved.append(str(Path(next(paths)).with_suffix(".gif")))
        shutil.move(animation, saved[-1])
    return figure_rst(saved, gallery_conf["src_dir"])


ORDER = (
    *("straight_lines", "autodiff_epg", "t2_train", "mrf_schedule", "joint_design", "robustness", "multi_coil"),
    *("radial_angles", "spiral_density", "many_devices", "own_nifti", "own_objective", "pulseq_export"),
)


class ReadingOrder:
    """Sorts examples as one would read them."""

    def __init__(self, folder: str):
        pass

    def __call__(self, filename: str) -> int:
        """The place of an example in the gallery; what `ORDER` does not name comes last."""
        name = Path(filename).stem.removeprefix("plot_")
        return ORDER.index(name) if name in ORDER else len(ORDER)
