"""A randomised test of who owns which memory: nets and solvers are compared with a slow model that copies everything.

    python -m tests.ownership --sequences 2000 --seed 0           # many sequences; prints the failing ones as scripts
    python -m tests.ownership --mode real                         # the model against the original Caffe

The package uses the public API of pycaffe only, and Python 3.8, so that the original Caffe can run it, too.
"""
