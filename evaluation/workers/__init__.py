"""Who does the work: this process, the processes of a launcher, or workers of Ray. No runtime of our own.

Work is cut into jobs, plain data that says which batch; doing a job leaves files in a folder that everybody sees. So
only jobs travel, what is done is known from the folder alone, and a job that is done twice changes nothing.
"""

from .crew import Alone, Crew, Do, Job
from .launched import Launched, is_launched
from .ray_crew import RayCrew

__all__ = ["Alone", "Crew", "Do", "Job", "Launched", "RayCrew", "is_launched"]
