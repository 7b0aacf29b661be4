"""What sphinx-gallery takes from a block of an example: its figure and its animations."""

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
