"""Where an agent works: running git safely, and what a run changed.

`git` runs it hardened, `snapshot` compares two states of a folder and makes scratch ones.
"""
