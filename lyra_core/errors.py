"""Every error that lyra-worlds raises on purpose. Each names the file or field, what was got and what was expected."""


class LyraError(Exception):
    """Base of all errors meant for the user; the command line prints them as one line and exits with 2."""


class ConfigError(LyraError):
    """A configuration key or value that cannot be used."""


class InputError(LyraError):
    """A photo, trajectory or depth file that cannot be used."""


class WorldError(LyraError):
    """A world folder that is missing, damaged, or belongs to another photo."""


class Cancelled(LyraError):
    """A job that was stopped on request; what is on disk resumes."""


class JobError(LyraError):
    """A job whose worker process died, or whose own error could not be carried over."""


class ServerError(LyraError):
    """A server that refused, failed, or answered what cannot be used; what is on disk resumes."""


class BackendUnavailable(LyraError):
    """An optional backend that cannot run here."""

    def __init__(self, backend: str, *, reason: str, install: str) -> None:
        super().__init__(f"{backend} cannot run here: {reason}. To get it: {install}")
        self.backend, self.reason, self.install = backend, reason, install
