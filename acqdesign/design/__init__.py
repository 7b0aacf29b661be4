"""Design problems: what is learned for what, and the driver that learns, judges, writes and draws."""

from acqdesign.design.driver import Found as Found
from acqdesign.design.driver import Held as Held
from acqdesign.design.driver import adam as adam
from acqdesign.design.driver import judge as judge
from acqdesign.design.driver import learn as learn
from acqdesign.design.driver import per_half as per_half
from acqdesign.design.driver import run as run
from acqdesign.design.exchange import exchange_step as exchange_step
from acqdesign.design.problem import Design as Design
from acqdesign.design.problem import Problem as Problem
from acqdesign.design.scan import SimulatedScan as SimulatedScan
from acqdesign.design.terms import TERMS as TERMS
from acqdesign.design.terms import Term as Term
from acqdesign.design.terms import bound as bound
from acqdesign.design.terms import deviation as deviation
from acqdesign.design.terms import dissimilarity as dissimilarity
from acqdesign.design.terms import noise as noise
from acqdesign.design.terms import nrmse as nrmse
from acqdesign.design.terms import psnr as psnr
from acqdesign.design.terms import scaled_error as scaled_error
from acqdesign.design.terms import side_lobes as side_lobes
from acqdesign.design.terms import similarity as similarity
from acqdesign.design.terms import squared_error as squared_error
from acqdesign.design.terms import term as term
from acqdesign.design.terms import width as width
