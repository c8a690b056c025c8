"""Pure values and their canonical encodings: ids, entries, tree pages, snapshots, journal records. No I/O."""
