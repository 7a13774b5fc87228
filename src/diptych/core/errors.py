"""The exceptions that a user of Diptych can meet, as one tree.

DiptychError
+-- ConfigError        a setting is wrong: the message names the field, what it got and what to do
+-- DataError          a source, record, shard or corpus is wrong; carries the shard and key where known
|   +-- ShardError     a shard or its index is damaged
|   +-- FetchError     a package client is missing, failed, or brought something else than was pinned
+-- TrainingError      a run cannot go on (loss not finite, doctor's stop, ranks that disagree)
+-- CheckpointError    weights cannot be read, do not fit, or would be misread
+-- EvalError          a model lacks the capability that an eval needs, or the data lacks the labels
+-- ServeError         an index and a model do not belong together, or a request is refused

Every message follows one form: ``<what> must be <constraint>; got <value>. <what to do>``.
"""


class DiptychError(Exception):
    """Base of every error that Diptych raises on purpose; the command line prints it without a traceback."""


class ConfigError(DiptychError):
    """A setting is wrong."""


class DataError(DiptychError):
    """A source, record, shard or corpus is wrong."""


class ShardError(DataError):
    """A shard or its index is damaged."""


class FetchError(DataError):
    """A pinned package could not be fetched, or is not what was pinned."""


class TrainingError(DiptychError):
    """A run cannot go on."""


class CheckpointError(DiptychError):
    """Weights cannot be read, do not fit, or would be misread."""


class EvalError(DiptychError):
    """An eval needs what the model or the data does not have."""


class ServeError(DiptychError):
    """An index and a model do not belong together, or a request is refused."""
