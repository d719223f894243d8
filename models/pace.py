"""Runs the same models on our engine, rten and onnxruntime side by side, and prints ratios.

    cargo build --release -p sesemi-inference --example engine_pace
    models/.venv/bin/python models/pace.py [--rounds N] [--threads 1 2] [MODEL...]

Every contender is a process of its own; they take turns, a few runs each, so that whatever else the
machine does meets all of them. Times are of the fastest and the median run; "cpu" is the time that a
process had a core for a run, in its best turn, which waiting for other processes does not change.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
ENGINE = HERE.parent / "target" / "release" / "examples" / "engine_pace"
MODELS = ["mobilenet-v1", "resnet101-v2", "densenet121", "efficientnet-lite0"]
# Multiply-adds, in G; see zoo_nets.py.
WORK = {"mobilenet-v1": 0.569, "resnet101-v2": 7.19, "densenet121": 2.83, "efficientnet-lite0": 0.385}


def serve(threads: int, folder: pathlib.Path) -> None:
    """onnxruntime as a contender: see examples/engine_pace.rs for the protocol."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import time

    import numpy as np
    import onnxruntime

    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    given = json.loads((folder / "inputs.json").read_text())["inputs"]
    inputs = {i["name"]: np.array(i["data"], np.float32).reshape(i["shape"]) for i in given}
    start = time.perf_counter()
    session.run(None, inputs)
    print("ready", 0, load * 1e3, (load + time.perf_counter() - start) * 1e3, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            session.run(None, inputs)
            times.append((time.perf_counter() - start) * 1e3)
        print(*times, flush=True)


class Contender:
    def __init__(self, name: str, command: list) -> None:
        self.name, self.times, self.cpus = name, [], []
        self.process = subprocess.Popen([str(c) for c in command], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready, difference, load, first = self.process.stdout.readline().split()
        assert ready == "ready"
        self.difference, self.load, self.first = float(difference), float(load), float(first)

    def cpu(self) -> float:
        """Milliseconds that the process has had a core."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(t.read_text().split()[0]) for t in tasks) / 1e6

    def turn(self, runs: int) -> None:
        before = self.cpu()
        self.process.stdin.write(f"{runs}\n")
        self.process.stdin.flush()
        # The first run of a turn finds caches full of somebody else's data.
        self.times += [float(t) for t in self.process.stdout.readline().split()][1:]
        self.cpus.append((self.cpu() - before) / runs)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.times.sort()
        self.cpus.sort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--isa", default=None, help="avx512, avx2 or portable")
    parser.add_argument("--peak", type=float, help="G multiply-adds/s of a core, as kernel_bench prints it")
    parser.add_argument("--without-rten", action="store_true")
    arguments = parser.parse_args()
    print(f"{'model':20}{'threads':>8}{'engine':>14}{'min ms':>9}{'median':>9}{'/ort min':>9}"
          f"{'/ort med':>9}{'cpu ms':>9}{'/ort':>7}{'% peak':>8}{'error':>9}{'load':>8}{'first':>8}")
    for model in arguments.models:
        folder = HERE / "zoo" / model
        for threads in arguments.threads:
            isa = [arguments.isa] if arguments.isa else []
            contenders = [
                Contender("onnxruntime", [sys.executable, __file__, "--serve", threads, folder]),
                Contender("conv", [ENGINE, "conv", threads, folder, *isa]),
            ]
            if not arguments.without_rten:
                contenders.append(Contender("rten", [ENGINE, "rten", threads, folder]))
            for _ in range(arguments.rounds):
                for contender in contenders:
                    contender.turn(arguments.runs)
            for contender in contenders:
                contender.end()
            base, cpu = contenders[0].times, contenders[0].cpus[0]
            for c in contenders:
                best, median = c.times[0], c.times[len(c.times) // 2]
                peak = f"{100 * WORK[model] / best * 1e3 / arguments.peak / threads:.0f}" if arguments.peak else "-"
                print(f"{model:20}{threads:8}{c.name:>14}{best:9.2f}{median:9.2f}{best / base[0]:9.3f}"
                      f"{median / base[len(base) // 2]:9.3f}{c.cpus[0]:9.2f}{c.cpus[0] / cpu:7.3f}{peak:>8}{c.difference:9.1e}{c.load:8.1f}"
                      f"{c.first:8.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        main()
