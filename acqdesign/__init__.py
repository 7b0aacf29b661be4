"""acqdesign: MRI acquisition design in JAX.

This file is the public API: what is named here is supported, documented and tested.
"""

from importlib.metadata import version as _version

__version__ = _version("acqdesign")
