"""`python -m acqdesign.plot`: see `acqdesign.commands.plot`."""

import sys

from acqdesign.commands.plot import main as main

if __name__ == "__main__":
    sys.exit(main())
