"""Say why a draw is given up."""


class DeadEnd(Exception):
    """This draw cannot become valid; another may."""


class OutOfBudget(DeadEnd):
    """The try has made too many values, or nests them too deep."""
