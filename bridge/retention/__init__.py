"""The source as a buffer: deletes there what was delivered, proved and is old enough.

sweep.py             why a deletion loses nothing, and the deletion
batch_proof.py       what is proved for a batch: two servers, and a target that keeps what it has
objections.py        what speaks against deleting one instance
held_deletion.py     a deletion can be undone for a while, over kills and power cuts
deleted_samples.py   what was deleted is looked at again, now and then
other_bridges.py     nobody else needs the source or empties the target
deletion_limits.py   a person, the record and the limits hold deletions back
background.py        sweeps beside the bridge, or at its end
bridge_notes.py      notes at the servers: which bridges follow them, and delete there
note_tokens.py       which process has left a note: a copy of the state file has our name
age_clock.py         ages by a clock that nobody can set
limits_and_risks.py  what may be deleted when, and which risks the operator accepts
protocols.py         what is needed of the two servers
"""
