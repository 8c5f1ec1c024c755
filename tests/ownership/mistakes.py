"""Seeds mistakes in a copy of the package, one at a time, and reports which of them the sequences find.

    python -m tests.ownership.mistakes             # all of them
    python -m tests.ownership.mistakes 0 8         # those from number 0 to 7

The exit code is the number of mistakes that were not found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SEQUENCES = 400


@dataclass(frozen=True)
class Mistake:
    """A mistake: `old`, which occurs once in the file (a path below src/caffe), becomes `new`; `what` describes it.

    `seed` gives a sequence, in this `mode`, that finds the mistake; a search starts with it. If no sequence does,
    `test` names the test that fails, in tests/test_memory.py or with its file below tests.
    """

    what: str
    file: str
    old: str
    new: str
    seed: int = 0
    mode: str = "own"
    test: str = ""


MISTAKES = [
    Mistake(
        "a lent array does not show a new value",
        "memory.py",
        "self._loan = loan if loan.show(value) else None",
        "self._loan = None",
        seed=3,
    ),
    Mistake(
        "a lent array takes no value of another shape",
        "memory.py",
        "value.numel() != self.host.numel() or",
        "value.shape != self.host.shape or",
        seed=1200396,
    ),
    Mistake(
        "a lent array counts as the value after it got a copy",
        "memory.py",
        "        self.alias = False\n        return True",
        "        return True",
        seed=19,
    ),
    Mistake(
        "an array lies over a value that others read",
        "memory.py",
        "alias = self._private and value",
        "alias = value",
        seed=7,
    ),
    Mistake(
        "a value that the user can write into is shared",
        "memory.py",
        "if self._loan is not None and self._loan.alias and self._loan.array is not None:",
        "if False:",
        test="test_a_value_under_a_users_array_is_not_shared",
    ),
    Mistake(
        "sharing leaves the value private",
        "memory.py",
        "        self._private = False\n        return True",
        "        return True",
        test="test_a_value_that_is_shared_is_not_written_through_a_later_array",
    ),
    Mistake(
        "foreign memory counts as nobody else's",
        "memory.py",
        "value, private and not foreign, foreign\n",
        "value, private, False\n",
        test="test_foreign_memory_is_not_shared_and_not_written",
    ),
    Mistake(
        "what the user writes into a copy is not taken over",
        "memory.py",
        "if (kept or loan.thread) and not same_numbers",
        "if False and not same_numbers",
        seed=19,
    ),
    Mistake(
        "what the user wrote into a copy that is gone is not taken over",
        "memory.py",
        "if (kept or loan.thread) and not",
        "if kept and not",
        seed=48,
    ),
    Mistake(
        "a memory's version leaves out looks at a lent alias",
        "memory.py",
        "return *self.generation, self._looks",
        "return self.generation",
        test="test_the_version_changes_at_each_access_while_an_array_is_a_view_of_the_value",
    ),
    Mistake(
        "a memory's generation never changes",
        "memory.py",
        "return self._writes, self._value._version",
        "return 0, 0",
        test="test_the_generation_changes_with_each_write_except_through_the_value_itself",
    ),
    Mistake(
        "dropping the value ends the connection of a lent array",
        "memory.py",
        "self._loan = self._loan if self.lent else None",
        "self._loan = None",
        seed=82,
    ),
    Mistake(
        "a reshape leaves the copy's shape",
        "memory.py",
        "            self._loan.host = self._loan.host.view(tuple(shape))",
        "            pass",
        test="test_a_kept_array_follows_a_reshape_of_the_value_it_is_a_copy_of",
    ),
    Mistake(
        "a write through an array over the weights is not seen",
        "parameter_memory.py",
        "            self._writes += 1\n            self.read()\n        parameter",
        "            self.read()\n        parameter",
        test="test_a_write_through_a_kept_array_of_weights_reaches_an_optimised_net",
    ),
    Mistake(
        "what the user writes into a copy of weights is not taken over",
        "parameter_memory.py",
        "value.copy_(torch.where(loan.host != base, loan.host, value.cpu()))",
        "pass",
        test="test_a_write_into_a_copy_of_weights_reaches_each_kind_of_run",
    ),
    Mistake(
        "a run does not take over lent copies of weights",
        "parameter_memory.py",
        "        if LENT_COPIES:\n            collect_lent_copies()",
        "        pass",
        test="test_a_net_that_shares_weights_has_its_own_diff",
    ),
    Mistake(
        "backward layer by layer does not take over lent copies of weights",
        "net/run/stepwise.py",
        "    if LENT_COPIES:\n        collect_lent_copies()\n    try:\n        _backward(step)",
        "    try:\n        _backward(step)",
        test="test_a_write_into_a_copy_of_weights_reaches_each_kind_of_run",
    ),
    Mistake(
        "a run does not show new weights in lent copies",
        "parameter_memory.py",
        "        memory.show()\n",
        "        pass\n",
        test="test_an_update_is_visible_in_kept_copies_of_data_and_diff",
    ),
    Mistake(
        "what was written into a copy before comes back after an update",
        "parameter_memory.py",
        "            self._base.copy_(self._loan.host)  #",
        "            pass  #",
        test="test_what_is_written_into_a_copy_does_not_survive_clearing_and_loading",
    ),
    Mistake(
        "clearing frees a gradient of which the user has an array",
        "parameter_memory.py",
        " or not parameter.requires_grad or self.lent:",
        " or not parameter.requires_grad:",
        seed=76,
    ),
    Mistake(
        "borrowing replaces a gradient of which the user has an array",
        "parameter_memory.py",
        "if self.lent or self.views:",
        "if self.views:",
        seed=221,
    ),
    Mistake(
        "a borrowed gradient is not settled before a pass",
        "net/net.py",
        "            entry.blob.settle_diff()",
        "            pass",
        test="test_a_pass_adds_to_the_diff_that_an_update_left",
    ),
    Mistake(
        "sharing forgets the shape",
        "blob.py",
        "        self._view = None if shape == self.data_memory.shape else shape\n        if diff",
        "        self._view = None\n        if diff",
        seed=1,
    ),
    Mistake(
        "a reshape changes the memory that others share",
        "blob.py",
        "        if self.data_memory.shared:\n            self._renew()\n        self.data_memory.reshape(shape)\n\n"
        "    @property",
        "        self.data_memory.reshape(shape)\n\n    @property",
        test="test_a_reshape_to_another_count_does_not_change_blobs_that_share_the_memory",
    ),
    Mistake(
        "a layer in place works on shared memory",
        "blob.py",
        "        shape = self.shape\n        self.alone, self._root = True, None\n",
        "        return\n        shape = self.shape\n",
        seed=11,
    ),
    Mistake(
        "a net shares the gradients of the net whose weights it uses",
        "blob.py",
        "self._view, self.gradient = other._view, None",
        "self._view, self.diff_memory, self.gradient = other._view, other.gradient, other.gradient",
        seed=1,
    ),
    Mistake(
        "weights that another net shared follow their first net to its next weights",
        "blob.py",
        "                memory.holder = lambda: former  # the layer is about to have another parameter",
        "                pass",
        test="net/test_shared_weights.py::test_a_net_keeps_the_weights_that_it_shared_when_their_net_shares_again",
    ),
    Mistake(
        "backward goes by an old run",
        "net/run/stepwise.py",
        "if fixed or history.seen == _seen(step):",
        "if history:",
        test="test_backward_uses_the_current_bottom",
    ),
    Mistake(
        "backward asks for gradients of parameters that did not run",
        "net/run/stepwise.py",
        "leaves + history.params",
        "leaves + [blob.parameter for blob in step.params]",
        test="test_a_layer_in_place_keeps_its_gradient_where_sharing_comes_before_backward",
    ),
    Mistake(
        "untrained parameters do not count among what a run depends on",
        "net/run/stepwise.py",
        "for each in step.layer.param_blobs:",
        "for each in step.params:",
        test="test_backward_uses_the_weights_that_are_shared_now",
    ),
    Mistake(
        "a top that lies in a bottom counts as private",
        "net/run/stepwise.py",
        "            private = False\n    if not private",
        "            private = True\n    if not private",
        seed=145,
    ),
    Mistake(
        "a top that the user's bottom holds is not copied",
        "net/run/stepwise.py",
        "            if not blob.data_memory.share():\n                return value.clone(), True\n",
        "",
        test="test_a_user_who_writes_a_bottom_does_not_write_a_top_that_is_it",
    ),
    Mistake(
        "what autograd keeps of a layer in place counts as private",
        "net/run/stepwise.py",
        "return value, private and not (step.in_place and step.backward)",
        "return value, private",
        test="test_backward_of_a_layer_in_place_does_not_mind_a_write_into_its_top",
    ),
    Mistake(
        "two diffs in one memory",
        "net/run/stepwise.py",
        "if owner.diff_memory is not blob.diff_memory and not owner.diff_memory.share():",
        "if False:",
        test="test_a_write_to_the_diff_of_a_top_does_not_change_the_diffs_of_the_bottoms",
    ),
    Mistake(
        "two blobs in one memory after a run of the whole net",
        "net/run/filling.py",
        "if owner is not blob and not owner.data_memory.share():",
        "if False:",
        test="test_a_user_who_writes_a_bottom_does_not_write_the_tops_that_lie_in_it",
    ),
    Mistake(
        "both blobs in one memory are private",
        "net/run/filling.py",
        "blob.write(value, private=owner is blob, ",
        "blob.write(value, private=True, ",
        test="test_a_write_to_a_top_does_not_change_the_bottom_of_which_it_is_a_view",
    ),
    Mistake(
        "a run of the whole net leaves all sources as they are",
        "net/run/filling.py",
        "if place in fed and values[place] is blob.data_memory.raw:",
        "if place in fed:",
        seed=4,
    ),
    Mistake(
        "blobs of which the user has an array are left out",
        "net/run/filling.py",
        "return [blob.name for blob, _ in self._absent if blob.data_memory.lent]",
        "return []",
        seed=77,
    ),
    Mistake(
        "blobs that are left out keep old values",
        "net/run/filling.py",
        "not in present:\n                blob.drop(reason)",
        "not in present:\n                pass",
        seed=3,
    ),
    Mistake(
        "an update of the weights is not told",
        "solver/solver.py",
        "                entry.blob.advance()",
        "                pass",
        seed=3,
    ),
    Mistake(
        "loading weights is not told",
        "net/store.py",
        "            blob.advance()",
        "            pass",
        seed=23,
    ),
    Mistake(
        "a net adds to the gradients of the net whose weights it uses",
        "net/graph/gradients.py",
        "    guests = {id(blob.parameter): blob for step in steps for blob in step.params if blob.gradient is None}",
        "    guests: dict[int, ParamBlob] = {}",
        seed=8,
    ),
    Mistake(
        "a pass of the whole net ignores diffs that the user wrote",
        "net/graph/gradients.py",
        "    return list(found.values())",
        "    return []",
        test="test_a_pass_of_the_whole_net_begins_with_the_diff_that_a_user_wrote",
    ),
    Mistake(
        "a user's layer sees the blobs of an older run",
        "layers/python.py",
        "elif not blob.data_memory.holds(x):",
        "elif False:",
        seed=4,
    ),
]


def apply(mistake: Mistake, package: Path) -> None:
    """Put the mistake into a copy of the package. Raises ValueError unless the text occurs there exactly once."""
    path = package / mistake.file
    text = path.read_text()
    if text.count(mistake.old) != 1:
        raise ValueError(f"{mistake.file} has {mistake.old!r} {text.count(mistake.old)} times, expected once")
    path.write_text(text.replace(mistake.old, mistake.new))


def noticed(mistake: Mistake, sequences: int = SEQUENCES) -> str:
    """Return the sequence or test that finds the mistake; "" if none does."""
    if mistake.test:
        test = mistake.test if "::" in mistake.test else f"test_memory.py::{mistake.test}"
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{test}"]
    else:
        command = ["-m", "tests.ownership", "--seed", str(mistake.seed), "--sequences", str(sequences)]
        command += ["--mode", mistake.mode, "--first", "--show", "0"]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "src" / "caffe", Path(folder) / "caffe", ignore=shutil.ignore_patterns("__pycache__"))
        apply(mistake, Path(folder) / "caffe")
        places = {"PYTHONPATH": os.pathsep.join([folder, str(ROOT)]), "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **places}
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(f"nothing ran with {mistake.what!r}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if not done.returncode:
        return ""
    return mistake.test or next(line for line in done.stdout.splitlines() if line.startswith("sequence "))


def main() -> int:
    start, stop = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (0, len(MISTAKES))
    survived = 0
    for number, mistake in list(enumerate(MISTAKES))[start:stop]:
        found = noticed(mistake)
        survived += not found
        print(f"{number:2} {mistake.file:20} {mistake.what}: {found.split(' fails')[0] or 'SURVIVED'}", flush=True)
    return survived


if __name__ == "__main__":
    sys.exit(main())
