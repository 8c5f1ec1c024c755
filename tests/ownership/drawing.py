"""Generates random nets: small graphs whose axes have different sizes."""

from __future__ import annotations

from tests.ownership.graphs import Graph, Node
from tests.ownership.layers_more import LAYERS

FILLER = {"type": "gaussian", "std": 0.5}
# Caffe's backward reads values that a layer in place would overwrite
READS_TOP = ("Sigmoid", "Softmax", "Power", "ReLU")


class Drawing:
    """A graph to which layers are added. `real`: only behaviour that Caffe itself defines."""

    def __init__(self, rng, phase, real=False):
        self.rng, self.phase, self.real = rng, phase, real
        self.nodes, self.kinds = [], {}
        self.shapes = {}  # the blobs that can be read
        self.writer = {}  # the last node of each
        self.readers = {}  # how many read each
        self.aliased = set()  # tops that are their bottom's memory

    def add(self, type, bottoms, tops, params=(), **options):
        name = f"{type.lower()[:5]}{len(self.nodes)}"
        fresh = [f"{name}_{i}" if tops > 1 else name for i in range(tops)] if isinstance(tops, int) else tops
        node = Node(name, type, list(bottoms), fresh, options, list(params))
        self.nodes.append(node)
        for bottom in bottoms:
            self.readers[bottom] = self.readers.get(bottom, 0) + (bottom not in fresh)
        shapes = LAYERS[type](node, self.phase).shapes([self.shapes[b] for b in bottoms])
        for top, shape in zip(fresh, shapes):
            self.shapes[top] = tuple(shape)
            self.writer[top] = node
            self.readers[top] = 0
        if node.aliases:
            self.aliased.update(fresh)
        return fresh

    def blob(self, *, axes=None, images=False):
        """Return a blob to read, preferably one without a reader; None if there is none."""
        fitting = [
            name
            for name, shape in self.shapes.items()
            if shape
            and name not in self.kinds
            and (not axes or len(shape) in axes)
            and (not images or (len(shape) == 4 and min(shape[2:]) >= 3))
        ]
        unread = [name for name in fitting if not self.readers[name]]
        pool = unread if unread and self.rng.random() < 0.8 else fitting
        return self.rng.choice(pool) if pool else None

    def may_overwrite(self, name):
        """Whether a layer can work in place on the blob."""
        writer = self.writer[name]
        if self.readers[name] or not writer.bottoms or writer.type in READS_TOP:
            return False
        return not (self.real and name in self.aliased)

    # -- the start and the end -------------------------------------------------------------------------------------

    def sources(self):
        rng = self.rng
        wide = (rng.choice([2, 3]), rng.choice([2, 3]), rng.choice([4, 5]), rng.choice([5, 6, 7]))
        flat = (wide[0], rng.choice([5, 6, 7]))
        kind = rng.random()
        if kind < 0.2 and not self.real:
            size = dict(zip(("batch_size", "channels", "height", "width"), wide))
            _, label = self.add("MemoryData", [], 2, memory_data_param=size)
            self.kinds[label] = "label 3"
        elif kind < 0.3:
            shape = {"dim": list(wide)}
            filler = {"type": "constant", "value": rng.choice([0, 0.5])}
            self.add("DummyData", [], 1, dummy_data_param={"shape": shape, "data_filler": filler})
            self.add("Input", [], 1, input_param={"shape": {"dim": list(flat)}})
        else:
            shape = wide if rng.random() < 0.6 else flat
            self.add("Input", [], 1, input_param={"shape": {"dim": list(shape)}})
            if rng.random() < 0.2:
                self.add("Input", [], 1, input_param={"shape": {"dim": list(shape)}})

    def loss(self):
        end = self.blob()
        rows = self.shapes[end][0]
        label = next(iter(self.kinds), None)
        if label is None and self.rng.random() < 0.5:
            (target,) = self.add("Input", [], 1, input_param={"shape": {"dim": list(self.shapes[end])}})
            self.add("EuclideanLoss", [end, target], 1)
            return
        if label is None:
            (label,) = self.add("Input", [], 1, input_param={"shape": {"dim": [rows]}})
            self.kinds[label] = "label 3"
        if len(self.shapes[end]) != 2 or self.shapes[end][1] != 3 or self.rng.random() < 0.5:
            (end,) = self.product(end, 3)
        self.add("SoftmaxWithLoss", [end, label], 1)

    # -- layers ----------------------------------------------------------------------------------------------------

    def product(self, bottom, count, params=(), **more):
        options = {"num_output": count, "weight_filler": FILLER, **more}
        return self.add("InnerProduct", [bottom], 1, params, inner_product_param=options)

    def draw_product(self):
        rng = self.rng
        bottom = self.blob()
        before = [
            node for node in self.nodes if node.type == "InnerProduct" and node.params and "name" in node.params[0]
        ]
        for node in before:
            shape = self.shapes[node.bottoms[0]]
            same = [name for name, s in self.shapes.items() if s and s[1:] == shape[1:] and name not in self.kinds]
            if rng.random() < 0.7 and same:
                return self.product(
                    rng.choice(same), node.options["inner_product_param"]["num_output"], [dict(node.params[0])]
                )
        params = []
        if rng.random() < 0.2:
            params = [{"name": f"w{len(self.nodes)}"}]
        elif rng.random() < 0.2:
            params = [{"lr_mult": rng.choice([0, 2])}]
        more = {"bias_term": False} if rng.random() < 0.2 else {}
        return self.product(bottom, rng.choice([2, 3, 5, 7]), params, **more)

    def draw_convolution(self):
        bottom = self.blob(images=True)
        if bottom:
            options = {"num_output": self.rng.choice([2, 3, 5]), "kernel_size": 2, "weight_filler": FILLER}
            options["pad"] = self.rng.choice([0, 1])
            self.add("Convolution", [bottom], 1, convolution_param=options)

    def draw_pooling(self):
        bottom = self.blob(images=True)
        if bottom:
            options = {"pool": self.rng.choice(["MAX", "AVE"]), "kernel_size": 2, "stride": self.rng.choice([1, 2])}
            self.add("Pooling", [bottom], 1, pooling_param=options)

    def one_to_one(self, type, options=None, params=(), axes=None):
        bottom = self.blob(axes=axes)
        if bottom:
            tops = [bottom] if self.rng.random() < 0.5 and self.may_overwrite(bottom) else 1
            self.add(type, [bottom], tops, params, **(options or {}))

    def draw_activation(self):
        slope = {"relu_param": {"negative_slope": self.rng.choice([0, 0.25])}}
        self.one_to_one(*self.rng.choice([("ReLU", slope), ("Sigmoid", {}), ("PReLU", {})]), axes=(2, 3, 4))

    def draw_power(self):
        bottom = self.blob()
        power, scale, shift = self.rng.choice([(1, 1, 0), (1, 0.5, 0.25), (2, 1, 0)])
        self.add("Power", [bottom], 1, power_param={"power": power, "scale": scale, "shift": shift})

    def draw_channels(self):
        kinds = ["Scale", "Bias", "BatchNorm"]
        if self.real and self.phase == "TRAIN":
            kinds.pop()  # the available build of Caffe has a different layer
        kind = self.rng.choice(kinds)
        options = {"scale_param": {"bias_term": self.rng.random() < 0.5, "filler": FILLER}} if kind == "Scale" else {}
        if kind == "BatchNorm":
            options = {"batch_norm_param": {"eps": 0.125, "moving_average_fraction": 0.75}}
        self.one_to_one(kind, options, axes=(2, 4))

    def draw_eltwise(self):
        first = self.blob()
        shape = self.shapes[first]
        second = self.rng.choice([name for name, s in self.shapes.items() if s == shape and name not in self.kinds])
        operation = self.rng.choice(["SUM", "PROD", "MAX"])
        coeff = {"coeff": [1, self.rng.choice([1, -0.5])]} if operation == "SUM" else {}
        self.add("Eltwise", [first, second], 1, eltwise_param={"operation": operation, **coeff})

    def draw_concat(self):
        first = self.blob()
        shape = self.shapes[first]
        bottoms = [first]
        if self.rng.random() < 0.7:
            same = [name for name, s in self.shapes.items() if s[:1] + s[2:] == shape[:1] + shape[2:] and len(s) > 1]
            bottoms.append(self.rng.choice([name for name in same if name not in self.kinds]))
        self.add("Concat", bottoms, 1)

    def draw_slice(self):
        bottom = self.blob()
        channels = self.shapes[bottom][1]
        if channels < 2 or self.rng.random() < 0.3:
            self.add("Slice", [bottom], 1)
        else:
            self.add("Slice", [bottom], 2, slice_param={"slice_point": [self.rng.randrange(1, channels)]})

    def draw_shape(self):
        kind = self.rng.choice(["Flatten", "Reshape", "Split"])
        bottom = self.blob()
        if kind == "Split":
            self.add(kind, [bottom], self.rng.choice([1, 2, 2, 3]))
        elif kind == "Flatten":
            if not (self.real and self.loses_gradient(bottom)):
                self.add(kind, [bottom], 1)
        else:
            channels = self.shapes[bottom][1]
            self.add(kind, [bottom], 1, reshape_param={"shape": {"dim": [0, channels, -1]}})

    def loses_gradient(self, bottom):
        """Whether the original's backward gives a Flatten a diff whose memory the previous layer does not use."""
        return bottom in self.aliased and self.writer[bottom].type not in ("Split", "Flatten")

    def draw_softmax(self):
        self.one_to_one("Softmax", axes=(2, 4))

    def draw_dropout(self):
        if self.phase == "TEST":
            self.one_to_one("Dropout")

    def draw_python(self):
        kind = self.rng.choice(["KeepBottom", "KeepTop", "InPlace", "NoBackward"])
        bottom = self.blob()
        if kind == "InPlace" and not self.may_overwrite(bottom):
            return
        options = {"module": "tests.ownership.guests", "layer": kind}
        if self.rng.random() < 0.5 and not self.real:
            options["param_str"] = "early"
        self.add("Python", [bottom], [bottom] if kind == "InPlace" else 1, python_param=options)

    KINDS = {
        "product": 5,
        "convolution": 2,
        "pooling": 2,
        "activation": 5,
        "power": 1,
        "channels": 4,
        "eltwise": 2,
        "concat": 2,
        "slice": 2,
        "shape": 5,
        "softmax": 0.5,
        "dropout": 1,
        "python": 3,
    }


def draw_graph(rng, phase, real=False):
    """Return a net of 3 to 8 layers and its sources. Every blob except losses and labels has at least two axes."""
    drawing = Drawing(rng, phase, real)
    drawing.sources()
    kinds, weights = zip(*Drawing.KINDS.items())
    for _ in range(rng.randrange(2, 8)):
        getattr(drawing, f"draw_{rng.choices(kinds, weights)[0]}")()
    if rng.random() < 0.75:
        drawing.loss()
    return Graph(drawing.nodes, rng.random() < 0.4, drawing.kinds)
