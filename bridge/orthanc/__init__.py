"""The seam to Orthanc: its REST API as typed calls, and its every failure as one of our errors.

The only importer of httpx and tenacity.

    client.py     the calls
    custody.py    the calls before a deletion
    inspection.py the calls that only look
    answers.py    what answers must look like
    wire.py       requests: deadlines, bounds, retries of seconds
    transport.py  kept connections, TLS, the deadline of a call
    connection.py one connection: http.client, deadlines byte by byte
    faults.py     from httpx and HTTP to our errors, by tables.py
"""

from bridge.orthanc.answers import INSTANCE_ID, Statistics
from bridge.orthanc.client import OrthancClient
from bridge.orthanc.custody import CustodyClient
from bridge.orthanc.downloads import InstanceBody
from bridge.orthanc.inspection import InspectionClient
from bridge.orthanc.transport import tls_context
from bridge.orthanc.wire import RetryPolicy

__all__ = [
    "INSTANCE_ID",
    "CustodyClient",
    "InspectionClient",
    "InstanceBody",
    "OrthancClient",
    "RetryPolicy",
    "Statistics",
    "tls_context",
]
