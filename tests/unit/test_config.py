"""Settings: every bad value names its variable, says what was seen, and ends with exit code 2."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from bridge.config import CARRIED_MAX, Settings, load_settings, unknown_variables, variable_of
from bridge.errors import ConfigurationError
from bridge.model import CarriedNames, DeliveredSign, SideName

GOOD = {"BRIDGE_SOURCE_URL": "http://source:8042", "BRIDGE_TARGET_URL": "https://target/orthanc"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Set variables and return what is said of them."""
    for name, value in variables.items():
        monkeypatch.setenv(f"BRIDGE_{name}", value)
    with pytest.raises(ConfigurationError) as error:
        load_settings()
    assert error.value.exit_code == 2
    assert "orthanc-bridge docs configuration" in str(error.value) or error.value.advice
    return str(error.value)


def test_two_addresses_are_enough() -> None:
    settings = load_settings()
    assert settings.endpoint(SideName.SOURCE).url == "http://source:8042"
    assert settings.job().wanted_syntax == "1.2.840.10008.1.2.1"
    assert settings.start == "beginning"
    assert settings.window == 0, "the pipeline takes three for each worker"


@pytest.mark.parametrize("side", ["SOURCE", "TARGET"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_address(monkeypatch: pytest.MonkeyPatch, side: str, value: str | None) -> None:
    monkeypatch.delenv(f"BRIDGE_{side}_URL")
    if value is not None:
        monkeypatch.setenv(f"BRIDGE_{side}_URL", value)
    said = refused(monkeypatch)
    assert f"BRIDGE_{side}_URL is not set" in said
    assert "http://orthanc:8042" in said, "an example"


WRONG = {
    "SOURCE_URL": (
        f"http://{'a' * 64}/",
        "http://a..b/",
        "http://.a:8042",
        "http://xn--/",
        "http://a.xn--0.b",
        "orthanc:8042",
        "ftp://host",
        "http://",
        "http://:8042",
        "http://host:0",
        "http://host:99999",
        "http://host:abc",
        "http://[::1",
        "http://host/?a=b",
        "http://host/#x",
        "http://ho st",
        "http://host/a b",
    ),
    "SOURCE_PUBLIC_URL": ("orthanc:8042", "javascript:alert(1)", "http://host/?a=b"),
    "NAME": ("first\nsecond", "bell\a", "n" * 65),
    "COMMAND_PREFIX": ("docker exec\nbridge", "a\x1b[31m", "p" * 65),
    "SOURCE_CA_FILE": ("/nowhere/ca.pem",),
    "SOURCE_CLIENT_CERT_FILE": ("/nowhere/cert.pem",),
    "TARGET_CLIENT_KEY_FILE": ("/nowhere/key.pem", "/dev/null"),
    "HTTP_TIMEOUT_S": ("0", "abc", "-1", "nan", "inf", "99999"),
    "TRANSFER_SYNTAX": ("nonsense", "1.2.3", "JPEGBaseline8Bit", "MPEG2MPML"),
    "START": ("yesterday", "-1", "1.5", "99999999999", "1_000", "\u0661"),
    "ON_FEED_RESET": ("ignore",),
    "ON_UNDECODABLE": ("drop",),
    "ON_WRONG_LABEL": ("trust", "forward"),
    "ON_VIDEO": ("transcode",),
    "VERIFY": ("some", "sample:0", "sample:x", "sample:", "all:3"),
    "WORKERS": ("0", "-1", "two", "1.5", "1000"),
    "TRANSFERS": ("0", "-1", "many", "1.5", "257"),
    "EXECUTOR": ("cloud", "http://x"),
    "DASK_TLS_CA_FILE": ("/nowhere/ca.pem",),
    "HEALTH_CERT_FILE": ("/nowhere/cert.pem",),
    "HEALTH_KEY_FILE": ("/nowhere/key.pem",),
    "DASK_TLS_CERT_FILE": ("/nowhere/cert.pem",),
    "DASK_TLS_KEY_FILE": ("/nowhere/key.pem",),
    "WORKER_MEMORY_MB": ("1", "lots"),
    "SPOOL_ABOVE_MB": ("0", "x"),
    "WINDOW": ("-1", "x", "100000"),
    "TASK_TIMEOUT_S": ("0", "-5", "nan", "x", "inf"),
    "ATTEMPTS": ("0", "x", "101"),
    "POLL_INTERVAL_S": ("0", "0.01", "x", "nan"),
    "PAGE_SIZE": ("0", "x", "1000000"),
    "FEED_OVERLAP": ("0", "x"),
    "FEED_CONFIRM_S": ("-1", "x", "nan", "3601"),
    "FEED_GAP_HOURS": ("0", "x", "nan", "1000"),
    "FEED_GAPS_MAX": ("0", "x", "10000000"),
    "PROOF": ("none",),
    "VERIFY_EVERY": ("0d", "weekly", "7", "-1d", "on"),
    "VERIFY_RATE": ("-1", "x", "nan", "1000000"),
    "VERIFY_DEEP": ("1", "101%", "-1%", "x%", "%"),
    "REPAIR": ("everything", "on"),
    "REPAIR_LIMIT": ("10", "1000%", "all"),
    "MIRROR_DELETIONS": ("on", "after:", "after:7", "7d", "after:-1d"),
    "CARRY": (
        "label",
        "metadata",
        "metadata:",
        "metadata:1023",
        "metadata:65536",
        "metadata:a b",
        "metadata:RemoteAET",
        "attachments:dicom",
        "attachments:1",
        "attachments:../instances",
        ",".join(f"metadata:{number}" for number in range(1024, 1024 + CARRIED_MAX + 1)),
    ),
    "DELIVERED_SIGN": (
        "delivered",
        "label",
        "label:",
        "label:a b",
        "metadata:1023",
        "metadata:RemoteAET",
        "attachments:1030",
        "label:a,label:b",
    ),
    "CARRY_EVERY": ("off", "0d", "7", "-1d"),
    "CARRY_MAX_MB": ("0", "-1", "x", "10001"),
    "SERVERS_ARE_DISTINCT": ("perhaps",),
    "COMMAND_PATIENCE_S": ("-1", "nan"),
    "RECOUNT_INTERVAL_S": ("-1", "x", "nan", "86401"),
    "SHUTDOWN_TIMEOUT_S": ("-1", "nan", "inf"),
    "HEALTH_PORT": ("-1", "65536", "http"),
    "STALL_AFTER_S": ("0", "nan", "inf", "9" * 400),
    "LAG_LIMIT_S": ("-1", "nan"),
    "PARKED_RETRY": ("yes", "daily"),
    "PARKED_RETRIES_PER_HOUR": ("0", "-1", "x", "1000000"),
    "PARKED_LIMIT": ("-1", "x", "9" * 30),
    "LOG_FORMAT": ("xml",),
    "SHARED_DIRECTORY": ("yes", "forward"),
    "SOURCE_RETENTION": ("soon", "-1h", "1", "9" * 400 + "d"),
    "RETENTION_PER_HOUR": ("-1", "many"),
    "RETENTION_DAY_SHARE": ("0", "1.1", "half"),
    "RETENTION_TRIAL_S": ("-1", "3601", "nan", "x"),
    "RETENTION_RISK": ("all", "target-recycles,everything"),
    "MAX_INSTANCES_S": ("-1", "x", "nan"),
    "MAX_MBIT_S": ("-1", "x", "nan"),
    "SCHEDULE": ("sometimes", "mon 25:00-26:00", "mon-fri 07:00-19:00 Nowhere/Town"),
    "RATE_TIMETABLE": (
        "20",
        "08:00",
        "08:00,fast",
        "24:00,5",
        "08:00,0",
        "08:00,1 08:00,2",
        "xyz-08:00,1",
        "08:00,20 Nowhere/Town",
        "08:00,-1",
        " ".join(f"{n:02}:{m:02},1" for n in range(24) for m in range(0, 60, 10)),
    ),
    "AUDIT_MAX_MB": ("x", "-1"),
    "KEEP_STUDIES_DAYS": ("-1", "3651", "x"),
    "RULES_FILE": ("/nowhere/rules.toml",),
    "EVENTS": ("everything", "parked;digest", "test"),
    "EVENTS_FOLD_S": ("-1", "x", "nan", "3601"),
    "DIGEST_AT": ("noon", "25:00", "7", "07:00 Nowhere/Town"),
    "TRACES_URL": ("ftp://host", "http://u:p@host", "http://host/?token=x", "host"),
    "WEBHOOK_URL": ("ftp://host", "http://u:p@host", "http://host/?token=x", "host"),
    "WEBHOOK_CA_FILE": ("/nowhere/ca.pem",),
    "WEBHOOK_CLIENT_CERT_FILE": ("/nowhere/cert.pem",),
    "WEBHOOK_CLIENT_KEY_FILE": ("/nowhere/key.pem",),
    "LOG_LEVEL": ("loud", "critical"),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    said = refused(monkeypatch, **{name: value})
    assert f"BRIDGE_{name}" in said
    if "URL" not in name and "FILE" not in name and value != "/dev/null":
        assert repr(value) in said, "what was seen"
    assert "validation error" not in said
    assert "pydantic" not in said
    assert "nput should" not in said, "pydantic's words"
    assert "unable to" not in said, "pydantic's words"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("workers", "two", "a whole number, at least 1 and at most"),
        ("transfers", "0", "a whole number, at least 1 and at most"),
        ("attempts", "0", "a whole number, at least 1 and at most 100, for example"),
        ("http_timeout_s", "abc", "a number, above 0 and at most 3600, for example"),
        ("servers_are_distinct", "perhaps", "true or false, for example"),
    ],
)
def test_a_wrong_number_is_told_in_our_words_with_an_example_that_works(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str, words: str
) -> None:
    variable = variable_of(field)
    said = refused(monkeypatch, **{variable.removeprefix("BRIDGE_"): value})
    assert f"{variable} is {value!r}: must be {words}" in said
    example = re.search(rf"for example {variable}=([^ ;]+)\.", said)
    assert example is not None
    monkeypatch.setenv(variable, example[1])
    assert load_settings() is not None


def test_a_wrong_choice_lists_all_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "BRIDGE_REPAIR is 'on': must be off, missing or all." in refused(
        monkeypatch, REPAIR="on"
    )


def test_every_restricted_setting_is_tried_above() -> None:
    free = {"state_path", "health_host", "audit_path"}
    tried = {name.lower() for name in WRONG}
    sided = {re.sub("^(source|target)_", "", name) for name in tried}
    missing = {
        name
        for name in Settings.model_fields
        if name not in tried
        and re.sub("^(source|target)_", "", name) not in sided
        and name not in free
    }
    assert not missing, "try what cannot be a value of it"


@pytest.mark.parametrize(
    ("field", "choice"),
    [
        (name, choice)
        for name, field in Settings.model_fields.items()
        for choice in get_args(field.annotation)
        if get_origin(field.annotation) is Literal
    ],
)
def test_a_choice_may_be_written_in_any_case(
    monkeypatch: pytest.MonkeyPatch, field: str, choice: str
) -> None:
    for name, value in {**GOOD, variable_of(field): choice.upper()}.items():
        monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == choice


def test_several_wrong_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, WORKERS="many", PROOF="none", START="x")
    assert all(f"BRIDGE_{name}" in said for name in ("WORKERS", "PROOF", "START"))


