#!/usr/bin/env python3
"""Holds the manifests of deploy/ to the published schemas, and renders and lints the Helm chart.

Checked are the files of deploy/knative, what FnPacker applies (the golden file of its tests), and the
chart with several sets of values. `schemas/kubernetes.yaml` names the sources of the schemas;
`--crd FILE` (any number of times) holds it to a CustomResourceDefinition as published.

    deploy/check.py [--sesemi-dev target/debug/sesemi-dev] [--crd service.yaml …]
"""

import argparse
import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import fastjsonschema
import helm_python
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent
CHART = DEPLOY / "helm/sesemi"
APPLIED = DEPLOY.parent / "host/fnpacker/tests/knative/applied.json"
NAMESPACE = "models"
WARNING = 2

POOL = {"name": "main", "enclave": "ab" * 48, "image": "registry.internal/semirt@sha256:" + "0" * 64,
        "memory": "512MiB", "concurrency": 4, "endpoints": 2, "timeout": "60s", "policy": "published"}
LEAST = {"keyservice": {"image": "registry.internal/keyservice:1"}, "store": "s3://models/sesemi",
         "fnpacker": {"image": "registry.internal/fnpacker:1", "kubectlImage": "registry.internal/kubectl:1"},
         "pools": [POOL]}


def merged(base: dict, over: dict) -> dict:
    out = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


VALUES = {
    "least": LEAST,
    "TDX": merged(LEAST, {"keyservice": {"runtimeClassName": "kata-qemu-tdx", "storageClassName": "fast",
                                         "user": 0},
                          "functions": {"runtimeClassName": "kata-qemu-tdx", "maxScale": 4, "user": 0},
                          "fnpacker": {"nodeSelector": {"pool": "host"}}}),
    "SGX": merged(LEAST, {"keyservice": {"resources": {"limits": {"sgx.intel.com/enclave": "1"}},
                                         "nodeSelector": {"intel.feature.node.kubernetes.io/sgx": "true"}},
                          "functions": {"limits": {"sgx.intel.com/enclave": "1", "sgx.intel.com/epc": "256Mi"},
                                        "ingress": "http://kourier-internal.kourier-system.svc.cluster.local"},
                          "pools": [POOL, POOL | {"name": "second", "enclave": "cd" * 48}]}),
}
REFUSED = {
    "no image": merged(LEAST, {"keyservice": {"image": ""}}),
    "no pool": LEAST | {"pools": []},
    "an enclave that is none": LEAST | {"pools": [POOL | {"enclave": "ab"}]},
    "a misspelt setting": merged(LEAST, {"functions": {"runtimeClass": "kata-qemu-tdx"}}),
    "a pool name that no Service may have": LEAST | {"pools": [POOL | {"name": "My_pool"}]},
    "no store": LEAST | {"store": ""},
}


class Schemas:
    """The subset, one validator for each kind."""

    def __init__(self):
        whole = yaml.safe_load((DEPLOY / "schemas/kubernetes.yaml").read_text())
        self.definitions, self.kinds = whole["definitions"], whole["kinds"]
        self.validators = {}

    def problem(self, thing: dict) -> str | None:
        kind = f"{thing.get('apiVersion')}/{thing.get('kind')}"
        if kind not in self.kinds:
            return f"no schema for {kind}"
        if kind not in self.validators:
            schema = {"$schema": "http://json-schema.org/draft-07/schema#",
                      "definitions": self.definitions} | self.kinds[kind]
            self.validators[kind] = fastjsonschema.compile(schema)
        try:
            self.validators[kind](thing)
        except fastjsonschema.JsonSchemaException as error:
            return f"{kind} {thing['metadata'].get('name')}: {error.message}"
        return None

    def resolve(self, schema: dict) -> dict:
        while "$ref" in schema:
            target = {"definitions": self.definitions}
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = target
        return schema


