"""The directive `help` shows what a command says of itself, with every flag, its unit, range and default.

That is `--help`, or `--help-all` where there is one.
"""

import os
import subprocess
import sys
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive


class Help(Directive):
    """`help` of the command named."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        around = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "JAX_PLATFORMS": "cpu"}
        several = self.arguments[0].startswith("learn_")
        asked = [sys.executable, "-m", "acqdesign", self.arguments[0], "--help-all" if several else "--help"]
        said = subprocess.run(asked, env=around, capture_output=True, text=True, check=True).stdout
        return [nodes.literal_block(said, said, language="text")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("help", Help)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
