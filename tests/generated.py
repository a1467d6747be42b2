"""Generated files through the transcoder: what must hold, and a long campaign by hand.

    python -m tests.generated --count 20000 --seed 7

The oracles are the tree and the samples by construction, read back by pydicom, and DCMTK's reading
of the structure of input and output. tests/unit/dicom/test_generated.py runs a short seeded slice.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydicom import Dataset, config, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR

from bridge.dicom.deidentify import deidentify
from bridge.dicom.facts import facts_of_file
from bridge.dicom.fingerprint import fingerprint
from bridge.dicom.syntaxes import OFFERED_TARGETS
from bridge.errors import InstanceError
from bridge.model import Action, Reason
from tests.dicom_strategies import (
    COMPRESSED,
    NATIVE,
    WORDS,
    Branch,
    Made,
    as_output,
    files,
    flattened,
    implicit_length,
    items_within,
    levels,
    relabelled,
    spells_a_vr,
)
from tests.transcode_cases import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, run, samples

CODING = frozenset((0x7FE00001, 0x7FE00002, 0x7FE00010, 0x00280004, 0x00280006, 0xFFFCFFFC))
"""What the coding of pixels may change, and padding."""
Values = dict[tuple[int, ...], bytes]


def pydicom_values(ds: Dataset, *, big: bool, path: tuple[int, ...] = ()) -> Values:
    """Every element as pydicom reads it: path to value in little endian."""
    found: Values = {}
    # All of them first: to look into a sequence makes pydicom read other elements.
    for tag, element in [(tag, ds.get_item(tag)) for tag in ds.keys()]:  # noqa: SIM118
        if not tag.element or (not path and int(tag) in CODING):
            continue
        where = (*path, int(tag))
        vr = element.VR
        if not vr:
            vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
        if vr == "SQ":
            items = ds[tag].value
            found[where] = b"%d items" % len(items) if len(items) else b""
            for number, item in enumerate(items):
                found |= pydicom_values(item, big=big, path=(*where, number))
            continue
        raw: Any = element.value
        if not raw and raw != 0:
            raw = b""
        if int(tag) == 0x00280103 and not isinstance(raw, bytes):
            raw = pack("<H", raw)  # pydicom reads it as soon as there is a sequence
        assert isinstance(raw, bytes), where
        size = WORDS.get(vr, 1) if big else 1
        if size > 1:
            raw = np.frombuffer(raw, f">u{size}").byteswap().tobytes()
        found[where] = raw
    return found


def expected_values(made: Made, *, padded: bool) -> Values:
    found = dict(flattened(made.tree, padded=padded))
    return {path: value for path, value in found.items() if path[0] not in CODING}


def read_as(data: bytes, syntax: str) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = dcmread(io.BytesIO(data), force=True)
    assert ds.file_meta.TransferSyntaxUID == syntax
    return ds


def check_order(made: Made) -> None:
    """The generator itself: each tag once in its level, in the order of the tags (PS3.5 7.1).

    Of a tag that is there twice pydicom keeps the last and DCMTK the first. No oracle is left.
    """
    for tags in levels(made.tree):
        assert list(tags) == sorted(set(tags)), [f"{tag:08x}" for tag in tags]


def check_source(made: Made) -> None:
    """The generator itself: pydicom reads what was meant."""
    p = made.pixels
    if p is not None and (p.repeated_delimiters or not p.delimiter):
        return  # pydicom does not read these
    ds = read_as(made.data, made.syntax)
    big = made.syntax == BIG_ENDIAN
    assert pydicom_values(ds, big=big) == expected_values(made, padded=False)


def assert_values(made: Made, body: bytes, syntax: str) -> None:
    """Every value is there; an odd one is padded, with what depends on its VR."""
    found = pydicom_values(read_as(body, syntax), big=False)
    for path, value in expected_values(made, padded=False).items():
        got = found.pop(path)
        assert got == value or (len(value) & 1 and got in (value + b" ", value + b"\0")), path
    assert not found


def check_target(made: Made, wanted: str) -> None:
    """The bridge's output says the same and shows the same, or the file was contradictory."""
    source = made.data
    try:
        body, result = run(source, wanted)
    except InstanceError as exc:
        # Encoders have limits, which are documented; contradictory tables may be refused.
        limit = exc.reason is Reason.UNSUPPORTED_SYNTAX and OFFERED_TARGETS[wanted].encapsulated
        if made.certain and not limit:
            raise
        return
    assert result.action is Action.UNCHANGED or made.syntax != wanted
    if result.action is Action.UNCHANGED:
        packed = made.preamble is not None and made.preamble.startswith(b"PK")
        assert body == (bytes(128) + source[128:] if packed else source)
        return
    assert body[:132] == bytes(128) + b"DICM"
    target = result.target_syntax
    assert_values(made, body, target)
    if made.pixels is not None:
        plain = body if target in (EXPLICIT, IMPLICIT, DEFLATED) else run(body)[0]
        assert (samples(plain) == made.pixels.array).all()
    again, _ = run(body, IMPLICIT if wanted == EXPLICIT else EXPLICIT)
    if made.pixels is not None and target in (EXPLICIT, IMPLICIT, DEFLATED):
        assert (samples(again) == made.pixels.array).all()


