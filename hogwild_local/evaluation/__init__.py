"""Evaluation: how often settings of workers, layouts and baselines find the right answer, and in how many passes.

    from hogwild_local import Hogwild
    from hogwild_local.evaluation import Journal, Plan, evaluate, read_problems, summarize, table

    problems = read_problems("problems.jsonl")
    plan = Plan(workers=(1, 2), budgets=(128, 256), baselines=("independent",), check="number")
    with Hogwild("model.gguf") as hw, Journal("records.jsonl") as journal:
        for record in evaluate(hw, problems, plan, journal): ...
        print(table(summarize(journal.records, problems, plan)))

`hogwild eval` is this, with a directory that remembers the plan; docs/eval.md is its manual.
"""

from .plan import Plan
from .problems import Problem, read_problems
from .records import Journal, Record
from .runner import evaluate
from .summary import Row, summarize, table, write_csv

__all__ = [
    "Journal",
    "Plan",
    "Problem",
    "Record",
    "Row",
    "evaluate",
    "read_problems",
    "summarize",
    "table",
    "write_csv",
]
