"""Draw random valid instances of any schema, for the embedded teacher to word and to test that it can be satisfied.

They are drawn freely, keyword by keyword, and the judge decides what is valid: a draw may fail, a wrong one is
never given. Modules in reading order:

    words       words for free strings and invented names
    dead_ends   why a draw is given up, and what all tries may cost
    checking    whether a value obeys a part of a schema
    merging     the conjunction of two flat schemas
    flattening  a schema -> one without $ref, allOf, oneOf and anyOf, and its conditions
    numbers     a number within bounds
    formats     a text of each format
    patterns    a text in which a pattern is found
    strings     a text by pattern, format and length
    names       which properties an object gets
    generator   example_instance, and the generator of one try
"""
