"""Every order that tied answers can have, one by one."""

import itertools


def orders(scores):
    """All rankings (lists of positions, best first) of a score list that break its ties."""
    groups = [[i for i, score in enumerate(scores) if score == value] for value in sorted(set(scores), reverse=True)]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield list(itertools.chain.from_iterable(parts))
