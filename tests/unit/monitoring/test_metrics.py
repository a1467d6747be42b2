"""Metrics: counters follow the events, gauges the board, names are those that are documented."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from bridge.events import (
    Carried,
    CarryFailed,
    CarryLeft,
    CopyFound,
    CopyNotRepaired,
    CopyRepaired,
    Event,
    FeedDoubted,
    FeedReset,
    InFlight,
    InstanceParked,
    InstanceRetried,
    NoticeFailed,
    NoticesDropped,
    NoticeSent,
    PageRead,
    Progress,
    Settled,
    SideDown,
    SideView,
    Signed,
    SignFailed,
    SignLeft,
    VerificationFailed,
    Verified,
    WorkerLost,
)
from bridge.ledger.records import OutboxView
from bridge.model import (
    LOG_STUCK_S,
    Action,
    Delivered,
    ExecutorFailed,
    InstanceFailed,
    LogState,
    Move,
    Outcome,
    Reason,
    SideFailed,
    SideName,
    SideProblem,
    Skipped,
    StageTimes,
)
from bridge.monitoring.health import CarryView, MirrorView, Problem, SignView
from bridge.monitoring.metrics import Metrics
from bridge.monitoring.names import NO_NAMES
from bridge.pipeline.pacing import Allowance
from tests.metrics_page import METRIC_NAMES

MOVE = Move("i", 1)
RLE, NATIVE = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1"
P = "orthanc_bridge_"


class FakeBoard:
    def __init__(self) -> None:
        self.progress = Progress()
        self.allowance = Allowance()
        self.names = NO_NAMES
        self.counts: Mapping[str, int] = {}
        self.verified: MirrorView | None = None
        self.carried: CarryView | None = None
        self.signing: SignView | None = None
        self.waiting = OutboxView()
        self.lacks: int | None = 0
        self.log = LogState()
        self.audit = ""

    def lacking(self) -> int | None:
        return self.lacks

    def log_state(self) -> LogState:
        return self.log

    def audit_failure(self) -> str:
        return self.audit

    def carry(self) -> CarryView | None:
        return self.carried

    def signs(self) -> SignView | None:
        return self.signing

    def mirror(self) -> MirrorView | None:
        return self.verified

    def outbox(self) -> OutboxView:
        return self.waiting

    def studies_of_a_day(self) -> Mapping[str, int]:
        return {"any": 30, "stable": 20, "incomplete": 2}

    def parked(self) -> Mapping[str, int]:
        return self.counts

    def problems(self) -> tuple[Problem, ...]:
        return ()


class Scrape:
    def __init__(self) -> None:
        self.board = FakeBoard()
        self.metrics = Metrics(self.board)

    def happen(self, *happened: Event) -> None:
        for event in happened:
            self.metrics.on_event(event)

    def value(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 when it is not there."""
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                if sample.name == P + name and sample.labels == labels:
                    return sample.value
        return 0.0


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


def delivered(status: str = "Success", **more: object) -> Delivered:
    return Delivered(
        status,
        Action.TRANSCODED,
        RLE,
        NATIVE,
        "1.2.3",
        100,
        250,
        StageTimes(0.1, 0.2, 0.3, 0.4),
        **more,  # type: ignore[arg-type]
    )


def test_finished_instances_are_counted_by_outcome_and_syntax(scrape: Scrape) -> None:
    ends: list[Outcome] = [
        delivered(),
        delivered(),
        delivered("AlreadyStored"),
        Skipped(Reason.GONE, source_syntax=RLE),
    ]
    scrape.happen(*(Settled(MOVE, end, 1) for end in ends))
    scrape.happen(InstanceParked(MOVE, Reason.UNDECODABLE, "", 1, source_syntax=RLE))
    scrape.happen(InstanceParked(MOVE, Reason.VIDEO, "", 1))
    assert scrape.value("instances_total", outcome="delivered", syntax=RLE) == 2
    assert scrape.value("instances_total", outcome="already_there", syntax=RLE) == 1
    assert scrape.value("instances_total", outcome="skipped_gone", syntax=RLE) == 1
    assert scrape.value("instances_total", outcome="parked_undecodable", syntax=RLE) == 1
    assert scrape.value("instances_total", outcome="parked_video", syntax="") == 1
    assert scrape.value("source_bytes_total") == 300
    assert scrape.value("target_bytes_total") == 750


