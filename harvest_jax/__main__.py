"""`python -m harvest_jax` is the `harvest` command."""

import sys

from harvest_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
