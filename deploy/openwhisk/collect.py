#!/usr/bin/env python3
"""Collects what an image needs to run one dynamically linked program: it, its loader and libraries.

The result is a folder OUT/PROGRAM whose content is the image's whole root. The loader's own answer
(`ldd`) says which libraries; each is copied to the path that the loader looks for. Modes and times are
set, so that the same files make the same layer.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

# `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
LINE = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")
# In the kernel, not in a file.
VIRTUAL = "linux-vdso.so.1"


def libraries(binary: pathlib.Path) -> list[pathlib.Path]:
    """The files that the loader would map for `binary`, by the paths that it looks for."""
    said = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    found = []
    for line in said.splitlines():
        if VIRTUAL in line:
            continue
        match = LINE.match(line)
        if match is None:
            sys.exit(f"collect: {binary} needs what this machine does not have: {line.strip()}")
        found.append(pathlib.Path(match["path"]))
    return found


def place(source: pathlib.Path, root: pathlib.Path, path: pathlib.PurePath, mode: int) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.resolve(), target)
    target.chmod(mode)


def collect(binary: pathlib.Path, config: pathlib.Path | None, out: pathlib.Path) -> pathlib.Path:
    """Makes `out/NAME`, where NAME is the binary's; in the image it is always /program."""
    root = out / binary.name
    shutil.rmtree(root, ignore_errors=True)
    place(binary, root, pathlib.PurePosixPath("/program"), 0o555)
    for library in libraries(binary):
        place(library, root, library, 0o555)
    if config is not None:
        place(config, root, pathlib.PurePosixPath("/etc/sesemi/config.toml"), 0o444)
    # Names are resolved by the C library: what the platform mounts first, then DNS.
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (0, 0))
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--config", type=pathlib.Path, help="becomes /etc/sesemi/config.toml")
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()
    root = collect(arguments.binary, arguments.config, arguments.out)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>10}  /{path.relative_to(root)}")


if __name__ == "__main__":
    main()
