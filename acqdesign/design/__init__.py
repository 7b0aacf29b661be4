"""Learning a design: objectives, projections and the fit loop."""

from acqdesign.design.checkpoint import Checkpoint as Checkpoint
from acqdesign.design.checkpoint import load_checkpoint as load_checkpoint
from acqdesign.design.checkpoint import save_checkpoint as save_checkpoint
from acqdesign.design.fit import CheckpointPolicy as CheckpointPolicy
from acqdesign.design.fit import FitResult as FitResult
from acqdesign.design.fit import NonFiniteError as NonFiniteError
from acqdesign.design.fit import Snapshots as Snapshots
from acqdesign.design.fit import fit as fit
from acqdesign.design.optimizers import OPTIMIZERS as OPTIMIZERS
from acqdesign.design.optimizers import SCHEDULES as SCHEDULES
from acqdesign.design.optimizers import make_optimizer as make_optimizer
from acqdesign.design.optimizers import make_schedule as make_schedule
from acqdesign.design.optimizers import projected_lbfgs as projected_lbfgs
from acqdesign.design.projections import dykstra as dykstra
from acqdesign.design.projections import project_bend as project_bend
from acqdesign.design.projections import project_box as project_box
from acqdesign.design.projections import project_entries as project_entries
from acqdesign.design.projections import project_rms as project_rms
from acqdesign.design.projections import project_steps as project_steps
from acqdesign.design.projections import project_symmetric as project_symmetric
from acqdesign.design.projections import project_within_rms as project_within_rms
from acqdesign.design.schedule import ScheduleLimits as ScheduleLimits
from acqdesign.design.schedule import schedule_projection as schedule_projection
