"""Runs first at power-on: counts the boot, chooses the application; nothing here waits."""

import gc

import machine

import slots

# Modules are loaded next. Left alone the collector runs only when the heap is full, and by then
# what stays lies scattered over all of it: 84 KiB free and no block of 1,280 bytes was seen.
gc.threshold(4096)
print("reset cause", machine.reset_cause())  # noqa: T201 - the console is a board's log
slots.enter()
del slots  # its heap is free again once the program has read it