@pytest.mark.parametrize(
    "url", ["http://bridge:pass-word@host", "https://bridge@host", "http://:pass-word@host"]
)
def test_a_login_in_the_address_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    said = refused(monkeypatch, TARGET_URL=url)
    assert "BRIDGE_TARGET_URL" in said
    assert "_PASSWORD" in said
    assert "pass-word" not in said


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("http://host:8042", "http://host:8042"),
        ("http://host:8042", "http://host:8042/"),
        ("http://host:8042", "http://HOST:8042"),
        ("http://host", "http://host:80"),
        ("https://host:443/x", "HTTPS://host/x"),
    ],
)
def test_one_server_as_both_is_refused(
    monkeypatch: pytest.MonkeyPatch, source: str, target: str
) -> None:
    said = refused(monkeypatch, SOURCE_URL=source, TARGET_URL=target)
    assert "BRIDGE_SOURCE_URL" in said
    assert "BRIDGE_TARGET_URL" in said


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://host:8042/", "http://host:8042"),
        ("HTTP://Host:8042", "http://host:8042"),
        ("https://host/a/b//", "https://host/a/b"),
        ("http://[::1]:8042", "http://[::1]:8042"),
        (" http://host ", "http://host"),
    ],
)
def test_an_address_is_brought_into_one_form(
    monkeypatch: pytest.MonkeyPatch, given: str, used: str
) -> None:
    monkeypatch.setenv("BRIDGE_SOURCE_URL", given)
    assert load_settings().source_url == used


