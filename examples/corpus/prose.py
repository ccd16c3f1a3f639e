"""Writes pages about a subject: three kinds of text and one table of measurements, always the same for a seed."""

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from corpus.blocks import Block, Document, Heading, Listing, Note, Paragraph, Span, Table
from corpus.subjects import Subject

T = TypeVar("T")
Measure = tuple[str, str, int, int]
FIRST_YEAR, LAST_YEAR = 2014, 2025

_OPENINGS = (
    "This was a year in which little went as planned and most of it went well.",
    "The work described here was done by few people, in all weathers, and mostly on time.",
    "What follows was written for members, for those who pay, and for whoever comes after us.",
)
_LINKS = (
    "How the figures were gathered is told in {link}.",
    "Older figures, and what we got wrong in them, are kept in {link}.",
    "The drawings belong to {link} and may be copied.",
)
_REFLECTIONS = (
    "We had expected the opposite, and checked the figures twice.",
    "Nobody at the table could remember a year like it.",
    "That is less than was hoped, and more than was paid for.",
    "Whether it lasts will only be seen in three or four years.",
    "The neighbours noticed it before the committee did.",
    "It cost a weekend and no money, which is how we like it.",
)
_SECTIONS = {
    "report": (
        "Summary",
        "The year in figures",
        "What was done",
        "What it cost",
        "What may go wrong",
        "Next year",
        "Words",
    ),
    "guide": (
        "Who this is for",
        "Words",
        "Before you begin",
        "Step by step",
        "What to measure",
        "What may go wrong",
        "Where to ask",
    ),
    "minutes": (
        "Present",
        "Report of the chair",
        "The year in figures",
        "Motions",
        "What may go wrong",
        "Any other business",
        "Next year",
    ),
}
TITLES = {
    "report": "Annual report of {name}",
    "guide": "A working guide for {name}",
    "minutes": "Minutes of the general meeting of {name}",
}


