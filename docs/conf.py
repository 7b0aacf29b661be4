"""Sphinx configuration."""

import sys
from importlib import metadata
from pathlib import Path

project = "acqdesign"
author = "The acqdesign developers"
copyright = author
release = metadata.version("acqdesign")

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
extensions = [
    "helps",
    "links",
    "measured",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "filename_pattern": "/plot_",
    "image_scrapers": ("figure_scraper.figures",),
    "within_subsection_order": "figure_scraper.ReadingOrder",
    # A figure that ends a block is saved above; its text says nothing.
    "capture_repr": (),
    "first_notebook_cell": "%matplotlib inline",
    "abort_on_example_error": True,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,
}

html_theme = "furo"
html_title = f"acqdesign {release}"
html_favicon = "images/icon.svg"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields with a docstring of their own are listed once
myst_enable_extensions = ["dollarmath"]

default_role = "code"  # `name` in a docstring is code


def _plain_docstrings(app, what, name, obj, options, lines):
    """Docstrings are written to be read as they are: indented blocks are formulas, a bar is a bar."""
    text, literal, section = [], False, False
    for line in lines:
        indented = line.startswith("    ")
        section = (section or line in {"Args:", "Returns:", "Raises:"}) and (indented or not line or line.endswith(":"))
        if indented and not section and not literal and text and not text[-1]:
            text += ["::", ""]
            literal = True
        if line and not indented:
            literal = False
        text.append(line if literal or "``" in line else line.replace("|", r"\|"))
    lines[:] = text


def setup(app):
    app.connect("autodoc-process-docstring", _plain_docstrings, priority=400)  # before napoleon's, at 500
