"""What is scanned: tissues, the brain phantom and image files, coils and field maps."""

from acqdesign.scene.brain import FOV_M as FOV_M
from acqdesign.scene.brain import load_brain as load_brain
from acqdesign.scene.brain import target_grid as target_grid
from acqdesign.scene.brain import weighted_image as weighted_image
from acqdesign.scene.resample import box_resample as box_resample
from acqdesign.scene.tissue import TISSUES as TISSUES
from acqdesign.scene.tissue import Tissue as Tissue
from acqdesign.scene.tissue import tissue as tissue
from acqdesign.scene.tissue import tissues as tissues
