"""`python -m emergent_alignment` is the `emergent-alignment` command."""

import sys

from emergent_alignment.cli.main import main

sys.exit(main())
