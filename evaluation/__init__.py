"""Speed against fidelity, measured: paired requests, two references, intervals, and a report that names the losses.

This room knows no pipeline and no method. It is handed contenders that answer requests (`Contender`, `Request`,
`Result`), runs them (`Study`, `run_study`), sums up (`build_results`) and draws (`report.render`).
"""

from .contender import KINDS, Contender, Kind, Request, Result
from .metrics import METRICS, Metric
from .results import build_results
from .run import run_study
from .study import Row, Study

__all__ = [
    "KINDS",
    "METRICS",
    "Contender",
    "Kind",
    "Metric",
    "Request",
    "Result",
    "Row",
    "Study",
    "build_results",
    "run_study",
]
