"""`python tests/testbed up|down|status`: RELION, Apptainer and Slurm for the tests."""

import sys

from bringup.command import main

sys.exit(main())
