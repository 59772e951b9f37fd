"""Seals and opens as seal/envelope.rs says, with Python's cryptography: an implementation that is not ours.

Reads lines `KEY ID AAD_TAIL ENVELOPE` (hex; AAD_TAIL: direction, tag, index) and answers `PLAIN ENVELOPE`: what was
in it, and the same text sealed anew under the same key, counter 2^40, flags as they were.
"""
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

for line in sys.stdin:
    key, number, tail, envelope = line.split()
    key, tail, envelope = bytes.fromhex(key), bytes.fromhex(tail), bytes.fromhex(envelope)
    head = envelope[:32]
    assert head[0] == 1 and head[2:6] == int(number).to_bytes(4, "big")
    info = b"towpath seal 1" + head[30:32] + head[2:6]
    cipher = AESGCM(HKDF(hashes.SHA256(), len(key), salt=head[14:30], info=info).derive(key))
    plain = cipher.decrypt(bytes(4) + head[6:14], envelope[32:], head + tail)
    head = head[:6] + (1 << 40).to_bytes(8, "big") + head[14:]
    print(plain.hex() or "-", (head + cipher.encrypt(bytes(4) + head[6:14], plain, head + tail)).hex())
