"""Run `schema-student VERB` as `python -m schema_student VERB`."""

from schema_student.cli.door import main

if __name__ == "__main__":
    main()
