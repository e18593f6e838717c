"""One error out of a group of tasks: what people and callers want to see."""


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first plain exception of a group."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
