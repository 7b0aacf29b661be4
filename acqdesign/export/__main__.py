"""`python -m acqdesign.export`: see `acqdesign.commands.export`."""

import sys

from acqdesign.commands.export import main as main

if __name__ == "__main__":
    sys.exit(main())
