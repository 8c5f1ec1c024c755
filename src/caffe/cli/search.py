"""`caffe search`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag, UsageError

OUT = Flag("out", "search", "Folder of the search: its trials, data, pictures and results.", ("o",))
TRIALS = Flag("trials", 20, "How many trials are run.")
METHOD = Flag("method", "random", "How settings are drawn: random, grid (of `points` values each) or tpe.")
PRUNE = Flag("prune", "none", "What stops hopeless trials: none, median or hyperband.")
FINE = Flag("fine", 0, "Trials of a second search, in a quarter of each range around the best of the first.")
STEPS = Flag("steps", 0, "Iterations of a trial, in place of the solver's max_iter.")
VALIDATION = Flag("validation", "", "Source of validation data; by default a part of the training data is split off.")
SHARE = Flag("share", 10, "Percent of the training data that become validation data.")
FOLDS = Flag("folds", 1, "Parts of the training data of which each is the validation data once.")
SEED = Flag("seed", 1, "Seed of the search, of its splits and of its trials.")
FINALISTS = Flag("finalists", 5, "How many of the best trials are repeated at the end.")
REPEATS = Flag("repeats", 3, "Seeds with which finalists and the given solver are repeated.")
METRIC = Flag("metric", "", "Output of the test net that is judged; by default the Accuracy, or else the loss.")
DIRECTION = Flag("direction", "", "maximize or minimize -metric; by default Accuracy rises and a loss falls.")
STORAGE = Flag("storage", "", "Database of the trials (postgresql://..., mysql://...) in place of a journal file.")

_TRIALS = (OUT, TRIALS, METHOD, PRUNE, FINE, STEPS, SEED, METRIC, DIRECTION, STORAGE)
_DATA = (VALIDATION, SHARE, FOLDS, FINALISTS, REPEATS)


@command("gpu", *_TRIALS, *_DATA, task="train", arguments="SOLVER SPACE")
def search(flags: SimpleNamespace, display: Display) -> None:
    """Search for better settings of a solver and its net.

    SPACE is a YAML file that names fields and their values (see docs/course/search.md):

        solver.base_lr: {log_uniform: [0.001, 0.1]}
        net.layer["ip1"].inner_product_param.num_output: {integer: [50, 800], log: true}

    Trials are judged on validation data that are split off the training data; the test data are used once, at the end.
    The best trials are repeated with other seeds, beside the solver as it was given. The report says how much of the
    gain is luck, and OUT/best holds the best solver and net. Several processes with the same command line share the
    search, also later: a trial whose process was killed goes on from its snapshot.

        caffe search solver.prototxt space.yaml -trials 20
        caffe search solver.prototxt space.yaml -trials 60 -method tpe -prune hyperband -fine 20 -out found
    """
    if len(flags.arguments) != 2:
        raise UsageError("caffe: error: 'search' takes a solver and a space: caffe search solver.prototxt space.yaml")
    from caffe.cli import _device, _search

    _device.use(flags.gpu, "search", f'"-gpu {flags.gpu}"')
    _search.run(flags, display)
