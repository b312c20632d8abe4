"""Worksheets: a task that a very small model can learn, and that several workers solve sooner than one.

items -> collaboration (what perfect workers write) -> reply (what is said then) -> course (which of them) -> batches
(as arrays) -> network, optimizer, train -> export
"""

from .items import MAX_ITEMS, MAX_WORKERS, Item, Worksheet, random_worksheet

__all__ = ["MAX_ITEMS", "MAX_WORKERS", "Item", "Worksheet", "random_worksheet"]
