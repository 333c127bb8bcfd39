"""Report of results: `python -m train.evaluate report RUN …`, one table and picture of everything measured.

columns.py    the columns: order, titles, where lower is better
recipes.py    the recipes of configs/, and which of them a config is
runs.py       the network that a result is of, and its seed
results.py    result files: found, read, taken apart into measurements
table.py      rows of networks: means over seeds, gains, footnotes
paper.py      the paper's figures, each with its table
page.py       Markdown
picture.py    PNG
program.py    the command line
"""
