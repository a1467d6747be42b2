"""Events: what the bridge tells people and programs without being asked.

telling.py         finds out what there is to tell, and puts it into the outbox of the ledger
telling_policy.py  when what is told; storms become one event
arrivals.py        finds the studies to which instances have come that wait to be moved
event_kinds.py     which events there are, and what each carries
sending.py         sends what is in the outbox, until its receiver has it
ways.py            a signed webhook, and what the library apprise reaches
events_thread.py   does both beside the bridge
"""
