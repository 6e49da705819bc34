"""The one exception a user is meant to read."""


class SceneError(ValueError):
    """A problem with data, options or a run folder; the message names the file, the field and the remedy.

    Entry points print it without a traceback and exit with status 2.
    """
