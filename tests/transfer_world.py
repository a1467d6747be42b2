"""Two fake servers and one instance on its way between them."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from bridge.model import Endpoint, Job, Move, Outcome, SideName, Task
from bridge.worker.transfer import move
from tests.dicom_samples import file_bytes, small_ct_dataset
from tests.fake_orthanc import FakeOrthanc
from tests.jpeg_lossless import Lossless, encode

OTHER_ID = "11111111-22222222-33333333-44444444-55555555"
PATIENT = "SOME^PATIENT"


@dataclass
class World:
    source: FakeOrthanc
    target: FakeOrthanc

    @property
    def job(self) -> Job:
        return Job(
            source=Endpoint(SideName.SOURCE, self.source.url, timeout_s=2.0),
            target=Endpoint(SideName.TARGET, self.target.url, timeout_s=2.0),
            wanted_syntax=str(ExplicitVRLittleEndian),
            task_timeout_s=20.0,
        )

    def move(self, instance_id: str, **changes: Any) -> Outcome:
        outcome = move(Task(Move(instance_id, 1), replace(self.job, **changes)))
        assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301 (our own bytes)
        assert PATIENT not in repr(outcome)
        return outcome

    def stored(self, instance_id: str) -> bytes:
        return self.target.store.instances[instance_id].data


def rle() -> bytes:
    dataset = small_ct_dataset()
    dataset.PatientName = PATIENT
    dataset.compress(RLELossless, generate_instance_uid=False)
    return file_bytes(dataset)


def encapsulated(syntax: str, frame: bytes) -> bytes:
    dataset = small_ct_dataset()
    dataset.PatientName = PATIENT
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return file_bytes(dataset)


UNDECODABLE = encapsulated(JPEG2000Lossless, b"no codestream at all")
MISLABELLED = encapsulated(
    JPEGLosslessSV1, encode(np.full((16, 16), 7, "<u2"), Lossless(precision=12))
).replace(JPEGLosslessSV1.encode(), JPEGLSLossless.encode())
"""Lossless JPEG under the label of JPEG-LS: both UIDs are of one length."""
VIDEO = encapsulated(MPEG2MPML, b"no frame at all")
