"""Write the teacher's answers that are on disk as JSONL, to be shared -> outputs/teacher_answers.jsonl.

python scripts/export_teacher_answers.py --teacher-answers answers.jsonl

Whoever imports them (import_teacher_answers.py) and asks the same model the same questions gets these answers without
asking it: a data set can be made again, or varied, without the teacher's hours. The file holds answers and digests of
questions, not the questions: give the schemas and the seed with it.
"""

import sys
from contextlib import closing

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.teacher.cache import AnswerCache, export_answers


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["teacher"])
    where = paths(settings)
    if not dry_run(settings, reads=[where.teacher_cache], writes=[where.teacher_answers]):
        with closing(AnswerCache(where.teacher_cache)) as cache:
            print(f"teacher answers: {export_answers(cache, where.teacher_answers)} in {where.teacher_answers}")


if __name__ == "__main__":
    run_script(main)
