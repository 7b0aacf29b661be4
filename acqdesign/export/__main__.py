"""`python -m acqdesign.export`: see `acqdesign.commands.export`."""

from acqdesign.commands.export import main as main
from acqdesign.commands.streams import leave

if __name__ == "__main__":
    leave(main())
