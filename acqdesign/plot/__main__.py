"""`python -m acqdesign.plot`: see `acqdesign.commands.plot`."""

from acqdesign.commands.plot import main as main
from acqdesign.commands.streams import leave

if __name__ == "__main__":
    leave(main())
