"""A randomised test of who owns which memory: nets and solvers are compared with a slow model that copies everything.

    python -m tests.ownership --sequences 2000 --seed 0     # many sequences; prints the failing ones as scripts
    python -m tests.ownership --mode real                   # the model against the original, $CAFETIERE_REAL_CAFFE

A sequence builds random nets, perhaps a solver, and does random operations on them: reads and writes of blobs and
weights, through arrays that were kept, too; runs forward and backward, whole and in part, layer by layer and as one
piece; training, sharing, saving, reshaping. After each operation all that the user holds must be as in the model.

    graphs, drawing           nets: their text, and how they are drawn
    layers, layers_more       layers in numpy, forward and backward
    memory, model, world      the model: storages and blobs, a net, all of what a sequence has
    operations*, sequences    operations, and how sequences are drawn
    runner, script            running and comparing, shrinking, a sequence as a script
    guests                    layers in Python that keep arrays
    mistakes                  mistakes seeded into a copy of the package, to see which ones are noticed

The package uses pycaffe's public API only, and Python 3.8: so the original Caffe can run it.
"""
