"""Inputs of the tools: logs, files of older formats, message files, lists of weights."""

from __future__ import annotations

from caffe import train_log
from caffe.proto import schema
from tools.fuzz.kinds import Case, command, kind
from tools.fuzz.mutation import STRINGS, damaged_message, damaged_text
from tools.fuzz.seeds import LOG, NETS, SOLVERS

_PROTO = """// options
syntax = "proto2";
package fuzz;
message SmoothParameter { optional float scale = 1 [default = 2.5]; repeated int32 axis = 2;
  enum Mode { A = 0; B = 1; } optional Mode mode = 3 [default = A]; message In { required string s = 1; }
  optional In inner = 4; optional caffe.FillerParameter filler = 5; }
"""


@kind
def logs(case: Case) -> None:
    """A damaged training log."""
    path = case.write("train.log", damaged_text(LOG, case.rng))
    if case.rng.random() < 0.3:
        command("parse_log", path, case.scratch)
    else:
        train_log.read(path)


@kind
def upgrade(case: Case) -> None:
    """A damaged input of the upgrade tools."""
    rng = case.rng
    choice = rng.randrange(4)
    out = case.scratch / rng.choice(("out", "out", "out", "no/out", "x" * 300))
    if choice == 0:
        text = rng.choice(SOLVERS).replace("SEEDS", str(case.seeds))
        command("upgrade_solver_proto_text", case.write("s.prototxt", damaged_text(text, rng)), out)
    elif choice == 1:
        content = (case.seeds / f"{rng.choice(('small', 'branched'))}.caffemodel").read_bytes()
        command("upgrade_net_proto_binary", case.write("n.caffemodel", damaged_message(content, rng)), out)
    else:
        content = damaged_text(NETS[rng.choice(("v0", "v1", "recurrent", "small"))], rng)
        command("upgrade_net_proto_text", case.write("n.prototxt", content), out)


@kind
def messages(case: Case) -> None:
    """A damaged .proto file of a layer's options."""
    name = f"fuzz{case.rng.getrandbits(40)}"  # protobuf keeps messages that it has loaded
    schema.load(case.write(f"{name}.proto", damaged_text(_PROTO.replace("fuzz", name), case.rng)))


@kind
def tools(case: Case) -> None:
    """A command with a file of the wrong kind."""
    rng = case.rng
    files = sorted(path for path in case.seeds.iterdir() if not path.name.startswith("."))

    def one() -> str:
        return str(rng.choice(files)) if rng.random() < 0.85 else rng.choice(STRINGS).encode().decode("unicode_escape")

    choice = rng.randrange(8)
    if choice == 0:
        command("average", one(), one(), "-out", "mean.caffemodel")
    elif choice == 1:
        command("test", "-model", one(), "-weights", one(), "-iterations", "1")
    elif choice == 2:
        command("train", "-solver", one(), *(("-weights", one()) if rng.random() < 0.5 else ("-snapshot", one())))
    elif choice == 3:
        command("summarize", one())
    elif choice == 4:
        command("compute_image_mean", one(), "mean.binaryproto")
    elif choice == 5:
        command("classify", one(), "out.npy", "-model_def", one(), "-pretrained_model", one(), "-mean_file", one())
    elif choice == 6:
        command(rng.choice(("db", "parse_log", "preview", "draw")), one(), "out.png")
    else:
        command("convert_imageset", one(), one(), one())
