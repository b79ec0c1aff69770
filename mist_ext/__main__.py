"""``python -m mist_ext`` is ``mist``."""

import sys

from mist_ext.cli import main

sys.exit(main())
