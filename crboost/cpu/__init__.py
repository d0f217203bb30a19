"""The embedded tools: frames, alignment and reconstruction of tilt series on a plain CPU.

They are real algorithms in small code, made for small data, teaching and tests: rigid frame
motion, one defocus per tilt, rigid tilt-series alignment, weighted back-projection. They do no
local motion, no sample deformation and no 3-D CTF correction; for production use the tools that
do. `python -m crboost.cpu --help` is their command line; `docs/conventions.md` says what every
number means.
"""
