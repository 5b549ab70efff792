"""How long verification waits, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """Every wait of a verification, in seconds.

    Of commands: `answer` of the builder to a question; `kill`: what was asked to end is killed after it; `glance`: between two
    looks whether a command said something; `pause`: between two looks whether it is gone;
    `kill_strays` is `kill` for the commands of a process that is itself gone.

    Of containers: `poll` between two looks at one; `quiet` without a port, where none is promised, until a program counts as
    one that just runs; `settle` until an open port that does not speak HTTP counts as ready; `elsewhere`: for so long a program
    may listen on other ports than the original before it counts as different; `page`: for an answer to a GET; `health` until a
    health check must pass, `health_answer` for one try of it, `health_pause` before the next; `lingers`: for so long the kernel
    may keep a port after its connections; `stop`: the runtime kills after it what it was asked to stop, and may take
    `stop_answer` longer to say so; `smoke`: the least that a smoke command may take; `hint`: for a start with stricter options.

    Of the rest: `scan` for a scanner; `clear` for clearing up; `straggle`: after it, what an ended command had asked of the
    daemon has come about.
    """

    answer: float = 120.0
    kill: float = 5.0
    kill_strays: float = 1.0
    glance: float = 0.2
    pause: float = 0.02
    poll: float = 0.1
    quiet: float = 10.0
    settle: float = 1.5
    elsewhere: float = 5.0
    page: float = 10.0
    health: float = 8.0
    health_answer: float = 30.0
    health_pause: float = 1.0
    lingers: float = 61.0
    stop: int = 10
    stop_answer: float = 60.0
    smoke: float = 600.0
    hint: float = 5.0
    scan: float = 600.0
    clear: float = 60.0
    straggle: float = 1.0


USUAL = Patience()
