"""Texts for the detector's tests: varied answers to varied prompts, made from small lists of our own."""

from __future__ import annotations

import random


def lines_of(text: str) -> list[str]:
    """What stands between commas and line ends."""
    return [line.strip() for line in text.replace(",", "\n").splitlines() if line.strip()]


THINGS = lines_of("""bread, rivers, clocks, bridges, owls, engines, gardens, letters, kites, harbours,
    lanterns, maps, violins, glaciers, teapots, orchards, ladders, compasses, candles, windmills,
    pigeons, saddles, mosaics, anchors, beehives, quilts, tunnels, ferries, sundials, marbles""")
ASPECTS = lines_of("history, repair, colour, price, sound, weight, origin, safety, storage, teaching")
OPENINGS = lines_of("""Most people begin with {t} because the {a} decides a great deal
    You could look at {t} and notice how {a} changes over years
    In short {a} matters little until {t} grow old
    Nobody agrees about {t} yet their {a} is easily tested
    First clean the {t}; then ask who cared for {a}
    A neighbour of mine keeps {t} and swears by {a}
    Old books praise {t} for reasons beyond {a}
    Try borrowing {t} before you judge any {a}""")
WHO = lines_of("rain, paper, towns, brothers, salt, clerks, lamp, notes, oil, wind, winter, patience, knocks")
DOES = lines_of("bends, ruins, carries, tests, borrows, praises, sells, hides, measures, repairs, warms")
WHAT = lines_of("soft wood, cold walls, cheap glue, small seeds, old rules, loose joints, dry wells")
HOW = lines_of("slowly, at dusk, for years, beside the door, without reason, twice a week, far off")


def prompt(i: int) -> str:
    """The i-th of many prompts, each with words of its own."""
    return f"What should I know about the {ASPECTS[i // 30 % 10]} of {THINGS[i % 30]}, case {i}?"


def answer(i: int, draw: random.Random) -> str:
    """One of many answers to it: it names what was asked for, in sentences drawn at random."""
    opening = draw.choice(OPENINGS).format(t=THINGS[i % 30], a=ASPECTS[i // 30 % 10])
    numbers = f"case {i} took {draw.randrange(2, 9000)} days and {draw.randrange(2, 9000)} coins"
    lists = (WHO, DOES, WHAT, HOW)
    tails = [" ".join(draw.choice(words) for words in lists) for _ in range(draw.randrange(3, 7))]
    return ". ".join([opening, *tails, numbers]) + "."
