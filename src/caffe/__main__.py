"""`python -m caffe`: the command `caffe`."""

import sys

from caffe.cli import main

if __name__ == "__main__":
    sys.exit(main())
