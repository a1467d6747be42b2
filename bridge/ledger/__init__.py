"""What must survive a crash: one SQLite file, and the checkpoint in it.

store.py       the file: a state change and its record are one transaction
store.sql      its tables and statements
records.py     what is written: plain values
checkpoint.py  why the checkpoint is where it is: open, settle, advance
copies.py      backed up while a bridge runs, looked at, restored
verifications.py  how far a verification of both servers is, and what it found
parked_selection.py  which of the parked instances a person means
outbox.py      events: what is to be told, and what waits to be sent
lock.py        one bridge at a time, and why a file cannot be used
"""
