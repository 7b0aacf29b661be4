"""What is scanned: tissues, the brain phantom and image files, coils and field maps."""

from acqdesign.scene.augment import augment as augment
from acqdesign.scene.augment import fine_shape as fine_shape
from acqdesign.scene.augment import posed as posed
from acqdesign.scene.brain import FOV_M as FOV_M
from acqdesign.scene.brain import load_brain as load_brain
from acqdesign.scene.brain import weighted_image as weighted_image
from acqdesign.scene.classes import TissueClasses as TissueClasses
from acqdesign.scene.classes import support as support
from acqdesign.scene.classes import tissue_classes as tissue_classes
from acqdesign.scene.classes import with_b1_map as with_b1_map
from acqdesign.scene.classes import with_t2_spread as with_t2_spread
from acqdesign.scene.coils import birdcage_maps as birdcage_maps
from acqdesign.scene.coils import check_smaps as check_smaps
from acqdesign.scene.fields import b1_map as b1_map
from acqdesign.scene.fields import check_field_map as check_field_map
from acqdesign.scene.loaders import image_fov_m as image_fov_m
from acqdesign.scene.loaders import load_image as load_image
from acqdesign.scene.resample import box_resample as box_resample
from acqdesign.scene.resample import target_grid as target_grid
from acqdesign.scene.tissue import TISSUES as TISSUES
from acqdesign.scene.tissue import Tissue as Tissue
from acqdesign.scene.tissue import tissue as tissue
from acqdesign.scene.tissue import tissues as tissues
