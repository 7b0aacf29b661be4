"""How k-space is sampled: trajectories, NUFFT, density and encoding operators."""

from acqdesign.encoding._backends import available_backends as available_backends
from acqdesign.encoding.density import least_squares_density as least_squares_density
from acqdesign.encoding.density import pipe_density as pipe_density
from acqdesign.encoding.initial import INITIALISERS as INITIALISERS
from acqdesign.encoding.initial import Lines as Lines
from acqdesign.encoding.initial import initial_lines as initial_lines
from acqdesign.encoding.initial import reference_lines as reference_lines
from acqdesign.encoding.lines import LineGram as LineGram
from acqdesign.encoding.lines import StraightLineEncoding as StraightLineEncoding
from acqdesign.encoding.lines import uniform_readout as uniform_readout
from acqdesign.encoding.nufft import nufft_adjoint as nufft_adjoint
from acqdesign.encoding.nufft import nufft_forward as nufft_forward
from acqdesign.encoding.operators import CartesianEncoding as CartesianEncoding
from acqdesign.encoding.operators import Encoding as Encoding
from acqdesign.encoding.operators import NUFFTEncoding as NUFFTEncoding
from acqdesign.encoding.operators import dot_test as dot_test
from acqdesign.encoding.ordering import ORDERINGS as ORDERINGS
from acqdesign.encoding.ordering import Views as Views
from acqdesign.encoding.ordering import echo_of_te as echo_of_te
from acqdesign.encoding.ordering import order_views as order_views
from acqdesign.encoding.trains import EchoTrainEncoding as EchoTrainEncoding
