"""Copies between registries, beside other programs: see copying.py.

python benchmarks/copy.py [--quick] [--runs 3] [--json FILE]
"""

import sys

if __name__ == "__main__":
    from copying import main

    main()
else:
    # Programs in this folder import the standard library's module of this name.
    _found = sys.path[:]
    sys.path[:] = [folder for folder in _found if not __file__.startswith(f"{folder}/copy.")]
    del sys.modules[__name__]
    __import__(__name__)
    sys.path[:] = _found