def differences(schemas: Schemas, ours: dict, theirs: dict, at: str) -> list[str]:
    """Where the subset says something that the published schema does not."""
    ours = schemas.resolve(ours)
    if "properties" not in theirs and theirs.get("type") == "object":
        return []  # Kubernetes' own types are left open there (metadata).
    found = []
    kind, published = ours.get("type"), theirs.get("type")
    if kind and published and kind != published:
        found.append(f"{at}: {kind}, published as {published}")
    for name, inner in ours.get("properties", {}).items():
        if name in theirs["properties"]:
            found += differences(schemas, inner, theirs["properties"][name], f"{at}.{name}")
        elif not theirs.get("x-kubernetes-preserve-unknown-fields"):
            found.append(f"{at}.{name} is not published")
    for name in theirs.get("required", []):
        # What the schema wants and the API server fills in is no error of ours.
        if name in ours.get("properties", {}) and name not in ours.get("required", []):
            found.append(f"{at}.{name} is required")
    if "items" in ours and "items" in theirs:
        found += differences(schemas, ours["items"], theirs["items"], f"{at}[]")
    return found


def against_crd(schemas: Schemas, file: pathlib.Path) -> list[str]:
    crd = yaml.safe_load(file.read_text())["spec"]
    found = []
    for version in crd["versions"]:
        kind = f"{crd['group']}/{version['name']}/{crd['names']['kind']}"
        if kind in schemas.kinds:
            schema = version["schema"]["openAPIV3Schema"]
            found += differences(schemas, schemas.kinds[kind], schema, kind)
            print(f"{'FAIL' if found else 'ok  '} {kind} against {file.name}")
    return found


def documents(text: str) -> list[dict]:
    return [thing for thing in yaml.safe_load_all(text) if thing is not None]


def rendered(values: dict) -> list[dict]:
    chart = helm_python.Chart.load(CHART)
    chart.validate_schema(chart.merge_values(values))
    parts = chart.render(values, name="sesemi", namespace=NAMESPACE)
    return [thing for text in parts.values() for thing in documents(text)]


def starts(program: pathlib.Path, toml: str) -> str | None:
    """Whether FnPacker takes this configuration: it says so when it listens."""
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "fnpacker.toml"
        config.write_text(toml.replace('"0.0.0.0:8080"', '"127.0.0.1:0"'))
        process = subprocess.Popen(
            [program, "role", "fnpacker", "--config", config, "--hardware", folder],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        process.terminate()
        said = process.communicate()[1]
        return None if line.startswith("ready ") else said


def misspelt(things: list[dict]) -> list[dict]:
    """The same, with one field wrong in each."""
    wrong = copy.deepcopy(things)
    for thing in wrong:
        thing["metadta"] = {}
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sesemi-dev", type=pathlib.Path, help="starts FnPacker with what the chart writes")
    parser.add_argument("--crd", type=pathlib.Path, action="append", default=[])
    arguments = parser.parse_args()
    schemas, problems, count = Schemas(), [], 0

    def hold(what: str, things: list[dict]) -> None:
        nonlocal count
        found = [problem for thing in things if (problem := schemas.problem(thing))]
        problems.extend(f"{what}: {problem}" for problem in found)
        if any(schemas.problem(thing) is None for thing in misspelt(things)):
            problems.append(f"{what}: a misspelt field is not found")
        count += len(things)
        print(f"{'FAIL' if found else 'ok  '} {what}: {len(things)} objects")

    for file in sorted((DEPLOY / "knative").glob("*.yaml")):
        hold(file.name, documents(file.read_text()))
    hold(APPLIED.name, [json.loads(APPLIED.read_text())])
    for file in arguments.crd:
        problems += against_crd(schemas, file)

    for name, values in VALUES.items():
        report = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE)
        problems += [f"lint ({name}): {found['path']}: {found['error']}"
                     for found in report["messages"] if found["severity"] >= WARNING]
        problems += [f"lint ({name}): {error}" for error in report["errors"]]
        things = rendered(values)
        hold(f"chart, {name}", things)
        toml = next(thing["data"]["fnpacker.toml"] for thing in things
                    if "fnpacker.toml" in thing.get("data", {}))
        tomllib.loads(next(thing["data"]["keyservice.toml"] for thing in things
                           if "keyservice.toml" in thing.get("data", {})))
        if arguments.sesemi_dev and (said := starts(arguments.sesemi_dev, toml)):
            problems.append(f"chart, {name}: FnPacker does not take its configuration: {said}")
    for name, values in REFUSED.items():
        try:
            rendered(values)
            problems.append(f"the chart takes {name}")
        except helm_python.HelmError:
            print(f"ok   the chart refuses {name}")

    for problem in problems:
        print(f"check: {problem}", file=sys.stderr)
    print(f"{count} objects checked, {len(problems)} problems, Helm SDK {helm_python.helm_sdk_version()}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
