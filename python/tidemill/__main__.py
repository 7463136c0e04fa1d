"""`python -m tidemill`: the command `tidemill`, where the folder of scripts is not on the path."""

import sys

from tidemill.cli import main

sys.exit(main())
