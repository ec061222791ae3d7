"""Leaves outputs whose names are awkward; those that can travel hold their own names."""

import os
from pathlib import Path

import numpy as np

outputs = Path("outputs")
(outputs / "dir#1").mkdir(parents=True, exist_ok=True)
np.savez(outputs / "model.npz", **{"l1/W": np.zeros((10, 784), "f")})
for name in (b"a#1.png", b"a?.png", b"a_%41.txt", b"a=1%2F3.txt", b"dir#1/b c%.txt", b"{x}.txt", b"\xc3\xa9;&+.txt"):
    (outputs / os.fsdecode(name)).write_bytes(name)
for name in (b"two\nlines.txt", b"back\\slash.txt", b"latin-\xe9.txt", b"\xe9" * 200):
    (outputs / os.fsdecode(name)).write_bytes(b"renamed")
