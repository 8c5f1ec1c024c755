"""`caffe exercise`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag, UsageError
from caffe.cli.plot import OUT

CODES = Flag("codes", "", "Faults to plant: codes of `caffe doctor`, separated by ','; the default is all.")
STUDENTS = Flag("students", 10, "Number of exercises.")
SEED = Flag("seed", 1, "Seed of the exercises.")


@command(CODES, OUT, SEED, STUDENTS, task="train", arguments="make|mark [FOLDER]")
def exercise(flags: SimpleNamespace, display: Display) -> None:
    """Create exercises in debugging training runs, and mark the answers.

    `make` writes a folder for each student, with a solver, a net and data, and FOLDER/key for the teacher. Each run
    contains one fault, which is verified by replay. Net, data, seed and batch differ between students. The student
    writes the code of the cause to answer.txt and repairs the files. `mark` gives one point for the cause and one for
    the repair: the repaired run is replayed, and must perform nearly as well as the healthy run.

        caffe exercise make -codes rate-too-high,dead-units -students 30 -o class
        caffe exercise mark class
    """
    task, *rest = flags.arguments
    if task not in ("make", "mark"):
        raise UsageError(f"caffe: error: 'exercise' got '{task}'; expected make or mark")
    if task == "make" and (rest or not flags.out):
        raise UsageError("caffe: error: 'exercise make' writes into the folder of -o FOLDER, and takes no argument")
    if task == "mark" and not rest:
        raise UsageError("caffe: error: 'exercise mark' needs the folder that 'exercise make' wrote")
    from caffe import exercise as exercises

    if task == "make":
        wanted = [code for code in flags.codes.split(",") if code] or exercises.codes()
        made = exercises.make(flags.out, wanted, flags.students, flags.seed)
        print(f"written: {len(made)} exercises in {flags.out}; {flags.out}/key is for the teacher")
        return
    marks = exercises.mark(rest[0])
    for each in marks:
        print(f"{each.student}: {each.points} of 2: {each.text}")
    print(f"{sum(each.points for each in marks)} of {2 * len(marks)} points")