def check_readers(made: Made) -> None:
    """Whoever else reads headers can read what the transcoder reads."""
    source = made.data
    assert facts_of_file(memoryview(source))["sop_class"] == "1.2.840.10008.5.1.4.1.1.7"
    cleaned = deidentify(source, secret=b"s").data
    if made.pixels is None or made.pixels.delimiter:  # else pydicom does not read it
        assert read_as(cleaned, made.syntax).SOPInstanceUID.startswith("2.25.")
    if made.pixels is None:
        assert fingerprint(source).frames == 0
        return
    try:
        body, _ = run(source)
    except InstanceError:
        assert not made.certain
        return
    if made.pixels.extended == "none":
        assert fingerprint(source).same_image(fingerprint(body))


def check_label(made: Made, label: str, wanted: str) -> None:
    """A label that is wrong is noticed, or changes neither a value nor a sample."""
    data = relabelled(made, label)
    has_pixels = made.pixels is not None
    contradicts = has_pixels and (label in NATIVE) != (made.syntax in NATIVE)
    try:
        body, result = run(data, wanted)
    except InstanceError as exc:
        noticed = exc.reason is Reason.WRONG_SYNTAX_LABEL
        if contradicts and label == wanted and label != DEFLATED and not noticed:
            raise
        return
    assert not contradicts
    if result.action is Action.UNCHANGED:
        return
    if (made.syntax == IMPLICIT) != (label == IMPLICIT):
        raise AssertionError(f"{made.syntax} was read as {label}")
    assert_values(made, body, result.target_syntax)
    if has_pixels:
        plain = body if result.target_syntax in NATIVE else run(body)[0]
        assert (samples(plain) == made.pixels.array).all()  # type: ignore[union-attr]


Line = tuple[int, str, int]
LOADING = "DcmDataDictionary: Loading file:"


@functools.cache
def dictionaries_of_dcmtk() -> tuple[Path, ...]:
    """The dictionary files that dcmdump loads, which it names itself."""
    command = ["dcmdump", "-d", os.devnull]
    done = subprocess.run(command, capture_output=True, check=False, encoding="latin-1")
    return tuple(
        Path(line.partition(LOADING)[2].strip())
        for line in done.stderr.splitlines()
        if LOADING in line
    )


def is_private(dictionary: Path) -> bool:
    """Whether a dictionary file of DCMTK has entries of private creators: (gggg,"CREATOR",ee)."""
    lines = dictionary.read_text(encoding="latin-1").splitlines()
    return any(line.startswith("(") and '"' in line.split(")")[0] for line in lines)


