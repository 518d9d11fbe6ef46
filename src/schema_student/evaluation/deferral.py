"""Let a teacher answer what the student is not sure of: the student's answers below a confidence are deferred.

    deferral = open_deferral(settings, adapter, teacher="gpt-oss:120b", below=0.7)
    answers = deferral.settle(questions, student_answers)     # each with confidence, by, and a warning where one is due

An answer that is not valid has a confidence of 0. Where the teacher fails, the student's answer stays, with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schema_student.core.errors import SettingsError, UserError
from schema_student.core.log import log
from schema_student.core.settings import AnySettings
from schema_student.data.questions import ask_teacher
from schema_student.evaluation.confidence import Calibration
from schema_student.evaluation.confidence_calibration import read_calibration
from schema_student.student.ask import Answer, Question
from schema_student.student.sureness import Sureness
from schema_student.teacher.faults import TeacherError

STUDENT = "student"


@dataclass(frozen=True)
class Deferral:
    """Whom to ask where a student's confidence is below a bound, and how that is computed."""

    settings: AnySettings  # of the teacher
    below: float
    calibration: Calibration

    @property
    def teacher(self) -> str:
        """Return the teacher's name."""
        return self.settings.teacher.teacher_model

    def confidence(self, valid: bool, sureness: Sureness | None) -> float:
        """Compute how likely an answer is right."""
        return self.calibration.confidence(sureness.log_p) if valid and sureness else 0.0

    def settle(self, questions: Sequence[Question], answers: Sequence[Answer]) -> list[Answer]:
        """Say the confidence of a student's answers, and put the teacher's in place of those below the bound."""
        own = [replace(each, confidence=self.confidence(each.valid, each.sureness), by=STUDENT) for each in answers]
        unsure = [i for i, each in enumerate(own) if (each.confidence or 0.0) < self.below]
        for i, answer in zip(unsure, self.ask([questions[i] for i in unsure]), strict=True):
            own[i] = self._choose(own[i], answer)
        if unsure:
            kept = sum(own[i].by == STUDENT for i in unsure)
            failed = f"; to {kept} of them it gave no valid answer, and the student's stand" if kept else ""
            log.info(f"deferred {len(unsure)} of {len(own)} requests to {self.teacher}{failed}")
        return own

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask the teacher; one that cannot be asked is a problem of each answer."""
        try:
            return ask_teacher(questions, self.settings) if questions else []
        except (TeacherError, UserError) as error:
            return [Answer(None, False, (), "", 0, 0.0, str(error)) for _ in questions]

    def _choose(self, own: Answer, teachers: Answer) -> Answer:
        """The teacher's answer where it is valid, else the student's with a warning."""
        if teachers.valid:
            return replace(teachers, confidence=own.confidence, by=self.teacher)
        return replace(own, warning=self.warn(teachers))

    def warn(self, teachers: Answer) -> str:
        """Say why a student's answer stands though its confidence is too low."""
        reason = teachers.problem or "its answer is not valid"
        return f"below {self.below:g}, but {self.teacher} gave no valid answer: {reason}"


def open_deferral(settings: AnySettings, adapter: str, teacher: str, below: float) -> Deferral:
    """Read how an adapter's confidence was calibrated; raises UserError where it was not, or a bound is none."""
    if not teacher or not 0 < below <= 1:
        raise SettingsError("--defer-to TEACHER and --below T belong together, T above 0 and at most 1")
    return Deferral(settings.changed(teacher_model=teacher), below, read_calibration(settings, adapter))
