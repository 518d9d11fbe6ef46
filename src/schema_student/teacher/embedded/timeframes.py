"""Draw the time frame of a request: a period of some kind, with its words."""

from __future__ import annotations

import calendar
import datetime
import random

from schema_student.teacher.embedded.bank import Phrases
from schema_student.teacher.embedded.values import MONTHS, draw_date, say_date

# How often a period is of each kind, in relative weights. The last six count from the current date.
PERIODS = {
    **{"between": 5, "since": 3, "month": 3, "year": 3},
    **{"this_month": 1, "last_month": 1, "this_year": 1.5, "last_year": 1.5, "today": 1, "last_days": 1},
}

Period = tuple[datetime.date, datetime.date]  # both days included


def draw_timeframe(
    phrases: Phrases, language: str, current_date: str, rng: random.Random, periods: dict[str, float]
) -> tuple[dict[str, str], str]:
    """Draw a period {start, end} (inclusive ISO dates) and its words; relative ones count from current_date."""
    today = datetime.date.fromisoformat(current_date)
    kind = rng.choices(list(periods), list(periods.values()))[0]
    first, last = sorted((draw_date(rng), draw_date(rng)))
    if kind == "since":
        first = today - datetime.timedelta(days=rng.randrange(10, 900))
    days = rng.choice((2, 3, 5, 7, 10, 14, 30))
    start, end = period(kind, (first, last), today, days)
    text = rng.choice(phrases["timeframes"][kind]).format(
        start=say_date(first, language, rng),
        end=say_date(last, language, rng),
        month=MONTHS[language][first.month - 1],
        year=first.year,
        days=days,
    )
    return {"start": start.isoformat(), "end": end.isoformat()}, text


def period(kind: str, drawn: Period, today: datetime.date, days: int) -> Period:
    """Compute first and last day of a period of a kind, of two days in order or of `days` ("last_days")."""
    first, last = drawn
    if kind == "between":
        return first, last
    if kind == "since":
        return first, today
    if kind == "today":
        return today, today
    if kind == "last_days":
        return today - datetime.timedelta(days=days), today
    if kind in ("year", "this_year", "last_year"):
        year = {"year": first.year, "this_year": today.year, "last_year": today.year - 1}[kind]
        return datetime.date(year, 1, 1), datetime.date(year, 12, 31)
    last_month = today.replace(day=1) - datetime.timedelta(days=1)
    day = {"month": first, "this_month": today, "last_month": last_month}[kind]
    return day.replace(day=1), day.replace(day=calendar.monthrange(day.year, day.month)[1])
