"""`python -m acqdesign.doctor`: see `acqdesign.commands.doctor`."""

import sys

from acqdesign.commands.doctor import main as main

if __name__ == "__main__":
    sys.exit(main())
