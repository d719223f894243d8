"""A container engine and the containers in it, as OpenWhisk's invoker drives them."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

# What the invoker's DockerContainer gives every action container, and what we ask for beyond it: no
# capability at all, a root file system that cannot be written. The network is the host's, so that
# nothing outside of the loopback interface is ever used here; OpenWhisk gives each container a bridge.
OPENWHISK = [
    "--cpu-shares", "256", "--memory", "512m", "--memory-swap", "512m",
    "--ulimit", "nofile=1024:1024", "--pids-limit", "1024", "--log-driver", "json-file",
]
CONFINED = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"]
NETWORK = ["--network", "host"]


class EngineMissing(Exception):
    """There is no container engine, and none could be started."""


class Engine:
    """The engine that runs here, or one of our own, which ends with us."""

    def __init__(self, work: pathlib.Path):
        self.own = None
        self.folder = None
        self.environment = dict(os.environ, DOCKER_BUILDKIT="0")
        for program in ("docker", "dockerd"):
            if shutil.which(program) is None:
                raise EngineMissing(f"there is no {program}; on Debian: apt-get install docker.io")
        if self._try("info").returncode != 0:
            self._start(work)

    def _start(self, work: pathlib.Path) -> None:
        # Not below the repository: a socket's path has at most 107 bytes.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sesemi-docker-"))
        endpoint = f"unix://{self.folder}/docker.sock"
        self.environment["DOCKER_HOST"] = endpoint
        log = work / "dockerd.log"
        problems = []
        for driver in ("overlay2", "vfs"):
            with log.open("wb") as out:
                self.own = subprocess.Popen(
                    ["dockerd", "--host", endpoint, "--data-root", self.folder / "data",
                     "--exec-root", self.folder / "exec", "--pidfile", self.folder / "pid",
                     "--storage-driver", driver, "--iptables=false", "--ip6tables=false",
                     "--ip-forward=false", "--ip-masq=false", "--bridge=none"],
                    stdout=out, stderr=out, stdin=subprocess.DEVNULL)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and self.own.poll() is None:
                if self._try("info").returncode == 0:
                    return
                time.sleep(0.1)
            self.own.terminate()
            self.own.wait()
            problems.append(f"with {driver}: " + " / ".join(log.read_text().splitlines()[-3:]))
        self.own = None
        raise EngineMissing(f"dockerd does not start here: {'; '.join(problems)} (its log: {log})")

    def _try(self, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run(["docker", *map(str, arguments)], env=self.environment,
                              capture_output=True, text=True, check=False)

    def run(self, *arguments) -> str:
        done = self._try(*arguments)
        if done.returncode != 0:
            raise AssertionError(f"docker {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def build(self, program: str, folder: pathlib.Path, tag: str) -> None:
        dockerfile = pathlib.Path(__file__).with_name("Dockerfile")
        self.run("build", "--quiet", "--file", dockerfile, "--build-arg", f"PROGRAM={program}",
                 "--tag", tag, folder)

    def export(self, image: str, to: pathlib.Path) -> None:
        """Writes the image's whole root file system as a tar file."""
        container = self.run("create", *NETWORK, image).strip()
        self.run("export", "--output", to, container)
        self.run("rm", container)

    def close(self) -> None:
        if self.own is not None:
            self.own.terminate()
            try:
                self.own.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.own.kill()
                self.own.wait()
        if self.folder is not None:
            self._unmount()
            shutil.rmtree(self.folder)

    def _unmount(self) -> None:
        """What dockerd leaves mounted: the network namespace that `--network host` names."""
        lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        points = [pathlib.Path(line.split()[4]) for line in lines]
        for point in reversed([point for point in points if self.folder in point.parents]):
            subprocess.run(["umount", point], check=True)


class Container:
    """One action container, removed at the end."""

    def __init__(self, engine: Engine, image: str, *, options=(), arguments=(), environment=None):
        self.engine = engine
        self.port = free_port()
        values = {"PORT": str(self.port), "__OW_API_HOST": "http://127.0.0.1:3233"}
        values |= environment or {}
        pairs = [word for item in values.items() for word in ("-e", "=".join(item))]
        self.id = engine.run("run", "-d", *OPENWHISK, *CONFINED, *NETWORK, *pairs, *options, image,
                             *arguments).strip()

    def state(self) -> dict:
        return json.loads(self.engine.run("inspect", self.id))[0]["State"]

    def wait_listening(self, seconds: float = 30) -> None:
        """As the invoker does: connects until something listens."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            state = self.state()
            assert state["Running"], f"ended with {state['ExitCode']}: {self.logs()[1]}"
            time.sleep(0.05)
        raise AssertionError(f"nothing listens after {seconds} s: {self.logs()[1]}")

    def wait_ended(self) -> int:
        return int(self.engine.run("wait", self.id))

    def logs(self) -> tuple[str, str]:
        """What it wrote to stdout and to stderr."""
        done = subprocess.run(["docker", "logs", self.id], env=self.engine.environment,
                              capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    def pause(self) -> None:
        self.engine.run("pause", self.id)

    def unpause(self) -> None:
        self.engine.run("unpause", self.id)

    def remove(self) -> None:
        self.engine.run("rm", "--force", self.id)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.remove()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
