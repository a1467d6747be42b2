"""Small DICOM files for tests: synthetic patients, new UIDs, real pixel sizes if asked for."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

IMPLEMENTATION_UID = UID("1.2.826.0.1.3680043.8.498.1")


@dataclass(frozen=True, slots=True)
class Identity:
    """The four identifiers that make an Orthanc ID."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str

    @property
    def orthanc_id(self) -> str:
        return orthanc_id(self.patient_id, self.study_uid, self.series_uid, self.sop_uid)


def orthanc_id(*identifiers: str) -> str:
    """SHA-1 of the identifiers joined by "|", in five groups: one for a patient, four for an
    instance, two and three for a study and a series.
    """
    digest = hashlib.sha1("|".join(identifiers).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


def identity_of(data: bytes) -> Identity:
    """Read the four identifiers of a DICOM file; blanks at the end do not count."""
    dataset = dcmread(io.BytesIO(data), stop_before_pixels=True)
    return Identity(
        patient_id=str(dataset.get("PatientID", "")).rstrip(),
        study_uid=str(dataset.get("StudyInstanceUID", "")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        sop_uid=str(dataset.get("SOPInstanceUID", "")),
    )


def small_ct_dataset(
    *,
    rows: int = 16,
    columns: int = 16,
    seed: int = 0,
    patient_id: str = "BRIDGE-TEST",
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> Dataset:
    """Build a 16-bit CT slice of smooth pseudo-random values, 12 bits used; UIDs new unless given.

    Shape of the pixels: (rows, columns), unsigned.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = sop_uid or generate_uid()
    dataset.StudyDate = "20200101"
    dataset.StudyTime = "120000"
    dataset.Modality = "CT"
    dataset.PatientName = "Bridge^Test"
    dataset.PatientID = patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = study_uid or generate_uid()
    dataset.SeriesInstanceUID = series_uid or generate_uid()
    dataset.StudyID = "1"
    dataset.SeriesNumber = "1"
    dataset.InstanceNumber = "1"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = rows
    dataset.Columns = columns
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = _pixels(rows, columns, seed).tobytes()
    return dataset


def small_ct(
    *,
    rows: int = 16,
    columns: int = 16,
    seed: int = 0,
    patient_id: str = "BRIDGE-TEST",
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> bytes:
    """Return a small CT slice (see above) as a DICOM file, Explicit VR Little Endian."""
    dataset = small_ct_dataset(
        rows=rows,
        columns=columns,
        seed=seed,
        patient_id=patient_id,
        study_uid=study_uid,
        series_uid=series_uid,
        sop_uid=sop_uid,
    )
    return file_bytes(dataset)


def small_series(count: int, *, rows: int = 16, columns: int = 16) -> list[bytes]:
    """Return ``count`` slices of one series, each with its own pixels."""
    study_uid, series_uid = generate_uid(), generate_uid()
    return [
        small_ct(
            rows=rows, columns=columns, seed=number, study_uid=study_uid, series_uid=series_uid
        )
        for number in range(count)
    ]


def file_bytes(dataset: Dataset) -> bytes:
    """Write a dataset as a DICOM file in the syntax that its file meta names."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _pixels(rows: int, columns: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """A gradient with noise: compresses about as real slices do."""
    noise = np.random.default_rng(seed).integers(0, 64, (rows, columns))
    gradient = np.add.outer(np.arange(rows) * 7, np.arange(columns) * 3) % 3968
    return (gradient + noise).astype("<u2")
