"""Which parts are tried, and which tests are nearest to each. The only place that knows them.

A part is a name, its files, and the tests that are run against each of its mutants; both may have
wildcards. Tests that need servers, processes or minutes are not nearest to anything.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """Files below ``bridge/``, tests below ``tests/``. ``pure``: 95 % are to be killed, else 90."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    pure: bool = False

    @property
    def goal(self) -> float:
        """Share of the mutants that tests should kill, 0 to 1."""
        return 0.95 if self.pure else 0.90


PARTS = {
    "feed": Part(
        (
            "feed/follow.py",
            "feed/pages.py",
            "feed/identity.py",
            "feed/listing.py",
            "feed/sources.py",
            "feed/sequences.py",
        ),
        (
            "unit/feed/test_feed_rules.py",
            "unit/feed/test_identity.py",
            "unit/feed/test_feed*.py",
            "unit/feed/test_listing.py",
            "unit/feed/test_emptied.py",
            "unit/feed/test_confirmed_listing.py",
            "unit/pipeline/test_intake.py",
        ),
    ),
    "gaps": Part(
        ("feed/polling.py", "feed/gaps.py"),
        (
            "unit/feed/test_polling.py",
            "unit/feed/test_resets.py",
            "unit/feed/test_gaps.py",
            "unit/feed/test_feed_gaps.py",
        ),
        pure=True,
    ),
    "pipeline": Part(
        (
            "pipeline/loop.py",
            "pipeline/intake.py",
            "pipeline/outcomes.py",
            "pipeline/available_workers.py",
            "pipeline/window.py",
            "pipeline/server_gates.py",
        ),
        (
            "unit/pipeline/test_window.py",
            "unit/pipeline/test_outcomes.py",
            "unit/pipeline/test_server_gates.py",
            "unit/pipeline/test_available_workers.py",
            "unit/pipeline/test_intake.py",
            "unit/pipeline/test_pipeline*.py",
            "unit/feed/test_confirmed_listing.py",
            "unit/pipeline/test_came_back.py",
            "unit/pipeline/test_source_away.py",
            "unit/pipeline/test_ask_for_other_instances.py",
            "unit/monitoring/test_lag.py",
            "unit/monitoring/test_poke.py",
            "unit/commands/test_progress_bar.py",
        ),
    ),
    "recount": Part(("pipeline/missed_instances.py",), ("unit/pipeline/test_missed_instances.py",)),
    "holds": Part(
        (
            "pipeline/holds.py",
            "pipeline/came_back.py",
            "pipeline/ask_for_other_instances.py",
            "pipeline/runtime.py",
        ),
        (
            "unit/pipeline/test_holds.py",
            "unit/pipeline/test_schedule.py",
            "unit/pipeline/test_command_throttle.py",
            "unit/pipeline/test_deliveries.py",
            "unit/pipeline/test_ask_for_other_instances.py",
            "unit/pipeline/test_runtime.py",
        ),
    ),
    "decision": Part(("decision.py",), ("unit/test_decision.py",), pure=True),
    "worker": Part(
        ("worker/transfer.py", "worker/payload.py", "worker/proof.py", "worker/stages.py"),
        (
            "unit/worker/test_payload.py",
            "unit/worker/test_proof.py",
            "unit/worker/test_transfer_times.py",
            "unit/worker/test_transfer*.py",
            "unit/worker/test_stages.py",
        ),
    ),
    "ledger": Part(
        ("ledger/store.py", "ledger/records.py", "ledger/lock.py"),
        ("unit/ledger/test_ledger*.py",),
    ),
    "journal": Part(("pipeline/journal.py",), ("unit/pipeline/test_journal*.py",)),
    "checkpoint": Part(("ledger/checkpoint.py",), ("unit/ledger/test_checkpoint.py",), pure=True),
    "policy": Part(
        (
            "pipeline/failure_policy.py",
            "pipeline/gate.py",
            "pipeline/pacing.py",
            "pipeline/parked_policy.py",
            "worker/pool_watch.py",
        ),
        (
            "unit/pipeline/test_failure_policy.py",
            "unit/pipeline/test_gate.py",
            "unit/pipeline/test_pacing.py",
            "unit/pipeline/test_parked_policy.py",
            "unit/pipeline/test_timetable.py",
            "unit/worker/test_pool_watch.py",
        ),
        pure=True,
    ),
    "health": Part(
        ("monitoring/health.py", "monitoring/headline.py"),
        (
            "unit/monitoring/test_health.py",
            "unit/monitoring/test_headline.py",
            "unit/monitoring/test_lag.py",
        ),
        pure=True,
    ),
    "elements": Part(
        (
            "dicom/elements.py",
            "dicom/encapsulation.py",
            "dicom/vrs.py",
            "dicom/native.py",
            "dicom/file_meta.py",
            "dicom/rewrite.py",
            "dicom/inflate.py",
        ),
        (
            "unit/dicom/test_elements.py",
            "unit/dicom/test_rewrite.py",
            "unit/dicom/test_vrs.py",
            "unit/dicom/test_changed_elements.py",
            "unit/dicom/test_encapsulation.py",
            "unit/dicom/test_file_meta.py",
            "unit/dicom/test_native.py",
            "unit/dicom/test_inflate.py",
            "unit/dicom/test_frames.py",
            "unit/dicom/test_transcode_*.py",
            "unit/dicom/test_item_headers.py",
            "unit/dicom/test_cases.py",
        ),
        pure=True,
    ),
    "streams": Part(
        (
            "dicom/frames.py",
            "dicom/codestream.py",
            "dicom/jpeg_xl_header.py",
            "dicom/description.py",
            "dicom/samples.py",
            "dicom/decoders.py",
            "dicom/encoders.py",
            "dicom/codecs.py",
        ),
        (
            "unit/dicom/test_codestream.py",
            "unit/dicom/test_description.py",
            "unit/dicom/test_samples.py",
            "unit/dicom/test_frames.py",
            "unit/dicom/test_transcode_*.py",
            "unit/dicom/test_decoder_table.py",
            "unit/dicom/test_stream_headers.py",
            "unit/dicom/test_cases.py",
        ),
        pure=True,
    ),
    "labels": Part(
        (
            "dicom/changed_elements.py",
            "dicom/colour.py",
            "dicom/syntax_label.py",
            "dicom/new_pixel_data.py",
            "dicom/transcode.py",
        ),
        (
            "unit/dicom/test_transcode_*.py",
            "unit/dicom/test_syntax_label.py",
            "unit/dicom/test_wrong_labels.py",
            "unit/dicom/test_colour_table.py",
        ),
        pure=True,
    ),
    "deidentify": Part(
        ("dicom/deidentify.py", "dicom/confidentiality.py"),
        ("unit/dicom/test_deidentify.py",),
        pure=True,
    ),
    "retention": Part(
        (
            "retention/sweep.py",
            "retention/batch_proof.py",
            "retention/objections.py",
            "retention/held_deletion.py",
            "retention/other_bridges.py",
            "retention/deletion_limits.py",
            "retention/background.py",
            "retention/age_clock.py",
        ),
        (
            "unit/retention/test_held_deletion.py",
            "unit/doctor/test_retention_doctor.py",
            "unit/retention/test_retention.py",
            "unit/retention/test_retention_clauses.py",
            "unit/retention/test_retention_races.py",
        ),
    ),
    "comparison": Part(
        ("checks/compare.py", "checks/differences.py", "checks/disk_lists.py"),
        (
            "unit/checks/test_compare.py",
            "unit/checks/test_disk_lists.py",
            "unit/commands/test_progress_bar.py",
        ),
    ),
    "images": Part(
        ("checks/pixels.py", "dicom/fingerprint.py"),
        ("unit/checks/test_pixels.py", "unit/dicom/test_fingerprint.py"),
    ),
    "orthanc": Part(
        (
            "orthanc/answers.py",
            "orthanc/bodies.py",
            "orthanc/client.py",
            "orthanc/transport.py",
            "orthanc/faults.py",
            "orthanc/fault_table.py",
            "orthanc/wire.py",
        ),
        (
            "unit/orthanc/test_fault_tables.py",
            "unit/orthanc/test_orthanc_faults.py",
            "unit/orthanc/test_orthanc_edges.py",
            "unit/orthanc/test_orthanc_*.py",
        ),
    ),
    "mirror": Part(
        (
            "mirror/judge_copy.py",
            "mirror/verify.py",
            "mirror/repair.py",
            "mirror/beside_copy.py",
            "mirror/copy_deletion.py",
        ),
        ("unit/mirror/test_*.py",),
    ),
    "marks": Part(("marks.py",), ("unit/test_marks.py",)),
    "copies": Part(("ledger/copies.py",), ("unit/ledger/test_copies.py",)),
    "parked": Part(
        ("pipeline/parked_retries.py", "pipeline/refusals.py", "pipeline/urgency.py"),
        (
            "unit/pipeline/test_parked_retries.py",
            "unit/pipeline/test_refusals.py",
            "unit/pipeline/test_urgency.py",
        ),
    ),
    "servers": Part(("two_servers.py",), ("unit/test_two_servers.py",)),
    "notes": Part(("retention/bridge_notes.py",), ("unit/retention/test_bridge_notes.py",)),
    "files": Part(
        ("own_files.py", "untrusted_text.py"),
        ("unit/test_own_files.py", "unit/test_untrusted_text.py"),
    ),
    "credentials": Part(("credentials.py",), ("unit/test_credentials.py",)),
    "sides": Part(
        ("orthanc/session.py",),
        (
            "unit/orthanc/test_session.py",
            "unit/orthanc/test_orthanc_tls.py",
            "unit/retention/test_retention.py",
        ),
    ),
    "guard": Part(
        ("monitoring/guard.py",),
        (
            "unit/monitoring/test_security_monitoring.py",
            "unit/monitoring/test_server.py",
            "unit/monitoring/test_poke.py",
        ),
    ),
    "cluster": Part(
        ("worker/dask/*.py", "events.py"),
        ("unit/worker/dask/test_cluster*.py", "unit/worker/dask/test_roster.py"),
    ),
    "audit": Part(
        ("audit.py", "checks/report.py"), ("unit/test_audit.py", "unit/checks/test_report.py")
    ),
    "view": Part(
        ("monitoring/board.py", "monitoring/metrics.py", "checks/throughput.py"),
        (
            "unit/monitoring/test_page_files.py",
            "unit/monitoring/test_server.py",
            "unit/monitoring/test_metrics.py",
        ),
    ),
}
