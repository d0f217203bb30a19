"""The service of a headnode, seen from outside: its directory, its status, its address.

What keeps it running is `flows.supervisor`; nothing here imports Prefect.
"""
