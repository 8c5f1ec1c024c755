"""Stand-in until the real one lands."""
from caffe.proto import caffe_pb2, text
def read_net(path): 
    n = text.read(path, caffe_pb2.NetParameter()); upgrade_net(n, str(path)); return n
def upgrade_net(n, name): 
    for i, x in enumerate(n.input):
        l = caffe_pb2.LayerParameter(name="input", type="Input", top=[x]) if i == 0 else l
        if i: l.top.append(x)
        s = l.input_param.shape.add()
        s.dim.extend(n.input_shape[i].dim if n.input_shape else n.input_dim[4*i:4*i+4])
    if n.input:
        old=list(n.layer); n2=caffe_pb2.NetParameter(); n2.CopyFrom(n); del n2.layer[:]; n2.layer.extend([l]+old)
        for f in ("input","input_dim","input_shape"): n2.ClearField(f)
        n.CopyFrom(n2)
def check_modern(n, name=""): pass
def read_solver(path): return text.read(path, caffe_pb2.SolverParameter())
V1_TYPES = {}
