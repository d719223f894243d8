#!/usr/bin/env python3
"""Outside check of SeSeMI's byte formats against libraries that are not ours, both ways.

    python3 -m venv V && V/bin/pip install -r testvectors/requirements.txt
    cargo build -p sesemi-crypto --example interop
    V/bin/python testvectors/check.py --interop target/debug/examples/interop

Who checks what:

cwt (COSE)      the whole envelope: parses COSE_Encrypt, derives the key with direct+HKDF-SHA-256 from
                salt and COSE_KDF_Context, opens A256GCM with external_aad. Opens every vector and
                what Rust seals; refuses every vector whose content must not open; seals what Rust
                opens. It is given the values of the context, and encodes it itself.
pycose (COSE)   a second opinion: its own COSE_KDF_Context, message and Enc_structure. It lacks the
                derivation of direct+HKDF, so HKDF comes from `cryptography`; opening only.
tink            the whole artifact: Google's AES256-GCM-HKDF streaming AEAD (C++ below Python).
                Opens and refuses the vectors, opens what Rust seals, seals what Rust opens.
cryptography    HKDF, AES-GCM and Ed25519 (OpenSSL) beneath a second writing of the formats, in this
                file, from docs/protocol.md: remakes every vector's bytes, the padding, the response
                key, records at rest, and principal ids.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tempfile

import cbor2
import tink
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cwt import COSE, COSEKey, Recipient
from pycose import algorithms, headers
from pycose.keys import SymmetricKey
from pycose.messages import CoseMessage
from pycose.messages.context import CoseKDFContext, PartyInfo, SuppPubInfo
from tink import cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

HERE = pathlib.Path(__file__).resolve().parent
SEGMENT = 1 << 20
REQUEST, RESPONSE = "sesemi/request/1", "sesemi/response/1"


class Refused(Exception):
    """Something did not open, as it should not."""


def hkdf(key, salt, info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def content(value):
    """Bytes of a vector: hexadecimal, or a rule."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    seed, length = value["seed"].encode(), value["len"]
    blocks = (hashlib.sha256(seed + n.to_bytes(8, "big")).digest() for n in range(-(-length // 32)))
    return b"".join(blocks)[:length]


def cases(fmt):
    """The cases of every file of a format, by directory listing."""
    found = []
    for path in sorted(HERE.glob("*.json")):
        document = json.loads(path.read_text())
        if isinstance(document, dict) and document.get("format") == fmt:
            found += document["cases"]
    assert found and sum("refused" in c for c in found) * 2 >= len(found), fmt
    return found


class Interop:
    """The Rust side: one JSON command in, one answer out."""

    def __init__(self, path):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([path], stdin=pipe, stdout=pipe, text=True)
        self.calls = 0

    def __call__(self, op, **arguments):
        self.calls += 1
        print(json.dumps({"op": op, **arguments}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["ok"]

    def close(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


# --- Envelope -------------------------------------------------------------------------------------


class Ids:
    """Where a message belongs."""

    def __init__(self, case):
        self.wire = {k: case[k] for k in ("user", "model", "enclave", "request_id")}
        self.user = bytes.fromhex(case["user"])
        self.model = case["model"]
        self.enclave = bytes.fromhex(case["enclave"])
        self.request_id = bytes.fromhex(case["request_id"])

    @staticmethod
    def random():
        return Ids({
            "user": os.urandom(32).hex(),
            "model": "m" + os.urandom(os.urandom(1)[0] % 31).hex(),
            "enclave": os.urandom(48).hex(),
            "request_id": os.urandom(16).hex(),
        })

    def external_aad(self, label):
        return cbor2.dumps([label, self.user, self.model, self.enclave, self.request_id])

    def parties(self, label):
        return (self.user, self.enclave) if label == REQUEST else (self.enclave, self.user)

    def kdf_context(self, label):
        sender, receiver = self.parties(label)
        supp_pub = [256, cbor2.dumps({1: -10}), label.encode()]
        return [3, [sender, None, None], [receiver, None, None], supp_pub]


def padme(n):
    if n < 2:
        return n
    e = n.bit_length() - 1
    mask = (1 << (e - e.bit_length())) - 1
    return (n + mask) & ~mask


def pad(payload):
    plain = len(payload).to_bytes(4, "little") + payload
    return plain.ljust(padme(len(plain)), b"\0")


def unpad(plain):
    if len(plain) < 4:
        raise Refused("padding")
    payload = plain[4 : 4 + int.from_bytes(plain[:4], "little")]
    if pad(payload) != plain:
        raise Refused("padding")
    return payload


def seal_reference(key, ids, label, payload, salt, iv):
    """The whole envelope from docs/protocol.md; returns it and the response key."""
    aad = cbor2.dumps(["Encrypt", cbor2.dumps({1: 3}), ids.external_aad(label)])
    cek = hkdf(key, salt, cbor2.dumps(ids.kdf_context(label)))
    sealed = AESGCM(cek).encrypt(iv, pad(payload), aad)
    recipient = [cbor2.dumps({1: -10}), {-20: salt}, b""]
    message = [cbor2.dumps({1: 3}), {5: iv}, sealed, [recipient]]
    return cbor2.dumps(cbor2.CBORTag(96, message)), response_key(key, ids, salt, sealed[-16:])


def response_key(key, ids, salt, tag):
    info = cbor2.dumps(["sesemi/response-key/1", ids.external_aad(REQUEST), tag])
    return hkdf(key, salt, info)


def open_cwt(key, ids, label, envelope):
    """The padded plaintext, by cwt alone. Whatever cwt raises, it did not open."""
    try:
        return COSE.new().decode(
            envelope,
            COSEKey.from_symmetric_key(key),
            context=ids.kdf_context(label),
            external_aad=ids.external_aad(label),
        )
    except Exception as error:
        raise Refused(str(error)) from error


def seal_cwt(key, ids, label, payload):
    """An envelope, by cwt alone: it draws salt and iv."""
    recipient = Recipient.new(
        protected={1: -10}, unprotected={-20: os.urandom(32)}, context=ids.kdf_context(label)
    )
    return COSE.new().encode_and_encrypt(
        pad(payload),
        COSEKey.from_symmetric_key(key),
        protected={1: 3},
        unprotected={5: os.urandom(12)},
        recipients=[recipient],
        external_aad=ids.external_aad(label),
    )


def open_pycose(key, ids, label, envelope):
    """The padded plaintext, by pycose, with HKDF from `cryptography`."""
    try:
        message = CoseMessage.decode(envelope)
        (recipient,) = message.recipients
        salt = recipient.get_attr(headers.Salt)
        sender, receiver = ids.parties(label)
        protected = {headers.Algorithm.identifier: algorithms.DirectHKDFSHA256.identifier}
        info = CoseKDFContext(
            algorithms.A256GCM,
            SuppPubInfo(32, protected, label.encode()),
            PartyInfo(identity=sender),
            PartyInfo(identity=receiver),
        ).encode()
        message.key = SymmetricKey(k=hkdf(key, salt, info))
        message.external_aad = ids.external_aad(label)
        return message.decrypt(recipient)
    except Exception as error:
        raise Refused(str(error)) from error


def open_canonical(key, ids, label, envelope):
    """What a strict reader does: open, compare the encoding, take the padding off."""
    payload = unpad(open_cwt(key, ids, label, envelope))
    message = cbor2.loads(envelope).value
    salt, iv = message[3][0][1].get(-20), message[1].get(5)
    if seal_reference(key, ids, label, payload, salt, iv)[0] != envelope:
        raise Refused("not the one encoding")
    return payload


def opens(open_it, *arguments):
    try:
        return open_it(*arguments)
    except Refused:
        return None


def check_envelope_vectors():
    counts = dict.fromkeys(("open", "cannot_open", "padding", "malformed", "cwt takes"), 0)
    for case in cases("sesemi-envelope/1"):
        name, ids, key = case["name"], Ids(case), bytes.fromhex(case["key"])
        label = REQUEST if case["direction"] == "request" else RESPONSE
        envelope = bytes.fromhex(case["envelope"])
        arguments = (key, ids, label, envelope)
        if "opens" in case:
            counts["open"] += 1
            made = case["opens"]
            payload = content(made["payload"])
            salt, iv = bytes.fromhex(made["salt"]), bytes.fromhex(made["iv"])
            again, answer_key = seal_reference(key, ids, label, payload, salt, iv)
            assert again == envelope, name
            assert unpad(open_cwt(*arguments)) == payload, name
            assert unpad(open_pycose(*arguments)) == payload, name
            assert open_canonical(*arguments) == payload, name
            if label == REQUEST:
                assert answer_key.hex() == made["response_key"], name
            continue
        reason = case["refused"]
        counts[reason] += 1
        if reason == "cannot_open":
            assert opens(open_cwt, *arguments) is None, f"cwt opens: {name}"
            assert opens(open_pycose, *arguments) is None, f"pycose opens: {name}"
        elif reason == "padding":
            # Authentic: the libraries open it, and only the padding is wrong.
            assert open_cwt(*arguments) == open_pycose(*arguments), name
        else:
            # Not the one encoding; cwt takes some, with the right content, and we do not.
            counts["cwt takes"] += opens(open_cwt, *arguments) is not None
        assert opens(open_canonical, *arguments) is None, f"opens: {name}"
    print(f"envelope vectors: {counts['open']} open by cwt and pycose, {counts['cannot_open']} refused by "
          f"both; a strict reader over cwt refuses also {counts['padding']} for their padding and "
          f"{counts['malformed']} for their encoding, of which cwt alone takes {counts['cwt takes']}")


def message(key, ids, body):
    return {"message": {"key": key.hex(), **ids.wire, "content": body.hex()}}


def check_envelope_live(interop):
    sizes = [0, 1, 3, 20, 219, 220, 1000, 65_500, 66_000, 1_500_000]
    for size in sizes:
        key, ids, question, answer = os.urandom(32), Ids.random(), os.urandom(size), os.urandom(77)

        # Rust asks, Python answers.
        sealed = interop("seal_request", **message(key, ids, question))
        envelope, users_key = bytes.fromhex(sealed["content"]), bytes.fromhex(sealed["response_key"])
        assert open_canonical(key, ids, REQUEST, envelope) == question
        assert unpad(open_pycose(key, ids, REQUEST, envelope)) == question
        parts = cbor2.loads(envelope).value
        runtimes_key = response_key(key, ids, parts[3][0][1][-20], parts[2][-16:])
        assert runtimes_key == users_key
        reply = seal_cwt(runtimes_key, ids, RESPONSE, answer)
        opened = interop("open_response", **message(users_key, ids, reply))
        assert bytes.fromhex(opened["content"]) == answer

        # Python asks, Rust answers.
        envelope = seal_cwt(key, ids, REQUEST, question)
        opened = interop("open_request", **message(key, ids, envelope))
        assert bytes.fromhex(opened["content"]) == question
        runtimes_key = bytes.fromhex(opened["response_key"])
        reply = bytes.fromhex(interop("seal_response", **message(runtimes_key, ids, answer))["content"])
        parts = cbor2.loads(envelope).value
        users_key = response_key(key, ids, parts[3][0][1][-20], parts[2][-16:])
        assert open_canonical(users_key, ids, RESPONSE, reply) == answer
        assert unpad(open_pycose(users_key, ids, RESPONSE, reply)) == answer

        # What cwt seals for somewhere else, or is changed on the way, Rust refuses.
        broken = bytearray(envelope)
        broken[len(broken) // 2] ^= 1
        for arguments in [
            message(os.urandom(32), ids, envelope),
            message(key, Ids.random(), envelope),
            message(key, ids, bytes(broken)),
            message(key, ids, seal_cwt(key, ids, RESPONSE, question)),
        ]:
            assert opens(lambda a: interop("open_request", **a), arguments) is None
    print(f"envelope live: {len(sizes)} conversations each way between Rust and cwt, pycose")


# --- Model artifact -------------------------------------------------------------------------------


def associated_data(names):
    return f"sesemi/model/1\0{names['model']}\0{names['version']}".encode()


def seal_segments(names, salt, prefix, segments):
    """Tink's format from its description: segments are (plaintext, is it the last)."""
    cipher = AESGCM(hkdf(bytes.fromhex(names["key"]), salt, associated_data(names)))
    out = [bytes([40]) + salt + prefix]
    for index, (plain, last) in enumerate(segments):
        nonce = prefix + index.to_bytes(4, "big") + bytes([last])
        out.append(cipher.encrypt(nonce, plain, None))
    return b"".join(out)


def split_plain(plain):
    first = SEGMENT - 40 - 16
    parts, rest = [plain[:first]], plain[first:]
    while rest:
        parts.append(rest[: SEGMENT - 16])
        rest = rest[SEGMENT - 16 :]
    return [(part, index == len(parts) - 1) for index, part in enumerate(parts)]


def build(case):
    """The bytes of an artifact vector."""
    salt, prefix = bytes.fromhex(case["salt"]), bytes.fromhex(case["nonce_prefix"])
    plain = content(case["plaintext"])
    if "segments" in case:
        segments, at = [], 0
        for cut in case["segments"]:
            segments.append((plain[at : at + cut["take"]], cut["last"]))
            at += cut["take"]
    else:
        segments = split_plain(plain)
    data = bytearray(seal_segments(case["seal"], salt, prefix, segments))
    for edit in case.get("edits", []):
        ((kind, how),) = edit.items()
        if kind == "flip":
            data[how["at"]] ^= how["mask"]
        elif kind == "truncate":
            del data[how["len"] :]
        elif kind == "append":
            data += bytes.fromhex(how["bytes"])
        elif kind == "order":
            data = bytearray().join(data[i * SEGMENT : (i + 1) * SEGMENT] for i in how["segments"])
        elif kind == "splice":
            other = seal_segments(case["seal"], bytes.fromhex(how["salt"]),
                                  bytes.fromhex(how["nonce_prefix"]), split_plain(content(how["plaintext"])))
            at = how["segment"] * SEGMENT
            data[at : at + SEGMENT] = other[at : at + SEGMENT]
        else:
            raise AssertionError(f"unknown edit {kind}")
    return bytes(data)


def tink_primitive(key):
    """Tink's streaming AEAD for a key, with the parameters of AES256_GCM_HKDF_1MB."""
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    fmt = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKeyFormat.FromString(template.value)
    assert fmt.params.ciphertext_segment_size == SEGMENT and fmt.params.derived_key_size == 32
    assert fmt.params.hkdf_hash_type == common_pb2.HashType.SHA256
    proto = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(params=fmt.params, key_value=key)
    keyset = tink_pb2.Keyset(primary_key_id=1)
    entry = keyset.key.add(key_id=1, status=tink_pb2.ENABLED, output_prefix_type=tink_pb2.RAW)
    entry.key_data.type_url = template.type_url
    entry.key_data.value = proto.SerializeToString()
    entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    reader = tink.BinaryKeysetReader(keyset.SerializeToString())
    return cleartext_keyset_handle.read(reader).primitive(streaming_aead.StreamingAead)


def open_tink(names, data):
    primitive = tink_primitive(bytes.fromhex(names["key"]))
    try:
        with primitive.new_decrypting_stream(io.BytesIO(data), associated_data(names)) as stream:
            return stream.read()
    except (tink.TinkError, OSError, ValueError) as error:
        raise Refused(str(error)) from error


def seal_tink(names, plain):
    sink = io.BytesIO()
    sink.close = lambda: None  # The stream closes what it writes to; the bytes are wanted after.
    primitive = tink_primitive(bytes.fromhex(names["key"]))
    with primitive.new_encrypting_stream(sink, associated_data(names)) as stream:
        stream.write(plain)
    return sink.getvalue()


# Only the holder of the key can make these. Tink reads them up to the first segment that says that it
# is the last and ignores what follows; we refuse them.
TINK_STOPS_EARLY = {
    "crafted: the first says that it is the last",
    "crafted: two say that they are the last",
    "crafted: an empty segment at the end",
}


def check_artifact_vectors():
    counts = dict.fromkeys(("opened", "refused", "stops early", "not for tink"), 0)
    for case in cases("sesemi-artifact/1"):
        name, data = case["name"], build(case)
        assert (len(data), sha256(data)) == (case["len"], case["sha256"]), name
        assert case.get("artifact", data.hex()) == data.hex(), name
        plain = content(case["plaintext"])
        opened = opens(open_tink, case.get("open", case["seal"]), data)
        reason = case.get("refused")
        if reason is None:
            assert opened == plain, name
            counts["opened"] += 1
        elif reason == "digest":
            assert case["registered"] != case["sha256"], name
            counts["not for tink"] += 1
        elif reason in ("truncated", "too_long"):
            assert case["announced"] != len(data), name
            counts["not for tink"] += 1
        elif name in TINK_STOPS_EARLY:
            assert opened is not None and plain.startswith(opened), name
            counts["stops early"] += 1
        else:
            assert reason in ("cannot_open", "length"), name
            assert opened is None, f"tink opens: {name}"
            counts["refused"] += 1
    assert counts["stops early"] == len(TINK_STOPS_EARLY)
    print(f"artifact vectors: {counts['opened']} open by tink, {counts['refused']} refused by it; we also "
          f"refuse {counts['stops early']} where tink stops early without an error, and "
          f"{counts['not for tink']} for the registered digest or announced length")


def check_artifact_live(interop, folder):
    first, following = SEGMENT - 56, SEGMENT - 16
    sizes = [0, 1, first - 1, first, first + 1, first + following, first + following + 1,
             first + 7 * following + 12_345]
    sealed, plain_file, opened = (str(folder / name) for name in ("sealed", "plain", "opened"))
    for size in sizes:
        names = {"key": os.urandom(32).hex(), "model": "m-" + os.urandom(4).hex(),
                 "version": int.from_bytes(os.urandom(4), "big")}
        plain = os.urandom(size)
        pathlib.Path(plain_file).write_bytes(plain)
        for threads in (1, 2, 3):
            where = {"from": plain_file, "to": sealed, "threads": threads}
            done = interop("seal_artifact", artifact={**names, **where})
            data = pathlib.Path(sealed).read_bytes()
            assert (done["len"], done["digest"]) == (len(data), sha256(data))
            assert open_tink(names, data) == plain

            data = seal_tink(names, plain)
            pathlib.Path(sealed).write_bytes(data)
            where = {"from": sealed, "to": opened, "threads": threads}
            done = interop("open_artifact", artifact={**names, **where})
            assert done["len"] == size and pathlib.Path(opened).read_bytes() == plain

            other = {**names, "version": names["version"] ^ 1, **where}
            assert opens(lambda a: interop("open_artifact", artifact=a), other) is None
            broken = bytearray(data)
            broken[-1 - size // 2] ^= 0x10
            pathlib.Path(sealed).write_bytes(broken)
            changed = {**names, **where}
            assert opens(lambda a: interop("open_artifact", artifact=a), changed) is None
    print(f"artifact live: {len(sizes)} sizes on 1, 2 and 3 threads each way between Rust and tink")


# --- Records at rest, identity --------------------------------------------------------------------


def record_cipher(key, salt):
    return AESGCM(hkdf(key, salt, cbor2.dumps(["sesemi/record/1"])))


def check_records(interop):
    for size in (0, 1, 1000, 100_000):
        key, salt, plain = os.urandom(32), os.urandom(32), os.urandom(size)
        ident, epoch = os.urandom(size % 40), int.from_bytes(os.urandom(8), "big")
        aad = cbor2.dumps(["sesemi/record/1", ident, epoch])
        names = {"key": key.hex(), "id": ident.hex(), "epoch": epoch}
        ours = b"\x01" + salt + record_cipher(key, salt).encrypt(bytes(12), plain, aad)
        assert bytes.fromhex(interop("open_record", record={**names, "content": ours.hex()})) == plain
        theirs = bytes.fromhex(interop("seal_record", record={**names, "content": plain.hex()}))
        assert theirs[:1] == b"\x01"
        assert record_cipher(key, theirs[1:33]).decrypt(bytes(12), theirs[33:], aad) == plain
        older = {**names, "epoch": epoch ^ 1, "content": ours.hex()}
        assert opens(lambda a: interop("open_record", record=a), older) is None
    print("records: both ways between Rust and cryptography")


def check_identity(interop):
    def principal(key):
        spki = key.public_key().public_bytes(serialization.Encoding.DER,
                                             serialization.PublicFormat.SubjectPublicKeyInfo)
        return sha256(spki)

    ours = interop("new_identity")
    assert principal(serialization.load_pem_private_key(ours["pem"].encode(), None)) == ours["principal"]
    theirs = Ed25519PrivateKey.generate()
    pem = theirs.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                               serialization.NoEncryption()).decode()
    assert interop("principal", pem=pem) == principal(theirs)
    print("identity: both ways between Rust and cryptography")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = HERE.parent / "target/debug/examples/interop"
    parser.add_argument("--interop", default=str(default), help="the built example of sesemi-crypto")
    arguments = parser.parse_args()
    streaming_aead.register()

    check_envelope_vectors()
    check_artifact_vectors()
    interop = Interop(arguments.interop)
    check_envelope_live(interop)
    with tempfile.TemporaryDirectory() as folder:
        check_artifact_live(interop, pathlib.Path(folder))
    check_records(interop)
    check_identity(interop)
    interop.close()
    print(f"all outside checks passed ({interop.calls} calls of Rust)")


if __name__ == "__main__":
    main()
