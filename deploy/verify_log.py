#!/usr/bin/env python3
"""Checks an mcpx log without mcpx: `verify_log.py LOG_FOLDER VERIFIER_KEY`.

Reads the published half of a log (C2SP tlog-tiles: checkpoint and tile/entries), checks the
checkpoint's Ed25519 signature with openssl 3, hashes every entry, and compares the root of the
Merkle tree (RFC 6962) with the signed one. Needs Python 3.8 and openssl, and nothing of mcpx; its
use is that it is short enough to be read. `mcpx audit verify` checks more.
"""

import base64
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path


def signed_checkpoint(log, vkey):
    """The checkpoint's size and root, once its signature has been checked."""
    note = (log / "checkpoint").read_text()
    text, signatures = note.split("\n\n", 1)
    text += "\n"
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key)
    if key[0] != 1:
        sys.exit("the verifier key is not an Ed25519 key")
    lines = [line.split(" ") for line in signatures.splitlines()]
    found = [base64.b64decode(line[2]) for line in lines if line[1] == name]
    found = [one[4:] for one in found if one[:4].hex() == key_id]
    if not found:
        sys.exit("the checkpoint is not signed with this key")
    with tempfile.TemporaryDirectory() as folder:
        message, signature, public = (Path(folder) / part for part in ("m", "s", "k"))
        message.write_text(text)
        signature.write_bytes(found[0])
        # The SubjectPublicKeyInfo of Ed25519 is this prefix and the key (RFC 8410).
        public.write_bytes(bytes.fromhex("302a300506032b6570032100") + key[1:])
        subprocess.run(
            ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", public,
             "-rawin", "-in", message, "-sigfile", signature],
            check=True, stdout=subprocess.DEVNULL)
    origin, size, root = text.split("\n")[:3]
    if origin != name:
        sys.exit("the checkpoint is of another log")
    return int(size), base64.b64decode(root)


def tile_path(number):
    """A tile's number as C2SP writes it: 1234067 is x001/x234/067."""
    parts = [f"{number % 1000:03}"]
    while number >= 1000:
        number //= 1000
        parts.insert(0, f"x{number % 1000:03}")
    return "/".join(parts)


def entries(log, size):
    for number in range((size + 255) // 256):
        width = min(256, size - number * 256)
        path = log / "tile/entries" / tile_path(number)
        if width < 256 and not path.is_file():
            path = path.with_name(f"{path.name}.p") / str(width)
        data = path.read_bytes()
        for _ in range(width):
            length = int.from_bytes(data[:2], "big")
            yield data[2:2 + length]
            data = data[2 + length:]


def root_of(hashes):
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    left, right = root_of(hashes[:split]), root_of(hashes[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    log = Path(sys.argv[1])
    size, signed = signed_checkpoint(log, sys.argv[2].strip())
    found = root_of([hashlib.sha256(b"\x00" + entry).digest() for entry in entries(log, size)])
    if found != signed:
        sys.exit("BROKEN: the entries are not those that were signed")
    print(f"ok: {size} entries, root {found.hex()}")


if __name__ == "__main__":
    main()
