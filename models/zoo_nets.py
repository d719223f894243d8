"""Convolutional networks as ONNX graphs, written layer by layer: no framework needed.

Three are architectures with seeded random weights, for timing: no package on PyPI ships trained
ImageNet weights for them. EfficientNet-Lite0 takes real weights from a PyTorch state dict.
"""

import collections
import io
import pickle

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

OPSET, IR_VERSION = 13, 8
IMAGE = ["batch", 3, 224, 224]


class Net:
    """Appends layers to a graph; every layer takes and returns the name of a value."""

    def __init__(self, name: str, seed: int = 0):
        self.name, self.nodes, self.constants = name, [], {}
        self.random = np.random.default_rng(seed)

    def op(self, op_type: str, *inputs: str, **attributes) -> str:
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def conv(self, x: str, weight: np.ndarray, bias: np.ndarray | None = None, stride: int = 1,
             pads: tuple[int, int, int, int] = (0, 0, 0, 0), group: int = 1) -> str:
        constants = [self.constant(v) for v in (weight, bias) if v is not None]
        return self.op("Conv", x, *constants, kernel_shape=list(weight.shape[2:]), group=group,
                       strides=[stride, stride], pads=list(pads), dilations=[1, 1])

    def he(self, *shape: int, gain: float = 2.0) -> np.ndarray:
        """Random weights that keep the size of the activations (He et al. 2015)."""
        std = np.sqrt(gain / np.prod(shape[1:]))
        return (self.random.standard_normal(shape) * std).astype(np.float32)

    def small(self, n: int) -> np.ndarray:
        return (self.random.standard_normal(n) * 0.02).astype(np.float32)

    def batch_norm(self, x: str, n: int, variance: float = 1.0) -> str:
        """A BatchNormalization that stays one: it stands before its convolution."""
        one, var = np.ones(n, np.float32), np.full(n, variance, np.float32)
        parts = [one + self.small(n), self.small(n), self.small(n), var]
        return self.op("BatchNormalization", x, *(self.constant(p) for p in parts), epsilon=1e-5)

    def relu6(self, x: str) -> str:
        limits = (np.array(0, np.float32), np.array(6, np.float32))
        return self.op("Clip", x, *(self.constant(v) for v in limits))

    def classifier(self, x: str, weight: np.ndarray, bias: np.ndarray) -> bytes:
        """Global average, one dense layer, softmax; then the file."""
        x = self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)
        x = self.op("Gemm", x, self.constant(weight), self.constant(bias), transB=1)
        self.nodes.append(helper.make_node("Softmax", [x], ["probability"], name="softmax", axis=1))
        graph = helper.make_graph(
            self.nodes, self.name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE)],
            [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1000])],
            list(self.constants.values()),
        )
        model = helper.make_model(graph, ir_version=IR_VERSION, producer_name="sesemi",
                                  opset_imports=[helper.make_opsetid("", OPSET)])
        checker.check_model(model)
        return model.SerializeToString(deterministic=True)

    def random_classifier(self, x: str, channels: int, gain: float) -> bytes:
        """`gain` spreads the answer: with equal probabilities everywhere no error would show."""
        return self.classifier(x, self.he(1000, channels, gain=gain), self.small(1000))


def mobilenet_v1() -> bytes:
    """MobileNetV1 1.0 224 (Howard et al. 2017), batch norms folded: 0.569 G multiply-adds."""
    net = Net("mobilenet-v1", seed=1)
    same2 = (0, 0, 1, 1)  # TensorFlow's SAME padding of a 3x3 with stride 2 on an even size
    x = net.relu6(net.conv("image", net.he(32, 3, 3, 3), net.small(32), stride=2, pads=same2))
    channels = 32
    for out, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
                        *[(512, 1)] * 5, (1024, 2), (1024, 1)]:
        pads = same2 if stride == 2 else (1, 1, 1, 1)
        weight = net.he(channels, 1, 3, 3)
        x = net.conv(x, weight, net.small(channels), stride, pads, group=channels)
        x = net.relu6(net.conv(net.relu6(x), net.he(out, channels, 1, 1), net.small(out)))
        channels = out
    return net.random_classifier(x, channels, gain=100.0)


