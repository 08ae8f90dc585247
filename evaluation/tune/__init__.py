"""Settings for a stated target: searched on some requests, certified on others.

This room knows no pipeline. It is handed candidates (`Candidate`) and a callable that measures one on some requests;
`search` narrows them down, `certify` says of how few requests it can promise that they miss the `Target`.
"""

from .candidate import Candidate, Deadline, Evaluate, Failure, Scores, Standing
from .certify import Certificate, Trial, certify, chain_of
from .halving import Rung, Search, search
from .target import Clause, Target, parse_target

__all__ = [
    "Candidate",
    "Certificate",
    "Clause",
    "Deadline",
    "Evaluate",
    "Failure",
    "Rung",
    "Scores",
    "Search",
    "Standing",
    "Target",
    "Trial",
    "certify",
    "chain_of",
    "parse_target",
    "search",
]
