"""Every point of an installation, looked at: what was found, and what to do where it is wrong.

Each module holds one subject: facts (frozen dataclasses), a `judge` that turns facts into findings
and does no I/O, and what collects the facts. `examination` puts them in order; `trial` runs a
few small jobs as a run would, and `node` is what the first of them does on the compute node.
"""
