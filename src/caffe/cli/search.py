"""`caffe search`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag, UsageError

OUT = Flag("out", "search", "Folder of the search: its trials, data, pictures and results.", ("o",))
TRIALS = Flag("trials", 20, "Number of trials.")
METHOD = Flag("method", "random", "Sampling method: random, grid (of `points` values each) or tpe.")
PRUNE = Flag("prune", "none", "Pruning method, which stops unpromising trials: none, median or hyperband.")
FINE = Flag("fine", 0, "Number of trials of a second search, in a quarter of each range around the best trial.")
STEPS = Flag("steps", 0, "Iterations of a trial, instead of the solver's max_iter.")
VALIDATION = Flag("validation", "", "Source of validation data; by default a part of the training data is used.")
SHARE = Flag("share", 10, "Percentage of the training data used for validation.")
FOLDS = Flag("folds", 1, "Number of folds of the training data, for cross validation.")
SEED = Flag("seed", 1, "Seed of the search, of its splits and of its trials.")
FINALISTS = Flag("finalists", 5, "Number of the best trials to repeat at the end.")
REPEATS = Flag("repeats", 3, "Number of seeds for repeating the finalists and the given solver.")
METRIC = Flag("metric", "", "Output of the test net to optimize; the default is the Accuracy, or else the loss.")
DIRECTION = Flag(
    "direction", "", "maximize or minimize -metric; by default an accuracy is maximized and a loss minimized."
)
STORAGE = Flag("storage", "", "Database of the trials (postgresql://..., mysql://...), instead of a journal file.")

_TRIALS = (OUT, TRIALS, METHOD, PRUNE, FINE, STEPS, SEED, METRIC, DIRECTION, STORAGE)
_DATA = (VALIDATION, SHARE, FOLDS, FINALISTS, REPEATS)


@command("gpu", *_TRIALS, *_DATA, task="train", arguments="SOLVER SPACE")
def search(flags: SimpleNamespace, display: Display) -> None:
    """Search for better settings of a solver and its net.

    SPACE is a YAML file that names fields and their values (see docs/course/search.md):

        solver.base_lr: {log_uniform: [0.001, 0.1]}
        net.layer["ip1"].inner_product_param.num_output: {integer: [50, 800], log: true}

    Trials are compared on validation data, a part of the training data. The test data are used once, at the end. The
    best trials and the given solver are then repeated with several seeds. The report says which part of the gain was
    luck, and OUT/best contains the best solver and net. Several processes with the same command line share a search,
    also if they start later. The trial of a killed process is continued from its snapshot.

        caffe search solver.prototxt space.yaml -trials 20
        caffe search solver.prototxt space.yaml -trials 60 -method tpe -prune hyperband -fine 20 -out found
    """
    if len(flags.arguments) != 2:
        raise UsageError("caffe: error: 'search' takes a solver and a space: caffe search solver.prototxt space.yaml")
    from caffe.cli import _device, _search

    _device.use(flags.gpu, "search", f'"-gpu {flags.gpu}"')
    _search.run(flags, display)
