"""A process that asks math-verify: reads [answer, truth] as one line of JSON, writes true or false, and so on.

It is run as a file, by answers.MathChecker, and imports nothing of hogwild_local.
"""

from __future__ import annotations

import json
import sys

from math_verify import parse, verify


def equal(answer: str, truth: str) -> bool:
    """Are they the same formula, number, set, interval, ...? math-verify ends by itself what takes too long."""
    gold, given = (parse(f"\\boxed{{{text.strip().strip('$')}}}") for text in (truth, answer))
    return bool(verify(gold, given))


if __name__ == "__main__":
    # What math-verify prints must not be taken for a reply.
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(equal(*json.loads(line))), file=replies, flush=True)