def resnet101_v2() -> bytes:
    """ResNet101v2 (He et al. 2016, Keras' layout): 7.19 G multiply-adds."""
    net = Net("resnet101-v2", seed=2)
    x = net.conv("image", net.he(64, 3, 7, 7), net.small(64), 2, (3, 3, 3, 3))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, blocks, last_stride in [(64, 3, 2), (128, 4, 2), (256, 23, 2), (512, 3, 1)]:
        for block in range(blocks):
            stride = last_stride if block == blocks - 1 else 1
            # The variance of the sum grows by about one with each block of the stage.
            pre = net.op("Relu", net.batch_norm(x, channels, variance=1.0 + 0.3 * block))
            if block == 0:
                short = net.conv(pre, net.he(4 * width, channels, 1, 1), net.small(4 * width))
            elif stride > 1:
                short = net.op("MaxPool", x, kernel_shape=[1, 1], strides=[stride, stride])
            else:
                short = x
            y = net.op("Relu", net.conv(pre, net.he(width, channels, 1, 1), net.small(width)))
            y = net.conv(y, net.he(width, width, 3, 3), net.small(width), stride, (1, 1, 1, 1))
            y = net.op("Relu", y)
            y = net.conv(y, net.he(4 * width, width, 1, 1, gain=0.6), net.small(4 * width))
            x = net.op("Add", short, y)
            channels = 4 * width
    x = net.op("Relu", net.batch_norm(x, channels, variance=2.0))
    return net.random_classifier(x, channels, gain=1.0)


def densenet121() -> bytes:
    """DenseNet121 (Huang et al. 2017): 2.83 G multiply-adds."""
    net = Net("densenet121", seed=3)
    x = net.op("Relu", net.conv("image", net.he(64, 3, 7, 7), net.small(64), 2, (3, 3, 3, 3)))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, layers in enumerate((6, 12, 24, 16)):
        for _ in range(layers):
            y = net.op("Relu", net.batch_norm(x, channels))
            y = net.op("Relu", net.conv(y, net.he(128, channels, 1, 1), net.small(128)))
            y = net.conv(y, net.he(32, 128, 3, 3, gain=1.0), None, 1, (1, 1, 1, 1))
            x = net.op("Concat", x, y, axis=1)
            channels += 32
        if stage < 3:
            x = net.op("Relu", net.batch_norm(x, channels))
            channels //= 2
            x = net.conv(x, net.he(channels, 2 * channels, 1, 1))
            x = net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Relu", net.batch_norm(x, channels))
    return net.random_classifier(x, channels, gain=100.0)


class TensorsOnly(pickle.Unpickler):
    """Reads PyTorch's old file format and nothing but tensors: a pickle may run any code."""

    TYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: (storage, offset, shape, stride)
        if module == "torch" and name in self.TYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not a tensor")

    def persistent_load(self, pid):
        return pid


def state_dict(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict, without PyTorch."""
    file = io.BytesIO(data)
    for _ in range(3):  # magic number, protocol, sizes of C types
        TensorsOnly(file).load()
    tensors = TensorsOnly(file).load()
    types = {storage[2]: storage[1] for storage, *_ in tensors.values()}
    storages = {}
    for key in TensorsOnly(file).load():
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(TensorsOnly.TYPES[types[key]])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    out = {}
    for name, (storage, offset, shape, stride) in tensors.items():
        flat = storages[storage[2]][offset:]
        strides = [s * flat.itemsize for s in stride]
        out[name] = np.lib.stride_tricks.as_strided(flat, shape, strides).copy()
    return out


def efficientnet_lite0(weights: dict[str, np.ndarray]) -> bytes:
    """EfficientNet-Lite0 (no squeeze-and-excite, ReLU6), batch norms folded."""
    net = Net("efficientnet-lite0")

    def conv(x: str, name: str, norm: str, size: int, stride: int = 1, group: int = 1):
        weight = weights[f"{name}.weight"].astype(np.float64)
        gamma, beta, mean, var = (weights[f"{norm}.{part}"].astype(np.float64)
                                  for part in ("weight", "bias", "running_mean", "running_var"))
        scale = gamma / np.sqrt(var + 1e-3)
        weight = (weight * scale[:, None, None, None]).astype(np.float32)
        bias = (beta - mean * scale).astype(np.float32)
        kernel, out = weight.shape[2], -(-size // stride)
        # TensorFlow's SAME padding: the odd pixel goes to the end.
        pad = max((out - 1) * stride + kernel - size, 0)
        pads = (pad // 2, pad // 2, pad - pad // 2, pad - pad // 2)
        return net.conv(x, weight, bias, stride, pads, group), out

    x, size = conv("image", "_conv_stem", "_bn0", 224, stride=2)
    x, index, channels = net.relu6(x), 0, 32
    for repeats, stride, expand, out in [(1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80),
                                         (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320)]:
        for repeat in range(repeats):
            block, y, wide = f"_blocks.{index}", x, channels * expand
            if expand > 1:
                y, _ = conv(y, f"{block}._expand_conv", f"{block}._bn0", size)
                y = net.relu6(y)
            step = stride if repeat == 0 else 1
            y, size = conv(y, f"{block}._depthwise_conv", f"{block}._bn1", size, step, wide)
            y, _ = conv(net.relu6(y), f"{block}._project_conv", f"{block}._bn2", size)
            x = net.op("Add", x, y) if step == 1 and channels == out else y
            index, channels = index + 1, out
    x, _ = conv(x, "_conv_head", "_bn1", size)
    return net.classifier(net.relu6(x), weights["_fc.weight"], weights["_fc.bias"])
