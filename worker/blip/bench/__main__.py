"""`python -m worker.blip.bench`."""

import sys

from worker.blip.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
