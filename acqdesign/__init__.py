"""acqdesign: MRI acquisition design in JAX.

This file is the public API: what is named here is supported, documented and tested.
"""

from importlib.metadata import version as _version

from acqdesign.scene import FOV_M as FOV_M
from acqdesign.scene import TISSUES as TISSUES
from acqdesign.scene import Tissue as Tissue
from acqdesign.scene import TissueClasses as TissueClasses
from acqdesign.scene import augment as augment
from acqdesign.scene import b1_map as b1_map
from acqdesign.scene import birdcage_maps as birdcage_maps
from acqdesign.scene import box_resample as box_resample
from acqdesign.scene import check_field_map as check_field_map
from acqdesign.scene import check_smaps as check_smaps
from acqdesign.scene import fine_shape as fine_shape
from acqdesign.scene import image_fov_m as image_fov_m
from acqdesign.scene import load_brain as load_brain
from acqdesign.scene import load_image as load_image
from acqdesign.scene import posed as posed
from acqdesign.scene import target_grid as target_grid
from acqdesign.scene import tissue as tissue
from acqdesign.scene import tissue_classes as tissue_classes
from acqdesign.scene import tissues as tissues
from acqdesign.scene import weighted_image as weighted_image
from acqdesign.scene import with_b1_map as with_b1_map
from acqdesign.scene import with_t2_spread as with_t2_spread

from acqdesign.signal import BSSFP as BSSFP
from acqdesign.signal import FSE as FSE
from acqdesign.signal import Interval as Interval
from acqdesign.signal import MPRAGE as MPRAGE
from acqdesign.signal import SPGR as SPGR
from acqdesign.signal import SSFPFID as SSFPFID
from acqdesign.signal import Sequence as Sequence
from acqdesign.signal import SliceProfile as SliceProfile
from acqdesign.signal import TissueParams as TissueParams
from acqdesign.signal import bssfp as bssfp
from acqdesign.signal import bssfp_steady as bssfp_steady
from acqdesign.signal import crlb as crlb
from acqdesign.signal import efficiency as efficiency
from acqdesign.signal import ensemble as ensemble
from acqdesign.signal import epg as epg
from acqdesign.signal import exponential_decay as exponential_decay
from acqdesign.signal import fisher_information as fisher_information
from acqdesign.signal import flips_for_echoes as flips_for_echoes
from acqdesign.signal import fse as fse
from acqdesign.signal import mprage as mprage
from acqdesign.signal import pseudo_steady_state as pseudo_steady_state
from acqdesign.signal import simulate as simulate
from acqdesign.signal import sinc_pulse as sinc_pulse
from acqdesign.signal import slice_profile as slice_profile
from acqdesign.signal import spgr as spgr
from acqdesign.signal import spgr_ernst as spgr_ernst
from acqdesign.signal import spgr_steady as spgr_steady
from acqdesign.signal import ssfp_fid as ssfp_fid
from acqdesign.signal import variances as variances
from acqdesign.signal import weighted_trace as weighted_trace

from acqdesign.encoding import CartesianEncoding as CartesianEncoding
from acqdesign.encoding import EchoTrainEncoding as EchoTrainEncoding
from acqdesign.encoding import Encoding as Encoding
from acqdesign.encoding import INITIALISERS as INITIALISERS
from acqdesign.encoding import LineGram as LineGram
from acqdesign.encoding import Lines as Lines
from acqdesign.encoding import NUFFTEncoding as NUFFTEncoding
from acqdesign.encoding import ORDERINGS as ORDERINGS
from acqdesign.encoding import StraightLineEncoding as StraightLineEncoding
from acqdesign.encoding import Views as Views
from acqdesign.encoding import available_backends as available_backends
from acqdesign.encoding import dot_test as dot_test
from acqdesign.encoding import echo_of_te as echo_of_te
from acqdesign.encoding import initial_lines as initial_lines
from acqdesign.encoding import least_squares_density as least_squares_density
from acqdesign.encoding import nufft_adjoint as nufft_adjoint
from acqdesign.encoding import nufft_forward as nufft_forward
from acqdesign.encoding import order_views as order_views
from acqdesign.encoding import pipe_density as pipe_density
from acqdesign.encoding import reference_lines as reference_lines
from acqdesign.encoding import uniform_readout as uniform_readout

from acqdesign.recon import cg_sense as cg_sense
from acqdesign.recon import conjugate_gradients as conjugate_gradients
from acqdesign.recon import match_t2 as match_t2
from acqdesign.recon import nrmse as nrmse
from acqdesign.recon import psnr as psnr
from acqdesign.recon import signal_basis as signal_basis
from acqdesign.recon import ssim as ssim
from acqdesign.recon import subspace_sense as subspace_sense

from acqdesign.design import Checkpoint as Checkpoint
from acqdesign.design import CheckpointPolicy as CheckpointPolicy
from acqdesign.design import FitResult as FitResult
from acqdesign.design import NonFiniteError as NonFiniteError
from acqdesign.design import OPTIMIZERS as OPTIMIZERS
from acqdesign.design import SCHEDULES as SCHEDULES
from acqdesign.design import ScheduleLimits as ScheduleLimits
from acqdesign.design import Snapshots as Snapshots
from acqdesign.design import dykstra as dykstra
from acqdesign.design import fit as fit
from acqdesign.design import load_checkpoint as load_checkpoint
from acqdesign.design import make_optimizer as make_optimizer
from acqdesign.design import make_schedule as make_schedule
from acqdesign.design import project_bend as project_bend
from acqdesign.design import project_box as project_box
from acqdesign.design import project_entries as project_entries
from acqdesign.design import project_rms as project_rms
from acqdesign.design import project_steps as project_steps
from acqdesign.design import project_symmetric as project_symmetric
from acqdesign.design import project_within_rms as project_within_rms
from acqdesign.design import projected_lbfgs as projected_lbfgs
from acqdesign.design import save_checkpoint as save_checkpoint
from acqdesign.design import schedule_projection as schedule_projection

from acqdesign.export import read_design as read_design
from acqdesign.export import write_design as write_design

__version__ = _version("acqdesign")
