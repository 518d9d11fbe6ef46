"""Confirm that every kept answer is of the model that was probed, by its digest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from schema_student.teacher.cache import AnswerCache
from schema_student.teacher.dispatch import Host
from schema_student.teacher.faults import TeacherError, TeacherFault

RECHECK_SECONDS = 60.0  # a model's digest is looked at again after so long


class ConfirmedAnswers:
    """Keeps a model's answers; those since the last look at its digest are dropped where that has changed."""

    def __init__(self, model: str, model_digest: str, hosts: Sequence[Host], cache: AnswerCache) -> None:
        self._model, self._digest, self._hosts, self._cache = model, model_digest, hosts, cache
        self._changed = False  # the model, while it was asked

    def keep(self, key: str, role: str, answer: dict[str, Any], host: Host) -> None:
        """Put an answer of a host into the cache."""
        if not self._changed:
            self._cache.put(key, role, self._model, answer)
            host.unconfirmed.append(key)

    def confirm(self, host: Host) -> None:
        """Check that the host still has the model whose answers are kept; raises TeacherError where not."""
        now = time.monotonic()
        if now - host.checked_at < RECHECK_SECONDS:
            return
        before, host.checked_at = host.checked_at, now  # other threads need not look as well
        keys, host.unconfirmed = host.unconfirmed, []
        try:
            found = host.server.model_digest(self._model)
        except TeacherFault:
            host.checked_at, host.unconfirmed = before, keys + host.unconfirmed
            raise
        if found != self._digest:
            self._changed = True
            self._cache.forget(keys + host.unconfirmed)
            what = f"{self._model} at {host.server.host} was changed while it was asked"
            raise TeacherError(f"{what}: its last answers are dropped; run the same command with --overwrite")

    def confirm_all(self) -> None:
        """Check at the end of a run that no answer is kept of a model that has changed since the last check."""
        for host in self._hosts:
            if host.unconfirmed:
                host.checked_at = float("-inf")
                try:
                    self.confirm(host)
                except TeacherFault:
                    continue  # it has gone; what it said until then was valid
