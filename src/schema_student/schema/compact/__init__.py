"""Write a schema as lines of text from which its verdicts can be told.

    flight # Find a flight.            heading: title # description
    to string 3.. chars # where to     a required property; ? marks an optional one
    seats? integer 1..9 = 1            bounds, default
    class? economy|business|"1"        constants; quoted where they look like something else
    meals? list 1..3 of @Meal          a definition, said once below
    extra? {"pattern":"^x"}            what there are no words for stands as JSON, and holds as well
    room? object                       what is inside is indented
     floor integer
     * any                             properties of other names; without such a line there are none
     /^x-/ string                      properties whose names fit a pattern
    pay one of                         alternatives (any of, all of): named constants, or schemas
     option 1
      card string
    @Meal: object                      a definition; @root is the schema itself
     dish string

An object with nothing inside is any object. The schema is an object unless a line "@root: ..." says what it is.
Modules in reading order:

    words        JSON text, constants, names, comments: what is quoted
    drafts       a schema of any draft -> one of today's keywords, its shared parts as definitions
    kinds        which types of values a schema takes; whether two schemas share one
    phrases      a schema -> what its line says, what stands beside it as JSON, what is inside
    query_frame  the query DSL: what its frame implies, and the types of its fields
    lines        a document -> its lines
"""
