"""The journal: append-only segments of checksummed frames; every change of a branch is in it before it is answered."""
