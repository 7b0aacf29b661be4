"""k-space back to images: adjoint, conjugate gradients, metrics."""

from acqdesign.recon.cg import cg_sense as cg_sense
from acqdesign.recon.cg import conjugate_gradients as conjugate_gradients
from acqdesign.recon.metrics import nrmse as nrmse
from acqdesign.recon.metrics import psnr as psnr
from acqdesign.recon.metrics import ssim as ssim
from acqdesign.recon.prior import posterior_mean as posterior_mean
from acqdesign.recon.prior import shaped as shaped
from acqdesign.recon.prior import spectral_prior as spectral_prior
from acqdesign.recon.subspace import match_t2 as match_t2
from acqdesign.recon.subspace import signal_basis as signal_basis
from acqdesign.recon.subspace import subspace_sense as subspace_sense
