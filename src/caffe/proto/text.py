"""Stand-in until the real one lands."""
from pathlib import Path
from google.protobuf import text_format
from caffe.errors import FileError, ProtoError
def read(path, message):
    try: s = Path(path).read_text()
    except OSError as e: raise FileError(f"{path}: {e}") from None
    return parse(s, message, str(path))
def parse(s, message, name="<text>"):
    try: return text_format.Parse(s, message)
    except text_format.ParseError as e: raise ProtoError(f"{name}:{e}") from None
def dumps(message): return text_format.MessageToString(message)
def layer_line(path, index): return None
