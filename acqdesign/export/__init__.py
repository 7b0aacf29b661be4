"""A design as files that scanners and other packages read."""

from acqdesign.export.bart import read_bart as read_bart
from acqdesign.export.bart import write_bart as write_bart
from acqdesign.export.mat import read_mat as read_mat
from acqdesign.export.mat import write_mat as write_mat
from acqdesign.export.mrd import read_mrd as read_mrd
from acqdesign.export.mrd import write_mrd as write_mrd
from acqdesign.export.npz import read_design as read_design
from acqdesign.export.npz import write_design as write_design
from acqdesign.export.plan import PulseqOptions as PulseqOptions
from acqdesign.export.positions import POSITION_FILES as POSITION_FILES
from acqdesign.export.positions import read_positions as read_positions
from acqdesign.export.pulseq import PulseqReport as PulseqReport
from acqdesign.export.pulseq import write_pulseq as write_pulseq
from acqdesign.export.pulseq_read import read_pulseq as read_pulseq
from acqdesign.export.sparkling import read_sparkling as read_sparkling
from acqdesign.export.sparkling import write_sparkling as write_sparkling
from acqdesign.export.straight import trajectory as trajectory
from acqdesign.export.straight import with_samples as with_samples
