"""Take in teacher's answers that someone else exported -> outputs/teacher_cache.sqlite.

python scripts/import_teacher_answers.py --teacher-answers answers.jsonl

Answers that are on disk already stay as they are. An imported answer is used where the same model (by digest) is asked
the same question with the same options; it is judged like any other, and asked again where it is not valid.
"""

import sys
from contextlib import closing

from schema_student.core.artifacts import dry_run
from schema_student.core.flags import load_settings
from schema_student.core.paths import paths
from schema_student.core.processes import run_script
from schema_student.teacher.cache import AnswerCache, import_answers


def main() -> None:
    settings = load_settings(sys.argv[1:], __doc__, ["teacher"])
    where = paths(settings)
    if not dry_run(settings, reads=[where.teacher_answers], writes=[where.teacher_cache]):
        with closing(AnswerCache(where.teacher_cache)) as cache:
            new, known = import_answers(cache, where.teacher_answers)
            print(f"teacher answers: {new} new, {known} known already, in {where.teacher_cache}")


if __name__ == "__main__":
    run_script(main)
