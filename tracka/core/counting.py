"""Says numbers of things in words, one thing in the singular."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun, such as `1 row` and `2 rows`; `plural` is the noun's if it is irregular."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
