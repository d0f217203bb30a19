"""The verbs of a run, one file each."""
