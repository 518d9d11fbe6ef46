"""Provide what every package needs: settings, flags, errors, names and paths, files, artifacts, statistics.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    resources       the files that travel with the package
    cleaning        words of others, before a person sees them
    places          paths as others may read them
    log             the one logger
    progress        a bar at a terminal, else a line now and then
    errors          what a person did wrong, with what to do about it
    processes       exit codes, which processes run, and which of several this is
    chunks          work in chunks, here or on a Ray cluster
    files           files to write and folders to remove: never through a link
    splits          names of the splits
    links           names of the links of an alignment
    hub_ids         ID@COMMIT: which version of what the hub has
    setting_groups  the settings in groups: type, meaning and bounds
    settings        every setting: type, meaning and bounds, said once
    names           what a run is called
    jsonl           JSON and JSONL in and out, atomic, with file and line in errors
    tally           what is left out of a data set, by reason
    records         rows that cross stages, a type each
    paths           where each artifact of a run lies
    stamps          what made an artifact: digests, settings, versions
    times           fields that say when and how long, and artifacts without them
    machine         what a run ran on
    integrity       digests of files; what is missing or changed, and copies of it
    replacing       the old artifact stands until the new one is whole
    locks           one writer an artifact
    artifacts       done already, refused, or continued after the last whole row
    adapters        those of an output folder, and the newest one
    verbs           which settings each verb of the command reads
    flags           the command line, generated from the settings
    statistics      intervals and tests of one student, of two on the same prompts, of several
    templates       jinja2's environment over a folder
    markdown        text of people and models in Markdown: read as text
"""
