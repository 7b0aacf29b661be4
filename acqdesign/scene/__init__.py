"""What is scanned: tissues, scenes, phantoms and image files, coils and fields; and the scanner that scans."""

from acqdesign.scene.coils import b1_map as b1_map
from acqdesign.scene.coils import birdcage_maps as birdcage_maps
from acqdesign.scene.coils import noise_covariance as noise_covariance
from acqdesign.scene.coils import prewhitened as prewhitened
from acqdesign.scene.loaders import load_image as load_image
from acqdesign.scene.maps import load_b1 as load_b1
from acqdesign.scene.maps import load_noise as load_noise
from acqdesign.scene.maps import load_smaps as load_smaps
from acqdesign.scene.phantom import CONTRASTS as CONTRASTS
from acqdesign.scene.phantom import FOV as FOV
from acqdesign.scene.phantom import load_brain as load_brain
from acqdesign.scene.phantom import weighted_image as weighted_image
from acqdesign.scene.poses import augment as augment
from acqdesign.scene.poses import fine_shape as fine_shape
from acqdesign.scene.poses import random_pose as random_pose
from acqdesign.scene.scanner import SYSTEMS as SYSTEMS
from acqdesign.scene.scanner import SystemLimits as SystemLimits
from acqdesign.scene.scanner import system_limits as system_limits
from acqdesign.scene.scene import Poses as Poses
from acqdesign.scene.scene import Scene as Scene
from acqdesign.scene.scene import brain as brain
from acqdesign.scene.scene import load_scene as load_scene
from acqdesign.scene.tissue import TISSUES as TISSUES
from acqdesign.scene.tissue import Properties as Properties
from acqdesign.scene.tissue import Tissue as Tissue
from acqdesign.scene.tissue import tissues as tissues
