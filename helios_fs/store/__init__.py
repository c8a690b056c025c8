"""The store: objects in packs, refs in a log, and an index over both. Knows no inode and no request."""