def test_stages_are_measured(scrape: Scrape) -> None:
    scrape.happen(Settled(MOVE, delivered(), 1))
    for stage, seconds in (("fetch", 0.1), ("transcode", 0.2), ("deliver", 0.3), ("prove", 0.4)):
        assert scrape.value("stage_seconds_sum", stage=stage) == pytest.approx(seconds)
        assert scrape.value("stage_seconds_count", stage=stage) == 1


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        (InstanceFailed(Reason.TIMED_OUT, ""), "timed_out"),
        (ExecutorFailed(""), "executor"),
        (SideFailed(SideName.SOURCE, SideProblem.SERVER_ERROR, ""), "server"),
    ],
)
def test_retries_are_counted_by_cause(scrape: Scrape, outcome: Outcome, label: str) -> None:
    scrape.happen(InstanceRetried(MOVE, outcome, 1, 1.0))
    assert scrape.value("retries_total", reason=label) == 1


def test_what_goes_wrong_is_counted(scrape: Scrape) -> None:
    scrape.happen(
        Settled(MOVE, delivered(fallbacks=("openjpeg", "openjpeg")), 1),
        WorkerLost(MOVE, InstanceFailed(Reason.WORKER_DIED, "")),
        PageRead(9, 2, 30),
        PageRead(9, 1, 40),
        PageRead(0, 0, 50, 7),
        PageRead(0, 0, 51, 0, 3),
        FeedDoubted(""),
        FeedDoubted(""),
        FeedReset(""),
        SideDown(SideFailed(SideName.TARGET, SideProblem.STORAGE_FULL, "")),
    )
    assert scrape.value("decoder_fallbacks_total", decoder="openjpeg") == 2
    assert scrape.value("worker_losses_total", reason="worker_died") == 1
    assert scrape.value("late_changes_total") == 3
    assert scrape.value("missing_changes_total") == 7
    assert scrape.value("refused_changes_total") == 3
    assert scrape.value("feed_doubts_total") == 2
    assert scrape.value("feed_resets_total") == 1
    assert scrape.value("side_outages_total", side="target", problem="storage_full") == 1


def test_gauges_are_what_the_board_says_now(scrape: Scrape) -> None:
    scrape.board.progress = Progress(
        checkpoint=10,
        last=25,
        waiting=3,
        delayed=2,
        in_flight=(InFlight("i", 1, 0.0, 1),),
        target=SideView(up=False),
        state_error="full",
    )
    scrape.board.counts = {"video": 4}
    assert scrape.value("checkpoint_sequence") == 10
    assert scrape.value("last_sequence") == 25
    assert scrape.value("lag_changes") == 15
    assert scrape.value("waiting") == 5
    assert scrape.value("in_flight") == 1
    assert scrape.value("side_up", side="source") == 1
    assert scrape.value("side_up", side="target") == 0
    assert scrape.value("state_writable") == 0
    assert scrape.value("parked", reason="video") == 4
    scrape.board.progress = Progress(checkpoint=25, last=25)
    scrape.board.counts = {}
    assert scrape.value("lag_changes") == 0
    assert scrape.value("state_writable") == 1
    assert scrape.value("parked", reason="video") == 0


def test_the_lag_in_bytes_follows_from_what_a_change_has_brought(scrape: Scrape) -> None:
    def reach(checkpoint: int, last: int) -> None:
        scrape.board.progress = Progress(checkpoint=checkpoint, last=last)
        scrape.metrics.on_progress(scrape.board.progress)

    reach(100, 300)
    assert "lag_bytes" not in shown(scrape), "nothing was moved: nothing is known"
    scrape.happen(*[Settled(MOVE, delivered(), 1)] * 5)  # of 100 bytes each
    reach(110, 300)
    assert scrape.value("lag_bytes") == 190 * 50
    reach(300, 300)
    assert "lag_bytes" in shown(scrape)
    assert scrape.value("lag_bytes") == 0
    reach(3, 10)
    assert "lag_bytes" not in shown(scrape), "another feed: begun anew"


