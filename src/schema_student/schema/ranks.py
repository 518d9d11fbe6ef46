"""Name the ranks of an answer, worst first."""

NOT_JSON, WRONG_TYPE, WRONG_PROPERTIES, WRONG_VALUE, VALID, RIGHT = range(6)

RANK_NAMES = (
    "not JSON",
    "wrong type or shape",
    "missing or unexpected property",
    "enum, format, bounds or rule",
    "valid, not what was asked",
    "valid and as asked",
)
