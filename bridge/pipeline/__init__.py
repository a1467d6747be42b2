"""The loop between the feed and the workers. No file here imports a worker.

loop.py                     moves -> window -> executor -> policy -> journal
intake.py                   asks a source of moves for pages, and takes what they bring
window.py                   what waits, what is under way, what comes next
urgency.py                  which waiting instances are urgent, asked beside the work
available_workers.py        the executor, as the loop sees it: who can work now
outcomes.py                 what follows from the end of a task
failure_policy.py           settled, tried again, parked, or a server is blamed: a table
parked_policy.py            when a parked instance is tried again by itself: a table by reason
parked_retries.py           which one is next, one after the other and so many an hour
ask_for_other_instances.py  how the source serves other instances, asked before one is blamed
came_back.py                what was delivered lately, to notice what comes back
refusals.py                 how often a server failed at what is parked, for its next change
server_gates.py             both servers: may they be used, who is asked when
gate.py                     whether one server may be used: open, closed, on trial
holds.py                    pause, quiet hours and rate limits; a command gives way to a bridge
orders.py                   what a person orders through the state file: pause, resume, drop
pacing.py                   the arithmetic of these: a token bucket, a schedule
journal.py                  what is noted, and when it is written to the ledger
missed_instances.py         what the feed never told of, found by the source's own count
runtime.py                  time, threads and signals, behind small interfaces
"""
