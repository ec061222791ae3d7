"""``python -m trainer`` is the ``trainer`` command."""

import sys

from chainer_trainer import main

sys.exit(main())
