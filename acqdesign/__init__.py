"""acqdesign: MRI acquisition design in JAX. Everything public lives in one of these rooms."""

from importlib.metadata import version as _version

from acqdesign import base as base
from acqdesign import design as design
from acqdesign import encoding as encoding
from acqdesign import export as export
from acqdesign import optim as optim
from acqdesign import plot as plot
from acqdesign import recon as recon
from acqdesign import scene as scene
from acqdesign import signal as signal

__version__ = _version("acqdesign")
