"""What a design is learned for: losses of lines, flips, and both."""

from acqdesign.design.flip_objectives import BoundObjective as BoundObjective
from acqdesign.design.flip_objectives import Schedule as Schedule
from acqdesign.design.flip_objectives import relative_bounds as relative_bounds
from acqdesign.design.joint_objective import JointObjective as JointObjective
from acqdesign.design.joint_objective import JointSettings as JointSettings
from acqdesign.design.line_objectives import AdjointObjective as AdjointObjective
from acqdesign.design.line_objectives import IterativeObjective as IterativeObjective
from acqdesign.design.line_objectives import line_density as line_density
from acqdesign.design.line_objectives import line_psf as line_psf
