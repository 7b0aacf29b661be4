"""How k-space is sampled: trajectories, encodings, NUFFT and density."""

from acqdesign.encoding._backends import available_backends as available_backends
from acqdesign.encoding.density import DENSITIES as DENSITIES
from acqdesign.encoding.density import density_weights as density_weights
from acqdesign.encoding.density import least_squares_density as least_squares_density
from acqdesign.encoding.density import pipe_density as pipe_density
from acqdesign.encoding.encoding import CartesianEncoding as CartesianEncoding
from acqdesign.encoding.encoding import Coils as Coils
from acqdesign.encoding.encoding import Encoding as Encoding
from acqdesign.encoding.encoding import Gram as Gram
from acqdesign.encoding.encoding import ImageMap as ImageMap
from acqdesign.encoding.encoding import Mask as Mask
from acqdesign.encoding.encoding import NUFFTEncoding as NUFFTEncoding
from acqdesign.encoding.encoding import Plane as Plane
from acqdesign.encoding.epi import EPI as EPI
from acqdesign.encoding.free import FreeForm as FreeForm
from acqdesign.encoding.free import Splines as Splines
from acqdesign.encoding.grid import GridLines as GridLines
from acqdesign.encoding.hardware import Hardware as Hardware
from acqdesign.encoding.lines import LineWeights as LineWeights
from acqdesign.encoding.lines import StraightLineEncoding as StraightLineEncoding
from acqdesign.encoding.lines import uniform_readout as uniform_readout
from acqdesign.encoding.nufft import nufft_adjoint as nufft_adjoint
from acqdesign.encoding.nufft import nufft_forward as nufft_forward
from acqdesign.encoding.ordering import ORDERINGS as ORDERINGS
from acqdesign.encoding.ordering import order_readouts as order_readouts
from acqdesign.encoding.patterns import INITIALISERS as INITIALISERS
from acqdesign.encoding.patterns import initial_lines as initial_lines
from acqdesign.encoding.patterns import usual_pattern as usual_pattern
from acqdesign.encoding.radial import Kooshball as Kooshball
from acqdesign.encoding.radial import Radial as Radial
from acqdesign.encoding.spiral import Cones as Cones
from acqdesign.encoding.spiral import Spiral as Spiral
from acqdesign.encoding.stack import Stack as Stack
from acqdesign.encoding.stack import StackOfSpirals as StackOfSpirals
from acqdesign.encoding.stack import StackOfStars as StackOfStars
from acqdesign.encoding.straight import Lines as Lines
from acqdesign.encoding.trajectory import Played as Played
from acqdesign.encoding.trajectory import Trajectory as Trajectory

TRAJECTORIES: dict[str, type[Trajectory]] = {
    "lines": Lines,
    "grid": GridLines,
    "radial": Radial,
    "spiral": Spiral,
    "epi": EPI,
    "kooshball": Kooshball,
    "stars": StackOfStars,
    "spirals": StackOfSpirals,
    "cones": Cones,
    "free": FreeForm,
    "splines": Splines,
}
"""Trajectories by the names that the command lines know them by."""
