"""`caffe test`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from caffe import log
from caffe.cli import _judging
from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import COMPILE, ENGINE, PRECISION, Flag
from caffe.cli.plot import OUT
from caffe.errors import CaffeError

MC = Flag(
    "mc",
    0,
    "Monte Carlo dropout: run each batch this many times with active dropout, and report accuracy and calibration of "
    "the mean prediction and of the usual one, and the variance.",
)
RELIABILITY = Flag("reliability", "", "Draw the reliability plot of -mc to this file (.png, .pdf, .svg).")
ENSEMBLE = Flag(
    "ensemble",
    False,
    "Score the files of -weights as members of an ensemble.",
)
COMBINE = Flag(
    "combine",
    "probabilities",
    "How to combine members: probabilities (their mean), logits (the geometric mean), votes, or weights (a weighted "
    "mean of the probabilities, fitted on the data of -validation).",
)
VALIDATION = Flag(
    "validation", "", "Source of validation data, such as a database, for -combine weights; must not be the test data."
)
JSON = Flag("json", "", "Write the table of an ensemble to this file.")
_OF_ENSEMBLES = (COMBINE, VALIDATION, JSON)


@command(
    *("model", "weights", "iterations", "gpu", "level", "stage"),
    *(COMPILE, ENGINE, MC, PRECISION, RELIABILITY, ENSEMBLE, *_OF_ENSEMBLES),
    *(*_judging.FLAGS, OUT),
    task="train",
)
def test(flags: SimpleNamespace, display: Display) -> None:
    """Score a model.

    In the folder of a project (`caffe new`), net, weights and number of batches are found without flags.

    Runs the test net over -iterations batches. Prints every output of every batch, and at the end the mean of each
    output and the mean loss.

    With -ensemble, each file of -weights is a member: a .caffemodel, a .solverstate for its moving average, or a quoted
    pattern for several files. -model is one net for all members, or one for each. The table shows the accuracy and the
    loss of each member and of the ensemble, the spread of the members, and the gain of the ensemble.

    -report prints the accuracy of a classifier with its 95 % interval, recall and precision of each class, calibration,
    and the classes that are confused most. In a project folder this is the default output. -confusion and -calibration
    write a table or pictures, and -worst N the worst mistakes, for `caffe relabel`.

        caffe test -model lenet_train_test.prototxt -weights lenet_iter_10000.caffemodel -iterations 100
        caffe test -confusion confusion.png -worst 50 -out worst           # in the folder of a project
        caffe test -model net.prototxt -weights net.caffemodel -mc 50 -reliability reliability.png
        caffe test -model lenet_train_test.prototxt -weights a.caffemodel,b.caffemodel -ensemble -iterations 100
        caffe test -model lenet_train_test.prototxt -weights 'lenet_member*_iter_10000.caffemodel' -ensemble
    """
    from caffe.cli import _project

    names, columns = _project.complete_test(flags)
    if not flags.model:
        raise CaffeError("Need a model definition to score: give one with -model FILE")
    if not flags.weights:
        raise CaffeError("Need model weights to score: give a .caffemodel with -weights FILE")
    if flags.iterations < 1:
        raise CaffeError(f"-iterations {flags.iterations}: expected at least 1")
    _check_monte_carlo(flags)
    _check_ensemble(flags)
    _judging.check_report(flags)
    _judging.choose_part(flags)
    from caffe.cli import _device, _nets
    from caffe.net import store

    if numbers := _device.use(flags.gpu, "caffe.cpp:264", f'"-gpu {flags.gpu}"'):
        log.info("caffe.cpp:264", f"Use GPU with device ID {numbers[0]}")
    else:
        log.info("caffe.cpp:275", "Use CPU.")
    if flags.ensemble:
        from caffe.cli import _ensemble

        _ensemble.run(flags, display)
        return
    net = _nets.open_net(flags, "TEST", flags.precision)
    try:
        store.load(net, [path.strip() for path in flags.weights.split(",")])
        if flags.mc:
            from caffe.cli import _monte_carlo

            return _monte_carlo.score(net, flags.iterations, flags.mc, flags.reliability, display)
        if _judging.wanted(flags) or names or columns:
            return _judging.score(net, flags, display, columns or names)
        net.optimize(compile=flags.compile, engine=flags.engine)
        display.say(_nets.summary(net))
        _score(net, flags.iterations, display)
    finally:
        net.close()


def _check_ensemble(flags: SimpleNamespace) -> None:
    given = [f"-{flag.name}" for flag in _OF_ENSEMBLES if getattr(flags, flag.name) != flag.default]
    if given and not flags.ensemble:
        raise CaffeError(f"{', '.join(given)}: applies to ensembles; add -ensemble, or remove it")
    if flags.ensemble and flags.mc:
        raise CaffeError("-mc and -ensemble exclude each other; remove one")


def _check_monte_carlo(flags: SimpleNamespace) -> None:
    if flags.mc < 0 or (flags.reliability and not flags.mc):
        fact = (
            f"-mc {flags.mc}: expected at least 1"
            if flags.mc
            else "-reliability draws the result of -mc N: give that, too"
        )
        raise CaffeError(fact)
    used = {"compile": flags.compile, "engine": flags.engine != "torch", "precision": flags.precision}
    if flags.mc and (given := [f"-{name}" for name, value in used.items() if value]):
        raise CaffeError(f"-mc runs layer by layer, in 32 bits, on torch; remove {', '.join(given)}")
    if flags.reliability:
        from caffe import plot

        plot.check_output(flags.reliability)


def _score(net: Any, iterations: int, display: Display) -> None:
    from caffe.solver.detections import VERSIONS, Precisions
    from caffe.solver.outputs import Means, outputs_of

    log.info("caffe.cpp:281", f"Running for {iterations} iterations.")
    total: float = 0
    judged = {top for layer in net.layers if layer.marks_detections for top in net.top_names[layer.name]}
    names = [name for name in net.outputs if name not in judged]
    means, precisions = Means(), Precisions()
    with display.bar(f"test {net.name}", iterations) as bar:
        for iteration in range(iterations):
            total += net.evaluate()
            means.add(outputs_of(net, names))
            precisions.add(outputs_of(net, [name for name in net.outputs if name in judged]))
            for name in names:
                for value in net.blobs[name].data.flat:
                    log.info("caffe.cpp:304", f"Batch {iteration}, {name} = {log.number(value)}")
            bar.update(iteration + 1, f"loss {log.number(total / (iteration + 1))}")
    log.info("caffe.cpp:309", f"Loss: {log.number(total / iterations)}")
    display.say(f"mean of {iterations} {'batch' if iterations == 1 else 'batches'}:")
    display.say(f"total loss: {log.number(total / iterations)}")
    for name, values in means.outputs(iterations).items():
        weight = net.blob_loss_weights[name]
        for value in values:
            share = f" (* {log.number(weight)} = {log.number(weight * value)} loss)" if weight else ""
            log.info("caffe.cpp:321", f"{name} = {log.number(value)}{share}")
            display.say(f"{name}: {log.number(value)}")
    for version in VERSIONS:
        for name, (value,) in precisions.outputs(iterations, version).items():
            log.info("caffe.cpp:321", f"{name} ({version}) = {log.number(value)}")
            display.say(f"{name}, mean average precision ({version}): {log.number(value)}")