class Dice:
    """Chance that is the same on every machine: only `Random.random` is promised to stay as it is."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)  # noqa: S311 - prose, not secrets

    def below(self, limit: int) -> int:
        """Return a number from 0 to limit - 1."""
        return int(self._random.random() * limit)

    def between(self, low: int, high: int) -> int:
        """Return a number from low to high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of the choices."""
        return choices[self.below(len(choices))]


def write_prose(subject: Subject, kind: str) -> Document:
    """Return a text of several pages: `report`, `guide` or `minutes`."""
    dice = Dice(f"{subject.slug}/{kind}")
    blocks: list[Block] = [Paragraph((Span(dice.pick(_OPENINGS)), *_about(subject, dice)))]
    for number, title in enumerate(_SECTIONS[kind], start=1):
        blocks.append(Heading(1, f"{number}. {title}"))
        blocks += _section(title, subject, dice)
    return Document(
        title=TITLES[kind].format(name=subject.name), author=dice.pick(subject.people), blocks=tuple(blocks)
    )


def write_measurements(subject: Subject) -> Table:
    """Return ten years of monthly measurements."""
    dice = Dice(f"{subject.slug}/measurements")
    header = ("year", "month", *(f"{name} ({unit})" for name, unit, _low, _high in subject.measures), "remark")
    rows = []
    for year in range(FIRST_YEAR, LAST_YEAR):
        for month in range(1, 13):
            values = (str(dice.between(low, high) // 12) for _name, _unit, low, high in subject.measures)
            remark = dice.pick(subject.causes) if dice.below(6) == 0 else ""
            rows.append((str(year), f"{month:02}", *values, remark))
    return Table(header, tuple(rows))


def _about(subject: Subject, dice: Dice) -> tuple[Span | Note, ...]:
    return (
        Span(f" For readers new to us: {subject.name} works in {subject.place}"),
        Note(f"Founded in {dice.between(1887, 2009)}; the statutes were last changed in {dice.between(2010, 2022)}."),
        Span(f", and {dice.pick(subject.people)} keeps its books."),
    )


def _section(title: str, subject: Subject, dice: Dice) -> list[Block]:
    if title == "Words":
        return [_paragraph(subject, dice), Listing(tuple(f"{term}: {meaning}." for term, meaning in subject.terms))]
    if title in {"Present", "Where to ask"}:
        return [Listing(tuple(subject.people)), _paragraph(subject, dice)]
    if title in {"The year in figures", "What it cost", "What to measure"}:
        return [
            _paragraph(subject, dice),
            _table(subject, dice, money=title == "What it cost"),
            _paragraph(subject, dice),
        ]
    if title in {"Step by step", "Motions", "Next year"}:
        steps = tuple(f"{action[:1].upper()}{action[1:]}." for action in subject.actions)
        return [_paragraph(subject, dice), Listing(steps, numbered=True), _paragraph(subject, dice)]
    blocks: list[Block] = []
    for topic in subject.measures:
        blocks.append(Heading(2, f"{topic[0][:1].upper()}{topic[0][1:]}"))
        blocks += [_paragraph(subject, dice, topic) for _ in range(2)]
    return blocks


def _paragraph(subject: Subject, dice: Dice, topic: Measure | None = None) -> Paragraph:
    """Return some sentences, none twice, about one measure or about all of them."""
    parts: list[Span | Note] = []
    sentences = dict.fromkeys(
        _sentence(subject, dice, topic or dice.pick(subject.measures)) for _ in range(dice.between(6, 9))
    )
    for position, sentence in enumerate(sentences):
        parts.append(Span(f" {sentence}" if position else sentence))
        if dice.below(9) == 0:
            parts.append(Note(f"As {dice.pick(subject.people)} wrote on {dice.between(1, 28)} May {_year(dice)}."))
    strong = f"{dice.between(2, 9)} in 10"
    parts += [Span(" About "), Span(strong, "strong"), Span(" of those asked agree; "), Span("the rest", "emphasis")]
    parts.append(Span(" would rather wait."))
    if dice.below(4) == 0:
        before, after = dice.pick(_LINKS).split("{link}")
        link = Span(f"our notes of {_year(dice)}", address=f"https://{subject.slug}.example/notes/{_year(dice)}")
        parts += [Span(" " + before), link, Span(after)]
    return Paragraph(tuple(parts))


def _sentence(subject: Subject, dice: Dice, topic: Measure) -> str:
    name, unit, low, high = topic
    person, cause, year = dice.pick(subject.people), dice.pick(subject.causes), _year(dice)
    action, risk = dice.pick(subject.actions), dice.pick(subject.risks)
    first, second = dice.between(low, high), dice.between(low, high)
    moved = "rose" if second > first else "fell"
    return dice.pick(
        (
            f"The {name} {moved} from {first:,} to {second:,} {unit} in {year}, mostly because {cause}.",
            f"{person} reports that {cause}, and that the {name} stood at {first:,} {unit} by the end of {year}.",
            f"Because {risk}, we should {action} sooner than planned.",
            f"Since {cause}, it is easier to {action}.",
            f"The committee asked {person} to {action} before the autumn of {year + 1}.",
            f"It is true that {risk}; {person} has a plan for that, and two people who know it.",
            f"In {year} the {name} came to {first:,} {unit}, against {second:,} {unit} the year before.",
            dice.pick(_REFLECTIONS),
        )
    )


def _table(subject: Subject, dice: Dice, *, money: bool) -> Table:
    years = tuple(str(year) for year in range(LAST_YEAR - 4, LAST_YEAR + 1))
    if money:
        names = [f"{action[:1].upper()}{action[1:]} (euros)" for action in subject.actions]
        ranges = [(300, 9000)] * len(names)
    else:
        names = [f"{name[:1].upper()}{name[1:]} ({unit})" for name, unit, _low, _high in subject.measures]
        ranges = [(low, high) for _name, _unit, low, high in subject.measures]
    rows = tuple(
        (name, *(f"{dice.between(low, high):,}" for _ in years))
        for name, (low, high) in zip(names, ranges, strict=True)
    )
    return Table(("Measure", *years), rows)


def _year(dice: Dice) -> int:
    return dice.between(FIRST_YEAR, LAST_YEAR)
