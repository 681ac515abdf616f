"""Python runs this in every process whose PYTHONPATH holds this folder: modules of slimfront are changed as they are imported.

Only where SLIMFRONT_FAULTS names a folder; see `replay`.
"""

import os

if "SLIMFRONT_FAULTS" in os.environ:
    import sys

    import replay

    sys.meta_path.insert(0, replay.Changer())
