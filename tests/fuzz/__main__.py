"""`python -m tests.fuzz` is the long run."""

import sys

from tests.fuzz.run import main

sys.exit(main())
