"""A randomized test of memory ownership: nets and solvers are compared with a slow model that copies all data.

    python -m tests.ownership --sequences 2000 --seed 0     # many sequences; prints the failing ones as scripts
    python -m tests.ownership --mode real                   # the model against the original, $CAFETIERE_REAL_CAFFE

A sequence builds random nets, perhaps a solver, and applies random operations to them: reads and writes of blobs and
weights, also through arrays that the user kept; forward and backward runs, whole or partial, layer by layer or as one
module; training, sharing, saving, reshaping. After each operation, all arrays of the user must equal those of the
model.

    graphs, drawing           nets: their prototxt, and the random choice of nets
    layers, layers_more       layers in numpy, forward and backward
    memory, model, world      the model: storages and blobs, a net, the whole state of a sequence
    operations*, sequences    operations, and the random choice of sequences
    runner, script            running and comparing, shrinking, a sequence as a script
    guests                    layers in Python that keep arrays
    mistakes                  mistakes seeded into a copy of the package, to test that sequences find them

The package uses only pycaffe's public API and Python 3.8, so that the original Caffe can run it.
"""
