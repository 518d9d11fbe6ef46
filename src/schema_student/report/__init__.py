"""Write reports: artifacts -> pages and plots; only reads.

Modules in reading order; each imports only from those above it (tests/test_architecture.py):

    frames          a run's rows as pandas frames
    error_analysis  what differs between students, in numbers and examples
    plotting        matplotlib: style, axes, lines with their names
    figures         the plots
    rendering       templates and their filters
    run_artifacts   what a run has made
    exports         how a run's exports compare with their adapter
    headline        the run in a few sentences
    pages           report.md, report.html
    compare_runs    several runs of DPO side by side
"""
