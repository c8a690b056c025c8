"""Reads, writes, mappings, snapshots and remounts at random, against a model that knows every byte.

`python -m tests.exerciser --seed S --seconds N [--processes P] [--branch]`
"""
