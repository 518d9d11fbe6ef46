"""Write reports: artifacts -> pages and plots; only reads.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    frames          a run's rows as pandas frames
    comparisons     students on the same prompts: fixed, broken, by how much, by chance?
    error_analysis  where answers fail, in numbers and examples
    changes         what one student changed of another's answers, in words; extra tests
    charts          plots as data, and the tables of their numbers
    figures         what each plot shows
    trust           how far an answer's confidence can be trusted, and what may be answered without help
    plotting        charts -> PNG
    svg             charts -> SVG
    rendering       templates and their filters
    run_artifacts   what a run has made
    manifest        what a run was made of: manifest.json
    exports         how a run's exports compare with their adapter
    headline        the run in a few sentences
    advice          what to do next, as commands
    answers         every answer, for the table of the page
    machine         report.json
    pages           report.html, report.md, report.json
    pairwise_page   two students, prompt by prompt: who wins, where, and can the judge be trusted?
    compare_runs    several runs and evaluations side by side
"""
