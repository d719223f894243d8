#!/usr/bin/env python3
"""Builds the function image and drives it as Apache OpenWhisk's invoker would.

Two images of one Dockerfile: the shipped one, which must refuse to start without a TEE, and the
developer one, whose TEE is simulated, which serves requests end to end: `sesemi-dev cli` seals and
opens, this script stands where FnPacker, the controller and the invoker stand, and KeyService runs on
the host. Needs root, for a container engine. Standard library only.
"""

import argparse
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import tomllib

from collect import collect
from engine import Container, Engine, EngineMissing

ROOT = pathlib.Path(__file__).resolve().parents[2]
SENTINEL = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
# In two parts, so that no search for it finds this file.
SIMULATED = b"SESEMI-SIMULATED" + b"-TEE"
EXIT_NO_TEE = 3
USER = 65532
MODEL = ROOT / "models/breast-cancer"
# OpenWhisk's limit on a payload, and rows of the model's input that are beyond it.
LIMIT = 1 << 20
ROWS = 10_000
CHECKS = []


def check(name: str, holds: bool, seen: object = "") -> None:
    CHECKS.append(holds)
    print(f"{'ok  ' if holds else 'FAIL'} {name}" + ("" if holds else f": {seen}"), flush=True)
    if not holds:
        raise AssertionError(name)


class Answer:
    """An answer, with what the invoker looks at: the length, and whether it is chunked."""

    def __init__(self, response: http.client.HTTPResponse):
        self.status = response.status
        self.length = response.getheader("content-length")
        self.chunked = response.getheader("transfer-encoding")
        self.body = response.read()

    def json(self) -> object:
        return json.loads(self.body)


def call(port: int, method: str, path: str, value: object = None, timeout: float = 120) -> Answer:
    """One call on a connection of its own, which is closed after it."""
    body = None if value is None else json.dumps(value).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json",
               "Connection": "close"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        return Answer(connection.getresponse())


class Invoker:
    """`/init` and `/run` with the fields that the invoker sends."""

    def __init__(self, container: Container):
        self.container = container
        self.runs = 0

    def init(self, environment: dict[str, str]) -> Answer:
        known = {"__OW_NAMESPACE": "guest", "__OW_ACTION_NAME": "/guest/sesemi",
                 "__OW_ACTION_VERSION": "0.0.1", "__OW_ACTIVATION_ID": "0" * 32,
                 "__OW_TRANSACTION_ID": "t", "__OW_DEADLINE": self._deadline()}
        value = {"name": "sesemi", "main": "main", "binary": False, "env": known | environment}
        return call(self.container.port, "POST", "/init", {"value": value})

    def run(self, value: object, timeout: float = 120) -> Answer:
        self.runs += 1
        message = {"value": value, "namespace": "guest", "action_name": "/guest/sesemi",
                   "action_version": "0.0.1", "activation_id": f"{self.runs:032x}",
                   "transaction_id": "t", "deadline": self._deadline()}
        return call(self.container.port, "POST", "/run", message, timeout)

    @staticmethod
    def _deadline() -> str:
        return str(int((time.time() + 60) * 1000))


class Front:
    """`POST /v1/infer`, as FnPacker has it: passes a sealed request to the container's `/run`."""

    def __init__(self, invoker: Invoker):
        outer = self
        self.answers, self.longest = [], 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.longest = max(outer.longest, len(body))
                began = time.monotonic()
                answer = invoker.run(json.loads(body))
                outer.answers.append(answer)
                result = answer.json()
                if "error" in result:
                    result = result["error"]
                    self.send_response(422)
                else:
                    total = int((time.monotonic() - began) * 1e6)
                    result["routing"] = {"function": "sesemi", "activation": None,
                                         "platform_cold": False, "queue_us": 0, "start_us": 0,
                                         "total_us": total}
                    self.send_response(200)
                text = json.dumps(result).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.server.shutdown()
        self.server.server_close()


