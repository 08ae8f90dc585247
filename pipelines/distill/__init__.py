"""Distillation: a converted or pruned transformer learns to give what its dense teacher gives."""

from .calls import TeacherCalls, record_teacher
from .training import STAGES, Distillation, Stage, distill

__all__ = ["STAGES", "Distillation", "Stage", "TeacherCalls", "distill", "record_teacher"]
