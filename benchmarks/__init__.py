"""The project's own measurements: one file for each idea, all targets in one run, a line of JSON for each figure."""
