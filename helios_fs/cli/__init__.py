"""The command line: one module for each family of verbs, each loaded only when its verb is called."""
