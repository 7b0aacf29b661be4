"""Figures and animations of designs: they are returned, never shown, and touch no pyplot state."""

from acqdesign.plot.animation import animate_lines as animate_lines
from acqdesign.plot.bounds import plot_bound_map as plot_bound_map
from acqdesign.plot.bounds import plot_bounds as plot_bounds
from acqdesign.plot.bounds import plot_power as plot_power
from acqdesign.plot.images import plot_images as plot_images
from acqdesign.plot.images import plot_psf as plot_psf
from acqdesign.plot.lines import plot_lines as plot_lines
from acqdesign.plot.lines import plot_readouts as plot_readouts
from acqdesign.plot.signals import plot_echoes as plot_echoes
from acqdesign.plot.signals import plot_fingerprints as plot_fingerprints
from acqdesign.plot.signals import plot_flips as plot_flips
from acqdesign.plot.signals import plot_loss as plot_loss
from acqdesign.plot.signals import plot_times as plot_times
from acqdesign.plot.style import figure_style as figure_style
from acqdesign.plot.style import new_figure as new_figure
from acqdesign.plot.style import write_figure as write_figure
from acqdesign.plot.waveforms import plot_waveforms as plot_waveforms
