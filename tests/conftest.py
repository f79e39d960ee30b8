"""What all tests share: the folder of helpers on the path, and the real peers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ("support.peers",)
