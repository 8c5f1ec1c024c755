"""Trains with the pycaffe that is installed for the running Python; used for the comparison with the original.

    python real_caffe.py SOLVER STATE ITERATIONS OUT

STATE is a snapshot to resume from, or "-". Writes the loss of each iteration and the weights after the last into OUT
(.npz), and then a snapshot under the solver's prefix.
"""

import sys

import numpy as np

import caffe


def main(solver_path, state, iterations, out):
    caffe.set_mode_cpu()
    solver = caffe.get_solver(solver_path)
    if state != "-":
        solver.restore(state)
    losses = []
    for _ in range(int(iterations)):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    arrays = {f"{name}/{i}": blob.data for name, blobs in solver.net.params.items() for i, blob in enumerate(blobs)}
    np.savez(out, losses=losses, iteration=solver.iter, **arrays)
    solver.snapshot()


if __name__ == "__main__":
    main(*sys.argv[1:])