def test_a_key_without_a_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    said = refused(monkeypatch, SOURCE_CLIENT_KEY_FILE=str(key))
    assert "BRIDGE_SOURCE_CLIENT_CERT_FILE is not: set both" in said


def test_secrets_are_nowhere_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for side in ("SOURCE", "TARGET"):
        monkeypatch.setenv(f"BRIDGE_{side}_USERNAME", "some-user")
        monkeypatch.setenv(f"BRIDGE_{side}_PASSWORD", "some-secret")
    settings = load_settings()
    for text in (repr(settings), str(settings), repr(settings.job()), settings.model_dump_json()):
        assert "some-secret" not in text
        assert "some-user" not in text


def test_a_secret_that_cannot_be_read_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = refused(monkeypatch, SOURCE_USERNAME="bridge", SOURCE_PASSWORD_FILE="/nowhere")  # noqa: S106
    assert "BRIDGE_SOURCE_PASSWORD_FILE" in said


def test_dotenv_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("BRIDGE_WORKERS=7\nBRIDGE_PAGE_SIZE=70\n")
    monkeypatch.setenv("BRIDGE_PAGE_SIZE", "90")
    settings = load_settings()
    assert (settings.workers, settings.page_size) == (7, 90)


def test_a_wrong_value_in_dotenv_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("# ours\n\nBRIDGE_WORKERS=many\n")
    assert "BRIDGE_WORKERS in .env, line 3," in refused(monkeypatch)
    assert "many" not in refused(monkeypatch, WORKERS="none")


