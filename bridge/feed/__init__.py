"""The source's feed, ``/changes``: read in pages; is it still the same feed.

pages.py      one page of it, and what it says beside its rows
sources.py    what every source of moves offers; a range of the feed, a given set
follow.py     follows it: the newest rows, and those that became visible late
listing.py    a listing of the whole server, where the feed cannot tell everything
held.py       which of many instances a server holds
gaps.py       the theory of the feed, and the sequences that nobody has seen
identity.py   was the source re-created: theory, memory of rows, judgement
polling.py    when it is looked at next
sequences.py  a set of sequences, one bit for each
"""
