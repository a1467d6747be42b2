"""Commands that look at both servers, or at the record, and answer.

compare.py           check: what the two servers hold
pixels.py            check --deep: are the images the same
differences.py       what check found
plan.py              plan: what is to be done
throughput.py        how long that takes, as measured while moving
dry_run.py           replay --dry-run: what it would do
target_holds.py      what is lost: is the target itself that lacks it
proved_held.py       replay --skip-present: what may be left out
expected.py          what the bridge would do with an instance, from its metadata
report.py            report: did each arrive, and is it the same image
audit_reader.py      the audit file, read back
bugreport.py         parked show and export
ask_both_servers.py  both servers, asked by several threads
described_in_order.py  what a server tells in pages of all that it holds
disk_lists.py        results and lists of any length, in files
"""
