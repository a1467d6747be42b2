"""The seam to Orthanc: its REST API as typed calls, and its every failure as one of our errors.

The only importer of httpx and tenacity.

session.py      a client with the credentials of this moment
client.py       the calls
carry_client.py the calls for labels, metadata and attachments
bodies.py       files that are downloaded and uploaded
answers.py      what answers must look like
wire.py         requests: deadlines, bounds, retries of seconds
transport.py    connections, TLS, deadlines to the byte
post.py         one POST to a receiver that is no Orthanc: an event, spans
trace_context.py  which trace a request belongs to
faults.py       from httpx and HTTP to our errors, by fault_table.py
fault_table.py  each fault, whose it is and what to do about it
"""

from bridge.orthanc.answers import INSTANCE_ID, Statistics, StoredFile
from bridge.orthanc.bodies import InstanceBody
from bridge.orthanc.client import OrthancClient
from bridge.orthanc.fault_table import Need, lacks_right
from bridge.orthanc.transport import tls_context
from bridge.orthanc.wire import RetryPolicy

__all__ = [
    "INSTANCE_ID",
    "InstanceBody",
    "Need",
    "OrthancClient",
    "RetryPolicy",
    "Statistics",
    "StoredFile",
    "lacks_right",
    "tls_context",
]