@pytest.mark.parametrize(
    "broken",
    ['BRIDGE_ON_UNDECODABLE="forward\n', "BRIDGE_START='now\nA=1\n"],
)
def test_a_line_of_dotenv_that_cannot_be_understood_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    broken: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Such a line would else be a setting that silently does not count."""
    (tmp_path / ".env").write_text(f"A=1\n\n{broken}BRIDGE_WORKERS=2\n")
    assert "Line 3 of the file .env" in refused(monkeypatch)
    assert capfd.readouterr().err == ""


def test_a_line_of_dotenv_that_is_not_ours_is_nobodys_business(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("OTHER='x\nBRIDGE_WORKERS=7\n")
    assert load_settings().workers == 7
    assert capfd.readouterr().err == ""


def test_a_dotenv_that_is_no_text_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(b"BRIDGE_WORKERS=\xff\xfe\n")
    assert ".env" in refused(monkeypatch)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRIDGE_SOURC_URL", "BRIDGE_SOURCE_URL"),
        ("BRIDGE_WORKER", "BRIDGE_WORKERS"),
        ("BRIDGE_SOURCE_PASSWORD_FIEL", "BRIDGE_SOURCE_PASSWORD_FILE"),
        ("BRIDGE_XYZZY", ""),
    ],
)
def test_an_unknown_variable_is_noticed_and_the_nearest_is_named(name: str, meant: str) -> None:
    assert unknown_variables({**GOOD, name: "x", "PATH": "/bin"}) == [(name, meant)]


def test_an_unknown_variable_in_dotenv_is_noticed_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BRIDGE_TRANSFER_SYNTAKS=x\nBRIDGE_WORKERS=2\nOTHER=1\n")
    assert unknown_variables() == [("BRIDGE_TRANSFER_SYNTAKS", "BRIDGE_TRANSFER_SYNTAX")]


def test_no_known_variable_is_unknown() -> None:
    every = {variable_of(name): "" for name in Settings.model_fields}
    secrets = {
        f"BRIDGE_{side}_{what}"
        for side in ("SOURCE", "TARGET")
        for what in (
            "USERNAME",
            "PASSWORD",
            "TOKEN",
            "USERNAME_FILE",
            "PASSWORD_FILE",
            "TOKEN_FILE",
        )
    }
    assert unknown_variables(every | dict.fromkeys(secrets, "")) == []


def test_deletions_that_follow_and_a_source_that_is_emptied_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    follows = {"MIRROR_DELETIONS": "after:7d"}
    assert "BRIDGE_VERIFY_EVERY" in refused(monkeypatch, **follows)
    said = refused(monkeypatch, **follows, VERIFY_EVERY="7d", SOURCE_RETENTION="24h")
    assert "BRIDGE_SOURCE_RETENTION" in said


def test_what_is_brought_beside_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    names = " labels, metadata:1024,metadata:Project ,attachments:65535,metadata:1024,"
    for name, value in {**GOOD, "BRIDGE_CARRY": names, "BRIDGE_CARRY_EVERY": "6h"}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.carried == CarriedNames(True, ("1024", "Project"), ("65535",))
    assert settings.carry_every_s == 6 * 3600
    assert settings.health_limits().carries
    said = refused(monkeypatch, CARRY="labels", SOURCE_RETENTION="24h")
    assert "BRIDGE_CARRY and BRIDGE_SOURCE_RETENTION cannot be combined" in said


def test_what_says_delivered_at_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    assert not load_settings().sign
    assert not load_settings().job().notes_sums
    assert not load_settings().health_limits().signs
    monkeypatch.setenv("BRIDGE_DELIVERED_SIGN", " label:delivered , metadata:1027")
    settings = load_settings()
    assert settings.sign == DeliveredSign("delivered", "1027")
    assert settings.job().signs
    assert settings.job().notes_sums, "it is known which file was delivered"
    assert settings.health_limits().signs
    monkeypatch.setenv("BRIDGE_SOURCE_RETENTION", "24h")
    assert load_settings().sign, "with retention, too"
    said = refused(
        monkeypatch,
        DELIVERED_SIGN="metadata:1027",
        CARRY="metadata:1027",
        SOURCE_RETENTION="keep",
    )
    assert "both name the metadata 1027" in said


def test_nothing_is_brought_beside_the_files_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert not settings.carried
    assert not settings.health_limits().carries


def test_what_verifications_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"VERIFY_EVERY": "7d", "VERIFY_DEEP": "0.5%", "REPAIR_LIMIT": "2%"}
    for name, value in {**GOOD, "BRIDGE_MIRROR_DELETIONS": "after:36h"}.items():
        monkeypatch.setenv(name, value)
    for name, value in wanted.items():
        monkeypatch.setenv(f"BRIDGE_{name}", value)
    settings = load_settings()
    assert settings.verify_every_s == 7 * 86_400
    assert settings.verify_share == pytest.approx(0.005)
    assert settings.repair_share == pytest.approx(0.02)
    assert settings.mirror_deletions_after_s == 36 * 3600
    assert settings.job().notes_sums
    assert settings.health_limits().verify_every_s == 7 * 86_400
    monkeypatch.delenv("BRIDGE_MIRROR_DELETIONS")
    monkeypatch.setenv("BRIDGE_VERIFY_EVERY", "off")
    settings = load_settings()
    assert (settings.verify_every_s, settings.mirror_deletions_after_s) == (None, None)
    assert not settings.job().notes_sums


def test_events_are_signed_or_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, WEBHOOK_URL="https://receiver.example/hook")
    assert "BRIDGE_WEBHOOK_SECRET, which signs the events" in said
    said = refused(monkeypatch, WEBHOOK_SECRET="short")  # noqa: S106
    assert "BRIDGE_WEBHOOK_SECRET has fewer than 16 characters" in said
    assert "short" not in said
    monkeypatch.setenv("BRIDGE_WEBHOOK_SECRET", "s" * 16)
    settings = load_settings(events=" Digest,parked ", digest_at="06:30 Europe/Berlin")
    receiver = settings.receiver()
    assert receiver is not None
    assert receiver.url == "https://receiver.example/hook"
    assert settings.events == "parked,digest"
    monkeypatch.delenv("BRIDGE_WEBHOOK_URL")
    assert load_settings().receiver() is None


SECRET = "hush-4711"  # noqa: S105
ADDRESSES = (
    f"tcp://user:{SECRET}@scheduler:8786",
    f"https://hooks.example/services/{SECRET}",
    f"//host/?token={SECRET}",
    f"user:{SECRET}@proxy:3128",
    f"08:00,http://user:{SECRET}@host",
    f"mon-fri http://user:pass,{SECRET}@host",
)


def said_of_settings() -> str:
    try:
        load_settings()
    except ConfigurationError as error:
        return f"{error} {error.advice}"
    return ""


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_a_setting_that_is_refused_repeats_no_secret(
    monkeypatch: pytest.MonkeyPatch, field: str, *, in_file: bool
) -> None:
    """An address with its password, a webhook, a proxy, a key in the wrong place."""
    for value in ADDRESSES:
        if in_file:
            Path(".env").write_text(f"{variable_of(field)}='{value}'\n", "utf-8")
        else:
            monkeypatch.setenv(variable_of(field), value)
        assert SECRET not in said_of_settings()


def test_what_cannot_be_a_secret_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "BRIDGE_EXECUTOR is 'cloud':" in refused(monkeypatch, EXECUTOR="cloud")
    assert "'sometimes'" in refused(monkeypatch, SCHEDULE="sometimes")
    assert "'http://host:80'" in refused(monkeypatch, EXECUTOR="http://host:80")


def test_repairs_that_would_never_happen_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for repair in ("missing", "all"):
        monkeypatch.setenv("BRIDGE_REPAIR", repair)
        settings = load_settings()  # ``check --repair`` does without verifications
        with pytest.raises(ConfigurationError, match="BRIDGE_REPAIR has no effect") as refusal:
            settings.check_repairs()
        assert "BRIDGE_VERIFY_EVERY=7d" in refusal.value.advice
        monkeypatch.setenv("BRIDGE_VERIFY_EVERY", "7d")
        load_settings().check_repairs()
        monkeypatch.delenv("BRIDGE_VERIFY_EVERY")
    monkeypatch.setenv("BRIDGE_REPAIR", "off")
    load_settings().check_repairs()
