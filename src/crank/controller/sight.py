"""What the controller's own listeners believe: they must know a root before anybody shows a certificate below it."""


class Sight:
    """The sequence of the bundle that the listeners took up last; None where there are none."""

    def __init__(self) -> None:
        self.sequence: int | None = None
