"""Where CUDA's libraries are that come with PyTorch: prints a value for LD_LIBRARY_PATH.

PyTorch's packages have each library in a folder of its own, where PyTorch finds it and nobody else does. What LD_LIBRARY_PATH
has already comes first.
"""

import importlib.util
import os
from pathlib import Path


def path():
    found = importlib.util.find_spec("nvidia")
    places = found.submodule_search_locations if found else []
    folders = [str(folder) for place in places for folder in sorted(Path(place).glob("*/lib"))]
    known = os.environ.get("LD_LIBRARY_PATH")
    return ":".join(([known] if known else []) + folders)


if __name__ == "__main__":
    print(path())
