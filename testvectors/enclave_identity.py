#!/usr/bin/env python3
"""Makes enclave-identity.json from docs/protocol.md alone: a second implementation of E_S, E_K and
the report data. With --check it writes nothing and fails if the file differs. Python 3.9, no packages.
"""
import hashlib
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("enclave-identity.json")


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << 8 * size:
            return bytes([major << 5 | code]) + n.to_bytes(size, "big")
    raise ValueError(n)


def cbor(value):
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())
    return head(4, len(value)) + b"".join(map(cbor, value))


def fill(n, length):
    return hashlib.shake_128(n.to_bytes(2, "big")).digest(length)


def sha(bits, data):
    return hashlib.new(f"sha{bits}", data).digest()


SNP = [("measurement", 48), ("host_data", 32), ("id_key_digest", 48), ("policy", 0x30000), ("vmpl", 0),
       ("family_id", 16), ("image_id", 16)]
TDX = [(n, 48) for n in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "mr_config_id", "mr_owner", "mr_owner_config")] + [
    ("td_attributes", 0x10000000), ("xfam", 0x61AE7)]
UINTS = {"policy", "vmpl", "td_attributes", "xfam", "isv_prod_id", "attributes", "xfrm", "misc_select"}
MEASURED = {
    "sgx": [("mrenclave", 32), ("mrsigner", 32), ("isv_prod_id", 7), ("attributes", 5), ("xfrm", 0xE7), ("misc_select", 1)],
    "tdx": TDX,
    "snp": SNP,
    "nitro": [("pcr0", 48), ("pcr1", 48), ("pcr2", 48), ("pcr3", 48), ("pcr8", 48)],
    "az-snp": SNP + [("vtpm_pcr4", 32), ("vtpm_pcr11", 32), ("secure_boot", True)],
    "az-tdx": TDX + [("vtpm_pcr9", 32), ("secure_boot", False)],
    "simulated": [("mr", 48), ("debug", False)],
}
E_K = fill(900, 48)
POLICY = fill(905, 48)
CONFIGS = [
    ["sesemi/measured/semirt/2", "shared", 4, 60, 2 << 30, ["rten"], E_K, POLICY],
    ["sesemi/measured/semirt/2", "sequential", 1, 0, 0, [], E_K, POLICY],
    ["sesemi/measured/keyservice/2", 86400, POLICY],
]


def plain(value):
    return value.hex() if isinstance(value, bytes) else value


def identities():
    count = 0
    for config in CONFIGS:
        encoded = cbor(config)
        for tee, fields in MEASURED.items():
            measured = []
            for name, value in fields:
                count += 1
                if not isinstance(value, bool) and name not in UINTS:
                    value = fill(count, value)
                measured.append([name, value])
            config_hash = sha(384, encoded)
            enclave = sha(384, cbor(["sesemi/enclave/1", tee, measured, config_hash]))
            yield {"tee": tee, "measurements": [[n, plain(v)] for n, v in measured], "config": encoded.hex(),
                   "config_hash": config_hash.hex(), "enclave": enclave.hex()}


def binders():
    for role, config in (("semirt", CONFIGS[0]), ("keyservice", CONFIGS[2])):
        for epoch in (0, 1 << 40):
            exporter, nonce, own, peer = (fill(n, 32) for n in (901, 902, 903, 904))
            encoded = cbor(config)
            data = sha(512, cbor(["sesemi/ra/1", role, exporter, nonce, sha(256, own), sha(256, peer),
                                  sha(384, encoded), epoch]))
            yield {"role": role, "exporter": exporter.hex(), "peer_nonce": nonce.hex(), "own_spki": own.hex(),
                   "peer_spki": peer.hex(), "config": encoded.hex(), "epoch": epoch, "report_data": data.hex()}
    claims = cbor({"pubkey-hash": cbor([1, sha(256, fill(903, 32))])})
    yield {"role": "certificate", "own_spki": fill(903, 32).hex(), "report_data": (sha(256, claims) + bytes(32)).hex()}


def refused():
    """Encodings of a configuration that no reader may take."""
    good = cbor(CONFIGS[0])
    e_k = cbor(E_K)
    text = lambda changed: cbor(changed)
    semirt = CONFIGS[0]
    yield "a trailing byte", good + b"\0"
    yield "cut off", good[:-1]
    yield "empty", b""
    yield "an indefinite array", b"\x9f" + good[1:] + b"\xff"
    yield "a number in more bytes than it needs", good.replace(cbor(60) + cbor(2 << 30), b"\x19\x00\x3c" + cbor(2 << 30))
    yield "a key in more bytes than its length needs", good.replace(e_k, b"\x59\x00\x30" + E_K)
    yield "an unknown isolation", text([semirt[0], "none"] + semirt[2:])
    yield "an unknown engine", text(semirt[:5] + [["onnxruntime"]] + semirt[6:])
    yield "E_K too short", text(semirt[:6] + [E_K[:47], POLICY])
    yield "a policy hash too long", text(semirt[:7] + [POLICY + b"\0"])
    yield "another label", text(["sesemi/measured/semirt/1"] + semirt[1:])
    yield "a field too many", text(semirt + [0])
    yield "a field too few", text(semirt[:7])
    yield "concurrency out of range", text(semirt[:2] + [1 << 16] + semirt[3:])
    yield "a negative lease", b"\x83" + cbor("sesemi/measured/keyservice/2") + b"\x20" + cbor(POLICY)
    yield "keyservice's label on semirt's fields", text(["sesemi/measured/keyservice/2"] + semirt[1:])
    yield "seventeen engines", text(semirt[:5] + [["rten"] * 17] + semirt[6:])


def main():
    document = {
        "format": "sesemi-enclave-identity/1",
        "about": "E_S, E_K and report data, made by enclave_identity.py; configurations that must be refused.",
        "identities": list(identities()),
        "binders": list(binders()),
        "refused_configs": [{"name": name, "config": data.hex()} for name, data in refused()],
    }
    text = json.dumps(document, indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != text:
            sys.exit(f"{FILE.name} is not what docs/protocol.md says")
        print(f"{FILE.name}: {len(document['identities'])} identities, {len(document['binders'])} binders, "
              f"{len(document['refused_configs'])} refused configurations")
    else:
        FILE.write_text(text)


main()
