"""`python -m acqdesign.merge`: see `acqdesign.commands.merge`."""

import sys

from acqdesign.commands.merge import main as main

if __name__ == "__main__":
    sys.exit(main())