def shown(scrape: Scrape) -> set[str]:
    """The names without their prefix."""
    families = text_string_to_metric_families(scrape.metrics.render().decode())
    return {family.name.removeprefix(P) for family in families}


def test_limits_are_shown_where_there_are_some(scrape: Scrape) -> None:
    assert not shown(scrape) & {"max_instances_per_second", "max_bytes_per_second"}
    scrape.board.allowance = Allowance(instances_s=2.5, mbit_s=80.0)
    assert scrape.value("max_instances_per_second") == 2.5
    assert scrape.value("max_bytes_per_second") == 10e6


def test_what_the_target_lacks_is_counted_with_retention_only(scrape: Scrape) -> None:
    for lacks in (0, 3):
        scrape.board.lacks = lacks
        assert "delivered_lacking" in shown(scrape)
        assert scrape.value("delivered_lacking") == lacks
    scrape.board.lacks = None
    assert "delivered_lacking" not in shown(scrape)


def test_names_and_only_those_that_are_documented(scrape: Scrape) -> None:
    scrape.board.progress = Progress(
        checkpoint=1, last=2, oldest_open=2, feed_read_at=1.0, last_progress_at=1.0
    )
    scrape.board.allowance = Allowance(instances_s=1.0, mbit_s=1.0)
    scrape.metrics.on_progress(Progress(checkpoint=0))
    scrape.happen(Settled(MOVE, delivered(), 1))
    scrape.metrics.on_progress(scrape.board.progress)
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(scrape.metrics.render().decode())
    }
    assert names == set(METRIC_NAMES)
    assert all(name.startswith(P) for name in METRIC_NAMES)


def test_openmetrics_names_an_instance_beside_a_figure(scrape: Scrape) -> None:
    """Fails without exemplars, and when they are in the other format, which has none."""
    one = "0123abcd-" * 4 + "0123abcd"
    scrape.metrics.on_event(Settled(Move(one, 1), delivered(), 1))
    scrape.metrics.on_event(InstanceParked(Move("bad", 2), Reason.VIDEO, "no", 1))
    text = scrape.metrics.render_openmetrics().decode()
    assert text.endswith("# EOF\n")
    families = {f.name: f for f in openmetrics_families(text)}  # type: ignore[no-untyped-call]
    told = {
        (sample.name, sample.labels.get("stage") or sample.labels.get("outcome")): (
            sample.exemplar.labels
        )
        for family in families.values()
        for sample in family.samples
        if sample.exemplar
    }
    assert told == {
        ("orthanc_bridge_instances_total", "delivered"): {"instance": one},
        ("orthanc_bridge_instances_total", "parked_video"): {"instance": "bad"},
        **{
            ("orthanc_bridge_stage_seconds_bucket", stage): {"instance": one}
            for stage in ("fetch", "transcode", "deliver", "prove")
        },
    }
    assert one not in scrape.metrics.render().decode()


def test_two_sets_of_metrics_do_not_meet(scrape: Scrape) -> None:
    other = Scrape()
    scrape.happen(FeedReset(""))
    assert (scrape.value("feed_resets_total"), other.value("feed_resets_total")) == (1, 0)


