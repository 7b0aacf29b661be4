"""A design as files that scanners and other packages read."""

from acqdesign.export.npz import read_design as read_design
from acqdesign.export.npz import write_design as write_design
from acqdesign.export.plan import PulseqOptions as PulseqOptions
from acqdesign.export.pulseq import PulseqReport as PulseqReport
from acqdesign.export.pulseq import write_pulseq as write_pulseq
from acqdesign.export.pulseq_read import read_pulseq as read_pulseq
