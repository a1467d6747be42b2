"""Workers on a Dask cluster. Needs the extra ``dask``; imported only when it is configured.

executor.py   in the bridge: hands tasks to known workers, gets outcomes back
scheduler.py  in the bridge: one connection to a scheduler; the only client of Dask
roster.py     who may work, who has how much, who has fallen silent
remote.py     in a Dask worker: says who it is, does tasks in processes of its own
build.py      on both sides: what this installation would make of an image
values.py     tasks and outcomes as plain JSON, checked field by field
"""