def test_verifications_are_counted_and_shown() -> None:
    scrape = Scrape()
    scrape.happen(*[CopyFound(f"i{n}", "no_file") for n in (1, 2, 3)])
    scrape.happen(CopyRepaired("i1", "no_file"), CopyRepaired("i2", "no_file"))
    scrape.happen(CopyNotRepaired("i3", "no_file", "No."), VerificationFailed("It is down."))
    scrape.happen(Verified(9, {"equal": 6, "no_file": 3}, 3, 2, 1, 4))
    assert scrape.value("copies_found_total", state="no_file") == 3
    assert scrape.value("copy_repairs_total", result="repaired") == 2
    assert scrape.value("copy_repairs_total", result="failed") == 1
    assert scrape.value("verification_failures_total") == 1
    assert scrape.value("target_deletions_total") == 4
    begun_at = time.time() - 500
    scrape.board.verified = MirrorView(
        begun_at=begun_at, ended_at=begun_at + 9, instances=9, counts={"equal": 6}, held=7
    )
    assert scrape.value("copies", state="equal") == 6
    assert scrape.value("verified_instances") == 9
    assert scrape.value("repairs_held") == 7
    assert 499 <= scrape.value("verified_age_seconds") < 600


def test_what_lies_beside_the_files_is_counted_and_shown() -> None:
    scrape = Scrape()
    assert scrape.value("carried_total", kind="labels") == 0, "present from the start"
    scrape.happen(Carried("i", {"labels": 1, "metadata": 2}), Carried("j", {"metadata": 1}))
    scrape.happen(*[CarryLeft("i", "1024", why) for why in ("foreign", "foreign", "too_large")])
    scrape.happen(CarryFailed("i", "1024", "No."))
    assert scrape.value("carried_total", kind="labels") == 1
    assert scrape.value("carried_total", kind="metadata") == 3
    assert scrape.value("carry_left_total", reason="foreign") == 2
    assert scrape.value("carry_left_total", reason="too_large") == 1
    assert scrape.value("carry_failures_total") == 1
    scrape.board.carried = CarryView(caught_up_at=time.time() - 500, waiting=3)
    assert scrape.value("carry_waiting") == 3
    assert 499 <= scrape.value("carry_lag_seconds") < 600


def test_signs_at_the_source_are_counted_and_shown() -> None:
    scrape = Scrape()
    assert scrape.value("signed_total", kind="label") == 0, "present from the start"
    assert scrape.value("sign_left_total", reason="no_md5") == 0
    scrape.happen(Signed("i", "label"), Signed("j", "label"), Signed("k", "metadata"))
    scrape.happen(SignLeft("i", "foreign"), SignFailed("i", "No."), SignFailed("i", "No."))
    assert scrape.value("signed_total", kind="label") == 2
    assert scrape.value("signed_total", kind="metadata") == 1
    assert scrape.value("sign_left_total", reason="foreign") == 1
    assert scrape.value("sign_failures_total") == 2
    scrape.board.signing = SignView()
    assert scrape.value("sign_lag_seconds") == 0
    scrape.board.signing = SignView(waiting=3, waiting_since=time.time() - 500)
    assert scrape.value("sign_waiting") == 3
    assert 499 <= scrape.value("sign_lag_seconds") < 600


def test_events_and_what_waits_of_them_are_shown(scrape: Scrape) -> None:
    assert scrape.value("events_oldest_seconds") == 0
    scrape.happen(*[NoticeSent("parked", "webhook")] * 3)
    scrape.happen(NoticeFailed("parked", "webhook", "x"), NoticesDropped(4))
    assert scrape.value("events_sent_total", event="parked", way="webhook") == 3
    assert scrape.value("event_failures_total", way="webhook") == 1
    assert scrape.value("events_dropped_total") == 4
    scrape.board.waiting = OutboxView({"webhook": 5, "notify-1": 2}, time.time() - 100, "x")
    assert scrape.value("events_waiting", way="webhook") == 5
    assert scrape.value("events_waiting", way="notify-1") == 2
    assert 100 <= scrape.value("events_oldest_seconds") < 160


def test_a_log_and_an_audit_file_that_cannot_be_written(scrape: Scrape) -> None:
    names = ("log_failing", "log_lost_lines_total", "audit_failing")
    assert [scrape.value(name) for name in names] == [0, 0, 0]
    scrape.board.log = LogState(stuck_s=LOG_STUCK_S, lost=3)
    scrape.board.audit = "The disk is full."
    assert [scrape.value(name) for name in names] == [1, 3, 1]
