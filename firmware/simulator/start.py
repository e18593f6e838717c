"""Starts a virtual board as a port starts a real one: boot.py, then main.py."""

FIRMWARE = __file__.rsplit("/", 2)[0]

for _name in ("boot.py", "main.py"):
    with open(FIRMWARE + "/" + _name) as _file:
        exec(_file.read(), {"__name__": "__main__"})  # noqa: S102 - what a port does at power-on
