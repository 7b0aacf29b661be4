"""Figures as pictures."""

import numpy as np
from PIL import Image

from acqdesign.plot import write_figure


def drawn(figure, tmp_path):
    """The figure as a picture: it can be drawn, and is not blank."""
    write_figure(tmp_path / "figure.png", figure, dpi=60)
    picture = np.asarray(Image.open(tmp_path / "figure.png").convert("L"))
    assert picture.std() > 5
    return picture