def public_dictionary_only() -> dict[str, str]:
    """The environment in which DCMTK knows no private element.

    In implicit VR, also within a UN of undefined length, its private dictionary tells it a VR that
    the file does not tell. It stops at a sequence of a creator that has a text at that place.
    """
    public = [str(path) for path in dictionaries_of_dcmtk() if not is_private(path)]
    assert public, "dcmdump -d names no dictionary file without private elements"
    return os.environ | {"DCMDICTPATH": os.pathsep.join(public)}


def dcmdump_lines(paths: list[Path]) -> Iterator[list[Line]]:
    """For each file: depth, tag and length of every element with a length, as DCMTK reads it."""
    command = ["dcmdump", "-q", "+L", "+R", "8", *map(str, paths)]
    done = subprocess.run(
        command,
        capture_output=True,
        check=False,
        encoding="latin-1",
        env=public_dictionary_only(),
    )
    assert done.returncode == 0, done.stderr
    found: list[Line] | None = None
    for line in done.stdout.splitlines():
        if line.startswith("# Dicom-Data-Set"):
            if found is not None:
                yield found
            found = []
        elif found is not None and line.lstrip().startswith("("):
            text = line.lstrip()
            length = text.rsplit("#", 1)[1].split(",")[0].strip()
            found.append(
                (len(line) - len(text), text[1:10], int(length) if length.isdigit() else -1)
            )
        elif line.startswith("# Dicom-Meta"):
            if found is not None:
                yield found
            found = None
    if found is not None:
        yield found


def expected_lines(tree: tuple[Any, ...], depth: int = 0) -> Iterator[Line]:
    """Depth, tag and length of every leaf of the tree, pixel data left out."""
    for node in tree:
        if isinstance(node, Branch):
            for one in node.items:
                yield from expected_lines(one.elements, depth + 4)
        elif node.tag & 0xFFFF and (depth or node.tag not in CODING):
            size = len(node.value) + (len(node.value) & 1)
            yield depth, f"{node.tag >> 16:04x},{node.tag & 0xFFFF:04x}", size


def check_dcmtk(made: list[Made], wanted: str) -> None:
    """DCMTK finds the same elements, at the same depth and of the same length, in our output."""
    with tempfile.TemporaryDirectory() as directory:
        paths, sources = [], []
        for number, one in enumerate(made):
            try:
                body, _ = run(one.data, wanted)
            except InstanceError:
                continue
            path = Path(directory) / f"{number:05d}.dcm"
            path.write_bytes(body)
            paths.append(path)
            sources.append(one)
        if not paths:
            return
        for one, lines in zip(sources, dcmdump_lines(paths), strict=True):
            wanted_lines = list(expected_lines(one.tree))
            leaves = {line[:2] for line in wanted_lines}
            coding = {f"{tag >> 16:04x},{tag & 0xFFFF:04x}" for tag in CODING}
            kept = [
                line
                for line in lines
                if line[:2] in leaves
                and not (line[0] == 0 and line[1] in coding)
                and not line[1].startswith("fffe")
                and not line[1].endswith(",0000")
            ]
            assert sorted(kept) == sorted(wanted_lines), (
                set(wanted_lines) - set(kept),
                set(kept) - set(wanted_lines),
            )


TARGETS = tuple(OFFERED_TARGETS)
Property = Callable[..., None]


def _first_of_data_set(tree: tuple[Any, ...], syntaxes: tuple[str, ...]) -> bool:
    return IMPLICIT in syntaxes and bool(tree) and spells_a_vr(implicit_length(tree[0]))


def _first_of_an_item(tree: tuple[Any, ...], syntaxes: tuple[str, ...]) -> bool:
    explicit = any(syntax != IMPLICIT for syntax in syntaxes)
    firsts = (item.elements[0] for item in items_within(tree) if item.elements)
    return explicit and any(spells_a_vr(implicit_length(first)) for first in firsts)


