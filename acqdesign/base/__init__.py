"""What the rooms share and what knows nothing of MRI: checks and errors, files, array types, units, sharding."""

from acqdesign.base import settings as settings
