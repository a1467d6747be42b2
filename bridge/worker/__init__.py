"""One instance, in a process that can be killed: fetched, transcoded, delivered, proved.

transfer.py    the whole task; returns an outcome and never raises
payload.py     the instance between the servers, in memory or in a file
proof.py       what the target says of it, held against what was sent
prepare.py     the same task with a file for its target: before an old copy is replaced
stages.py      in which stage each is, for people to see
pool.py        the processes of one machine, each ended and bounded alone
pool_watch.py  what a pool should have done by now
dask/          the same on the workers of a Dask cluster
"""
