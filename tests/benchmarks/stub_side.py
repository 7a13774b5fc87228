"""A side that computes nothing, for the tests of the workers."""

import os
import time


class Side:
    """Answers with what it was given."""

    def __init__(self, value: int) -> None:
        self.value, self.about = value, {"pid": os.getpid()}

    def run(self, add: int) -> dict[str, float]:
        print("a library that prints")
        return {"sum": self.value + add, "at": time.monotonic()}

    def fail(self) -> None:
        raise ValueError("as asked")

    def die(self) -> None:
        os._exit(3)
