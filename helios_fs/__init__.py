"""HeliosFS: a working tree as a normal directory that remembers every state of it.

Start reading at ARCHITECTURE.md; `helios_fs/daemon.py` is the only file that knows all the parts.
"""

__version__ = "0.1.0"

# One number for everything on disk; docs/format.md describes it byte for byte.
FORMAT_VERSION = 0
