"""The errors a user can meet. Each says what happened, what was expected and what to do.

OutpaceError
├── UnknownNameError      a name that is not registered (also a KeyError)
├── ConfigError           a setting out of its range, or of the wrong kind (also a ValueError)
├── UnsupportedModelError a model no family adapter understands (also a TypeError)
├── ConflictError         two methods that cannot work together
├── MissingDependencyError  an optional package that is not installed (also an ImportError)
├── InputError            a file, folder or prompt that cannot be used (also a ValueError)
└── MeasurementError      a measurement that would not mean anything

The command line prints one of these as one line and exits with 2; anything else is a defect of ours and keeps its
traceback.
"""


class OutpaceError(Exception):
    """The root: everything this library raises on purpose."""

    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)  # KeyError would quote its message


class UnknownNameError(OutpaceError, KeyError):
    """A name that is not in its registry."""


class ConfigError(OutpaceError, ValueError):
    """A setting out of its range or of the wrong kind."""


class UnsupportedModelError(OutpaceError, TypeError):
    """A model that no family adapter understands."""


class ConflictError(OutpaceError):
    """Two methods, or a method and the state of the pipeline, that cannot work together."""


class MissingDependencyError(OutpaceError, ImportError):
    """An optional package that is needed here and not installed."""


class InputError(OutpaceError, ValueError):
    """A file, folder, prompt or request that cannot be used."""


class MeasurementError(OutpaceError):
    """A measurement that would not mean anything, such as a time with nothing run."""
