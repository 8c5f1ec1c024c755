"""The solver: the training loop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import torch

from caffe import log
from caffe.errors import SolverError, did_you_mean
from caffe.net import Net
from caffe.parallel import group as parallel
from caffe.parallel.group import Member
from caffe.parameter_memory import lent_copies_follow
from caffe.proto import text
from caffe.solver import divided, epochs, goals, nets, resume, snapshot
from caffe.solver.ema import MovingAverage
from caffe.solver.health import Health, broken_layer
from caffe.solver.kept import undisturbed
from caffe.solver.momentum import momentum_policy
from caffe.solver.options import check_own, check_settings
from caffe.solver.outputs import log_outputs
from caffe.solver.policy import policy_class, weight_decay
from caffe.solver.rules_forks import make_rule
from caffe.solver.settings import load, located
from caffe.solver.testing import run_test
from caffe.solver.together import Together, common_seed
from caffe.solver.update import Update, clipping, lay_like
from caffe.solver.watchers import Watcher
from caffe.uncopied import Uncopied

__all__ = ["Solver"]


class Solver(Uncopied):
    """Trains a net as described by a solver prototxt.

        solver = caffe.get_solver("solver.prototxt")
        solver.solve()                       # until max_iter, or
        solver.step(100)                     # 100 iterations more

    `param` is a path or a SolverParameter; `source` is the file that a SolverParameter was read from, for messages.
    `device` overrides the mode set by `caffe.set_mode_gpu` and the like. As in pycaffe, this mode and not the file's
    `solver_mode` selects the device. `python_layers` as in `Net`. Raises SolverError, and the errors of building a net,
    before training starts.

    `net` is the train net and `test_nets` the list of test nets. `iter` is the number of updates so far. `history`
    holds the history tensors of the update rule, and `average` the moving average of the weights. `watchers` is a list
    of objects that are notified of events in training.
    """

    instead = "write its state with solver.snapshot(), and let a second solver of the same prototxt restore(state)"
    forced_type: ClassVar[str] = ""
    """The solver type, overriding `param`; set by pycaffe's solver classes."""

    def __init__(
        self,
        param: str | Path | Any,
        device: torch.device | str | None = None,
        python_layers: bool | None = None,
        source: str | Path | None = None,
    ) -> None:
        self.source = param if isinstance(param, (str, Path)) else source
        self.param = load(param)
        try:
            self._set_up(device, python_layers)
        except SolverError as error:
            raise located(error, self.source) from error.__cause__

    def _set_up(self, device: torch.device | str | None, python_layers: bool | None) -> None:
        if self.forced_type and self.param.type != self.forced_type:
            if self.param.HasField("type"):
                log.warning("solver.py", f"{self.forced_type}Solver: taking the place of type {self.param.type!r}")
            self.param.type = self.forced_type
        epochs.resolve(self.param, python_layers)
        self.momentum = momentum_policy(self.param)
        self.rule = make_rule(self.param)
        self.policy = policy_class(self.param.lr_policy)(self.param)
        check_own(self.param, self.rule, self.policy, self.momentum)
        log.info("solver.cpp:45", f"Initializing solver from parameters: \n{text.dumps(self.param).rstrip()}")
        check_settings(self.param, self.source)
        group = divided.checked(self.param, self.rule, parallel.current())
        seed = common_seed(group, self.param)
        if group.rank:
            self.param.ClearField("weights")  # process 0 sends its weights to the others
        self.net: Net = nets.train_net(self.param, device, python_layers)
        try:
            self.rule.bind(self.net)
            self.test_nets: list[Net] = nets.test_nets(self.param, self.net, device, python_layers)
            self.together = Together(group, self.param, self.rule, self.nets, seed)
            self.together.equalize()
        except BaseException:
            self.net.close()
            raise
        log.info("solver.cpp:57", "Solver scaffolding done.")
        self.iter = self.current_step = 0
        self.history = [
            torch.zeros_like(each.tensor, requires_grad=False)
            for _, each in product(range(self.rule.history), self.net.learnable)
        ]
        self.average = MovingAverage(self.param.ema_decay, self.net.learnable)
        self.watchers: list[Watcher] = goals.watchers(self.param)
        self._callbacks: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
        self._requests: set[str] = set()
        self._stopping = False
        self.health = Health(self.param)
        self._losses: deque[float] = deque(maxlen=self.param.average_loss)
        self._display_time, self._display_iter = time.perf_counter(), 0

    @property
    def stopped(self) -> bool:
        """Whether the last call of `solve` or `step` ended by a request to stop."""
        return self._stopping

    @property
    def nets(self) -> tuple[Net, ...]:
        """The train net and the test nets, in the order in which snapshots number them."""
        return self.net, *self.test_nets

    # -- training --------------------------------------------------------------------------------------------------

    def solve(self, resume_file: str | Path | None = None) -> None:
        """Train until `max_iter`, from the snapshot `resume_file` if given; then write a snapshot, display and test."""
        if not self.param.HasField("max_iter"):
            log.warning("solver.py", "max_iter is not set: no iteration is run")
        log.info("solver.cpp:289", f"Solving {self.net.name}")
        log.info("solver.cpp:290", f"Learning Rate Policy: {self.param.lr_policy}")
        if resume_file is not None:
            log.info("solver.cpp:296", f"Restoring previous solver status from {resume_file}")
            self.restore(resume_file)
        if self.param.snapshot_after_train:
            snapshot.check_prefix(self.param)
        self._tell(Watcher.started)
        self.step(self.param.max_iter - self.iter)
        if self.param.snapshot_after_train and not _due(self.iter, self.param.snapshot):
            self._snapshot()
        if self._stopping:
            log.info("solver.cpp:311", "Optimization stopped early.")
        else:
            self._conclude()
        self._tell(Watcher.finished)

    def step(self, iterations: int) -> None:
        """Train for this number of iterations, with the tests, displays and snapshots that are due."""
        stop = self.iter + iterations
        self._stopping = False
        self._losses.clear()
        self._display_time, self._display_iter = time.perf_counter(), self.iter
        while self.iter < stop:
            self.net.clear_param_diffs()
            if _due(self.iter, self.param.test_interval) and (self.iter > 0 or self.param.test_initialization):
                self._run_tests()
                if self._stopping:
                    break
            for on_start, _ in self._callbacks:
                on_start()
            loss = self._gradients()
            if _due(self.iter, self.param.display):
                self._display()
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            rate = self.apply_update()
            self._tell(Watcher.iterated, self.iter - 1, loss, rate)
            if self.together.meets("snapshot", self._requests) or _due(self.iter, self.param.snapshot):
                self._snapshot()
            if self.together.meets("stop", self._requests):
                self._stopping = True
                break

    def _gradients(self) -> float:
        """Accumulate the gradients of `iter_size` batches; returns their mean loss."""
        self.net.debug_info = self.param.debug_info and _due(self.iter, self.param.display)
        self.together.begin(self.iter)
        self._tell(Watcher.begins, self.iter)
        total = 0.0
        for left in range(self.param.iter_size - 1, -1, -1):
            self.together.before_pass(last=not left)
            total += self.net.forward_backward()
        loss = self.together.reduce(self.iter, total / self.param.iter_size, self._requests)
        self._losses.append(loss)
        self.policy.trained(self.iter, self._smoothed())
        self._tell(Watcher.computed, self.iter, loss)
        self.health.hear(self.iter, loss)
        return loss

    @torch.no_grad()
    def apply_update(self) -> float:
        """Update the weights and return the learning rate. The diffs then hold the amounts subtracted."""
        rate = self._take_rate()
        if self.momentum is not None:
            self.momentum.apply(self.iter, rate)
        if _due(self.iter, self.param.display):
            log.info("sgd_solver.cpp:112", f"Iteration {self.iter}, lr = {log.number(rate)}")
        with lent_copies_follow():
            if self._gradients_fit():
                scale = clipping(self.param.clip_gradients, self.together.squares) / self.param.iter_size
                self.rule.apply(self._updates(rate), self.iter + 1, scale)
            for entry in self.net.learnable:
                entry.blob.advance()
        self.iter += 1
        self.average.update()
        return rate

    def _gradients_fit(self) -> bool:
        """Return whether no gradient overflowed. Checked only with a loss scale, that is in float16."""
        if self.net.loss_scale is None:
            return True
        diffs = [entry.blob.present_diff() for entry in self.net.learnable]  # None where nothing was added
        return self.net.loss_scale.accepts([diff for diff in diffs if diff is not None], self.iter)

    def _updates(self, rate: float) -> Iterator[Update]:
        """Yield the update of each learnable blob, with its own rate and decay."""
        learnable, history, decay = self.net.learnable, self.history, weight_decay(self.param, self.iter)
        count, whole = len(learnable), self.rule.whole
        for index, entry in enumerate(learnable):
            blob, tensor = entry.blob, entry.tensor
            if not tensor.numel() and not whole:
                continue  # another process has all of it
            diff = blob.read_diff()
            lay_like(tensor, history, range(index, len(history), count))
            own, owner, norm = history[index::count], None if blob.tied else blob, self.together.norm(index)
            factors = rate * entry.lr_mult, decay * entry.decay_mult
            yield Update(tensor.data, diff, own, *factors, owner, norm, entry.lr_mult)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self.policy.at(self.iter, self.policy.step_at(self.iter, self.current_step))

    def _take_rate(self) -> float:
        step = self.policy.step_at(self.iter, self.current_step)
        if self.param.lr_policy == "multistep" and step != self.current_step:
            log.info("sgd_solver.cpp:50", f"MultiStep Status: Iteration {self.iter}, step = {step}")
        rate = self.policy.at(self.iter, step)
        self.current_step = step
        return rate

    def _conclude(self) -> None:
        """After the last update: log one more loss and run one more test, if they are due."""
        if _due(self.iter, self.param.display):
            self._losses.append(self.together.mean(self.net.evaluate()))
            log.info("solver.cpp:327", f"Iteration {self.iter}, loss = {log.number(self._smoothed())}")
        if _due(self.iter, self.param.test_interval):
            self._run_tests()
        log.info("solver.cpp:332", "Optimization Done.")

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, event: Callable[..., None], *facts: Any) -> None:
        """Call the method `event` of all watchers."""
        for watcher in self.watchers:
            getattr(watcher, event.__name__)(self, *facts)

    def _smoothed(self) -> float:
        """The mean of the last `average_loss` losses."""
        return sum(self._losses) / len(self._losses)

    def _display(self) -> None:
        lapse = (now := time.perf_counter()) - self._display_time
        speed = (self.iter - self._display_iter) / (lapse or 1)
        log.info(
            "solver.cpp:239",
            f"Iteration {self.iter} ({log.number(speed)} iter/s, {log.number(lapse)}s/{self.param.display} iters), "
            f"loss = {log.number(loss := self._smoothed())}",
        )
        self._display_time, self._display_iter = now, self.iter
        own = {name: self.net.blobs[name].data.ravel().tolist() for name in self.net.outputs}
        outputs = self.together.mean_outputs(own)
        log_outputs("solver.cpp:258", "Train", self.net, outputs)
        self._tell(Watcher.displayed, self.iter, loss, outputs)

    # -- testing ---------------------------------------------------------------------------------------------------

    def test_all(self) -> None:
        """Run every test net for its `test_iter` batches and log its mean outputs. Training is not affected."""
        for index in range(len(self.test_nets)):
            self.test(index)

    def test(self, index: int = 0) -> dict[str, list[float]]:
        """Test net `index` with the weights of the train net, or with their moving average if there is one.

        Returns its mean outputs by name, flattened. The test does not affect training: the learning rate policy and the
        watchers are not notified. The random generators, the test net's position in its data and the buffers of its
        layers are restored, so a second call sees the same batches. Requests for a snapshot or a stop wait for `step`.
        The tests of `test_interval` check for requests between batches, and notify the policy and the watchers.
        """
        with self.average.applied(), self.together.testing_aside(index), undisturbed(self.test_nets[index], self.net):
            return run_test(self, index, lambda: False)[1]

    def _run_tests(self) -> None:
        """Run the tests that are due in training, until one of them is stopped."""
        for index, net in enumerate(self.test_nets):
            with self.average.applied():
                loss, outputs = run_test(self, index, self._stopped_in_test)
            if self._stopping:
                return
            if index == 0:
                self.policy.tested(net, loss)
            self._tell(Watcher.tested, self.iter, index, outputs)

    def _stopped_in_test(self) -> bool:
        """Handle the requests that arrived during a test; returns True to stop it."""
        self.together.agree(self._requests)
        if self.together.meets("snapshot", self._requests):
            self._snapshot()
        self._stopping = self.together.meets("stop", self._requests)
        return self._stopping

    # -- snapshots and requests ------------------------------------------------------------------------------------

    def _snapshot(self) -> None:
        """Write a snapshot that is due, unless the weights are NaN."""
        if self.health.may_save(self.iter, self.together.first(broken_layer(self.net.learnable))):
            self.health.saved(self.snapshot(), self.iter)

    def snapshot(self) -> str:
        """Write weights and solver state under `snapshot_prefix`; returns the path of the state."""
        with self.average.suspended():
            path = snapshot.save(self)
        self._tell(Watcher.snapshotted, path)
        return path

    def save_average(self, path: str | Path) -> None:
        """Write the moving average of the weights to a .caffemodel file."""
        if self.average.tensors is None:
            raise SolverError("there is no moving average: set ema_decay in the solver, and train")
        with self.average.applied():
            self.net.save(path)

    def restore(self, path: str | Path) -> None:
        """Restore a solver state of this package or of Caffe, binary or HDF5. On an error nothing is changed.

        The whole file is read and checked before the first assignment. Raises `FileError` and `SolverError`.
        """
        for entry in self.net.learnable:
            entry.blob.settle_diff()
        with self.average.suspended():
            resume.restore(self, path)
        self.health.saved(str(path), self.iter)

    def restore_newest(self) -> str:
        """Restore the newest readable state under `snapshot_prefix`; returns its path, empty if there is none.

        A warning is logged for each state that cannot be read. Raises FileError if there are states but none can be
        read.
        """
        paths = self.together.group.share(snapshot.newest(self.param.snapshot_prefix))
        return resume.first_whole(paths, self.restore)

    def request(self, action: str) -> None:
        """Request a "snapshot" or a "stop" between two iterations. Can be called from a signal handler.

        Training and the tests in it handle requests; `test` and `test_all` do not.
        """
        if action not in ("snapshot", "stop"):
            hint = did_you_mean(action, ("snapshot", "stop"))
            raise SolverError(f'unknown request "{action}"{hint}; expected "snapshot" or "stop"')
        self._requests.add(action)

    # -- pycaffe ---------------------------------------------------------------------------------------------------

    def add_callback(
        self, on_start: Callable[[], Any] | Member, on_gradients_ready: Callable[[], Any] | None = None
    ) -> None:
        """Register two functions to call in every iteration: before computing gradients, and before applying them.

        A single argument is a `caffe.NCCL`: from then on the solver trains together with the solvers of the other
        processes.
        """
        if isinstance(on_start, Member):
            self.join(on_start.group)
        elif on_gradients_ready is None:
            raise SolverError(
                "add_callback: expected two functions, on_start and on_gradients_ready, or one caffe.NCCL"
            )
        else:
            self._callbacks.append((on_start, on_gradients_ready))

    def join(self, group: parallel.Group) -> None:
        """Train together with the solvers of the other processes of a group from now on."""
        divided.check_late(self.param)
        if self.together.group is not group:
            seed = group.share(common_seed(group, self.param))
            self.together = Together(group, self.param, self.rule, self.nets, seed)

    def share_weights(self, net: Net) -> None:
        """Make `net` use the train net's weights."""
        net.share_with(self.net)


def _due(iteration: int, interval: int) -> bool:
    """Whether something that is done every `interval` iterations is due; never if the interval is 0."""
    return interval != 0 and iteration % interval == 0
