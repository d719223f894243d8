#!/usr/bin/env python3
"""Trains the two small models that are committed here, from data that scikit-learn ships.

    python3 -m venv models/.venv && models/.venv/bin/pip install -r models/requirements.txt
    models/.venv/bin/python models/train.py            # writes models/{breast-cancer,digits}/
    models/.venv/bin/python models/train.py --check    # retrains elsewhere and compares

Run twice on one machine it writes the same bytes. On another CPU type BLAS may change low bits:
`--check` therefore demands the accuracy always, and reports whether the bytes are the same.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

# One thread, before numpy loads BLAS: the order of a sum decides its last bit.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from onnx_text import reference, write_example

HERE = Path(__file__).resolve().parent
ROWS = 8
FILES = ("model.onnx", "inputs.json", "expected.json", "labels.txt")


def as_onnx(name: str, scaler: StandardScaler, mlp: MLPClassifier, last: str) -> bytes:
    """The scaler folded into the first Gemm, then Gemm-Relu-Gemm and the last activation."""
    (w1, w2), (b1, b2) = mlp.coefs_, mlp.intercepts_
    # (x - mean) / scale @ w + b  =  x @ (w / scale) + (b - mean / scale @ w)
    constants = {
        "w1": w1 / scaler.scale_[:, None],
        "b1": b1 - (scaler.mean_ / scaler.scale_) @ w1,
        "w2": w2,
        "b2": b2,
    }
    classes = w2.shape[1]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="hidden"),
            helper.make_node("Relu", ["h"], ["a"], name="activation"),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["z"], name="output"),
            helper.make_node(last, ["z"], ["probability"], name="probability"),
        ],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", w1.shape[0]])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )
    model = helper.make_model(
        graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)], producer_name="sesemi"
    )
    checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def train(name: str, data, last: str, labels: list[str], folder: Path) -> tuple[float, float]:
    """Trains on three quarters of the data; AUC and accuracy are of the ONNX file on the rest."""
    x, x_held, y, y_held = train_test_split(
        data.data, data.target, test_size=0.25, random_state=0, stratify=data.target
    )
    scaler = StandardScaler().fit(x)
    # Strong regularisation for the small data set: 426 rows would be learnt by heart.
    alpha = 1.0 if len(labels) == 2 else 0.1
    mlp = MLPClassifier((16,), solver="lbfgs", alpha=alpha, max_iter=2000, random_state=0)
    mlp.fit(scaler.transform(x), y)
    model = as_onnx(name, scaler, mlp, last)

    x_held = x_held.astype(np.float32)
    probability = reference(model, {"x": x_held})["probability"]
    if len(labels) == 2:
        auc = roc_auc_score(y_held, probability[:, 0])
        predicted = (probability[:, 0] >= 0.5).astype(int)
    else:
        auc = roc_auc_score(y_held, probability, multi_class="ovr")
        predicted = probability.argmax(axis=1)
    accuracy = accuracy_score(y_held, predicted)
    truth = [int(v) for v in y_held[:ROWS]]
    write_example(folder, model, {"x": x_held[:ROWS]}, labels, truth)
    print(f"{name}: {len(model)} bytes, held-out rows {len(y_held)}, "
          f"AUC {auc:.4f}, accuracy {accuracy:.4f}")
    return auc, accuracy


def train_all(folder: Path) -> list[str]:
    """Trains both models into `folder`; returns what is not good enough."""
    cancer = load_breast_cancer()
    auc, _ = train("breast-cancer", cancer, "Sigmoid", [str(n) for n in cancer.target_names],
                   folder / "breast-cancer")
    digits = load_digits()
    _, accuracy = train("digits", digits, "Softmax", [str(n) for n in digits.target_names],
                        folder / "digits")
    failures = []
    if auc < 0.99:
        failures.append(f"breast-cancer: AUC {auc:.4f} is below 0.99")
    if accuracy < 0.95:
        failures.append(f"digits: accuracy {accuracy:.4f} is below 0.95")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true",
                        help="retrain into a temporary folder, compare, change nothing")
    if not parser.parse_args().check:
        failures = train_all(HERE)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            failures = train_all(Path(temporary))
            for name in ("breast-cancer", "digits"):
                for file in FILES:
                    new, old = Path(temporary, name, file), HERE / name / file
                    same = old.exists() and new.read_bytes() == old.read_bytes()
                    print(f"{name}/{file}: {'same bytes' if same else 'OTHER BYTES'}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
