"""`python -m fedoperator.cli` is `fedtrain`."""

import sys

from fedoperator.cli import main

sys.exit(main.main())
