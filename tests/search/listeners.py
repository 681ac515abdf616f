"""Who is told what a search does."""


class Notes:
    """Keeps what people should know, and nothing of the progress."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def prepare(self, *_): ...

    def step(self, *_): ...
