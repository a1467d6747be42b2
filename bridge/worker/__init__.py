"""One instance, in a process that can be killed: fetched, transcoded, delivered, proved.

transfer.py    the whole task; returns an outcome and never raises
payload.py     the instance between the servers, in memory or in a file
proof.py       what the target says of it, held against what was sent
prepare.py     the same task with a file for its target: before an old copy is replaced
stages.py      in which stage each is, for people to see
pool.py        tasks for the processes of one machine, each ended and bounded alone
pool_watch.py  what becomes of a worker, by the task that it has in hand
processes.py        the processes themselves: who is idle, at work, gone
places.py      room in them for what is large or decoded
channel.py     messages between the bridge and one of them
template.py    the process that they are forked from, and their own loop
transfers.py   what is seen of tasks, and how many are under way by that
transfers_policy.py  how many are to be: found by trying
dask/          the same on the workers of a Dask cluster
"""
