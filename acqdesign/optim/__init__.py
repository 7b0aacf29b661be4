"""Learning numbers under constraints: the fit loop, optimisers, projections. Knows nothing of MRI."""

from acqdesign.optim.checkpoint import Checkpoint as Checkpoint
from acqdesign.optim.checkpoint import load_checkpoint as load_checkpoint
from acqdesign.optim.checkpoint import save_checkpoint as save_checkpoint
from acqdesign.optim.fit import CheckpointPolicy as CheckpointPolicy
from acqdesign.optim.fit import FitResult as FitResult
from acqdesign.optim.fit import NonFiniteError as NonFiniteError
from acqdesign.optim.fit import Snapshots as Snapshots
from acqdesign.optim.fit import fit as fit
from acqdesign.optim.limits import ScheduleLimits as ScheduleLimits
from acqdesign.optim.limits import schedule_projection as schedule_projection
from acqdesign.optim.optimizers import OPTIMIZERS as OPTIMIZERS
from acqdesign.optim.optimizers import SCHEDULES as SCHEDULES
from acqdesign.optim.optimizers import make_optimizer as make_optimizer
from acqdesign.optim.optimizers import make_schedule as make_schedule
from acqdesign.optim.optimizers import projected_lbfgs as projected_lbfgs
from acqdesign.optim.projections import dykstra as dykstra
from acqdesign.optim.projections import project_bend as project_bend
from acqdesign.optim.projections import project_box as project_box
from acqdesign.optim.projections import project_entries as project_entries
from acqdesign.optim.projections import project_rms as project_rms
from acqdesign.optim.projections import project_steps as project_steps
from acqdesign.optim.projections import project_symmetric as project_symmetric
from acqdesign.optim.projections import project_within_rms as project_within_rms
