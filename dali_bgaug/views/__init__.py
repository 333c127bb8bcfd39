"""How views are made: options and chance -> a table of render jobs (`plan.py`) -> pixels (`cpu.py`,
`gpu.py`)."""
