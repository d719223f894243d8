"""What train.py and zoo.py share: exact JSON, and reference answers from onnxruntime."""

import json
import os
from pathlib import Path

# onnxruntime's Linux builds send telemetry unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort

DATATYPES = {
    "float32": "FP32",
    "float64": "FP64",
    "int64": "INT64",
    "int32": "INT32",
    "bool": "BOOL",
    "uint8": "UINT8",
}


def as_tensor(name: str, array: np.ndarray) -> dict:
    """A tensor in the JSON of the Open Inference Protocol. float32 is written with the fewest
    digits that name it exactly, so that the text is short and the value survives."""
    flat = array.ravel()
    if array.dtype == np.float32:
        data = [float(str(v)) for v in flat]
    else:
        data = flat.tolist()
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPES[array.dtype.name],
        "data": data,
    }


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


def reference(model: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """onnxruntime's answers, on one thread and without its graph rewriting."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def write_example(
    folder: Path,
    model: bytes,
    feeds: dict[str, np.ndarray],
    labels: list[str] | None = None,
    truth: list[int] | None = None,
) -> dict[str, np.ndarray]:
    """Writes model.onnx, inputs.json (a request body), expected.json (an answer's body; `truth`
    holds the true class of each row) and labels.txt (the name of class i on line i)."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = reference(model, feeds)
    (folder / "model.onnx").write_bytes(model)
    write_json(folder / "inputs.json", {"inputs": [as_tensor(n, a) for n, a in feeds.items()]})
    expected = {"outputs": [as_tensor(n, a) for n, a in outputs.items()]}
    if truth is not None:
        expected["truth"] = truth
    write_json(folder / "expected.json", expected)
    if labels is not None:
        (folder / "labels.txt").write_text("".join(label + "\n" for label in labels))
    return outputs