class Parties:
    """KeyService on the simulated TEE, an owner with a published model, and a user with a grant."""

    def __init__(self, program: pathlib.Path, state: pathlib.Path):
        self.program, self.state = program, state
        self.up = subprocess.Popen([program, "up", "--state", state], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        said = []
        for line in self.up.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        if self.up.poll() is not None:
            raise AssertionError(f"sesemi-dev up: {''.join(said)}{self.up.stderr.read()}")
        profile = tomllib.loads((state / "user.toml").read_text())
        self.keyservice = profile["keyservice"]["address"]
        self.cli("owner", "model", "publish", MODEL / "model.onnx", "--model", "breast-cancer",
                 "--example-input", MODEL / "inputs.json",
                 "--example-output", MODEL / "expected.json")
        self.cli("user", "key", "register", "breast-cancer", "--owner", "owner")
        self.cli("owner", "grant", "add", "breast-cancer", "--user", "user")
        # What a container may see of it: its configuration, the simulated hardware, the store.
        self.shared = state / "for-containers"
        shutil.copytree(state / "simulated-hardware", self.shared / "hardware")
        shutil.copy(state / "config/semirt.toml", self.shared / "semirt.toml")
        (state / "store").chmod(0o755)
        for path in [self.shared, *self.shared.rglob("*")]:
            os.chown(path, USER, USER)

    def cli(self, who: str, *arguments, profile: pathlib.Path | None = None) -> dict:
        profile = profile or self.state / f"{who}.toml"
        done = subprocess.run([self.program, "cli", "--profile", profile, *arguments, "--json"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"sesemi {arguments[0]}: {done.stderr}"
        return json.loads(done.stdout)

    def infer(self, front: Front, *extra, repeat: int = 1) -> list[dict]:
        """Asks the container's SeMIRT, through `front`; every answer must be the known one.

        With `repeat`, the example's rows are asked for so many times in one request.
        """
        inputs = json.loads((MODEL / "inputs.json").read_text())
        for tensor in inputs["inputs"]:
            tensor["shape"][0] *= repeat
            tensor["data"] *= repeat
        file = self.state / "inputs.json"
        file.write_text(json.dumps(inputs))
        profile = self.state / "container.toml"
        text = (self.state / "user.toml").read_text()
        profile.write_text(re.sub(r'(?m)^url = "http://.*"$', f'url = "{front.url}"', text))
        answer = self.cli("user", "infer", "breast-cancer", "--input", file,
                          *extra, profile=profile)
        expected = json.loads((MODEL / "expected.json").read_text())["outputs"][0]["data"]
        expected *= repeat
        for request in answer["requests"]:
            assert request["ok"], request
            got = request["outputs"][0]["data"]
            assert len(got) == len(expected), request
            assert all(abs(a - b) < 1e-4 for a, b in zip(got, expected)), request
        return answer["requests"]

    def environment(self) -> dict[str, str]:
        """Both addresses, as init parameters of the action give them."""
        return {"SESEMI_KEYSERVICE": self.keyservice, "SESEMI_STORE": "file:///srv/store"}

    def container(self, engine: Engine, image: str, environment=None) -> Container:
        """Starts the developer image with the host's part of the simulation mounted."""
        mounts = {self.shared / "hardware": "/srv/hardware", self.state / "store": "/srv/store",
                  self.shared / "semirt.toml": "/etc/sesemi/config.toml"}
        options = [word for path, at in mounts.items()
                   for word in ("--volume", f"{path}:{at}:ro")]
        arguments = ["role", "semirt", "--config", "/etc/sesemi/config.toml",
                     "--hardware", "/srv/hardware"]
        return Container(engine, image, options=options, arguments=arguments,
                         environment=environment)

    def close(self) -> None:
        self.up.send_signal(signal.SIGINT)
        self.up.communicate(timeout=30)


def shipped(engine: Engine, image: str, work: pathlib.Path) -> None:
    """What an operator gets."""
    tar = work / "shipped.tar"
    engine.export(image, tar)
    with tarfile.open(tar) as archive:
        files = {member.name: archive.extractfile(member).read()
                 for member in archive if member.isfile()}
    # The engine itself makes these places for what it mounts, and all are empty in the image.
    ours = sorted(name for name, content in files.items() if content)
    libraries = [name for name in ours if ".so" in pathlib.Path(name).name]
    others = sorted(set(ours) - set(libraries))
    check("it holds the program, its configuration and libraries, and nothing else",
          others == ["etc/nsswitch.conf", "etc/sesemi/config.toml", "program"], ours)
    names = sorted(pathlib.Path(name).name for name in libraries)
    check("its libraries are the C library and the compiler's",
          names == ["ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"], names)
    check("no file has the simulated TEE's marker",
          not any(SIMULATED in content for content in files.values()), "")
    settings = json.loads(engine.run("inspect", image))[0]["Config"]
    check("it is not root's", settings["User"] == f"{USER}:{USER}", settings["User"])
    with Container(engine, image) as container:
        code = container.wait_ended()
        out, err = container.logs()
        check("without a TEE it ends with code 3", code == EXIT_NO_TEE, (code, err))
        check("and says why", "TEE" in err and "sesemi-dev" in err, (out, err))
        print("     " + err.strip().splitlines()[-1])


def openwhisk(engine: Engine, image: str, parties: Parties) -> None:
    """The action protocol, against a container without a network of its own."""
    with parties.container(engine, image) as container:
        container.wait_listening()
        invoker = Invoker(container)
        early = invoker.run({})
        check("/run before /init is refused",
              early.status == 403 and "not initialized" in early.json()["error"], early.body)
        first = invoker.init(parties.environment())
        check("/init is accepted", first.status == 200, first.body)
        second = invoker.init(parties.environment())
        check("a second /init is refused, in the runtimes' words", second.status == 403
              and second.json() == {"error": "Cannot initialize the action more than once."},
              second.body)
        with Front(invoker) as front:
            paths = [parties.infer(front)[0] for _ in range(2)]
            check("the first request is cold or warm, the second hot",
                  paths[0]["path"] != "hot" and paths[1]["path"] == "hot", paths)
            many = parties.infer(front, "--count", "16", "--concurrency", "4")
            check("sixteen requests, four at once", len(many) == 16, many)
            large = parties.infer(front, repeat=ROWS // 8)[0]
            check(f"a request of {large['sent_bytes']} bytes goes through the model store",
                  large["sent_bytes"] > LIMIT > 100 * front.longest, front.longest)
            left = list((parties.state / "store/requests").iterdir())
            check("and is cleared away after it", not left, left)
            junk = invoker.run({"ciphertext": "AAAA"})
            check("what is no request is answered 200 with an error",
                  junk.status == 200 and junk.json()["error"]["code"] == "invalid_request",
                  junk.body)
            container.pause()
            check("the container is frozen", container.state()["Paused"], container.state())
            container.unpause()
            again = parties.infer(front)[0]
            check("after a pause it serves, and is hot still", again["path"] == "hot", again)
            answers = [early, first, second, junk, *front.answers]
        check("every answer has a Content-Length that is its length, and is not chunked",
              all(a.length == str(len(a.body)) and a.chunked is None for a in answers),
              [(a.length, len(a.body), a.chunked) for a in answers])
        # The last sentinel is written when its answer is already on the way.
        deadline = time.monotonic() + 5
        while True:
            counts = [text.splitlines().count(SENTINEL) for text in container.logs()]
            if counts == [invoker.runs] * 2 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        check(f"{invoker.runs} calls of /run left {invoker.runs} sentinels on each stream",
              counts == [invoker.runs] * 2, counts)
        engine.run("stop", "--time", "20", container.id)
        state = container.state()
        check("it ends by itself when it is stopped",
              state["ExitCode"] == 0 and not state["OOMKilled"], state)


def drain(engine: Engine, container: Container) -> None:
    """SIGTERM while a request is half sent: it is answered, nothing new is taken, and it ends."""
    body = json.dumps({"value": {}}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/run")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:5])
        # Answered, so what came before it on another connection is with the server.
        call(container.port, "GET", "/v2/health/live")
        engine.run("kill", "--signal", "TERM", container.id)
        wait_refused(container.port)
        check("after SIGTERM it takes no connection, and has not ended",
              container.state()["Running"], container.logs())
        connection.send(body[5:])
        answer = Answer(connection.getresponse())
        check("and still answers what it had begun to read", answer.status == 200, answer.body)
    code = container.wait_ended()
    check("then it ends well", code == 0, (code, container.logs()))


def wait_refused(port: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.02)
    raise AssertionError("it still takes connections")


def knative(engine: Engine, image: str, parties: Parties) -> None:
    """The same image where there is no /init: addresses and port from the environment."""
    environment = parties.environment() | {"K_SERVICE": "semirt", "K_REVISION": "semirt-00001",
                                           "K_CONFIGURATION": "semirt"}
    with parties.container(engine, image, environment) as container:
        container.wait_listening()
        for probe in ("live", "ready"):
            answer = call(container.port, "GET", f"/v2/health/{probe}")
            check(f"with K_SERVICE it is {probe} at once", answer.status == 200, answer.body)
        invoker = Invoker(container)
        with Front(invoker) as front:
            done = parties.infer(front, "--count", "4", "--concurrency", "4")
            check("it serves without /init", len(done) == 4, done)
        drain(engine, container)
    with parties.container(engine, image, {"K_SERVICE": "semirt"}) as container:
        code = container.wait_ended()
        check("with K_SERVICE and without addresses it does not start", code != 0,
              container.logs())
        check("and names the variable", "SESEMI_KEYSERVICE" in container.logs()[1],
              container.logs()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--semirt", type=pathlib.Path, default=ROOT / "target/release/semirt")
    parser.add_argument("--sesemi-dev", type=pathlib.Path,
                        default=ROOT / "target/debug/sesemi-dev")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target/ci/deploy")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    with contextlib.ExitStack() as closing:
        try:
            engine = Engine(arguments.work)
        except EngineMissing as problem:
            print(f"check: the image cannot be checked: {problem}", file=sys.stderr)
            return 1
        closing.callback(engine.close)
        images = {"shipped": "sesemi/semirt:check", "developer": "sesemi/semirt-dev:check"}
        rootfs = arguments.work / "rootfs"
        collect(arguments.semirt, ROOT / "config/semirt.toml", rootfs)
        engine.build(arguments.semirt.name, rootfs, images["shipped"])
        shipped(engine, images["shipped"], arguments.work)
        collect(arguments.sesemi_dev, None, rootfs)
        engine.build(arguments.sesemi_dev.name, rootfs, images["developer"])
        state = pathlib.Path(closing.enter_context(
            tempfile.TemporaryDirectory(prefix="sesemi-deploy-")))
        # A container's user looks through it to what is mounted.
        state.chmod(0o755)
        parties = Parties(arguments.sesemi_dev.resolve(), state / "state")
        closing.callback(parties.close)
        openwhisk(engine, images["developer"], parties)
        knative(engine, images["developer"], parties)
    print(f"{sum(CHECKS)} checks of the image passed")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AssertionError as failed:
        sys.exit(f"check: {failed}")
