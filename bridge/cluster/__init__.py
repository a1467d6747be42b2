"""Nothing but an old name: what was here is in bridge/worker/dask/.

Operators have ``bridge.cluster.remote`` in their ``--preload`` options, and bridges of every
version ask a worker by that name. remote.py says where it leads; nothing else belongs here.
"""
