"""orthanc-bridge: moves every instance from one Orthanc to another, uncompressed, with proof.

In the order in which an instance travels; docs/architecture.md has the picture, docs/where.md says
where to look for what. Four things write down what happens: the ledger what must survive a crash,
the journal (pipeline/journal.py) what of it is not written yet, the audit file one line for each
instance, and the log what people read.

feed/             reads the source's /changes: pages, gaps, late rows, is it still the same feed
pipeline/         the loop: what starts, what follows when it ends, what is written down
worker/           one instance: fetched, transcoded, delivered, proved; in a process, on a cluster
ledger/           what must survive a crash, and the checkpoint, in one SQLite file
dicom/            a DICOM file as bytes: read, checked, transcoded, compared
orthanc/          the REST API of an Orthanc, and whose trouble each of its errors is
retention/        deletes at the source what was delivered, proved and is old enough
notify/           messages about studies, parked instances and health, and how they are sent
monitoring/       /health, /metrics, the status page and the log
checks/           check, plan, report and replay --dry-run: look at both servers and answer
doctor/           what is wrong with an installation, and what to do
demo/             two real Orthancs, and images whose pixels are known
commands/         the commands, one file for each
mirror/           the target as the source's image: verified, repaired
cluster/          the old name of worker/dask/remote.py, for workers that preload it

service.py        each job (follow, snapshot, replay, retry) as phases that each run one pipeline
wiring.py         the real parts, and how they are put together to one pipeline
decision.py       what becomes of an instance: for the worker, plan, check and a dry run alike
two_servers.py    makes sure that the two addresses are two servers
marks.py          a mark at a server that shows whether two are one, recorded until it is removed
audit.py          one line on record for each instance
config.py         the settings
credentials.py    the secrets, read where they are used
rules.py          the rules file
rules_watch.py    the rules file while a bridge runs: read again when it changes
cli.py            which commands there are, and how an error becomes an exit code
__main__.py       where the program begins
log.py            how a log line is written
standard_streams.py  stderr that never raises and never waits; no result is lost silently
model.py          the values that travel between the rooms
events.py         what happened, as values
errors.py         what went wrong, by whose fault
own_files.py      files that only this user may have made
untrusted_text.py  text that comes from outside: bounded and harmless
versions.py       which version of everything this is
"""

__version__ = "1.0.0"
