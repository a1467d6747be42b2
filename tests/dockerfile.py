"""compose/Dockerfile as values: its instructions, its stages, and what the image is told."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "compose" / "Dockerfile"

Instruction = tuple[str, str]
"""Its name in capitals, and the rest of the line."""

ONLY_NOTED = frozenset({"VOLUME", "EXPOSE", "STOPSIGNAL"})


def instructions(text: str) -> list[Instruction]:
    """Instructions in order, comments dropped and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, rest = line.partition(" ")
        found.append((name.upper(), rest.strip()))
    return found


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows. ``name`` is "" for the last."""

    name: str
    image: str
    steps: tuple[Instruction, ...]


def stages(found: list[Instruction]) -> list[Stage]:
    """Cut at each FROM; arguments before the first have their defaults."""
    arguments: dict[str, str] = {}
    cut: list[tuple[str, list[Instruction]]] = []
    for name, rest in found:
        if name == "FROM":
            cut.append((expand(rest, arguments), []))
        elif cut:
            cut[-1][1].append((name, rest))
        elif name == "ARG":
            argument, _, default = rest.partition("=")
            arguments[argument] = default
        else:
            raise ValueError(f"{name} before FROM")
    made = []
    for line, steps in cut:
        image, _, name = line.partition(" AS ")
        made.append(Stage(name, image, tuple(steps)))
    return made


def expand(text: str, variables: dict[str, str]) -> str:
    """Put variables in, as the engine does outside of RUN; an unknown one is an error."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: variables[m[1] or m[2]], text)


def assignments(rest: str) -> dict[str, str]:
    """Read the ``NAME=value ...`` of ENV."""
    return dict(word.split("=", 1) for word in shlex.split(rest))


@dataclass
class Told:
    """What an image says about how it is run."""

    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_check: list[str] = field(default_factory=list)
    noted: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, rest: str) -> bool:
        """Take an instruction that changes no file; False when it is none of those."""
        match name:
            case "ENV":
                for variable, value in assignments(rest).items():
                    self.environment[variable] = expand(value, self.environment)
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case "CMD":
                self.command = json.loads(rest)
            case "HEALTHCHECK":
                self.health_check = json.loads(rest.partition("CMD ")[2])
            case _ if name in ONLY_NOTED:
                self.noted[name] = rest
            case _:
                return False
        return True
