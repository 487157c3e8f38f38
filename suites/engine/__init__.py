"""From what was asked for to rows: cells, their plan, their execution, and the processes that it is spread over."""
