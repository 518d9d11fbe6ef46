"""List words for free strings and invented property names."""

WORDS = (
    *("amber", "basil", "cedar", "delta", "ember", "fern", "grove", "harbor", "indigo"),
    *("jasper", "kiosk", "lemon", "maple", "north", "olive", "pearl", "quartz", "river"),
)
