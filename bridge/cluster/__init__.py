"""Workers on a Dask cluster. Needs the extra ``dask``; imported only when it is configured.

executor.py   in the bridge: hands tasks to workers that are known, gets outcomes back
link.py       in the bridge: one connection to a scheduler; the only client of Dask
remote.py     in a Dask worker: says who it is, and does tasks in processes of its own
build.py      on both sides: what this installation would make of an image
"""
