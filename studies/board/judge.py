"""Blind judging: pairs of pictures in random order, and what people preferred."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..review import Judgement, Review, Side, now

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..trial import Trial

MOST_JUDGED = 6  # candidates, where there is no shortlist


@dataclass(frozen=True)
class Question:
    """Two candidates' pictures of one image.

    Attributes:
        image: which.
        left, right: numbers of the trials.
    """

    image: int
    left: int
    right: int


def judged(reference: Trial, shortlist: Sequence[Trial], front: Sequence[Trial]) -> list[Trial]:
    """Return who is judged: the reference and the shortlist, or where that is empty members spread over the front."""
    chosen = list(shortlist)
    if not chosen:
        others = [trial for trial in front if trial.number != reference.number]
        places = np.unique(np.linspace(0, len(others) - 1, min(MOST_JUDGED, len(others))).round().astype(int))
        chosen = [others[place] for place in places]
    return [reference, *(trial for trial in chosen if trial.number != reference.number)]


def next_question(
    trials: Sequence[int], images: int, judgements: Sequence[tuple[int, int, int]], seed: str
) -> Question | None:
    """Return the next pair: of those that were compared least, one drawn at random, its sides too.

    Args:
        trials: numbers of those that are judged.
        images: how many there are.
        judgements: (image, trial, trial) of what this session has judged already.
        seed: of the session; with the same judgements the same question comes again.

    Returns:
        None where each pair was judged on each image.
    """
    draw = random.Random(f"{seed} {len(judgements)}")
    done = {(image, *sorted(pair)) for image, *pair in judgements}
    pairs = [(one, other) for place, one in enumerate(trials) for other in trials[place + 1 :]]
    counts = {pair: sum(tuple(sorted(pair)) == key[1:] for key in done) for pair in pairs}
    able = [pair for pair in pairs if counts[pair] < images]
    if not able:
        return None
    least = min(counts[pair] for pair in able)
    pair = list(draw.choice([pair for pair in able if counts[pair] == least]))
    image = draw.choice([image for image in range(images) if (image, *sorted(pair)) not in done])
    draw.shuffle(pair)
    return Question(image, *pair)


@dataclass(frozen=True)
class Asked:
    """A question that is on somebody's screen.

    Attributes:
        question: it.
        count: how many the session has answered before.
        keys: the candidates' keys, by trial number, of those that are judged.
    """

    question: Question
    count: int
    keys: Mapping[int, str]


class Sessions:
    """What each session was asked: who is judged stays as it was when it began, and a question is answered once."""

    def __init__(self) -> None:
        self._judged: dict[str, dict[int, str]] = {}
        self._asked: dict[str, Asked] = {}
        self._lock = threading.Lock()

    def ask(self, session: str, trials: Mapping[int, str], images: int, review: Review) -> Asked | None:
        """Return the question that a session has to answer; None where all is answered.

        Args:
            session: its name.
            trials: who would be judged now, by number their candidates' keys: of a session that begins.
            images: how many there are.
            review: what was answered.
        """
        with self._lock:
            if session in self._asked:
                return self._asked[session]
            keys = self._judged.setdefault(session, dict(trials))
            answers = told(review.judgements, {key: number for number, key in keys.items()}, session)
            question = next_question(list(keys), images, answers, session)
            if question is not None:
                self._asked[session] = Asked(question, len(answers), keys)
            return self._asked.get(session)

    def asked(self, session: str, count: int) -> Asked | None:
        """Return the question that is open, where it is the one after so many; None where it is answered."""
        found = self._asked.get(session)
        return found if found is not None and found.count == count else None

    def answer(self, session: str, count: int, better: Side, who: str, why: str, review: Review) -> bool:
        """Keep an answer; return False where that question is not open: it was answered already."""
        with self._lock:
            found = self.asked(session, count)
            if found is None:
                return False
            keys, question = found.keys, found.question
            said = Judgement(
                who=who,
                when=now(),
                session=session,
                image=question.image,
                left=keys[question.left],
                right=keys[question.right],
                better=better,
                text=why,
            )
            review.add(said)
            del self._asked[session]
            return True


@dataclass(frozen=True)
class Disagreement:
    """An image on which people prefer the one of two candidates that is further from the target.

    Attributes:
        image: which.
        preferred, other: the candidates' keys.
        votes: how many more preferred the one.
        lost_db: by how much its PSNR is lower.
    """

    image: int
    preferred: str
    other: str
    votes: int
    lost_db: float


def disagreements(
    judgements: Sequence[Judgement], psnr_db: Mapping[str, NDArray[np.float64]], least_db: float = 0.1
) -> list[Disagreement]:
    """Return where people and PSNR disagree, the largest difference in PSNR first.

    Args:
        judgements: of any candidates.
        psnr_db: of each image ``[N]``, by candidate's key; others are left out.
        least_db: differences below it are none.
    """
    votes: dict[tuple[int, str, str], int] = {}
    for one in judgements:
        if one.better != "neither":
            first, second = sorted((one.left, one.right))
            chosen = one.left if one.better == "left" else one.right
            key = (one.image, first, second)
            votes[key] = votes.get(key, 0) + (1 if chosen == first else -1)
    found = []
    for (image, first, second), count in votes.items():
        if not count or first not in psnr_db or second not in psnr_db or image >= len(psnr_db[first]):
            continue
        preferred, other = (first, second) if count > 0 else (second, first)
        lost = float(psnr_db[other][image] - psnr_db[preferred][image])
        if lost >= least_db:
            found.append(Disagreement(image, preferred, other, abs(count), lost))
    return sorted(found, key=lambda one: -one.lost_db)


def told(judgements: Sequence[Judgement], numbers: Mapping[str, int], session: str) -> list[tuple[int, int, int]]:
    """Return what a session has judged, as (image, trial, trial)."""
    return [
        (one.image, numbers[one.left], numbers[one.right])
        for one in judgements
        if one.session == session and one.left in numbers and one.right in numbers
    ]


def summary(readings: Mapping[str, Any], numbers: Mapping[str, int]) -> list[tuple[int, Any]]:
    """Return trials' numbers with their preferences, the most preferred first."""
    rows = [(numbers[key], reading) for key, reading in readings.items() if key in numbers]
    return sorted(rows, key=lambda row: -row[1].value)
