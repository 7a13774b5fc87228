"""Why something on the web is not taken: a reason for tables, and a sentence for people."""


class Refused(Exception):
    """A link that is not followed, or whose answer is not taken. `reason` is a word or two with underscores."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message
