"""Figures and animations of designs: they are returned, never shown, and touch no pyplot state."""

from acqdesign.plot.animation import animate_lines as animate_lines
from acqdesign.plot.images import plot_images as plot_images
from acqdesign.plot.images import plot_psf as plot_psf
from acqdesign.plot.lines import plot_lines as plot_lines
from acqdesign.plot.signals import plot_echoes as plot_echoes
from acqdesign.plot.signals import plot_flips as plot_flips
from acqdesign.plot.signals import plot_loss as plot_loss
