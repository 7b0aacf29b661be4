"""k-space back to images: reconstructions and metrics."""

from acqdesign.recon.cg import cg as cg
from acqdesign.recon.cg import cg_sense as cg_sense
from acqdesign.recon.mapping import fit_tissue as fit_tissue
from acqdesign.recon.mapping import match_dictionary as match_dictionary
from acqdesign.recon.metrics import nrmse as nrmse
from acqdesign.recon.metrics import psnr as psnr
from acqdesign.recon.metrics import ssim as ssim
from acqdesign.recon.prior import posterior_mean as posterior_mean
from acqdesign.recon.prior import spectral_prior as spectral_prior
from acqdesign.recon.reconstruction import CG as CG
from acqdesign.recon.reconstruction import RECONSTRUCTIONS as RECONSTRUCTIONS
from acqdesign.recon.reconstruction import DensityAdjoint as DensityAdjoint
from acqdesign.recon.reconstruction import Prior as Prior
from acqdesign.recon.reconstruction import Reconstruction as Reconstruction
from acqdesign.recon.reconstruction import Subspace as Subspace
from acqdesign.recon.subspace import signal_basis as signal_basis
