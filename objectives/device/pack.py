"""The runner as one file that a device needs nothing of slimfront's for: ``python runner.pyz``."""

from __future__ import annotations

import shutil
import tempfile
import zipapp
from pathlib import Path

from ... import __version__

ROOT = Path(__file__).parents[2]
PACKED = (
    "spaces/__init__.py",
    "spaces/errors.py",
    "spaces/quiet.py",
    "spaces/session.py",
    "objectives/__init__.py",
    *(
        f"objectives/device/{name}.py"
        for name in (
            "__init__",
            "command",
            "engine",
            "executorch_engine",
            "facts",
            "fixed_ports",
            "frames",
            "greeting",
            "heard",
            "litert_engine",
            "lock",
            "onnxruntime_engine",
            "openvino_engine",
            "packages",
            "server",
            "service",
            "store",
        )
    ),
)
MAIN = "import sys\n\nfrom slimfront.objectives.device.command import main\n\nsys.exit(main())\n"


def pack(path: Path) -> None:
    """Write the runner as a zip file that Python runs.

    Args:
        path: of the file, by custom ``*.pyz``.

    Raises:
        OSError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        root = Path(folder) / "slimfront"
        for name in PACKED:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
        (root / "__init__.py").write_text(
            f'"""The runner of slimfront {__version__}."""\n\n__version__ = "{__version__}"\n', encoding="utf-8"
        )
        (Path(folder) / "__main__.py").write_text(MAIN, encoding="utf-8")
        zipapp.create_archive(folder, path, compressed=True)
