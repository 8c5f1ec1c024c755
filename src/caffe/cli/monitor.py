"""`caffe monitor`."""

from __future__ import annotations

from types import SimpleNamespace

from caffe.cli.command import command
from caffe.cli.display import Display
from caffe.cli.flags import Flag, UsageError
from caffe.errors import require_extra

HOST = Flag(
    "host", "127.0.0.1", "Address to listen at. 0.0.0.0 makes the page visible to other machines, without a password."
)
PORT = Flag("port", 8050, "Port to listen at; if it is in use, the next free one.")
OPEN = Flag("open", False, "Open the page in the browser.")
ALERT = Flag(
    "alert",
    "",
    "Shell command to run for each finding that appears while the monitor runs, with the finding as JSON on "
    "its standard input, and CAFFE_RUN, CAFFE_FINDING, CAFFE_ITERATION and CAFFE_MESSAGE in its environment.",
)


@command(ALERT, HOST, OPEN, PORT, task="train", arguments="RUN...")
def monitor(flags: SimpleNamespace, display: Display) -> None:
    """Show training runs in the browser, during training and afterwards.

    A RUN is a log (of this `caffe train`, of BVLC Caffe, or of its forks), a folder with TensorBoard event files, as
    written by -logdir (needs the package tensorboard), or a folder that contains such files, also in subfolders. Runs
    that appear there later are added. Runs need no option for the monitor.

    The page is visible only on this machine, unless -host says otherwise. It loads nothing from other sites. Ctrl-C
    ends the monitor.

        caffe train -solver solver.prototxt -log first.log &
        caffe monitor first.log
        caffe monitor logs/ runs/ -port 9000
        caffe monitor runs/ -alert 'mail -s "$CAFFE_RUN: $CAFFE_FINDING" me@example.org'
    """
    if not 0 <= flags.port < 65536:
        raise UsageError(f"caffe: error: -port {flags.port}: expected 0 (any free one) to 65535")
    for module in ("starlette", "uvicorn"):
        require_extra(module, "monitor", "caffe monitor")
    from caffe.monitor.alerts import Alerts
    from caffe.monitor.board import Board
    from caffe.monitor.server import serve
    from caffe.web import address, listening

    board = Board(flags.arguments, Alerts(flags.alert) if flags.alert else None)
    listener = listening(flags.host, flags.port)
    url = address(flags.host, listener)
    print(f"The monitor is at {url} (Ctrl-C ends it)", flush=True)
    if flags.open:
        import webbrowser

        webbrowser.open(url)
    try:
        serve(board, flags.host, listener)
    except KeyboardInterrupt:
        print("The monitor has ended.")
