"""Programs around the loader, in rooms: none imports from one that is further down.

    cli         errors as one line, worker processes, parts of a job, starting of programs
    offline     photos to shards
    synthetic   data with known truth
    bench       numbers: speed, quality, capacity
    study       whole runs
    clean       removes what the project has made

`python -m tools` lists the commands; each is also `python -m tools.NAME`. Tools may use `pipelines` and
`dali_bgaug`; training is a program of its own, which some start (`cli.start`).
"""

ROOMS = ("offline", "synthetic", "bench", "study")

# So that `python -m tools.masks` finds tools/offline/masks.py; imports name the room.
__path__ += [f"{__path__[0]}/{room}" for room in ROOMS]