PYDICOM_FAULTS: dict[str, Callable[[tuple[Any, ...], tuple[str, ...]], bool]] = {
    "the first length of a data set in implicit VR spells a VR": _first_of_data_set,
    "the first length of an item of unknown VR spells a VR": _first_of_an_item,
}
"""Where pydicom 3 takes a length for the name of a VR (its reader looks at two bytes of the first
element of a data set and of each item), and reads other elements, or stops. DCMTK must read these
files as they were meant; that is asserted instead. Whatever else pydicom reads otherwise is ours.
"""
MISREAD: Counter[str] = Counter()
"""Files that pydicom reads wrongly, whoever wrote them, by kind."""


def pydicom_fault(made: Made, *syntaxes: str) -> str:
    """The kind of fault that pydicom has with this file, in one of these syntaxes; "" for none."""
    for kind, holds in PYDICOM_FAULTS.items():
        if any(holds(tree, (made.syntax, *syntaxes)) for tree in (made.tree, as_output(made.tree))):
            return kind
    return ""


@contextmanager
def values_of_any_length() -> Iterator[None]:
    """Let pydicom read a value whose length is no multiple of its VR's, as DCMTK does.

    In implicit VR only dictionaries know the VR of a private element, and pydicom has one for
    creators such as GEMS_IDEN_01. It stops at what contradicts it; nothing in the file does.
    """
    before = config.convert_wrong_length_to_UN
    config.convert_wrong_length_to_UN = True
    try:
        yield
    finally:
        config.convert_wrong_length_to_UN = before


def unless_pydicom_misreads(check: Property) -> Property:
    """Let a check pass whose file is of a kind that pydicom is known to misread, and DCMTK not."""

    @functools.wraps(check)
    def run_check(**arguments: Any) -> None:
        try:
            with values_of_any_length():
                check(**arguments)
        except Exception:
            made, wanted = arguments["made"], arguments.get("wanted", EXPLICIT)
            kind = pydicom_fault(made, wanted, arguments.get("label", made.syntax))
            if shutil.which("dcmdump") is None or not kind:
                raise
            check_dcmtk([made], wanted)
            MISREAD[kind] += 1

    return run_check


PROPERTIES: dict[str, Property] = {
    "the order": given(made=files())(check_order),
    "the generator": given(made=files())(unless_pydicom_misreads(check_source)),
    "every target": given(made=files(), wanted=st.sampled_from(TARGETS))(
        unless_pydicom_misreads(check_target)
    ),
    "every reader": given(made=files())(unless_pydicom_misreads(check_readers)),
    "wrong labels": given(
        made=files(),
        label=st.sampled_from((*NATIVE, *COMPRESSED)),
        wanted=st.sampled_from((EXPLICIT, IMPLICIT, DEFLATED, *COMPRESSED[1:2])),
    )(unless_pydicom_misreads(check_label)),
    "DCMTK": given(
        made=st.lists(files(), min_size=1, max_size=6),
        wanted=st.sampled_from((EXPLICIT, IMPLICIT, DEFLATED)),
    )(check_dcmtk),
}


def bounded(name: str, count: int, number: int, *, shrink: bool = False) -> Property:
    """The property over ``count`` files; the same ones for the same seed.

    ``shrink``: look for the smallest file that fails, which takes minutes.
    """
    share = max(1, count // (6 if name == "DCMTK" else 1))
    limits = settings(
        max_examples=share,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        print_blob=False,
    )
    return limits(seed(number)(PROPERTIES[name]))


def main() -> int:
    """Run every property; the first that fails ends it, with the smallest file that shows it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=sorted(PROPERTIES))
    arguments = parser.parse_args()
    config.settings.reading_validation_mode = config.IGNORE
    warnings.simplefilter("ignore")
    for name in PROPERTIES:
        if arguments.only not in (None, name):
            continue
        if name == "DCMTK" and shutil.which("dcmdump") is None:
            sys.stderr.write("dcmdump is not installed: left out\n")
            continue
        bounded(name, arguments.count, arguments.seed, shrink=True)()
        sys.stdout.write(f"{name}: {arguments.count} files, seed {arguments.seed}\n")
        for kind, count in sorted(MISREAD.items()):
            sys.stdout.write(f"  {count} that pydicom misreads and DCMTK does not: {kind}\n")
        MISREAD.clear()
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
