"""k-space back to images: adjoint, conjugate gradients, metrics."""

from acqdesign.recon.cg import cg_sense as cg_sense
from acqdesign.recon.cg import conjugate_gradients as conjugate_gradients
from acqdesign.recon.metrics import nrmse as nrmse
from acqdesign.recon.metrics import psnr as psnr
from acqdesign.recon.metrics import ssim as ssim
