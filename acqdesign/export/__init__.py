"""A design as files that scanners and other packages read."""

from acqdesign.export.npz import read_design as read_design
from acqdesign.export.npz import write_design as write_design
